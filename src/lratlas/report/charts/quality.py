"""Test accuracy or loss against the PLR: data, drawing and words of the charts."""

import math

import altair as alt
import polars as pl

from lratlas.analysis.recommendation import recommend
from lratlas.analysis.scores import average_runs, estimate_gain, fine_tuned_runs, score_of, sides_of
from lratlas.errors import StudyError
from lratlas.recommendation import Recommendation
from lratlas.report import axes
from lratlas.report.charts import controls
from lratlas.report.charts.score_lines import quality, quality_chart
from lratlas.report.frames import need, over_seeds, regime_bands, regimes_in_words, repeat_by_seed, seeds_in_words
from lratlas.report.theme import Drawing, Text
from lratlas.tables import STAGES, Tables, add_missing_columns, direct, drop_diverged_scores, finite, table
from lratlas.text import format_lr

_FAR = 30  # losses that differ by more than this factor get a log axis
_TIMES_START = 100  # charts end at this multiple of the loss before training
_SWING = 0.05  # smallest fluctuation of accuracy that counts


def accuracy_data(tables: Tables, *, at_loss: float | None = None) -> pl.DataFrame:
    """Test accuracy against PLR: pre-training, each FLR, each SWA-k (Figs. 1 and 2 of the paper).

    Runs with a second PLR are left out: their quality depends on both PLRs.

    Args:
        tables: The study's tables; ``runs``, and ``traces`` if ``at_loss`` is given.
        at_loss: Take the test accuracy at the first trace row whose training loss is at most this, instead of
            at the end; runs that never reach it, and averages (which have no trace), are left out.

    Returns:
        One row per line and PLR, lines in legend order, for all seeds together and then for each seed: ``series``,
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
    """Test accuracy over the last tenth of pre-training: its mean and its fluctuation (Fig. 1).

    Args:
        tables: The study's tables; ``runs`` and ``traces``. Runs that diverged are left out.

    Returns:
        The columns of `accuracy_data`, only for pre-training: ``mean`` is over the trace rows of the last tenth;
        ``low`` and ``high`` are one standard deviation of these rows away, over seeds the root of the mean variance. A
        single row has no deviation, and both equal the mean.

    Raises:
        StudyError: No run has a test accuracy in its last tenth.
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
    """Test loss against PLR: pre-training, each FLR, each SWA-k; for tasks without accuracy.

    Runs with a second PLR are left out, and diverged runs, whose loss is of the weights before the divergence.

    Args:
        tables: The study's tables; only ``runs`` is read.

    Returns:
        The columns of `accuracy_data`.

    Raises:
        StudyError: There is no test loss of a run that did not diverge.
    """
    runs = direct(drop_diverged_scores(need(tables, "runs", "loss"))).filter(pl.col("stage").is_in(STAGES))
    known = runs.filter(pl.col("test_loss").is_finite())
    if known.is_empty():
        raise StudyError("The loss chart needs a test loss of a run that did not diverge; no run has one.")
    return quality(known, "test_loss")


def loss_limit(tables: Tables) -> float:
    """The upper end of the charts of losses: a hundred times the test loss before training, the median over runs.

    Without it, a run that explodes but stays finite would leave no room for the others.

    Args:
        tables: The study's tables; only ``runs`` is read.

    Returns:
        The loss; infinity if the loss before training is unknown or not positive.
    """
    start = add_missing_columns(table(tables, "runs"), "runs")["start_loss"].median()
    return _TIMES_START * start if isinstance(start, float) and start > 0 else math.inf


def best_in_words(tables: Tables, best: Recommendation | None) -> str:
    """Headline on the best PLR that claims no more than the seeds support.

    Args:
        tables: The study's tables; ``runs``, ``regimes`` and ``boundaries``.
        best: The recommendation.

    Returns:
        The headline; empty without a recommendation.
    """
    if best is None:
        return ""
    words = f"Best from {format_lr(best.lr)}"
    if best.at_edge:
        return f"{words}, the edge of the tested range"
    sides, runs = sides_of(tables), tables["runs"]
    groups = {
        "just above the threshold": sides.near,
        "below the threshold": sides.below,
        "above the threshold": sides.beyond,
    }
    place = next((name for name, plrs in groups.items() if best.lr in plrs), None)
    if place is None:
        return words if (seeds := runs["seed"].n_unique()) > 1 else f"{words} ({seeds_in_words(seeds)})"
    ours, theirs = groups.pop(place), [plr for plrs in groups.values() for plr in plrs]
    finished = fine_tuned_runs(runs) if best.count is None else average_runs(runs)
    gain = estimate_gain(finished, ours, theirs, score_of(runs)) if theirs else None
    if gain is None:
        return f"{words}, {place}"
    if gain.low is None:
        return f"{words}, {place} ({seeds_in_words(gain.seeds)})"
    return f"{words}, {place}" if gain.low > 0 else f"{words}, {place}, within noise of other LRs"


_FINISHES = (
    "after pre-training at a constant LR (PLR), after fine-tuning with a smaller LR (FLR), and for the mean of the "
    "weights of k checkpoints (SWA-k)"
)
_ALT = (
    "Line chart of the {what} against the pre-training learning rate, with a band of one standard deviation; lines for "
    "pre-training, for fine-tuning with a small learning rate and for averaged checkpoints. Regimes are shaded; the "
    "convergence threshold and the recommended learning rate are marked."
)


