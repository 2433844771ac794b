"""What each pre-training run shows about its regime: one row per run, before any pooling over seeds."""

import math

import numpy as np
import polars as pl

from lratlas.analysis.trend import falling_p
from lratlas.errors import SpecError, StudyError
from lratlas.tables import Tables, completed, has_accuracy
from lratlas.thresholds import Thresholds

BLOCKS = 10  # even, so that the third and the last quarter of the steps are five blocks each


def run_evidence(tables: Tables, *, chance_loss: float, thresholds: Thresholds) -> pl.DataFrame:
    """Collect the evidence of every pre-training run.

    Means over the last quarter weight each trace row by the steps it covers and take the rows wholly
    inside, or at least the last row. The trend is a one-sided Mann-Kendall test on the loss of the last half
    of the steps, averaged in ten blocks: ranks are robust to spikes and to the loss's scale, and blocks take
    out the correlation between neighbouring rows.

    Args:
        tables: A study's tables; ``runs`` and ``traces`` are read.
        chance_loss: Loss of the best constant prediction.
        thresholds: The numbers that decide.

    Returns:
        One row per PLR and seed, sorted: plr, seed, diverged, fitted, test_accuracy; train_accuracy,
        chance_accuracy and train_loss over the last quarter; excess (accuracy over chance, or the share of
        the chance loss removed where there are no accuracies); unmoved; trend_p (null where the trace is too short);
        falling; converged; unbounded (the same in all rows: there are no accuracies, and losses below
        zero, so that no loss says that a training is at its lowest). What a diverged run measured is null.

    Raises:
        SpecError: If ``chance_loss`` is not finite, or not positive and there are no accuracies.
        StudyError: If a PLR has two pre-training runs of one seed, or a finite run has no training trace.
    """
    runs = tables["runs"].filter(pl.col("stage") == "pretrain").sort("plr", "seed")
    scored = tables["traces"]["train_accuracy"].count() > 0 or has_accuracy(runs)
    if not math.isfinite(chance_loss) or (chance_loss <= 0 and not scored):
        raise SpecError(f"chance_loss is {chance_loss}; it must be a positive number")
    # Without a positive level no loss is near zero in relation to it; accuracies decide alone.
    small = thresholds.small_loss * chance_loss if chance_loss > 0 else -math.inf
    unbounded = not scored and bool((tables["traces"]["train_loss"] < -small).any())
    _check_unique(runs)
    rows = _covered(tables["traces"], runs)
    frame = (
        runs.select(
            "run",
            "plr",
            "seed",
            pl.col("diverged").fill_null(value=False),
            (pl.col("train_accuracy") == 1).fill_null(value=False).alias("fitted"),
            (pl.col("train_loss") < small).fill_null(value=False).alias("small_end"),
            pl.col("test_accuracy").fill_nan(None),
        )
        .join(_last_quarter(rows), on="run", how="left", maintain_order="left")
        .join(_trends(rows), on="run", how="left", maintain_order="left")
        .join(_unmoved(tables["traces"], runs, thresholds.unmoved), on="run", how="left", maintain_order="left")
    )
    measured = ["test_accuracy", "train_accuracy", "chance_accuracy", "train_loss", "trend_p", "fall"]
    frame = frame.with_columns(
        pl.when(~pl.col("diverged")).then(pl.col(name)).alias(name) for name in measured
    ).with_columns(
        pl.coalesce(pl.col("train_accuracy") - pl.col("chance_accuracy"), _removed(chance_loss, small)).alias("excess"),
        pl.when(pl.col("trend_p").is_not_null())
        .then((pl.col("trend_p") < thresholds.trend_level) & (pl.col("fall") > thresholds.fall))
        .alias("falling"),
        (
            (pl.col("train_loss") < small).fill_null(value=False)
            | (pl.col("train_accuracy") >= thresholds.fitted_accuracy).fill_null(value=False)
        ).alias("at_rest"),
    )
    _check_traced(frame)
    settled = pl.col("falling").fill_null(value=False) | pl.col("at_rest")
    ended = (pl.col("fitted") | pl.col("small_end")) & (not unbounded)
    return frame.with_columns(
        (~pl.col("diverged") & ended & settled).alias("converged"), pl.lit(unbounded).alias("unbounded")
    ).drop("run", "small_end", "at_rest", "fall")


