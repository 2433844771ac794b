"""Means over seeds with their intervals, and how much better one way of training is than another."""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

COVERAGE = 0.95  # of all intervals
FEWEST_SEEDS = 3  # for an interval


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A mean over seeds, mostly of a difference; its 95 % interval by Student's t, None for fewer than three seeds."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


def paired_gain(ours: pl.DataFrame, theirs: pl.DataFrame, column: str) -> Gain | None:
    """The gain of one set of runs over another, by the seeds that both have; None if they share none.

    Args:
        ours: Runs, one per seed: ``seed`` and the column.
        theirs: The same for the others.
        column: What is compared.
    """
    both = ours.select("seed", column).join(theirs.select("seed", pl.col(column).alias("other")), on="seed")
    gains = (both[column] - both["other"]).to_numpy()
    return over_seeds(gains) if len(gains) else None


def over_seeds(values: NDArray[np.float64]) -> Gain:
    """The mean of one value per seed, at least one, with its interval."""
    mean, low, high = float(values.mean()), None, None
    if len(values) >= FEWEST_SEEDS:
        deviation = float(values.std(ddof=1))
        reach = float(special.stdtrit(len(values) - 1, (1 + COVERAGE) / 2)) * deviation / math.sqrt(len(values))
        low, high = mean - reach, mean + reach
    return Gain(mean=mean, low=low, high=high, seeds=len(values))
