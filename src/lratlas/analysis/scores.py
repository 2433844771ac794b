"""Scores of solutions on the two sides of the convergence threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from lratlas.analysis.estimates import Floats, Gain, best_over_best
from lratlas.tables import Tables, direct, drop_diverged_scores, table


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The PLRs of a study, split at its convergence threshold.

    Attributes:
        regimes: The table of regimes.
        boundaries: The table of boundaries.
    """

    regimes: pl.DataFrame
    boundaries: pl.DataFrame

    @cached_property
    def threshold(self) -> dict[str, float | None]:
        """The row of the convergence threshold; all null if it is not reached."""
        rows = self.boundaries.filter(boundary="convergence").to_dicts()
        return rows[0] if rows else dict.fromkeys(("below", "above", "value", "low", "high"))

    def of(self, *regimes: str, below: bool = False) -> list[float]:
        """The PLRs of these regimes on one side of the convergence threshold, ascending; none without a threshold."""
        side = self.threshold["below" if below else "above"]
        if side is None:
            return []
        inside = pl.col("plr") <= side if below else pl.col("plr") >= side
        return self.regimes.filter(inside, pl.col("regime").is_in(regimes)).sort("plr")["plr"].to_list()

    @cached_property
    def below(self) -> list[float]:
        """The PLRs of regime 1 below the threshold."""
        return self.of("1", below=True)

    @cached_property
    def near(self) -> list[float]:
        """The PLRs just above the threshold: subregime 2A, or the lowest PLR of regime 2 if there is no 2A."""
        return self.of("2A") or self.of("2", "2B")[:1]

    @cached_property
    def beyond(self) -> list[float]:
        """The decided PLRs above `near`: the other PLRs of regime 2, and regime 3."""
        return [plr for plr in self.of("2", "2B", "3") if not self.near or plr > self.near[-1]]


def sides_of(tables: Tables) -> Sides:
    """The sides of a study; both are empty if the study has no ``regimes`` or no ``boundaries``."""
    return Sides(regimes=table(tables, "regimes"), boundaries=table(tables, "boundaries"))


# The largest distance from the best mean that is as good: one point of accuracy, or 1% of a loss.
AS_GOOD = 0.01
_ROUNDING = 1e-9
# The description of `threshold_gain`.
GAIN = "the gain of the best learning rate just above the convergence threshold over the best one that converges"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A measure of quality: a column of ``runs``, whether more is better, and its name."""

    column: str
    name: str
    more_is_better: bool

    def show(self, value: float) -> str:
        """A value as text: accuracies in percent."""
        return f"{100 * value:.1f}%" if self.more_is_better else f"{value:.4g}"

    def best(self, frame: pl.DataFrame) -> dict[str, float]:
        """The row with the best ``value``; of equal ones, the row with the lowest PLR."""
        by_plr = frame.sort("plr", maintain_order=True)
        return by_plr.sort("value", descending=self.more_is_better, maintain_order=True).row(0, named=True)


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best PLR of a study, finished in one way.

    Attributes:
        plr: The best PLR.
        value: Its score, mean over seeds.
        flr: The FLR of the fine-tuning; None for a weight average.
        count: The number of averaged checkpoints; None for fine-tuning.
        gain: See `threshold_gain`; not of this PLR, but of the best one just above the convergence threshold.
    """

    plr: float
    value: float
    flr: float | None
    count: int | None
    gain: Gain | None


@dataclass(frozen=True, kw_only=True)
class GoodRange:
    """The lowest and the highest of neighbouring PLRs that are as good as the best one among them."""

    low: float
    high: float

    @property
    def factor(self) -> float:
        """The highest over the lowest; 1 if only the best PLR is good."""
        return self.high / self.low


def score_of(runs: pl.DataFrame) -> Score:
    """Test accuracy if any run has one, else test loss."""
    if runs["test_accuracy"].null_count() < runs.height:
        return Score(column="test_accuracy", name="test accuracy", more_is_better=True)
    return Score(column="test_loss", name="test loss", more_is_better=False)


def means(runs: pl.DataFrame, score: Score, *keys: str) -> pl.DataFrame:
    """The mean score over seeds, only if no seed is missing: a mean over the survivors would be too good.

    Args:
        runs: Rows of the table of runs.
        score: The averaged score.
        keys: The columns that distinguish the ways of training, such as ``plr``.

    Returns:
        The keys, ``value`` and ``seeds``, sorted by the keys.
    """
    counted = (
        runs.with_columns(pl.when(pl.col(score.column).is_finite()).then(score.column).alias("score"))
        .group_by(keys)
        .agg(pl.col("score").mean().alias("value"), pl.col("score").count().alias("seeds"))
    )
    return counted.filter(pl.col("seeds") == runs["seed"].n_unique()).sort(keys)


def fine_tuned_runs(runs: pl.DataFrame) -> pl.DataFrame:
    """The runs fine-tuned directly from their PLR with the lowest FLR."""
    tuned = direct(drop_diverged_scores(runs)).filter(pl.col("stage") == "finetune")
    return tuned.filter(pl.col("flr") == pl.col("flr").min())


