"""What the oracle found, problem by problem, as a few lines to read."""

import math
from dataclasses import dataclass

import polars as pl

from benchmarks.advice.measuring import FINISHES

NEAR_POINTS = 0.5  # of accuracy
NEAR_SHARE = 0.01  # of the loss


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best constant LR of one way to finish a full training, by the test metric's mean over seeds.

    Attributes:
        finish: How the training is finished.
        lr: The best LR.
        test: Its test metric.
        spread: Its standard deviation over seeds; NaN for one seed.
        low: The smallest LR that is within half a point of accuracy, or 1% of the loss.
        high: The largest one.
    """

    finish: str
    lr: float
    test: float
    spread: float
    low: float
    high: float


def bests(runs: pl.DataFrame, *, higher_is_better: bool) -> list[Best]:
    """The best LR of each finish.

    Args:
        runs: Rows of one problem.
        higher_is_better: Whether the metric is an accuracy.
    """
    means = (
        runs.filter(pl.col("horizon") == 1)
        .group_by("finish", "lr")
        .agg(pl.col("test").mean(), spread=pl.col("test").std())
        .sort("lr")
    )
    return [_best(means.filter(finish=finish), finish, higher_is_better) for finish in FINISHES]


def lines(name: str, runs: pl.DataFrame, *, higher_is_better: bool) -> list[str]:
    """The summary of one problem as text."""
    unit = "points" if higher_is_better else "loss"
    rows = [f"{name} ({unit})", "  finish      best LR      test   ± seeds   nearly as good"]
    for best in bests(runs, higher_is_better=higher_is_better):
        octaves = math.log2(best.high / best.low)
        rows.append(
            f"  {best.finish:<10} {best.lr:8.2g} {best.test:9.4g} {best.spread:9.2g}"
            f"   {best.low:.2g} to {best.high:.2g} ({octaves:.1f} octaves)"
        )
    return rows


def _best(means: pl.DataFrame, finish: str, higher_is_better: bool) -> Best:
    sign = 1 if higher_is_better else -1
    first = means.sort(sign * pl.col("test"), descending=True).row(0, named=True)
    allowed = NEAR_POINTS if higher_is_better else NEAR_SHARE * first["test"]
    near = means.filter((pl.col("test") - first["test"]).abs() <= allowed)["lr"].to_list()
    return Best(
        finish=finish,
        lr=first["lr"],
        test=first["test"],
        spread=math.nan if first["spread"] is None else first["spread"],
        low=min(near),
        high=max(near),
    )
