"""The evidence of a search: the level that each LR has reached."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search
from lratlas.text import is_finite

CONFIDENCE = 0.8
"""Probability that the LRs that cannot be told from the best one hold the LR that truly is best."""
_TIE = 0.99  # probability that equal LRs tie at a length
_PAIR = 2


@dataclass(frozen=True, kw_only=True)
class Level:
    """The LRs that were trained to one length, compared.

    Attributes:
        steps: The length.
        lrs: Ascending; those that failed there are left out.
        scores: Of each LR, more being better; means over seeds, from which what a seed does to all LRs is taken.
        seeds: Of each LR, how many seeds.
        shared: The standard deviation that the validation samples leave in each score, as far as it differs from LR to
            LR; all seeds are judged on the same samples.
        own: The standard deviation of seeds, likewise.
        failed: LRs that failed at this length.
    """

    steps: int
    lrs: tuple[float, ...]
    scores: tuple[float, ...]
    seeds: tuple[int, ...]
    shared: float
    own: float
    failed: frozenset[float]

    @cached_property
    def best(self) -> int:
        """The place of the best LR; of several that are equal, the smallest."""
        return max(range(len(self.lrs)), key=lambda place: (self.scores[place], -self.lrs[place]))

    @property
    def noise(self) -> float:
        """The standard deviation of the score of one LR and seed, as far as it differs from LR to LR."""
        return math.hypot(self.shared, self.own)

    def spread(self, place: int) -> float:
        """The standard error of the score of an LR."""
        return math.hypot(self.shared, self.own / math.sqrt(self.seeds[place]))

    def error(self, place: int) -> float:
        """The standard error of the difference between an LR and the best one."""
        return math.hypot(self.spread(place), self.spread(self.best))

    def behind(self, place: int) -> float:
        """By how much the score of an LR is below the best one's."""
        return self.scores[self.best] - self.scores[place]

    def allowance(self, place: int) -> float:
        """By how much an LR may be behind and still be the best one, given all others that it is compared with."""
        return critical(len(self.lrs) - 1, CONFIDENCE) * self.error(place)

    def near(self, *, margin: float = 0.0) -> list[float]:
        """The LRs that cannot be told from the best one by more than a margin."""
        return [lr for at, lr in enumerate(self.lrs) if self.is_near(at, margin=margin)]

    def is_near(self, place: int, *, margin: float = 0.0) -> bool:
        """Whether an LR cannot be told from the best one by more than a margin."""
        return self.behind(place) <= margin + self.allowance(place)

    @property
    def tied(self) -> bool:
        """Whether all scores differ by no more than those of equal LRs do."""
        worst = max(map(self.spread, range(len(self.lrs))), default=0.0)
        return not self.lrs or max(self.scores) - min(self.scores) <= largest_range(len(self.lrs), _TIE) * worst


@cache
def critical(others: int, confidence: float) -> float:
    """Standard errors by which the best of equally good LRs exceeds a given one at most, with a probability.

    Of ``others`` differences to the same score, each divided by its standard deviation, the largest is below this:
    the one-sided critical value of comparisons with the best (Hsu, 1981) for independent scores of known variance.
    """
    return _root(lambda value: _mean(lambda z: _cdf(z + math.sqrt(2) * value) ** others) - confidence)


@cache
def largest_range(count: int, confidence: float) -> float:
    """The range of that many standard normal numbers, with a probability: that of Tukey's test for known variance."""
    if count < _PAIR:
        return 0.0
    return _root(lambda value: count * _mean(lambda z: (_cdf(z + value) - _cdf(z)) ** (count - 1)) - confidence)


def _cdf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distribution function of a standard normal number."""
    # Importing SciPy for it would take longer than all that a search computes.
    return 0.5 * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))


def _mean(function: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
    """The mean of a function of a standard normal number."""
    z = np.linspace(-8.0, 8.0, 2001)
    return float(np.trapezoid(function(z) * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi), z))


def _root(function: Callable[[float], float]) -> float:
    """Where a growing function is zero, between 0 and 16; 0 where it is above zero at once."""
    low, high = 0.0, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return low


STOPPED = "stopped by itself"
"""In the reason of a segment whose training ended early, without an error."""
LONGER = 1.5
"""A length is another one if it is longer by this factor: not the part of it from which the LR is annealed."""
_VALIDATION = 0.7  # share of the validation set's standard error that LRs judged on the same samples do not share
_SEED = 0.015  # spread of seeds, as a share of the distance to the best possible metric
_PRIOR = 3.0  # seeds that the prior counts for


def trial(results: Sequence[SegmentResult], lr: float, *, seed: int) -> list[SegmentResult]:
    """The results of one LR and seed without an annealed end, ascending in steps."""
    return trials([each for each in results if each.segment.lr == lr]).get((lr, seed), [])


Trial = tuple[float, int]  # LR and seed


def trials(results: Sequence[SegmentResult]) -> dict[Trial, list[SegmentResult]]:
    """The results of each LR and seed without an annealed end, ascending in steps; none where only that is known."""
    found = dict[Trial, list[SegmentResult]]()
    for each in sorted(results, key=lambda each: (each.segment.stop, each.segment.annealed)):
        of = found.setdefault((each.segment.lr, each.segment.seed), [])
        if not each.segment.annealed:
            of.append(each)
    return found


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


def has_other_failure(result: SegmentResult) -> bool:
    """Whether a training failed for a reason that its LR need not have."""
    return result.failure is not None and not not_finite(result)


def has_stopped_early(result: SegmentResult) -> bool:
    """Whether a training ended early without an error, such as by its own early stopping, and was not measured."""
    return has_other_failure(result) and STOPPED in str(result.failure)


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


def is_tie(found: Collection[Level]) -> bool:
    """Whether no LR could be told from the best one at any length."""
    return all(level.tied and not level.failed for level in found)
