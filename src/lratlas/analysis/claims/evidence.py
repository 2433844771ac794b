"""What all claims are judged on: the PLRs below, just above and beyond the threshold, and one value per seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lratlas.analysis.claims.verdict import Judgement, Unanswered, Verdict
from lratlas.analysis.gains import Gain, over_seeds
from lratlas.analysis.wording import format_lr, plain, signed_interval
from lratlas.tables import Tables, empty, scored
from lratlas.thresholds import Thresholds

Floats = NDArray[np.float64]
# Neighbours of the threshold further apart than this factor, half a decade, may have jumped the range just above it.
WIDEST = 3.2
# What tells the models of a table, and what was measured of them.
_OF_MODELS = {
    "features": (["run"], ["accuracy"]),
    "bands": (["run"], ["accuracy"]),
    "pairs": (["plr", "seed"], ["angle", "train_barrier", "test_barrier"]),
}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A study, seen from its convergence threshold.

    Attributes:
        tables: Its tables, with ``regimes`` and ``boundaries``.
        thresholds: The numbers that decided the regimes.
        chance_loss: Loss of the best constant prediction.
    """

    tables: Tables
    thresholds: Thresholds
    chance_loss: float

    def table(self, name: str) -> pl.DataFrame:
        """A table, empty where there is none; what was measured of diverged models is null."""
        table = self.tables.get(name, empty(name))
        if name == "runs":
            return scored(table)
        if name not in _OF_MODELS or table.is_empty():
            return table
        keys, values = _OF_MODELS[name]
        lost = self.tables["runs"].filter("diverged").select(keys).unique().with_columns(lost=True)
        marked = table.join(lost, on=keys, how="left", maintain_order="left")
        return marked.with_columns(pl.when(pl.col("lost").is_null()).then(pl.col(v)).alias(v) for v in values).drop(
            "lost"
        )

    @cached_property
    def seeds(self) -> list[int]:
        """All seeds, ascending."""
        return self.table("runs")["seed"].unique().sort().to_list()

    def of(self, *regimes: str, below: bool = False) -> list[float]:
        """The PLRs of these regimes on one side of the convergence threshold, ascending; none where there is none."""
        side = self.threshold["below" if below else "above"]
        if side is None:
            return []
        inside = pl.col("plr") <= side if below else pl.col("plr") >= side
        return self.table("regimes").filter(inside, pl.col("regime").is_in(regimes)).sort("plr")["plr"].to_list()

    @cached_property
    def below(self) -> list[float]:
        """The PLRs of regime 1 below the threshold."""
        return self.of("1", below=True)

    @cached_property
    def near(self) -> list[float]:
        """The PLRs just above the threshold: subregime 2A, or the lowest PLR of regime 2 where there is no 2A."""
        return self.of("2A") or self.of("2", "2B")[:1]

    @cached_property
    def beyond(self) -> list[float]:
        """The decided PLRs above those: the rest of regime 2, and regime 3."""
        return [plr for plr in self.of("2", "2B", "3") if not self.near or plr > self.near[-1]]

    @cached_property
    def threshold(self) -> dict[str, float | None]:
        """The row of the convergence threshold, all null where it is not reached."""
        rows = self.table("boundaries").filter(boundary="convergence").to_dicts()
        return rows[0] if rows else dict.fromkeys(("below", "above", "value", "low", "high"))

    @cached_property
    def coarse(self) -> str:
        """Why "just above the threshold" may have been missed, and what to add; empty if PLRs lie close there."""
        if not self.below or not self.near or self.near[0] <= WIDEST * self.below[-1]:
            return ""
        return f"add learning rates between {format_lr(self.below[-1])} and {format_lr(self.near[0])}"

    def must_span(self, *, beyond: bool = False) -> None:
        """Check that there are PLRs on both sides of the threshold, and beyond if asked for.

        Raises:
            Unanswered: Some are missing.
        """
        regimes = self.table("regimes")["regime"].to_list()
        if "1" not in regimes:
            raise Unanswered("Cannot be told: no learning rate tested converges; add smaller ones, or train longer.")
        if not self.near:
            raise Unanswered(
                "Cannot be told: no learning rate above the threshold stays on a plateau; add larger ones, or more "
                "around it."
            )
        if beyond and not self.beyond:
            raise Unanswered(
                "Cannot be told: no learning rate tested lies beyond the range just above the threshold; add larger "
                "ones."
            )

    def found(self, verdict: Verdict, effect: Gain, said: str, *, open_because: str, near: bool = True) -> Judgement:
        """A judgement with its effect.

        Args:
            verdict: The verdict; one against a claim about the PLRs just above the threshold is open where that may
                have been missed.
            effect: The effect.
            said: What was found.
            open_because: What would tell, if the verdict is inconclusive.
            near: The claim is about the PLRs just above the threshold.
        """
        if near and verdict == "contradicted" and self.coarse:
            verdict, open_because = "inconclusive", f"the threshold is bracketed too coarsely; {self.coarse}"
        some = "" if effect.seeds == len(self.seeds) else f" On the {effect.seeds} complete of {len(self.seeds)} seeds."
        tail = f" Open: {open_because}." if verdict == "inconclusive" else ""
        return Judgement(
            verdict=verdict, statement=said + some + tail, effect=effect.mean, low=effect.low, high=effect.high
        )


