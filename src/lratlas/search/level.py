"""LRs that were trained to one length, compared: the best one, and those that cannot be told from it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

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
