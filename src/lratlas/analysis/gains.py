"""How much better one way of training is than another, paired by seed."""

import math
from dataclasses import dataclass

import polars as pl
from scipy import stats

COVERAGE = 0.95  # of all intervals
FEWEST_SEEDS = 3  # for an interval


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A mean difference over seeds with its 95 % interval by Student's t, None for fewer than three seeds."""

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
    if not len(gains):
        return None
    mean, low, high = float(gains.mean()), None, None
    if len(gains) >= FEWEST_SEEDS:
        deviation = float(gains.std(ddof=1))
        reach = float(stats.t.ppf((1 + COVERAGE) / 2, len(gains) - 1)) * deviation / math.sqrt(len(gains))
        low, high = mean - reach, mean + reach
    return Gain(mean=mean, low=low, high=high, seeds=len(gains))
