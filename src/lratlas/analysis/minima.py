"""Minima at equal training loss, norms of weights, and training with a second PLR."""

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import polars as pl
from scipy import special

from lratlas.analysis.estimates import Floats
from lratlas.errors import StudyError
from lratlas.tables import STAGES, Tables, direct, finite, table

# Losses up to this factor from the level count as equal to it.
FACTOR = 1.5
# With four PLRs no order is significant.
FEWEST_PLRS = 5
# Up to this count all orders are enumerated (8! = 40,320); for more, Student's t is accurate.
MOST_COUNTED = 8
_MODEL = ("stage", "plr", "flr", "count")
_MEASURES = ("top_eigenvalue", "trace", "gradient_norm", "train_loss", "test_error")


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """Spearman's rank correlation of the top eigenvalue and the test error over PLRs, one model per PLR.

    ``coefficient`` and ``p`` (two-sided) are None for fewer than five PLRs or constant values.
    """

    coefficient: float | None
    p: float | None
    plrs: int


def at_equal_loss(tables: Tables, *, at_loss: float | None = None) -> pl.DataFrame:
    """The models whose training loss is within a factor 1.5 of one level (Fig. 26 of the paper).

    By default the level is the loss of the pre-trained or fine-tuned model around which most PLRs have a model, the
    lowest of equally good ones. Pre-trained models of regime 3 have found no minimum and are left out, as are diverged
    runs.

    Args:
        tables: A study's tables; ``sharpness``, and ``runs`` and ``regimes`` (may be empty).
        at_loss: The level.

    Returns:
        One row per stage, plr, flr and count in the window, sorted by PLR: means over seeds of ``top_eigenvalue``,
        ``trace``, ``gradient_norm``, ``train_loss``, ``test_error``; ``residual`` (the largest), ``converged`` (in all
        seeds), ``seeds``, ``level``.
        No rows if ``sharpness`` has no model with a positive training loss.

    Raises:
        StudyError: No model is within the factor of the given level.
    """
    models = _models(tables)
    if models.is_empty():
        return models.with_columns(level=pl.lit(at_loss, pl.Float64))
    level = at_loss or _level(models)
    found = models.filter(pl.col("train_loss").is_between(level / FACTOR, level * FACTOR))
    if found.is_empty():
        ends = f"{models['train_loss'].min():.3g} to {models['train_loss'].max():.3g}"
        raise StudyError(
            f"No model in table 'sharpness' has a training loss within a factor of {FACTOR} of {level:.3g}; "
            f"the losses are {ends}."
        )
    return found.with_columns(level=pl.lit(level))


def flatness_correlation(models: pl.DataFrame) -> RankCorrelation:
    """The rank correlation of the test error with the top eigenvalue.

    Args:
        models: Models from `at_equal_loss`. Each PLR counts with the model whose loss is nearest to the level;
            models with an eigenvalue that did not converge are left out.
    """
    away = (pl.col("train_loss") / pl.col("level")).log().abs()
    nearest = (
        models.filter(pl.col("converged"))
        .drop_nulls(["top_eigenvalue", "test_error"])
        .sort(away, "plr")
        .unique("plr", keep="first", maintain_order=True)
    )
    same = nearest["top_eigenvalue"].n_unique() < 2 or nearest["test_error"].n_unique() < 2
    if nearest.height < FEWEST_PLRS or same:
        return RankCorrelation(coefficient=None, p=None, plrs=nearest.height)
    ranks = [nearest[name].rank("average").to_numpy() for name in ("top_eigenvalue", "test_error")]
    coefficient = float(np.corrcoef(ranks)[0, 1])
    return RankCorrelation(
        coefficient=coefficient,
        p=_p_by_counting(*ranks) if nearest.height <= MOST_COUNTED else _p_by_student(coefficient, nearest.height),
        plrs=nearest.height,
    )


def _p_by_counting(first: Floats, second: Floats) -> float:
    """The share of all orders of the ranks with a correlation at least as strong as the observed one."""
    orders = np.array(list(permutations(first - first.mean())))
    strength = np.abs(orders @ (second - second.mean()))
    return float((strength >= strength[0] * (1 - 1e-12)).mean())


def _p_by_student(coefficient: float, count: int) -> float:
    """The p value by Student's t, for a rank correlation of many pairs."""
    t = abs(coefficient) * math.sqrt((count - 2) / max(1 - coefficient**2, 1e-12))
    return float(2 * special.stdtr(count - 2, -t))


def _models(tables: Tables) -> pl.DataFrame:
    """Means over seeds of the models that have found a minimum."""
    regimes = table(tables, "regimes")
    lost = regimes.filter(regime="3")["plr"].implode()
    return (
        finite(table(tables, "sharpness"), table(tables, "runs"))
        .filter(pl.col("stage").is_in(STAGES), (pl.col("stage") != "pretrain") | ~pl.col("plr").is_in(lost))
        .group_by(_MODEL)
        .agg(
            *(pl.col(name).fill_nan(None).mean() for name in _MEASURES),
            residual=pl.col("residual").max(),
            converged=pl.col("converged").fill_null(value=False).all(),
            seeds=pl.col("seed").n_unique().cast(pl.Int64),
        )
        .filter(pl.col("train_loss") > 0)
        .sort("plr", "stage", "flr", "count")
    )