def _words(tables: Tables, data: pl.DataFrame, heading: str, what: str, more: str = "") -> Text:
    seeds = over_seeds(data)["seeds"].quantile(1.0) or 1
    over = f"{seeds_in_words(int(seeds), mean=True)}: {what} {_FINISHES}."
    return Text(
        heading=heading,
        caption=" ".join(filter(None, (over, more, regimes_in_words(regime_bands(tables))))),
        alt=_ALT.format(what=what),
    )


def accuracy_chart(tables: Tables, *, at_loss: float | None = None, elr: bool = False) -> Drawing:
    """Test accuracy against PLR: pre-trained, fine-tuned and averaged, with the regimes shaded (Figs. 1, 2).

    Args:
        tables: The study's tables; ``runs``, ``regimes`` for the shading, ``traces`` for ``at_loss``.
        at_loss: Compare at the first trace row with this training loss or less, instead of at the end.
        elr: The LRs are effective ones.

    Raises:
        StudyError: There is no such accuracy in the tables.
    """
    data = controls.chosen_from(accuracy_data(tables, at_loss=at_loss))
    if at_loss is not None:
        title = f"test accuracy at training loss {at_loss:g}"
        more = "Measured when a run first reaches that training loss; runs that never reach it are omitted."
        words = _words(tables, data, "Test accuracy at equal training loss", title, more)
        y = alt.Y("mean:Q").title(title).axis(format="%")
        return quality_chart(tables, data, y, name="accuracy_at_loss", share=True, elr=elr, words=words)
    best = _recommended(tables, elr=elr)
    heading = best_in_words(tables, best) or "Test accuracy against the pre-training LR"
    words, y = _words(tables, data, heading, "test accuracy"), alt.Y("mean:Q").title("test accuracy").axis(format="%")
    return quality_chart(tables, data, y, name="accuracy", share=True, elr=elr, best=best, words=words)


def swing_in_words(data: pl.DataFrame) -> str:
    """Headline: the LR at which the test accuracy fluctuates the most; neutral if it is stable everywhere.

    Args:
        data: Data from `last_tenth_data`.
    """
    most = over_seeds(data).sort(pl.col("high") - pl.col("mean"), "plr").row(-1, named=True)
    swing = 100 * (most["high"] - most["mean"])
    if swing < _SWING:
        return "Variation of the test accuracy at a constant LR"
    return f"Late in pre-training, test accuracy varies most at {format_lr(most['plr'])}: ±{swing:.1f} points"


def last_tenth_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Mean and standard deviation of the test accuracy over the last tenth of pre-training, against PLR (Fig. 1).

    Args:
        tables: The study's tables; ``runs`` and ``traces``, and ``regimes`` for the shading.
        elr: The LRs are effective ones.

    Raises:
        StudyError: No run has a test accuracy in its last tenth.
    """
    data = controls.chosen_from(last_tenth_data(tables))
    words = Text(
        heading=swing_in_words(data),
        caption=(
            "Mean over the trace rows of the last tenth of pre-training ± one standard deviation of these rows;"
            " over several seeds, the mean and the root of the mean variance. Runs that diverged are omitted."
        ),
        alt="Line chart of the test accuracy during the last tenth of pre-training against the pre-training learning "
        "rate: its mean, with a band of one standard deviation over time. Regimes are shaded.",
    )
    y = alt.Y("mean:Q").title("test accuracy, last tenth").axis(format="%")
    return quality_chart(tables, data, y, name="last_tenth", share=True, elr=elr, words=words)


def loss_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Test loss against PLR in the style of `accuracy_chart`, for tasks without accuracy.

    The axis is logarithmic if losses differ much.

    Args:
        tables: The study's tables; ``runs``, and ``regimes`` for the shading.
        elr: The LRs are effective ones.

    Raises:
        StudyError: There is no test loss of a run that did not diverge.
    """
    drawn = (pl.col(name).clip(upper_bound=loss_limit(tables)) for name in ("mean", "low", "high"))
    data = controls.chosen_from(loss_data(tables)).with_columns(drawn)
    lowest, highest = (data["mean"].quantile(share) or 0.0 for share in (0.0, 1.0))
    best = _recommended(tables, elr=elr)
    heading = best_in_words(tables, best) or "Test loss against the pre-training LR"
    more = (
        "Lower is better. Runs that diverged are omitted; losses above a hundred times the loss before training are"
        " drawn at that height."
    )
    y, log = alt.Y("mean:Q").title("test loss"), 0 < _FAR * lowest < highest
    if log:
        # A deviation as large as the mean has no lower end on a log axis.
        data = data.with_columns(low=pl.max_horizontal("low", pl.lit(lowest / 2)))
        y = y.axis(format=".2~g", values=axes.log_ticks(lowest, highest))
    words = _words(tables, data, heading, "test loss", more)
    return quality_chart(tables, data, y, name="loss", share=False, elr=elr, best=best, words=words, log=log)


def _recommended(tables: Tables, *, elr: bool) -> Recommendation | None:
    return None if table(tables, "regimes").is_empty() else recommend(tables, elr=elr)


def _at_loss(runs: pl.DataFrame, traces: pl.DataFrame, at_loss: float) -> pl.DataFrame:
    reached = (
        traces.filter(pl.col("train_loss") <= at_loss)
        .drop_nulls("test_accuracy")
        .sort("step")
        .group_by("run")
        .agg(pl.col("test_accuracy").first())
    )
    return runs.drop("test_accuracy").join(reached, on="run")
