"""The final quality of a study's models: how it is scored, where it is best, and how much that gains."""

from dataclasses import dataclass

import polars as pl

from lratlas.analysis.gains import Gain, paired_gain
from lratlas.tables import direct, scored

# How far below the best a mean may lie to be as good: one point of accuracy, or one per cent of a loss.
AS_GOOD = 0.01
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Score:
    """How quality is measured: a column of ``runs``, whether more is better, and its name."""

    column: str
    name: str
    more_is_better: bool

    def show(self, value: float) -> str:
        """A value as people read it: accuracies in per cent."""
        return f"{100 * value:.1f} %" if self.more_is_better else f"{value:.4g}"

    def best(self, frame: pl.DataFrame) -> dict[str, float]:
        """The row with the best ``value``; of equal ones, the one with the lowest PLR."""
        by_plr = frame.sort("plr", maintain_order=True)
        return by_plr.sort("value", descending=self.more_is_better, maintain_order=True).row(0, named=True)

    def gain(self, ours: pl.DataFrame, theirs: pl.DataFrame) -> Gain | None:
        """How much better one set of runs is than another, paired by seed: positive is better, also for a loss."""
        return paired_gain(ours, theirs, self.column) if self.more_is_better else paired_gain(theirs, ours, self.column)


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best PLR of a study, and the best of those in regime 1.

    Attributes:
        plr: The best PLR.
        value: Its score, mean over seeds.
        flr: The FLR it was fine-tuned with; None for a weight average.
        count: How many checkpoints were averaged; None for fine-tuning.
        rival_plr: The best PLR of regime 1; None where there is none with all its seeds.
        rival_value: Its score, mean over seeds.
        rival_count: How many checkpoints were averaged there.
        gain: Of the best over the rival, paired by seed, positive if better; without an interval where they are the
            same runs, None where there is no rival.
    """

    plr: float
    value: float
    flr: float | None
    count: int | None
    rival_plr: float | None
    rival_value: float | None
    rival_count: int | None
    gain: Gain | None


@dataclass(frozen=True, kw_only=True)
class GoodRange:
    """The lowest and the highest of neighbouring PLRs that are as good as the best one among them."""

    low: float
    high: float

    @property
    def factor(self) -> float:
        """The highest over the lowest; 1 where the best PLR stands alone."""
        return self.high / self.low


def score_of(runs: pl.DataFrame) -> Score:
    """Test accuracy where any run has one, else test loss."""
    if runs["test_accuracy"].null_count() < runs.height:
        return Score(column="test_accuracy", name="test accuracy", more_is_better=True)
    return Score(column="test_loss", name="test loss", more_is_better=False)


def means(runs: pl.DataFrame, score: Score, *keys: str) -> pl.DataFrame:
    """The mean score over seeds, only where no seed is missing: a mean over the survivors would flatter.

    Args:
        runs: Rows of the table of runs.
        score: What is averaged.
        keys: The columns that tell the ways of training apart, such as ``plr``.

    Returns:
        The keys, ``value`` and ``seeds``, sorted by the keys.
    """
    counted = (
        runs.with_columns(pl.when(pl.col(score.column).is_finite()).then(score.column).alias("score"))
        .group_by(keys)
        .agg(pl.col("score").mean().alias("value"), pl.col("score").count().alias("seeds"))
    )
    return counted.filter(pl.col("seeds") == runs["seed"].n_unique()).sort(keys)


def fine_tuned(runs: pl.DataFrame) -> pl.DataFrame:
    """The runs fine-tuned straight from their PLR with the lowest FLR."""
    tuned = direct(scored(runs)).filter(pl.col("stage") == "finetune")
    return tuned.filter(pl.col("flr") == pl.col("flr").min())


def averaged(runs: pl.DataFrame) -> pl.DataFrame:
    """The weight averages straight from their PLR."""
    return direct(scored(runs)).filter(pl.col("stage") == "average")


def converging(regimes: pl.DataFrame) -> list[float]:
    """The PLRs of regime 1."""
    return regimes.filter(pl.col("regime") == "1")["plr"].to_list()


def best_fine_tuned(runs: pl.DataFrame, regimes: pl.DataFrame, score: Score) -> Best | None:
    """The best PLR after fine-tuning with the lowest FLR; None where none was fine-tuned in all seeds.

    Args:
        runs: The table of runs.
        regimes: The table of regimes.
        score: What is compared.
    """
    return _best(fine_tuned(runs), regimes, score, "plr", "flr")


def best_averaged(runs: pl.DataFrame, regimes: pl.DataFrame, score: Score) -> Best | None:
    """The best weight average, over PLRs and counts; None where none was made in all seeds.

    The rival is the best average from a PLR of regime 1, which may be over another count.

    Args:
        runs: The table of runs.
        regimes: The table of regimes.
        score: What is compared.
    """
    return _best(averaged(runs), regimes, score, "plr", "count")


def good_range(finished: pl.DataFrame, score: Score) -> GoodRange | None:
    """The PLRs around the best one whose final models are as good.

    As good: a mean over seeds within one point of the best (one per cent of it for a loss). The range ends at the
    first PLR that is worse or lacks a seed.

    Args:
        finished: Runs that were finished in one way, one for each PLR and seed.
        score: What is compared.

    Returns:
        The range; None where no PLR was finished in all seeds.
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


def _best(runs: pl.DataFrame, regimes: pl.DataFrame, score: Score, *keys: str) -> Best | None:
    found = means(runs, score, *keys)
    if found.is_empty():
        return None
    best = score.best(found)
    rivals = found.filter(pl.col("plr").is_in(converging(regimes)))
    rival = score.best(rivals) if len(rivals) else None
    return Best(
        plr=best["plr"],
        value=best["value"],
        flr=best.get("flr"),
        count=_count(best),
        rival_plr=rival["plr"] if rival else None,
        rival_value=rival["value"] if rival else None,
        rival_count=_count(rival) if rival else None,
        gain=_gain(runs, score, *({key: row[key] for key in keys} for row in (best, rival))) if rival else None,
    )


def _gain(runs: pl.DataFrame, score: Score, best: dict[str, float], rival: dict[str, float]) -> Gain | None:
    if best == rival:  # an interval of width zero would pretend to knowledge
        return Gain(mean=0.0, low=None, high=None, seeds=runs["seed"].n_unique())
    ours, theirs = (runs.filter(*(pl.col(key) == value for key, value in way.items())) for way in (best, rival))
    return score.gain(ours, theirs)


def _count(row: dict[str, float]) -> int | None:
    return int(row["count"]) if "count" in row else None
