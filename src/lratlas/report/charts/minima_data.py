"""What the charts of the minima show: the ways of two stages, the filters' norms, sharpness and test error."""

import math

import polars as pl

from lratlas.analysis.minima import at_equal_loss, norm_spread, pool_norms, two_stages
from lratlas.errors import StudyError
from lratlas.report.frames import lr_column, name_models, need, repeat_by_seed, stage_order
from lratlas.tables import Tables, finite, table

_BINS = 40
# Widths of bins, in decades, from which the chart of norms takes the narrowest that needs 40 bins or fewer.
_WIDTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_ARROW = " → "
_MODEL_NAMES = {"pretrain": "pre-trained", "finetune": "fine-tuned", "average": "averaged"}
_SHARPNESS = ("top_eigenvalue", "trace", "gradient_norm", "test_error", "train_loss")
WAY_NAMES = {"high": "high PLR → FLR", "low": "low PLR → FLR", "both": "high PLR → low PLR → FLR"}


def two_stages_data(tables: Tables) -> pl.DataFrame:
    """Test accuracy after two stages and after either one alone (Fig. 12 of the paper).

    Args:
        tables: The study's tables; of them only ``runs``.

    Returns:
        One row per pair of PLRs, FLR and way, for all seeds together and then for each: ``pair`` and ``name`` (in
        words, such as ``1e-2 → 1e-3 → 1e-5``), ``seed`` (null: over seeds), ``plr``, ``plr2``, ``flr``, ``way``
        (``high``, ``low``, ``both``), ``mean``, ``low`` and ``high`` (mean ∓ standard deviation over seeds; equal to
        the mean for one seed), ``seeds``.

    Raises:
        StudyError: No model was fine-tuned after a second PLR, or none has a test accuracy.
    """
    rows = two_stages(need(tables, "runs", "two_stages"))
    if rows.is_empty():
        raise StudyError("The two_stages chart needs test accuracies of runs fine-tuned after a second PLR in 'runs'.")
    mean, deviation = pl.col("test_accuracy").mean(), pl.col("test_accuracy").std().fill_null(0.0)
    means = (
        repeat_by_seed(rows)
        .group_by("seed", "plr", "plr2", "flr", "way")
        .agg(mean=mean, low=mean - deviation, high=mean + deviation, seeds=pl.col("one").n_unique().cast(pl.Int64))
        .sort("seed", "plr", "plr2", "flr", "way")
    )
    high, low, flr = lr_column("plr"), lr_column("plr2"), lr_column("flr")
    names = pl.concat_str(
        pl.when(pl.col("way") != "low").then(high + _ARROW).otherwise(pl.lit("")),
        pl.when(pl.col("way") != "high").then(low + _ARROW).otherwise(pl.lit("")),
        flr,
    )
    return means.select(
        (high + _ARROW + low).alias("pair"),
        names.alias("name"),
        *("seed", "plr", "plr2", "flr"),
        pl.col("way").cast(pl.String),
        *("mean", "low", "high", "seeds"),
    )


def norms_data(tables: Tables) -> pl.DataFrame:
    """Distributions of the filters' norms over the total norm, per regime and state of training (Fig. 13).

    Args:
        tables: The study's tables; ``norms``, and ``regimes`` (may be empty: then all PLRs are together).

    Returns:
        One row per regime, state and bin, in order, for all seeds together and then for each: ``regime`` (``all``
        without regimes), ``state``, ``seed`` (null: the filters of all seeds), ``flr``, ``log_norm`` (middle of the
        bin, decades), ``share`` of the filters in the bin, an empty bin at either end, ``spread`` (between the 5 % and
        95 % quantiles, decades), ``filters``. The PLRs of a regime are pooled.

    Raises:
        StudyError: The table ``norms`` is empty, or has no norm above zero of a trained model.
    """
    norms = need(tables, "norms", "norms")
    pooled = pool_norms(tables)
    if pooled.is_empty():
        raise StudyError("The norms chart needs norms above zero of pre-trained or fine-tuned models in 'norms'.")
    width = _bin_width(pooled["log_norm"])
    others = {name: table(tables, name) for name in ("runs", "regimes")}
    alone = {seed: pool_norms({**others, "norms": norms.filter(seed=seed)}) for seed in norms["seed"].unique().sort()}
    return pl.concat(_histograms(part, width, seed) for seed, part in ({None: pooled} | alone).items())


def _histograms(pooled: pl.DataFrame, width: float, seed: int | None) -> pl.DataFrame:
    """The filters of each regime and state counted in bins."""
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
            pl.lit(seed, pl.Int64).alias("seed"),
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
            `lratlas.analysis.minima.at_equal_loss` chooses it.

    Returns:
        One row per model, for all seeds together and then for each, sorted by stage, FLR, k and PLR: ``kind``
        (pre-trained, fine-tuned, averaged), ``model`` (with its FLR or k), ``seed`` (null: over seeds), ``plr``,
        ``flr``, ``count``, ``top_eigenvalue``, ``trace``, ``gradient_norm``, ``test_error``, ``train_loss`` (means over
        seeds), ``residual`` of the eigenvalue (the largest over seeds), ``converged`` (in every seed), ``seeds``,
        ``level`` (the training loss aimed at). The models are chosen by their means over seeds: that of a single seed
        may have another loss.

    Raises:
        StudyError: The table ``sharpness`` has no model with a loss above zero, or none near the loss given.
    """
    rows = finite(need(tables, "sharpness", "sharpness", "test_error"), table(tables, "runs"))
    together = at_equal_loss(tables, at_loss=at_loss)
    if together.is_empty():
        raise StudyError("The sharpness chart needs models with a training loss above zero in 'sharpness'.")
    keys = ["stage", "plr", "flr", "count"]
    alone = rows.join(together.select(*keys, "level"), on=keys, nulls_equal=True).with_columns(
        pl.col(_SHARPNESS).fill_nan(None), pl.col("converged").fill_null(value=False), seeds=pl.lit(1, pl.Int64)
    )
    columns = ("seed", *keys, *_SHARPNESS, "residual", "converged", "seeds", "level")
    both = pl.concat([together.with_columns(seed=pl.lit(None, pl.Int64)).select(columns), alone.select(columns)])
    return name_models(both.sort("seed", stage_order(), "flr", "count", "plr")).select(
        pl.col("stage").replace_strict(_MODEL_NAMES, return_dtype=pl.String).alias("kind"),
        "model",
        *columns[:1],
        *columns[2:],
    )


def _bin_width(values: pl.Series) -> float:
    low, high = values.quantile(0.0), values.quantile(1.0)
    decades = 0.0 if low is None or high is None else high - low
    return next((width for width in _WIDTHS if width * _BINS >= decades), math.ceil(decades) / _BINS)
