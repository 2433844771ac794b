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
"""Probability that the LRs near the best one include the true best LR."""
_TIE = 0.99  # probability that equal LRs tie at a length
_PAIR = 2


@dataclass(frozen=True, kw_only=True)
class Level:
    """A comparison of the LRs that were trained to one length.

    Attributes:
        steps: The length.
        lrs: LRs in ascending order, without those that failed at this length.
        scores: Score of each LR, larger is better: the mean over seeds, without the effect that a seed has on all LRs.
        seeds: Number of seeds of each LR.
        shared: Standard deviation of each score from the validation samples, only the part that differs between LRs;
            all seeds are judged on the same samples.
        own: Standard deviation of each score from the seeds, only the part that differs between LRs.
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
        """Index of the best LR; the smallest LR if several are equal."""
        return max(range(len(self.lrs)), key=lambda place: (self.scores[place], -self.lrs[place]))

    @property
    def noise(self) -> float:
        """Standard deviation of the score of one LR and seed, only the part that differs between LRs."""
        return math.hypot(self.shared, self.own)

    def spread(self, place: int) -> float:
        """Standard error of the score of an LR."""
        return math.hypot(self.shared, self.own / math.sqrt(self.seeds[place]))

    def error(self, place: int) -> float:
        """Standard error of the difference between an LR and the best one."""
        return math.hypot(self.spread(place), self.spread(self.best))

    def behind(self, place: int) -> float:
        """Difference between the best score and the score of an LR."""
        return self.scores[self.best] - self.scores[place]

    def allowance(self, place: int) -> float:
        """Largest difference at which an LR can still be the best, given all LRs that it is compared with."""
        return critical(len(self.lrs) - 1, CONFIDENCE) * self.error(place)

    def near(self, *, margin: float = 0.0) -> list[float]:
        """The LRs that are within the noise, plus a margin, of the best one."""
        return [lr for at, lr in enumerate(self.lrs) if self.is_near(at, margin=margin)]

    def is_near(self, place: int, *, margin: float = 0.0) -> bool:
        """Whether an LR is within the noise, plus a margin, of the best one."""
        return self.behind(place) <= margin + self.allowance(place)

    @property
    def tied(self) -> bool:
        """Whether the scores differ by no more than those of equal LRs."""
        worst = max(map(self.spread, range(len(self.lrs))), default=0.0)
        return not self.lrs or max(self.scores) - min(self.scores) <= largest_range(len(self.lrs), _TIE) * worst


@cache
def critical(others: int, confidence: float) -> float:
    """Standard errors by which the best of equal LRs exceeds a given one at most, with a probability.

    The largest of ``others`` differences to the same score, each divided by its standard deviation, is below this: the
    one-sided critical value of comparisons with the best (Hsu, 1981) for independent scores of known variance.
    """
    return _root(lambda value: _mean(lambda z: _cdf(z + math.sqrt(2) * value) ** others) - confidence)


@cache
def largest_range(count: int, confidence: float) -> float:
    """Range of ``count`` standard normal numbers at a probability: Tukey's test for known variance."""
    if count < _PAIR:
        return 0.0
    return _root(lambda value: count * _mean(lambda z: (_cdf(z + value) - _cdf(z)) ** (count - 1)) - confidence)