def _level(models: pl.DataFrame) -> float:
    """The training loss of the model around which most PLRs have one; averages count only if there are no others."""
    trained = models.filter(pl.col("stage") != "average")
    models = models if trained.is_empty() else trained
    losses = models.select(level="train_loss").unique()
    near = pl.col("train_loss").is_between(pl.col("level") / FACTOR, pl.col("level") * FACTOR)
    counted = losses.join(models, how="cross").filter(near).group_by("level").agg(pl.col("plr").n_unique())
    return counted.sort("plr", "level", descending=[True, False])["level"][0]


REGIMES = ("1", "2A", "2B", "2", "3", "undecided")
STATES = ("before training", "after pre-training", "after fine-tuning")
ALL = "all"
_STATE_OF = {"initial": STATES[0], "pretrain": STATES[1], "finetune": STATES[2]}
# The spread leaves out the outermost filters, which are few and far.
LOW, HIGH = 0.05, 0.95


def pool_norms(tables: Tables) -> pl.DataFrame:
    """Logs of the filters' norms over the total norm, all PLRs and seeds of a regime together (Fig. 13 of the paper).

    Args:
        tables: A study's tables; ``norms``, ``runs``, and ``regimes`` (may be empty: then all PLRs are one regime,
            ``all``).

    Returns:
        One row per filter and model, in order of regime and state: ``regime``, ``state``, ``flr`` (the lowest; null
        before fine-tuning), ``log_norm`` (decades). The initial models appear in every regime. Filters of norm zero
        have no logarithm, so they have no row; diverged runs have none either.
    """
    norms = finite(table(tables, "norms"), table(tables, "runs"))
    shown = norms.filter(
        pl.col("stage").is_in(["initial", "pretrain"])
        | (
            (pl.col("stage") == "finetune")
            & (pl.col("flr") == pl.col("flr").filter(pl.col("stage") == "finetune").min())
        ),
        pl.col("norm").is_finite() & (pl.col("norm") > 0),
    )
    trained = shown.filter(pl.col("stage") != "initial").join(_regime_of(tables, norms), on="plr")
    initial = shown.filter(stage="initial").join(trained.select("regime").unique(), how="cross")
    return (
        pl.concat([initial, trained.select(initial.columns)])
        .select(
            pl.col("regime").cast(pl.Enum([*REGIMES, ALL])),
            pl.col("stage").replace_strict(_STATE_OF, return_dtype=pl.Enum(STATES)).alias("state"),
            "flr",
            pl.col("norm").log10().alias("log_norm"),
        )
        .sort("regime", "state", maintain_order=True)
    )


def norm_spread(pooled: pl.DataFrame) -> pl.DataFrame:
    """The range of the middle nine tenths of the filters.

    Args:
        pooled: Filters from `pool_norms`.

    Returns:
        One row per ``regime`` and ``state``, in their order: ``flr``, ``spread`` (5% to 95% quantile, decades),
        ``filters``.
    """
    norm = pl.col("log_norm")
    return pooled.group_by("regime", "state", "flr", maintain_order=True).agg(
        spread=norm.quantile(HIGH, "linear") - norm.quantile(LOW, "linear"), filters=pl.len().cast(pl.Int64)
    )


def _regime_of(tables: Tables, norms: pl.DataFrame) -> pl.DataFrame:
    regimes = table(tables, "regimes").select("plr", "regime")
    if not regimes.is_empty():
        return regimes
    return norms.select("plr", regime=pl.lit(ALL)).drop_nulls().unique()


WAYS = ("high", "low", "both")


def two_stages(runs: pl.DataFrame) -> pl.DataFrame:
    """Test accuracies after fine-tuning with and without a second PLR (Fig. 12 of the paper).

    Args:
        runs: A study's ``runs`` table.

    Returns:
        For each pair of PLRs and each FLR with a two-stage run, one row per way and seed, sorted: ``plr``,
        ``plr2``, ``flr``, ``way`` (``high``: plr → flr; ``low``: plr2 → flr; ``both``: plr → plr2 → flr), ``seed``,
        ``test_accuracy``. Ways without a run and runs without a test accuracy have no row.
    """
    tuned = runs.filter(stage="finetune").drop_nulls("test_accuracy")
    both, one = tuned.filter(pl.col("plr2").is_not_null()), direct(tuned).drop("plr2")
    compared = both.select("plr", "plr2", "flr").unique()
    ways = {
        "high": compared.join(one, on=["plr", "flr"]),
        "low": compared.join(one.rename({"plr": "plr2"}), on=["plr2", "flr"]),
        "both": both,
    }
    columns = ("plr", "plr2", "flr", "way", "seed", "test_accuracy")
    return pl.concat(
        frame.with_columns(way=pl.lit(way, pl.Enum(WAYS))).select(columns) for way, frame in ways.items()
    ).sort("plr", "plr2", "flr", "way", "seed")


def two_stage_means(runs: pl.DataFrame) -> pl.DataFrame:
    """The test accuracies of `two_stages`, averaged over seeds.

    Args:
        runs: A study's ``runs`` table.

    Returns:
        One row per ``plr``, ``plr2``, ``flr`` and ``way``, sorted: ``mean``, ``deviation`` (0 for one seed), ``seeds``.
    """
    accuracy = pl.col("test_accuracy")
    return (
        two_stages(runs)
        .group_by("plr", "plr2", "flr", "way", maintain_order=True)
        .agg(mean=accuracy.mean(), deviation=accuracy.std().fill_null(0.0), seeds=pl.len().cast(pl.Int64))
    )