def complete_seeds(frame: pl.DataFrame) -> list[int]:
    """The seeds with the most rows of a table, ascending: others are still being trained or measured."""
    counts = frame.group_by("seed").len()
    return counts.filter(pl.col("len") == pl.col("len").max())["seed"].sort().to_list()


def per_seed(frame: pl.DataFrame, plrs: Sequence[float], value: pl.Expr, seeds: Sequence[int]) -> Floats:
    """For each seed the mean over PLRs of a value; only PLRs that every seed has enter, so that all are alike.

    Args:
        frame: Rows with ``plr`` and ``seed``.
        plrs: The PLRs in question.
        value: What is averaged, one value per row; a PLR and seed may have several rows.
        seeds: The seeds, in this order.

    Returns:
        Shape (seeds,); all NaN where no PLR has every seed.
    """
    return (
        frame.filter(pl.col("plr").is_in(list(plrs)), pl.col("seed").is_in(list(seeds)))
        .with_columns(value=value.fill_nan(None))
        .drop_nulls("value")
        .group_by("plr", "seed")
        .agg(pl.col("value").mean())
        .filter(pl.len().over("plr") == len(seeds))
        .group_by("seed")
        .agg(pl.col("value").mean())
        .sort("seed")["value"]
        .extend_constant(float("nan"), len(seeds))
        .head(len(seeds))
        .to_numpy()
    )


def best_by_others(frame: pl.DataFrame, options: Sequence[str], value: pl.Expr, seeds: Sequence[int]) -> Floats:
    """For each seed its value of the option that is best on average over the *other* seeds.

    Picking the best of many by the same scores that it is judged by would flatter the longer list; the other
    seeds know nothing of the one that counts. With one seed there are no others, and its own best is taken.

    Args:
        frame: Rows with ``seed`` and the options' columns, one row per option and seed.
        options: The columns that tell options apart.
        value: What is compared, more is better.
        seeds: The seeds, in this order; options that lack one are left out.

    Returns:
        Shape (seeds,); all NaN where no option has all seeds.
    """
    values = frame.with_columns(value=value.fill_nan(None)).drop_nulls("value")
    whole = values.group_by(options).agg(pl.col("value").sort_by("seed"), seeds=pl.len())
    rows = whole.filter(pl.col("seeds") == len(seeds)).sort(options)["value"].to_list()
    if not rows:
        return np.full(len(seeds), np.nan)
    table = np.array(rows, dtype=np.float64)
    others = table.sum(axis=1, keepdims=True) - table if len(seeds) > 1 else table
    return table[np.argmax(others, axis=0), np.arange(len(seeds))]


def mean_of(values: Floats) -> Gain:
    """The mean over the seeds that have a value, with its interval.

    Raises:
        Unanswered: No seed has one.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        raise Unanswered("Cannot be told: no seed was measured at all learning rates in question.")
    return over_seeds(known)


def spoken(effect: Gain, *, factor: float = 100, unit: str = " points") -> str:
    """An effect with its interval: ``2.7 points (95 % interval −0.5 to 5.9)``."""
    number = plain(factor * effect.mean)
    size = f"{number}{unit.removesuffix('s') if number in {'1', '−1'} else unit}"
    if effect.low is None or effect.high is None or effect.low == effect.high:
        return size
    return f"{size} (95 % interval {signed_interval(factor * effect.low, factor * effect.high)})"


def lr_range(plrs: Sequence[float]) -> str:
    """``1e-2`` or ``1e-2 to 2.4e-2``."""
    ends = [format_lr(plr) for plr in (plrs[0], plrs[-1])]
    return ends[0] if len(plrs) == 1 else " to ".join(ends)