def _removed(chance_loss: float, small: float) -> pl.Expr:
    """The share of the chance loss that training has removed: nothing where the loss has not moved.

    A loss below ``small`` counts as it is: a model that starts fitted has nothing to move.
    """
    share = 1 - pl.col("train_loss") / chance_loss
    # The loss of another seed's untrained model may be a few per cent higher.
    still = pl.col("unmoved").fill_null(value=False) & (pl.col("train_loss") >= small)
    return pl.when(still).then(pl.min_horizontal(share, 0.0)).otherwise(share)


def _unmoved(traces: pl.DataFrame, runs: pl.DataFrame, share: float) -> pl.DataFrame:
    """Per run, whether its test loss is near the start all through the last half, and its gradient is not zero.

    In the first half, the statistics of batch norm may still be on their way from their initial values.
    """
    start = pl.col("start_loss")
    near = ((pl.col("test_loss") - start).abs() <= share * start.abs()).fill_null(value=False)
    dead = (pl.col("gradient_norm").sort_by("step").last() == 0).fill_null(value=False)
    return (
        completed(traces, "traces")
        .join(completed(runs, "runs").select("run", "steps", "start_loss"), on="run")
        .filter(pl.col("step") > pl.col("steps") / 2)
        .group_by("run")
        .agg((near.all() & ~dead).alias("unmoved"))
    )


def _check_unique(runs: pl.DataFrame) -> None:
    twice = runs.filter(runs.select("plr", "seed").is_duplicated())
    if twice.height:
        plr, seed = twice.select("plr", "seed").row(0)
        raise StudyError(f"PLR {plr:g} has more than one pre-training run of seed {seed}; one is allowed")


def _check_traced(frame: pl.DataFrame) -> None:
    untraced = frame.filter(~pl.col("diverged") & pl.col("excess").is_null())
    if untraced.height:
        plr, seed = untraced.select("plr", "seed").row(0)
        raise StudyError(
            f"the pre-training run of PLR {plr:g}, seed {seed}, has no trace of its training accuracy or "
            "loss; every finite run needs one"
        )


def _covered(traces: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """The trace rows of ``runs`` with where each begins (``start``) and how many steps it covers."""
    clean = [
        pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name)
        for name in ("train_loss", "train_accuracy", "chance_accuracy")
    ]
    return (
        traces.select("run", "step", *clean)
        .join(runs.select("run", "steps"), on="run", how="inner")
        .sort("run", "step")
        .with_columns(pl.col("step").shift(1).over("run").fill_null(0).alias("start"))
        .with_columns((pl.col("step") - pl.col("start")).alias("covered"))
        .filter(pl.col("covered") > 0)  # a row at step 0 covers nothing
    )


def _weighted_mean(name: str) -> pl.Expr:
    """Mean of a column over the steps covered, null where nothing was measured."""
    covered = pl.col("covered").filter(pl.col(name).is_not_null())
    return ((pl.col(name) * pl.col("covered")).sum() / covered.sum()).fill_nan(None).alias(name)


def _last_quarter(rows: pl.DataFrame) -> pl.DataFrame:
    last = pl.col("step") == pl.col("step").max().over("run")
    means = [_weighted_mean(name) for name in ("train_accuracy", "chance_accuracy", "train_loss")]
    return rows.filter((pl.col("start") >= 0.75 * pl.col("steps")) | last).group_by("run").agg(means)


def _trends(rows: pl.DataFrame) -> pl.DataFrame:
    """Per run: ``trend_p`` of a falling loss; relative ``fall`` between the quarters of the last half."""
    half = 0.5 * pl.col("steps")
    middle = (pl.col("start") + pl.col("step")) / 2
    lists = (
        rows.filter((pl.col("start") >= half) & pl.col("train_loss").is_not_null())
        .with_columns(((middle - half) / half * BLOCKS).floor().clip(0, BLOCKS - 1).alias("block"))
        .group_by("run", "block")
        .agg(_weighted_mean("train_loss"))
        .sort("run", "block")
        .group_by("run", maintain_order=True)
        .agg(
            pl.col("train_loss").filter(pl.col("block") < BLOCKS // 2).mean().alias("third_quarter"),
            pl.col("train_loss").filter(pl.col("block") >= BLOCKS // 2).mean().alias("last_quarter"),
            "train_loss",
        )
    )
    p_values = [falling_p(np.asarray(losses)) for losses in lists["train_loss"].to_list()]
    return lists.select(
        "run",
        pl.Series("trend_p", p_values, dtype=pl.Float64),
        # A loss may be negative: its size is what a fall is relative to.
        ((pl.col("third_quarter") - pl.col("last_quarter")) / pl.col("third_quarter").abs())
        .fill_nan(None)
        .alias("fall"),
    )
