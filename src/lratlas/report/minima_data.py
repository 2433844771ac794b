"""What the charts of the minima show: the ways of two stages, the filters' norms, sharpness and test error."""

import math

import polars as pl

from lratlas.analysis.equal_loss import at_equal_loss
from lratlas.analysis.norm_spread import norm_spread, pooled_norms
from lratlas.analysis.two_stages import two_stage_means
from lratlas.errors import StudyError
from lratlas.report.rows import lr_column, need, stage_order
from lratlas.tables import Tables

_BINS = 40
# Widths of bins, in decades, from which the chart of norms takes the narrowest that needs 40 bins or fewer.
_WIDTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_ARROW = " → "
_MODEL_NAMES = {"pretrain": "pre-trained", "finetune": "fine-tuned", "average": "averaged"}
WAY_NAMES = {"high": "high PLR → FLR", "low": "low PLR → FLR", "both": "high PLR → low PLR → FLR"}


def two_stages_data(tables: Tables) -> pl.DataFrame:
    """Test accuracy after two stages and after either one alone (Fig. 12 of the paper).

    Args:
        tables: The study's tables; of them only ``runs``.

    Returns:
        One row per pair of PLRs, FLR and way: ``pair`` and ``name`` (in words, such as ``1e-2 → 1e-3 → 1e-5``),
        ``plr``, ``plr2``, ``flr``, ``way`` (``high``, ``low``, ``both``), ``mean``, ``low`` and ``high`` (mean ∓
        standard deviation over seeds; equal to the mean for one seed), ``seeds``.

    Raises:
        StudyError: No model was fine-tuned after a second PLR, or none has a test accuracy.
    """
    means = two_stage_means(need(tables, "runs", "two_stages"))
    if means.is_empty():
        raise StudyError("The two_stages chart needs test accuracies of runs fine-tuned after a second PLR in 'runs'.")
    high, low, flr = lr_column("plr"), lr_column("plr2"), lr_column("flr")
    names = pl.concat_str(
        pl.when(pl.col("way") != "low").then(high + _ARROW).otherwise(pl.lit("")),
        pl.when(pl.col("way") != "high").then(low + _ARROW).otherwise(pl.lit("")),
        flr,
    )
    return means.select(
        (high + _ARROW + low).alias("pair"),
        names.alias("name"),
        "plr",
        "plr2",
        "flr",
        pl.col("way").cast(pl.String),
        "mean",
        low=pl.col("mean") - pl.col("deviation"),
        high=pl.col("mean") + pl.col("deviation"),
        seeds="seeds",
    )


def norms_data(tables: Tables) -> pl.DataFrame:
    """Distributions of the filters' norms over the total norm, per regime and state of training (Fig. 13).

    Args:
        tables: The study's tables; ``norms``, and ``regimes`` (may be empty: then all PLRs are together).

    Returns:
        One row per regime, state and bin, in order: ``regime`` (``all`` without regimes), ``state``, ``flr``,
        ``log_norm`` (middle of the bin, decades), ``share`` of the filters in the bin, an empty bin at either end,
        ``spread`` (between the 5 % and 95 % quantiles, decades), ``filters``. The PLRs and
        seeds of a regime are pooled.

    Raises:
        StudyError: The table ``norms`` is empty, or has no norm above zero of a trained model.
    """
    need(tables, "norms", "norms")
    pooled = pooled_norms(tables)
    if pooled.is_empty():
        raise StudyError("The norms chart needs norms above zero of pre-trained or fine-tuned models in 'norms'.")
    width = _bin_width(pooled["log_norm"])
    counted = (
        pooled.with_columns(bin=(pl.col("log_norm") / width).floor().cast(pl.Int64))
        .group_by("regime", "state", "bin")
        .agg(count=pl.len())
    )
    bins = counted.group_by("regime", "state").agg(bin=pl.int_ranges(pl.col("bin").min() - 1, pl.col("bin").max() + 2))
    return (
        bins.explode("bin")
        .join(counted, on=["regime", "state", "bin"], how="left")
        .join(norm_spread(pooled), on=["regime", "state"])
        .sort("regime", "state", "bin")
        .select(
            pl.col("regime").cast(pl.String),
            pl.col("state").cast(pl.String),
            "flr",
            log_norm=(pl.col("bin") + 0.5) * width,
            share=pl.col("count").fill_null(0) / pl.col("filters"),
            spread="spread",
            filters="filters",
        )
    )


def sharpness_data(tables: Tables, *, at_loss: float | None = None) -> pl.DataFrame:
    """Test error and sharpness of the models of about equal training loss (Fig. 26 of the paper).

    Args:
        tables: The study's tables; ``sharpness``, and ``regimes`` (may be empty).
        at_loss: The training loss; by default the one that most PLRs have a model at, as
            `lratlas.analysis.equal_loss.at_equal_loss` chooses it.

    Returns:
        One row per model, sorted by stage, FLR, k and PLR: ``kind`` (pre-trained, fine-tuned, averaged), ``plr``,
        ``flr``, ``count``, ``top_eigenvalue``, ``trace``, ``gradient_norm``, ``test_error``, ``train_loss`` (means over
        seeds), ``residual`` of the eigenvalue (the largest over seeds), ``converged`` (in every seed), ``seeds``,
        ``level`` (the training loss aimed at).

    Raises:
        StudyError: The table ``sharpness`` has no model with a loss above zero, or none near the loss given.
    """
    need(tables, "sharpness", "sharpness")
    models = at_equal_loss(tables, at_loss=at_loss)
    if models.is_empty():
        raise StudyError("The sharpness chart needs models with a training loss above zero in 'sharpness'.")
    return models.sort(stage_order(), "flr", "count", "plr").select(
        pl.col("stage").replace_strict(_MODEL_NAMES, return_dtype=pl.String).alias("kind"),
        *("plr", "flr", "count", "top_eigenvalue", "trace", "gradient_norm", "test_error", "train_loss"),
        *("residual", "converged", "seeds", "level"),
    )


def _bin_width(values: pl.Series) -> float:
    low, high = values.quantile(0.0), values.quantile(1.0)
    decades = 0.0 if low is None or high is None else high - low
    return next((width for width in _WIDTHS if width * _BINS >= decades), math.ceil(decades) / _BINS)
