"""Means over seeds with their intervals, and the gain of the best of some options over the best of others."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
COVERAGE = 0.95  # of all intervals
FEWEST_SEEDS = 3  # for an interval


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A mean over seeds, usually of a difference; its 95% interval by Student's t, None for fewer than three seeds."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


def student(seeds: int) -> float:
    """The half-width of a 95% interval of Student's t in standard errors, for a mean over seeds, at least 2."""
    return float(special.stdtrit(seeds - 1, (1 + COVERAGE) / 2))


def over_seeds(values: Floats) -> Gain:
    """The mean of one value per seed, at least one, with its interval."""
    return _around(float(values.mean()), values)


def best_over_best(ours: Floats, theirs: Floats) -> Gain:
    """The gain of the best of some options over the best of others, as it would be with very many seeds.

    The difference of the best means favours the side with more options, since the best of many is best partly by luck
    (the winner's curse). A best option that some seeds choose and the others judge is biased low, since fewer seeds
    choose the wrong option more often. The gain is the midpoint of the two estimates, whose errors have opposite signs.
    The interval is Student's t around it, from the differences within seeds between the two options of the best means.
    ``benchmarks/intervals.py`` simulates how often it contains the true gain.

    Args:
        ours: Scores, more is better, shape (options, seeds); at least one of each, all finite.
        theirs: Scores of the other options, by the same seeds.
    """
    pairs = ours[np.argmax(ours.mean(axis=1))] - theirs[np.argmax(theirs.mean(axis=1))]
    judged = cross_validate_choice(ours) - cross_validate_choice(theirs)
    return _around((float(pairs.mean()) + judged) / 2, pairs)


def cross_validate_choice(scores: Floats) -> float:
    """The mean score, by some seeds, of the option that the other seeds choose; one seed chooses for itself.

    Two thirds of the seeds choose: consecutive seeds in a circle, with each seed in turn as the first.

    Args:
        scores: More is better, shape (options, seeds).
    """
    seeds = scores.shape[1]
    if seeds == 1:
        return float(scores.max())
    turns = (np.arange(seeds) - np.arange(seeds)[:, None]) % seeds
    chooses = turns < max(1, 2 * seeds // 3)
    chosen = np.argmax(scores @ chooses.T, axis=0)
    return float(scores[chosen][~chooses].mean())


def _around(mean: float, values: Floats) -> Gain:
    """A mean with the interval from the values, one per seed."""
    seeds = len(values)
    if seeds < FEWEST_SEEDS:
        return Gain(mean=mean, low=None, high=None, seeds=seeds)
    reach = student(seeds) * float(values.std(ddof=1)) / math.sqrt(seeds)
    return Gain(mean=mean, low=mean - reach, high=mean + reach, seeds=seeds)
