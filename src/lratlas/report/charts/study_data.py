"""What each chart shows, as a frame: seeds aggregated, lines named and ordered, nothing drawn yet."""

import math
from collections.abc import Callable, Mapping
from pkgutil import resolve_name

import polars as pl

from lratlas.errors import StudyError
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.report.charts.convergence import convergence_data
from lratlas.report.charts.minima import two_stages_data
from lratlas.report.frames import lr_column, mean_and_ends, need, repeat_by_seed, stage_order
from lratlas.tables import STAGES, Tables, add_missing_columns, direct, drop_diverged_scores, finite, table

_ENDS = ("low", "high", "swa")
_PAIR_LABELS = ("low FLR – high FLR", "low FLR – SWA", "high FLR – SWA")
_MEASURES = ("angle", "train_barrier", "test_barrier", "train_barrier_arc", "test_barrier_arc")
_TIMES_START = 100  # the loss at which charts end, over that before training
# Enough to see every bend of a curve on a screen, few enough for 30 curves to draw at once.
_TRACE_POINTS = 150
# There may be hundreds of single seeds, all of them inside the page.
_SEED_POINTS = 40


def accuracy_data(tables: Tables, *, at_loss: float | None = None) -> pl.DataFrame:
    """Test accuracy against PLR: pre-training, each FLR, each SWA-k (Figs. 1 and 2 of the paper).

    Runs that came by a second PLR are left out: their quality is not that of the first alone.

    Args:
        tables: The study's tables; ``runs``, and ``traces`` where ``at_loss`` is given.
        at_loss: Take the test accuracy at the first trace row whose training loss is at most this, instead of
            at the end; runs that never get there, and averages (which have no trace), are left out.

    Returns:
        One row per line and PLR, lines in legend order, for all seeds together and then for each: ``series``,
        ``stage``, ``seed`` (null: over seeds), ``plr``, ``mean``, ``low`` and ``high`` (mean ∓ standard deviation over
        seeds; equal to the mean for one seed), ``seeds``.

    Raises:
        StudyError: There is no such accuracy in the tables.
    """
    runs = direct(need(tables, "runs", "accuracy")).filter(pl.col("stage").is_in(STAGES))
    if at_loss is not None:
        runs = _at_loss(runs, need(tables, "traces", "accuracy"), at_loss)
    runs = runs.drop_nulls("test_accuracy")
    if runs.is_empty():
        where = "at the end of a run" if at_loss is None else f"at a training loss of {at_loss:g} or less"
        raise StudyError(f"The accuracy chart needs a test accuracy {where}; no run has one.")
    return quality(runs, "test_accuracy")


def last_tenth_data(tables: Tables) -> pl.DataFrame:
    """Test accuracy over the last tenth of pre-training's steps: how high it is, and how far it swings (Fig. 1).

    Args:
        tables: The study's tables; ``runs`` and ``traces``. Runs that diverged are left out.

    Returns:
        As `accuracy_data`, of pre-training alone: ``mean`` is that over the trace rows of the last tenth; ``low`` and
        ``high`` are one standard deviation of these rows away, which over seeds is the root of the mean variance. A
        single row has no deviation, and both are the mean.

    Raises:
        StudyError: There is no test accuracy in the last tenth of a run.
    """
    runs = finite(need(tables, "runs", "last_tenth"), tables["runs"]).filter(stage="pretrain")
    rows = (
        need(tables, "traces", "last_tenth")
        .join(runs.select("run", "plr", "seed", "steps"), on="run")
        .filter(10 * pl.col("step") > 9 * pl.col("steps"), pl.col("step") <= pl.col("steps"))
        .drop_nulls("test_accuracy")
    )
    if rows.is_empty():
        raise StudyError("The last_tenth chart needs test accuracies in the last tenth of a run; no run has one.")
    accuracy = pl.col("test_accuracy")
    each = rows.group_by("plr", "seed").agg(mean=accuracy.mean(), variance=accuracy.var())
    deviation = pl.col("variance").mean().sqrt().fill_null(0.0)
    return (
        repeat_by_seed(each)
        .group_by("seed", "plr")
        .agg(
            pl.col("mean").mean(),
            low=pl.col("mean").mean() - deviation,
            high=pl.col("mean").mean() + deviation,
            seeds=pl.col("one").n_unique(),
        )
        .sort("seed", "plr")
        .select(
            pl.lit("pre-training").alias("series"),
            pl.lit("pretrain").alias("stage"),
            *("seed", "plr", "mean", "low", "high", "seeds"),
        )
    )


def loss_data(tables: Tables) -> pl.DataFrame:
    """Test loss against PLR: pre-training, each FLR, each SWA-k; for tasks that have no accuracy.

    Runs that came by a second PLR are left out, and those that diverged, whose loss is of the weights before that.

    Args:
        tables: The study's tables; of them only ``runs``.

    Returns:
        As `accuracy_data`.

    Raises:
        StudyError: There is no test loss of a run that did not diverge.
    """
    runs = direct(drop_diverged_scores(need(tables, "runs", "loss"))).filter(pl.col("stage").is_in(STAGES))
    finite = runs.filter(pl.col("test_loss").is_finite())
    if finite.is_empty():
        raise StudyError("The loss chart needs a test loss of a run that did not diverge; no run has one.")
    return quality(finite, "test_loss")


def loss_limit(tables: Tables) -> float:
    """The loss at which charts end: a hundred times the test loss before training, the median over runs.

    Without an end, a run that goes astray and stays finite would leave no room for the others.

    Args:
        tables: The study's tables; of them only ``runs``.

    Returns:
        The loss; infinity where that before training is not known, or not positive.
    """
    start = add_missing_columns(table(tables, "runs"), "runs")["start_loss"].median()
    return _TIMES_START * start if isinstance(start, float) and start > 0 else math.inf