def average_runs(runs: pl.DataFrame) -> pl.DataFrame:
    """The weight averages taken directly from their PLR."""
    return direct(drop_diverged_scores(runs)).filter(pl.col("stage") == "average")


def converging(regimes: pl.DataFrame) -> list[float]:
    """The PLRs of regime 1."""
    return regimes.filter(pl.col("regime") == "1")["plr"].to_list()


def best_fine_tuned(tables: Tables, score: Score) -> Best | None:
    """The best PLR after fine-tuning with the lowest FLR; None if none was fine-tuned in all seeds.

    Args:
        tables: A study's tables; ``runs``, ``regimes`` and ``boundaries``.
        score: The compared score.
    """
    return _best(fine_tuned_runs(tables["runs"]), tables, score, "plr", "flr")


def best_averaged(tables: Tables, score: Score) -> Best | None:
    """The best weight average, over PLRs and counts; None if none was made in all seeds.

    Args:
        tables: A study's tables; ``runs``, ``regimes`` and ``boundaries``.
        score: The compared score.
    """
    return _best(average_runs(tables["runs"]), tables, score, "plr", "count")


def complete_seeds(frame: pl.DataFrame) -> list[int]:
    """The seeds with the most rows of a table, ascending; the others are still being trained or measured."""
    counts = frame.group_by("seed").len()
    return counts.filter(pl.col("len") == pl.col("len").max())["seed"].sort().to_list()


def threshold_gain(finished: pl.DataFrame, sides: Sides, score: Score) -> Gain | None:
    """The gain of the best PLR just above the convergence threshold over the best one that converges.

    The claims, the summary and the comparison of studies all use this gain.

    Args:
        finished: Runs finished in one way: `fine_tuned_runs` or `average_runs`, over all counts.
        sides: Which PLRs converge, and which are just above the threshold.
        score: The compared score.

    Returns:
        The gain, positive if better, also for a loss; None if one side has no models of all seeds.
    """
    return estimate_gain(finished, sides.near, sides.below, score)


def estimate_gain(finished: pl.DataFrame, ours: Sequence[float], theirs: Sequence[float], score: Score) -> Gain | None:
    """The gain of the best models from some PLRs over the best from others, by `best_over_best`.

    Args:
        finished: Runs that were finished in one way.
        ours: The PLRs on one side, each with all its numbers of averaged checkpoints.
        theirs: The PLRs on the other side.
        score: The compared score.

    Returns:
        The gain over the complete seeds; None if one side has no models of all complete seeds.
    """
    seeds, sign = complete_seeds(finished), 1.0 if score.more_is_better else -1.0
    scores, others = (
        sign * options(finished.filter(pl.col("plr").is_in(list(plrs))), score.column, "plr", "count", seeds=seeds)
        for plrs in (ours, theirs)
    )
    return best_over_best(scores, others) if len(scores) and len(others) else None


def options(frame: pl.DataFrame, column: str, *keys: str, seeds: Sequence[int]) -> Floats:
    """The values of a column for each option and seed; options that lack a seed are left out.

    Args:
        frame: Rows with ``seed``, the column and the keys, one row per option and seed.
        column: The compared column.
        keys: The columns that distinguish options.
        seeds: The seeds that count.

    Returns:
        Shape (options, seeds), options sorted by the keys, seeds ascending.
    """
    value = pl.col(column)
    rows = (
        frame.filter(value.is_finite(), pl.col("seed").is_in(list(seeds)))
        .group_by(keys)
        .agg(value.sort_by("seed"))
        .filter(value.list.len() == len(seeds))
        .sort(keys)[column]
        .to_list()
    )
    return np.array(rows, dtype=np.float64)


def good_range(finished: pl.DataFrame, score: Score) -> GoodRange | None:
    """The PLRs around the best one with equally good final models.

    Equally good means a mean over seeds within one point of the best (1% of it for a loss). The range ends at
    the first PLR that is worse or lacks a seed.

    Args:
        finished: Runs finished in one way, one per PLR and seed.
        score: The compared score.

    Returns:
        The range; None if no PLR was finished in all seeds.
    """
    found = means(finished, score, "plr")
    if found.is_empty():
        return None
    best = score.best(found)
    room = AS_GOOD if score.more_is_better else AS_GOOD * abs(best["value"])
    near = (pl.col("value") - best["value"]).abs() <= room + _ROUNDING
    all_plrs = finished.select("plr").unique().join(found, on="plr", how="left").sort("plr")
    stretches = all_plrs.select("plr", stretch=near.fill_null(value=False).rle_id())
    stretch = stretches.filter(pl.col("stretch") == pl.col("stretch").filter(pl.col("plr") == best["plr"]).first())
    return GoodRange(low=stretch["plr"][0], high=stretch["plr"][-1])


def _best(runs: pl.DataFrame, tables: Tables, score: Score, *keys: str) -> Best | None:
    found = means(runs, score, *keys)
    if found.is_empty():
        return None
    best = score.best(found)
    return Best(
        plr=best["plr"],
        value=best["value"],
        flr=best.get("flr"),
        count=int(best["count"]) if "count" in best else None,
        gain=threshold_gain(runs, sides_of(tables), score),
    )
