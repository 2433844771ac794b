"""What a search knows of its LRs: how good each is at each length, how surely, and what a full training may reach.

LRs are compared at one length only, with the noise of the validation set and of the seed. Neither is known exactly: the
prior below is corrected by what the search itself sees of it. ``benchmarks/advice/policies.py`` chooses some of these
numbers again without each problem; the others are judgement.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from lratlas.numbers import is_finite
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search

CONFIDENCE = 0.8
"""Probability that the LRs that cannot be told from the best one hold the LR that truly is best."""
_TIE = 0.99  # probability that equal LRs tie at a length
LEARNED = 3.0
"""Standard errors by which a metric must exceed that of a model that has learned nothing."""
LONGER = 1.5
"""A length is another one if it is longer by this factor: not the part of it from which the LR is annealed."""
_VALIDATION = 0.7  # share of the validation set's standard error that LRs judged on the same samples do not share
_SEED = 0.015  # spread of seeds, as a share of the distance to the best possible metric
_PRIOR = 3.0  # seeds that the prior counts for
_PAIR = 2
_COMPARED = 3  # LRs, at least, make a comparison
_STILL = 0.03  # of the largest difference to the losses of the smallest LR; one that differs by less has hardly moved
_ROUNDING = 1e-6  # share of the loss, up to which losses are the same
_HARM = 0.01  # share of the loss of an untrained model, by which a larger one shows too large an LR
_ENOUGH = 0.1  # share of the loss, from which on an LR has moved as much as any
_SPIKE = 0.5  # the same as `_HARM`, for the mean over a segment
_FALL = 0.05  # share of the first training loss; a smaller fall is none


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

    def allowed(self, place: int) -> float:
        """By how much an LR may be behind and still be the best one, given all others that it is compared with."""
        return critical(len(self.lrs) - 1, CONFIDENCE) * self.error(place)

    def near(self, *, margin: float = 0.0) -> list[float]:
        """The LRs that cannot be told from the best one by more than a margin."""
        return [lr for at, lr in enumerate(self.lrs) if self.behind(at) <= margin + self.allowed(at)]

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


def trial(results: Sequence[SegmentResult], lr: float, *, seed: int) -> list[SegmentResult]:
    """The results of one LR and seed without an annealed end, ascending in steps."""
    found = [
        each for each in results if each.segment.lr == lr and each.segment.seed == seed and not each.segment.annealed
    ]
    return sorted(found, key=lambda each: each.segment.stop)


def levels(search: Search, results: Sequence[SegmentResult]) -> list[Level]:
    """Each length at which LRs were compared, ascending.

    A length counts where three LRs were trained to it, or two of which one was the best at the length before, or has
    learned, or where none had learned before.
    """
    found = list[Level]()
    for steps in sorted({each.segment.stop for each in results if not each.segment.annealed}):
        level = level_at(search, results, steps)
        if not level.lrs:
            continue
        best = found[-1].lrs[found[-1].best] if found else None
        counts = best in {*level.lrs, *level.failed} or learners(search, results, level)
        counts = counts or not (found and learners(search, results, found[-1]))
        alone = len(found[-1].lrs) == 1 if found else False
        if best is None or len(level.lrs) >= _COMPARED or ((len(level.lrs) > 1 or alone) and counts):
            found.append(level)
    return found


def not_finite(result: SegmentResult) -> bool:
    """Whether a training failed since a number was not finite."""
    return result.failure is not None and "not finite" in result.failure


def _at(results: Sequence[SegmentResult], steps: int) -> list[SegmentResult]:
    return [each for each in results if each.segment.stop == steps and not each.segment.annealed]


def level_at(search: Search, results: Sequence[SegmentResult], steps: int) -> Level:
    """The LRs that were trained to a length."""
    of = _at(results, steps)
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


def learners(search: Search, results: Sequence[SegmentResult], level: Level) -> list[float]:
    """The LRs of a level that have learned something: their metric exceeds that of a model that has learned nothing.

    Where the search does not know that metric, the median of all LRs takes its place, since on a wide grid most have
    learned nothing at first; an LR whose training loss fell has then learned too.
    """
    if not level.lrs:
        return []
    if search.chance is not None:
        nothing = search.score(search.chance)
        of = _at(results, level.steps)
        errors = [
            validation_error(search, results, [each for each in of if each.segment.lr == lr], nothing)
            for lr in level.lrs
        ]
        return [
            lr
            for at, lr in enumerate(level.lrs)
            if level.scores[at] - nothing > LEARNED * max(errors[at], level.spread(at))
        ]
    first = level_at(search, results, min(each.segment.stop for each in results))
    middle = float(np.median(first.scores)) if first.scores else 0.0
    ahead = {lr for lr, score in zip(level.lrs, level.scores, strict=True) if score - middle > LEARNED * level.noise}
    return [lr for lr in level.lrs if lr in ahead or _loss_fell(results, lr, search.seed)]


def loss_at_start(results: Sequence[SegmentResult]) -> float | None:
    """The first loss of the smallest LR, which has hardly changed the model; None where no losses are known."""
    fresh = [each for each in results if each.segment.start == 0 and each.losses and is_finite(each.losses[0])]
    if not fresh:
        return None
    return min(fresh, key=lambda each: (each.segment.lr, each.segment.stop, each.segment.seed)).losses[0]


def last_loss(of: Sequence[SegmentResult]) -> float:
    """Mean over the last eighth of what is known of a trial's losses; NaN where nothing is."""
    losses = [loss for each in of for loss in each.losses]
    return float(np.mean(losses[-max(1, len(losses) // 8) :])) if losses else math.nan


def _loss_fell(results: Sequence[SegmentResult], lr: float, seed: int) -> bool:
    start, end = loss_at_start(results), last_loss(trial(results, lr, seed=seed))
    return start is not None and is_finite(end) and start - end > _FALL * abs(start)


def alike(results: Sequence[SegmentResult], steps: int) -> bool:
    """Whether all LRs have the very same results after that many steps: metrics equal, losses to rounding.

    Either the LR has no effect, or all LRs are far too small. Batches and weights of a seed are the same for all LRs.
    """
    of = _at(results, steps)
    seeds = {each.segment.seed: each for each in of}
    return len({each.segment.lr for each in of}) > 1 and all(
        (each.value, each.averaged) == (seeds[each.segment.seed].value, seeds[each.segment.seed].averaged)
        and _greatest_difference(each, seeds[each.segment.seed]) <= _ROUNDING
        for each in of
    )


def undecided(results: Sequence[SegmentResult]) -> set[float]:
    """LRs whose losses have moved most, but not up: neither too small nor too large, as far as losses show it.

    All LRs of a seed see the same batches, so that the losses of the smallest one show what doing nothing gives.
    """
    first = [each for each in results if each.segment.start == 0 and each.losses]
    if not first:
        return set()
    still = min(first, key=lambda each: (each.segment.lr, each.segment.stop, each.segment.seed))
    moved = dict[float, float]()
    for lr in {each.segment.lr for each in results}:
        of = sorted(
            (each for each in results if each.segment.lr == lr and each.losses), key=lambda each: each.segment.stop
        )
        if of and not _harmed(of[-1], results):
            # Beyond that a difference says no more: one spike would hide all others.
            moved[lr] = min(max(_greatest_difference(each, still) for each in of), _ENOUGH)
    return {lr for lr, far in moved.items() if far > _STILL * max(moved.values())}


def _harmed(result: SegmentResult, results: Sequence[SegmentResult]) -> bool:
    """Whether a segment ends with losses above those of an untrained model, or had losses far above them on its way."""
    nothing = untrained_loss(result, results)
    if nothing is None:
        return False
    mean = float(np.mean(result.losses))
    return last_loss([result]) - nothing > _HARM * abs(nothing) or mean - nothing > _SPIKE * abs(nothing)


def untrained_loss(result: SegmentResult, results: Sequence[SegmentResult]) -> float | None:
    """The loss that an untrained model has at the end of a segment; None where no losses are known.

    It is that of the smallest LR, which hardly changes the model: in the very same batches, which may be harder than
    others, or in its first segment where that is higher, since the smallest LR may have learned meanwhile.
    """
    known = [each for each in results if each.losses and each.segment.seed == result.segment.seed]
    first = [each for each in known if each.segment.start == 0 and all(map(is_finite, each.losses))]
    if not first:
        return None
    still = min(first, key=lambda each: (each.segment.lr, each.segment.stop))
    ends = (result.segment.start, result.segment.stop)
    same = [each for each in known if (each.segment.start, each.segment.stop) == ends]
    beside = last_loss([min(same, key=lambda each: each.segment.lr)]) if same else math.nan
    fresh = max(still.losses[0], float(np.mean(still.losses)))
    return max(fresh, beside) if is_finite(beside) else fresh


def _greatest_difference(one: SegmentResult, other: SegmentResult) -> float:
    """The largest difference between the losses of two segments of one length, as a share; 0 where it is unknown."""
    ends = [(each.segment.start, each.segment.stop) for each in (one, other)]
    if ends[0] != ends[1] or len(one.losses) != len(other.losses) or not one.losses:
        return 0.0
    size = float(np.max(np.abs(other.losses))) or 1.0
    return float(np.max(np.abs(np.subtract(one.losses, other.losses)))) / size


def restarted(results: Sequence[SegmentResult]) -> list[str]:
    """Names of segments whose losses begin as those of fresh weights do, although they have a parent.

    Only where the parent's losses had fallen, by more than they scatter, is there something to compare.
    """
    by_name = {each.segment.name: each for each in results}
    start, found = loss_at_start(results), list[str]()
    for each in results:
        parent = by_name.get(str(each.segment.parent))
        if start is None or parent is None or len(parent.losses) < 2 or not each.losses:
            continue
        before, after = last_loss([parent]), each.losses[0]
        scatter = float(np.std(parent.losses[-max(2, len(parent.losses) // 2) :]))
        fell = start - before
        if is_finite(after) and fell > max(3 * scatter, _FALL * abs(start)) and after - before > fell / 2:
            found.append(each.segment.name)
    return found


def trusted(results: Sequence[SegmentResult]) -> list[SegmentResult]:
    """The results that can be relied on: none after a parent whose state was not loaded, where that is the rule."""
    doubtful, resumed = restarted(results), [each for each in results if each.segment.parent]
    if len(doubtful) * 2 <= len(resumed) or len(doubtful) < 2:
        return list(results)
    return [each for each in results if each.segment.parent is None]


def tied(found: Collection[Level]) -> bool:
    """Whether no LR could be told from the best one at any length."""
    return all(level.tied and not level.failed for level in found)