def quality(runs: pl.DataFrame, column: str) -> pl.DataFrame:
    """Means and deviations of a score for each line and PLR, over seeds and of each.

    Args:
        runs: A row for each model, with a column for the score.
        column: The score.

    Returns:
        As of `accuracy_data`.
    """
    return (
        repeat_by_seed(runs)
        .group_by("seed", "stage", "flr", "count", "plr")
        .agg(**mean_and_ends(pl.col(column)), seeds=pl.col("one").n_unique())
        .sort("seed", stage_order(), "flr", "count", "plr")
        .with_columns(series=_series())
        .select("series", "stage", "seed", "plr", "mean", "low", "high", "seeds")
    )


def geometry_data(tables: Tables) -> pl.DataFrame:
    """Angle and error barriers between the solutions of one PLR (Fig. 3 of the paper).

    Args:
        tables: The study's tables; of them only ``pairs``.

    Returns:
        One row per pair and PLR, for all seeds together and then for each: ``pair``, ``seed`` (null: medians over
        seeds), ``plr``, ``angle`` (radians), ``train_barrier`` and ``test_barrier`` on the straight line,
        ``train_barrier_arc`` and ``test_barrier_arc`` on the great circle (null where not measured), ``seeds``.

    Raises:
        StudyError: The table ``pairs`` is empty.
    """
    rank = pl.min_horizontal(_rank("a"), _rank("b")) + pl.max_horizontal(_rank("a"), _rank("b")) - 1
    return (
        repeat_by_seed(need(tables, "pairs", "geometry").with_columns(rank=rank))
        .group_by("seed", "rank", "plr")
        .agg(*(pl.col(name).median() for name in _MEASURES), seeds=pl.col("one").n_unique())
        .sort("seed", "rank", "plr")
        .select(_pair_name(), "seed", "plr", *_MEASURES, "seeds")
    )


def traces_data(tables: Tables) -> pl.DataFrame:
    """Training loss and gradient norm of pre-training against the step, mean over seeds.

    Long traces are thinned to about 150 points, those of single seeds to about 40: neighbouring rows are averaged and
    stand at their last step. Values that are not finite, or zero (no place on a log axis), are null.

    Args:
        tables: The study's tables; of them ``runs`` and ``traces``.

    Returns:
        One row per PLR and point, for all seeds together and then for each: ``seed`` (null: the mean over seeds),
        ``plr``, ``step``, ``train_loss``, ``gradient_norm``.

    Raises:
        StudyError: There is no trace of a pre-training run.
    """
    runs = need(tables, "runs", "traces").filter(pl.col("stage") == "pretrain").select("run", "plr", "seed")
    rows = need(tables, "traces", "traces").join(runs, on="run")
    if rows.is_empty():
        raise StudyError("The traces chart needs traces of pre-training runs; table 'traces' has none.")
    together = _thin_rows(rows.with_columns(seed=pl.lit(None, pl.Int64)), _TRACE_POINTS)
    return pl.concat([together, _thin_rows(rows, _SEED_POINTS)])


def _thin_rows(rows: pl.DataFrame, points: int) -> pl.DataFrame:
    width = math.ceil(rows["step"].n_unique() / points)
    return (
        rows.with_columns(point=(pl.col("step").rank("dense").cast(pl.Int64) - 1) // width)
        .with_columns(pl.col("step").max().over("point"))
        .group_by("seed", "plr", "step")
        .agg(_drawable("train_loss").mean(), _drawable("gradient_norm").mean())
        .with_columns(_drawable("train_loss"), _drawable("gradient_norm"))
        .sort("seed", "plr", "step")
    )


def _at_loss(runs: pl.DataFrame, traces: pl.DataFrame, at_loss: float) -> pl.DataFrame:
    reached = (
        traces.filter(pl.col("train_loss") <= at_loss)
        .drop_nulls("test_accuracy")
        .sort("step")
        .group_by("run")
        .agg(pl.col("test_accuracy").first())
    )
    return runs.drop("test_accuracy").join(reached, on="run")


def _series() -> pl.Expr:
    return (
        pl.when(pl.col("stage") == "pretrain")
        .then(pl.lit("pre-training"))
        .when(pl.col("stage") == "finetune")
        .then(pl.lit("FLR ") + lr_column("flr"))
        .otherwise(pl.lit("SWA-") + pl.col("count").cast(pl.String))
    )


def _rank(end: str) -> pl.Expr:
    return pl.col(end).replace_strict(_ENDS, range(3), return_dtype=pl.Int64)


def _pair_name() -> pl.Expr:
    # Ends 0 and 1, 0 and 2, 1 and 2 have the ranks 0, 1, 2.
    return pl.col("rank").replace_strict(range(3), _PAIR_LABELS, return_dtype=pl.String).alias("pair")


def _drawable(name: str) -> pl.Expr:
    return pl.when(pl.col(name).is_finite() & (pl.col(name) > 0)).then(pl.col(name))


CHART_DATA: Mapping[str, Callable[[Tables], pl.DataFrame]] = {
    "accuracy": accuracy_data,
    "last_tenth": last_tenth_data,
    "loss": loss_data,
    "traces": traces_data,
    "convergence": convergence_data,
    "two_stages": two_stages_data,
    **{
        figure.name: resolve_name(figure.data)
        for measurement in MEASUREMENTS
        for figure in measurement.needs.figures
        if figure.data
    },
}
