"""How good LRs are at each length, and how surely: with the noise of the validation set and of the seed.

LRs are compared at one length only. Neither noise is known exactly: the prior below is corrected by what the search
itself sees of it. ``benchmarks/advice/policies.py`` chooses some of these numbers again without each problem; the
others are judgement.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from lratlas.numbers import is_finite
from lratlas.search.level import Level
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search

STOPPED = "stopped by itself"
"""In the reason of a segment whose training ended early, without an error."""
LONGER = 1.5
"""A length is another one if it is longer by this factor: not the part of it from which the LR is annealed."""
_VALIDATION = 0.7  # share of the validation set's standard error that LRs judged on the same samples do not share
_SEED = 0.015  # spread of seeds, as a share of the distance to the best possible metric
_PRIOR = 3.0  # seeds that the prior counts for


def trial(results: Sequence[SegmentResult], lr: float, *, seed: int) -> list[SegmentResult]:
    """The results of one LR and seed without an annealed end, ascending in steps."""
    found = [
        each for each in results if each.segment.lr == lr and each.segment.seed == seed and not each.segment.annealed
    ]
    return sorted(found, key=lambda each: each.segment.stop)


def level_at(search: Search, results: Sequence[SegmentResult], steps: int) -> Level:
    """The LRs that were trained to a length."""
    of = results_at(results, steps)
    scores = dict[float, dict[int, float]]()
    failed = {each.segment.lr for each in of if each.failure is not None}
    # An LR that diverges in a longer training is none to compare with in a shorter one.
    failed |= {each.segment.lr for each in results if not_finite(each)} & {each.segment.lr for each in of}
    for each in of:
        if each.segment.lr not in failed and is_finite(score := search.score(each.quality)):
            scores.setdefault(each.segment.lr, {})[each.segment.seed] = score
    lrs = sorted(scores)
    highest = max(lrs, key=lambda lr: max(scores[lr].values()), default=None)
    best = [each for each in of if each.segment.lr == highest]
    effects = _seed_effects(scores)
    means = [float(np.mean([score - effects[seed] for seed, score in scores[lr].items()])) for lr in lrs]
    return Level(
        steps=steps,
        lrs=tuple(lrs),
        scores=tuple(means),
        seeds=tuple(len(scores[lr]) for lr in lrs),
        shared=_VALIDATION * validation_error(search, results, best, max(means)) if lrs else 0.0,
        own=_seed_noise(search, results, scores, means) if lrs else 0.0,
        failed=frozenset(failed),
    )


def results_at(results: Sequence[SegmentResult], steps: int) -> list[SegmentResult]:
    """The results after that many steps, without annealed ends."""
    return [each for each in results if each.segment.stop == steps and not each.segment.annealed]


def not_finite(result: SegmentResult) -> bool:
    """Whether a training failed since a number was not finite."""
    return result.failure is not None and "not finite" in result.failure


def failed_otherwise(result: SegmentResult) -> bool:
    """Whether a training failed for a reason that its LR need not have."""
    return result.failure is not None and not not_finite(result)


def stopped(result: SegmentResult) -> bool:
    """Whether a training ended early without an error, such as by its own early stopping, and was not measured."""
    return failed_otherwise(result) and STOPPED in str(result.failure)


def _seed_effects(scores: Mapping[float, Mapping[int, float]]) -> dict[int, float]:
    """What each seed does to all LRs alike, against the first one: means over the LRs that both have."""
    seeds = sorted({seed for of in scores.values() for seed in of})
    effects = dict.fromkeys(seeds, 0.0)
    for seed in seeds[1:]:
        both = [of[seed] - of[seeds[0]] for of in scores.values() if seed in of and seeds[0] in of]
        effects[seed] = float(np.mean(both)) if both else 0.0
    return effects


def _seed_noise(
    search: Search,
    results: Sequence[SegmentResult],
    scores: Mapping[float, Mapping[int, float]],
    means: Sequence[float],
) -> float:
    """The standard deviation of seeds that is not shared by all LRs: a prior, corrected by what was seen."""
    prior = _SEED * distance(search, results, max(means))
    effects = _seed_effects(scores)
    several = {lr: seeds for lr, seeds in scores.items() if len(seeds) > 1}
    squares = sum(
        (score - effects[seed] - np.mean([value - effects[other] for other, value in seeds.items()])) ** 2
        for seeds in several.values()
        for seed, score in seeds.items()
    )
    freedom = max(0, sum(len(seeds) - 1 for seeds in several.values()) - (len(effects) - 1))
    return math.sqrt((_PRIOR * prior**2 + float(squares)) / (_PRIOR + freedom))


def validation_error(
    search: Search, results: Sequence[SegmentResult], of: Sequence[SegmentResult], score: float
) -> float:
    """The standard error that the validation samples leave in a score near the given one; 0 where it is unknown.

    Args:
        search: The settings.
        results: All results, from which the unit of the metric follows.
        of: Those whose errors count.
        score: The score.
    """
    told = [each.error for each in of if each.error is not None and each.failure is None]
    limit = limit_of(search, results) or 1.0
    if search.samples is not None:
        share = search.metric(score) / limit
        # With one more of each outcome, so that all right is not taken for no error.
        share = (min(max(share, 0.0), 1.0) * search.samples + 1) / (search.samples + 2)
        told.append(limit * math.sqrt(share * (1 - share) / search.samples))
    return float(np.median(told)) if told else 0.0


def limit_of(search: Search, results: Sequence[SegmentResult]) -> float | None:
    """The best value that the metric can have: the setting, else what all values so far speak for, else None.

    A metric to be maximised that stays within [0, 1], or [0, 100], is taken for a share or for per cent; one to be
    minimised that is never negative for one that ends at 0.
    """
    if search.limit is not None:
        return search.limit
    told = [*metrics_of(results), *([] if search.chance is None else [search.chance])]
    if not metrics_of(results) or min(told) < 0:
        return None
    if search.direction == "minimize":
        return 0.0
    return next((float(end) for end in (1, 100) if max(told) <= end), None)


def metrics_of(results: Sequence[SegmentResult]) -> list[float]:
    """All validation metrics of some results."""
    return [value for each in results for value in (each.value, each.averaged) if value is not None]


def distance(search: Search, results: Sequence[SegmentResult], score: float) -> float:
    """How far a score is from the best possible one; where that is unknown, from the worst one seen."""
    limit = limit_of(search, results)
    if limit is not None:
        # An accuracy of 100% of a few samples is not known to be one.
        floor = 0.0 if search.samples is None else validation_error(search, results, (), score)
        return max(abs(search.score(limit) - score), floor)
    seen = [search.score(each.quality) for each in results if is_finite(search.score(each.quality))]
    return abs(score - min(seen)) if seen else 0.0


def tied(found: Collection[Level]) -> bool:
    """Whether no LR could be told from the best one at any length."""
    return all(level.tied and not level.failed for level in found)