def _cdf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distribution function of a standard normal number."""
    # An import of SciPy would take longer than everything that a search computes.
    return 0.5 * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))


def _mean(function: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
    """Mean of a function of a standard normal number."""
    z = np.linspace(-8.0, 8.0, 2001)
    return float(np.trapezoid(function(z) * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi), z))


def _root(function: Callable[[float], float]) -> float:
    """Root of a growing function between 0 and 16; 0 if the function is positive at 0."""
    low, high = 0.0, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return low


STOPPED = "stopped by itself"
"""Marks the failure reason of a segment whose training ended early, without an error."""
LONGER = 1.5
"""Smallest ratio of two different lengths; excludes the step at which annealing begins."""
_VALIDATION = 0.7  # share of the validation set's standard error that differs between LRs judged on the same samples
_SEED = 0.015  # spread of seeds, as a share of the distance to the best possible metric
_PRIOR = 3.0  # weight of the prior, in seeds


Trial = tuple[float, int]  # LR and seed


def trials(results: Sequence[SegmentResult]) -> dict[Trial, list[SegmentResult]]:
    """Results of each LR and seed without annealed ends, ascending in steps; empty if only an annealed end is known."""
    found = dict[Trial, list[SegmentResult]]()
    for each in sorted(results, key=lambda each: (each.segment.stop, each.segment.annealed)):
        of = found.setdefault((each.segment.lr, each.segment.seed), [])
        if not each.segment.annealed:
            of.append(each)
    return found


def results_at(results: Sequence[SegmentResult], steps: int) -> list[SegmentResult]:
    """Results after that many steps, without annealed ends."""
    return [each for each in results if each.segment.stop == steps and not each.segment.annealed]


def not_finite(result: SegmentResult) -> bool:
    """Whether a training failed because a number was not finite."""
    return result.failure is not None and "not finite" in result.failure


def has_other_failure(result: SegmentResult) -> bool:
    """Whether a training failed for a reason that may not depend on its LR."""
    return result.failure is not None and not not_finite(result)


def has_stopped_early(result: SegmentResult) -> bool:
    """Whether a training ended early without an error, such as by early stopping, and was not measured."""
    return has_other_failure(result) and STOPPED in str(result.failure)


@dataclass(frozen=True, eq=False)
class Evidence:
    """The results of a search, with the unit of its metric and its noise; each is computed once.

    Attributes:
        search: The settings.
        results: All results.
    """

    search: Search
    results: Sequence[SegmentResult]

    @cached_property
    def trials(self) -> dict[Trial, list[SegmentResult]]:
        """Results of each LR and seed (see `trials`)."""
        return trials(self.results)

    def trial(self, lr: float, *, seed: int | None = None) -> list[SegmentResult]:
        """Results of one LR and seed (by default the first one) without an annealed end, ascending in steps."""
        return self.trials.get((lr, self.search.seed if seed is None else seed), [])

    @cached_property
    def metrics(self) -> list[float]:
        """All validation metrics."""
        return [value for each in self.results for value in (each.value, each.averaged) if value is not None]

    @cached_property
    def limit(self) -> float | None:
        """Best possible value of the metric: the setting, else a guess from all values so far, else None.

        A metric to maximize within [0, 1] or [0, 100] counts as a share or a percentage. A metric to minimize that is
        never negative counts as one with the limit 0.
        """
        search = self.search
        if search.limit is not None:
            return search.limit
        told = [*self.metrics, *([] if search.chance is None else [search.chance])]
        if not self.metrics or min(told) < 0:
            return None
        if search.direction == "minimize":
            return 0.0
        return next((float(end) for end in (1, 100) if max(told) <= end), None)

    def validation_error(self, of: Sequence[SegmentResult], score: float) -> float:
        """Standard error from the validation samples of a score near the given one; 0 if it is unknown.

        Args:
            of: Results whose errors count.
            score: The score.
        """
        told = [each.error for each in of if each.error is not None and each.failure is None]
        limit, samples = self.limit or 1.0, self.search.samples
        if samples is not None:
            share = self.search.metric(score) / limit
            # One extra sample of each outcome, so that a perfect score does not mean zero error.
            share = (min(max(share, 0.0), 1.0) * samples + 1) / (samples + 2)
            told.append(limit * math.sqrt(share * (1 - share) / samples))
        return float(np.median(told)) if told else 0.0

    def distance(self, score: float) -> float:
        """Distance of a score from the best possible one; from the worst score seen if the best is unknown."""
        search = self.search
        if self.limit is not None:
            # An accuracy of 100% on a few samples is not known to be exact.
            floor = 0.0 if search.samples is None else self.validation_error((), score)
            return max(abs(search.score(self.limit) - score), floor)
        seen = [search.score(each.quality) for each in self.results if is_finite(search.score(each.quality))]
        return abs(score - min(seen)) if seen else 0.0

    @cached_property
    def _levels(self) -> dict[int, Level]:
        return {}

    def level(self, steps: int) -> Level:
        """Compare the LRs that were trained to a length."""
        if steps not in self._levels:
            self._levels[steps] = self._compare(steps)
        return self._levels[steps]

    def _compare(self, steps: int) -> Level:
        search, of = self.search, results_at(self.results, steps)
        scores = dict[float, dict[int, float]]()
        failed = {each.segment.lr for each in of if each.failure is not None}
        # An LR that diverges in a longer training is not compared in a shorter one.
        failed |= {each.segment.lr for each in self.results if not_finite(each)} & {each.segment.lr for each in of}
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
            shared=_VALIDATION * self.validation_error(best, max(means)) if lrs else 0.0,
            own=_seed_noise(scores, effects, prior=_SEED * self.distance(max(means))) if lrs else 0.0,
            failed=frozenset(failed),
        )

    @cached_property
    def first(self) -> Level:
        """The comparison at the shortest length."""
        return self.level(min(each.segment.stop for each in self.results))


def _seed_effects(scores: Mapping[float, Mapping[int, float]]) -> dict[int, float]:
    """Effect of each seed relative to the first one: the mean over the LRs that both seeds have."""
    seeds = sorted({seed for of in scores.values() for seed in of})
    effects = dict.fromkeys(seeds, 0.0)
    for seed in seeds[1:]:
        both = [of[seed] - of[seeds[0]] for of in scores.values() if seed in of and seeds[0] in of]
        effects[seed] = float(np.mean(both)) if both else 0.0
    return effects


def _seed_noise(scores: Mapping[float, Mapping[int, float]], effects: Mapping[int, float], *, prior: float) -> float:
    """Standard deviation of seeds, only the part that differs between LRs: a prior, corrected by the results."""
    several = {lr: seeds for lr, seeds in scores.items() if len(seeds) > 1}
    squares = sum(
        (score - effects[seed] - np.mean([value - effects[other] for other, value in seeds.items()])) ** 2
        for seeds in several.values()
        for seed, score in seeds.items()
    )
    freedom = max(0, sum(len(seeds) - 1 for seeds in several.values()) - (len(effects) - 1))
    return math.sqrt((_PRIOR * prior**2 + float(squares)) / (_PRIOR + freedom))


def is_tie(found: Collection[Level]) -> bool:
    """Whether all LRs tie at every length."""
    return all(level.tied and not level.failed for level in found)
