"""Test accuracy or loss against the PLR: data, drawing and words of the chart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from lratlas.analysis.recommendation import recommend
from lratlas.analysis.scores import (
    average_runs,
    estimate_gain,
    fine_tuned_runs,
    means,
    score_of,
    sides_of,
)
from lratlas.errors import StudyError
from lratlas.recommendation import Recommendation
from lratlas.report import theme
from lratlas.report.charts import controls
from lratlas.report.frames import (
    lr_column,
    lr_text,
    need,
    over_seeds,
    regime_bands,
    regimes_in_words,
    repeat_by_seed,
    seeds_in_words,
    stage_order,
)
from lratlas.report.labels import line_names, place_names
from lratlas.report.theme import EVERY_SEED, Drawing, Text, source
from lratlas.tables import STAGES, Tables, add_missing_columns, direct, drop_diverged_scores, finite, table
from lratlas.text import format_lr

_WIDTH, _HEIGHT = 705, 390  # pixels, without the axis and the labels on the right
_LABEL = 17  # pixels from one label to the next
_FAR = 30  # losses that differ by more than this factor get a log axis
_TIMES_START = 100  # charts end at this multiple of the loss before training
_REACH = 4.0  # an axis ends at this multiple of the median distance from the best value


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


def quality(runs: pl.DataFrame, column: str) -> pl.DataFrame:
    """Means and deviations of a score for each line and PLR, over seeds and for each seed.

    Args:
        runs: One row per model, with a column for the score.
        column: The name of this column.

    Returns:
        The columns of `accuracy_data`.
    """
    score = pl.col(column)
    deviation = score.std().fill_null(0.0)
    return (
        repeat_by_seed(runs)
        .group_by("seed", "stage", "flr", "count", "plr")
        .agg(
            mean=score.mean(),
            low=score.mean() - deviation,
            high=score.mean() + deviation,
            seeds=pl.col("one").n_unique(),
        )
        .sort("seed", stage_order(), "flr", "count", "plr")
        .with_columns(series=_series())
        .select("series", "stage", "seed", "plr", "mean", "low", "high", "seeds")
    )


def best_lines(tables: Tables) -> list[str]:
    """The lines compared for the answer: pre-trained, fine-tuned with the lowest FLR, and the best SWA-k.

    Args:
        tables: The study's tables; only ``runs`` is read.

    Returns:
        Their names as in `accuracy_data`, only of existing models.
    """
    runs = add_missing_columns(table(tables, "runs"), "runs")
    score, flr = score_of(runs), fine_tuned_runs(runs)["flr"].min()
    averages = means(average_runs(runs), score, "plr", "count")
    names = ["pre-training"]
    if isinstance(flr, float):
        names.append(f"{controls.FLR}{lr_text(flr)}")
    if averages.height:
        names.append(f"{controls.COUNT}{int(score.best(averages)['count'])}")
    return names


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
        return f"{words}, the edge of the range tested"
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
        more = "Taken when a run first reaches that training loss; runs that never reach it are left out."
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
        return "How much the test accuracy swings at a constant LR"
    return f"Late in pre-training, test accuracy swings most at {format_lr(most['plr'])}: ±{swing:.1f} points"


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
        caption="Mean over the trace rows of the last tenth of pre-training, with one standard deviation of these rows "
        "either way; over several seeds, the mean and the root of the mean variance. Runs that diverged are left out.",
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
        "Lower is better. Runs that diverged are left out; losses above a hundred times the loss before training are "
        "drawn at that height."
    )
    y, log = alt.Y("mean:Q").title("test loss"), 0 < _FAR * lowest < highest
    if log:
        # A deviation as large as the mean has no lower end on a log axis.
        data = data.with_columns(low=pl.max_horizontal("low", pl.lit(lowest / 2)))
        y = y.axis(format=".2~g", values=theme.log_ticks(lowest, highest))
    words = _words(tables, data, heading, "test loss", more)
    return quality_chart(tables, data, y, name="loss", share=False, elr=elr, best=best, words=words, log=log)


def quality_chart(
    tables: Tables,
    data: pl.DataFrame,
    y: alt.Y,
    *,
    name: str,
    share: bool,
    elr: bool,
    words: Text,
    best: Recommendation | None = None,
    log: bool = False,
) -> Drawing:
    """Lines for pre-trained, fine-tuned and averaged models, with deviations, over the shaded regimes.

    Initially the chart shows the three lines of `best_lines`; a reader can choose others, or all.

    Args:
        tables: The study's tables; ``runs``, ``regimes`` and ``boundaries``.
        data: Data from `quality`.
        y: The vertical axis.
        name: The name of the chart.
        share: The values are shares of a whole.
        elr: The LRs are effective ones.
        words: The words of the chart.
        best: The recommended PLR, to be marked.
        log: The vertical axis is logarithmic.
    """
    form = theme.PERCENT if share else ".4~g"
    lines = data.select("series", "stage").unique(maintain_order=True)
    first = [series for series in lines["series"] if series in best_lines(tables)]
    seed = controls.seed_control(data, name)
    flr, count = (
        controls.some_control(label, name, names, next((each for each in first if each in names), None))
        for label, names in (
            (label, lines.filter(stage=stage)["series"].to_list())
            for label, stage in (("FLR", "finetune"), ("k", "average"))
        )
    )
    choices = (seed, flr, count)
    pick = alt.selection_point(name="pick", fields=["series"], on="click", toggle="true")
    colour = alt.Color("series:N").scale(_series_colours(lines)).sort(None).legend(None)
    shown = [
        series
        for series, stage in lines.iter_rows()
        if {"finetune": flr, "average": count}.get(stage, seed).default in (controls.ALL, EVERY_SEED, series)
    ]
    outer = pl.col("series").is_in(shown if len(shown) <= _FEW else _outer(lines))
    packed = source(data.with_columns(outer=outer), by=["series", "stage", "seed", "outer"])
    passes = (
        seed.passes("seed"),
        controls.passes_some(flr, "stage", "finetune", "series"),
        controls.passes_some(count, "stage", "average", "series"),
    )
    frame = _Frame.of(over_seeds(data).filter(pl.col("series").is_in(shown)), share=share, log=log, best=best)
    later = _Frame.of(data, share=share, log=log, best=None)
    scale = theme.round_scale(
        *(
            controls.either(a, b, *choices)
            for a, b in zip((frame.low, frame.high), (later.low, later.high), strict=True)
        ),
        log=log,
    )
    x = theme.plr_axis(elr=elr)
    faint = alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.08))
    band = (
        packed.chart(*passes, "datum.outer")
        .mark_area(clip=True)
        .encode(
            x=x,
            y=alt.Y("low:Q").scale(scale),
            y2=alt.Y2("high:Q"),
            color=colour,
            opacity=alt.when(pick).then(alt.value(0.14 if len(lines) > 1 else 0.3)).otherwise(alt.value(0)),
        )
    )
    line = (
        packed.chart(*passes)
        .mark_line(clip=True, point=alt.OverlayMarkDef(size=30), strokeWidth=2.2)
        .encode(
            x=x,
            y=y.scale(scale),
            color=colour,
            opacity=faint,
            tooltip=[
                alt.Tooltip("series:N"),
                theme.plr_tip(),
                alt.Tooltip("mean:Q").format(form),
                alt.Tooltip("low:Q").title("mean − deviation").format(form),
                alt.Tooltip("high:Q").title("mean + deviation").format(form),
                alt.Tooltip("seeds:Q"),
            ],
        )
    )
    untouched = " && ".join(one.is_at(one.default) for one in choices)
    ends = _label_rows(data, shown, frame, later)
    labels = (
        source(ends, by=["series", "stage", "at_first"])
        .chart(f"datum.at_first === ({untouched})", *passes[1:])
        .encode(x=x, y=alt.Y("mean:Q").scale(scale), opacity=faint)
    )
    named = len(lines) > 1
    names = line_names(labels, colour, lettering=13) if named else []
    pickable = names.pop() if named else line
    pickable = pickable.add_params(pick)
    bands = regime_bands(tables)
    layers = [
        *theme.shading(bands, width=_WIDTH),
        *theme.marked(tables, best),
        band,
        (line if named else pickable).add_params(theme.zoom(name)),
        *names,
        *([pickable] if named else []),
        *theme.pointed(bands),
    ]
    chart = alt.LayerChart(layer=layers).properties(width=_WIDTH, height=_HEIGHT)
    return theme.finish(chart, words, *(one.parameter for one in choices))


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """The ends of a vertical axis."""

    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, data: pl.DataFrame, *, share: bool, log: bool, best: Recommendation | None) -> "_Frame":
        """An axis that resolves the differences of the best values; far worse values are outside.

        Args:
            data: Rows with ``plr``, ``mean``, ``low`` and ``high``.
            share: The values are shares, so the axis stays in [0, 1].
            log: The axis is logarithmic; it shows all values.
            best: Defines which values are better; None to show all.
        """
        low, high = (float(data[name].quantile(at) or 0.0) for name, at in (("low", 0.0), ("high", 1.0)))
        if best is not None and not log:
            top, worst, middle = (
                float(data["mean"].quantile(at) or 0.0) for at in ((1, 0, 0.5) if share else (0, 1, 0.5))
            )
            reach = min(abs(top - worst), _REACH * abs(top - middle)) or abs(top - worst)
            near = data.filter((pl.col("mean") - top).abs() <= reach)
            low, high = (float(near[name].quantile(at) or 0.0) for name, at in (("mean", 0.0), ("mean", 1.0)))
            close = near.filter((pl.col("mean") - top).abs() <= 0.5 * reach)
            low, high = min(low, *close["low"]), max(high, *close["high"])
        if share:
            low, high = max(low, 0.0), min(high, 1.0)
        return cls(low=low, high=high if high > low else low + 1e-3, log=log)


_SWING = 0.05  # smallest fluctuation of accuracy that counts
_FEW = 6  # lines with a band; more bands would hide each other


def _label_rows(data: pl.DataFrame, shown: Sequence[str], first: _Frame, later: _Frame) -> pl.DataFrame:
    """The names at the ends of the lines, moved apart: for the initial lines, and for all lines."""
    ends = (
        over_seeds(data)
        .group_by("series", "stage", maintain_order=True)
        .agg(pl.col("plr", "mean").sort_by("plr").last())
    )
    name = (
        pl.when(stage="pretrain")
        .then(pl.lit("pre-trained"))
        .when(stage="finetune")
        .then(pl.lit("fine-tuned, ") + pl.col("series"))
        .otherwise(pl.lit("averaged, ") + pl.col("series"))
    )
    ends = ends.with_columns(plr=pl.lit(data["plr"].max()), label=name)
    parts = [
        _named(ends.filter(pl.col("series").is_in(list(shown))), first).with_columns(at_first=True),
        _named(ends, later).with_columns(at_first=False),
    ]
    return pl.concat(parts)


def _named(ends: pl.DataFrame, frame: _Frame) -> pl.DataFrame:
    rows = place_names(ends, frame.low, frame.high, height=_HEIGHT, room=_LABEL, log=frame.log)
    # ``place`` counts from the top, for layouts without room next to the panel.
    return rows.with_columns(place=pl.int_range(rows.height - 1, -1, -1))


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


def _series() -> pl.Expr:
    return (
        pl.when(pl.col("stage") == "pretrain")
        .then(pl.lit("pre-training"))
        .when(pl.col("stage") == "finetune")
        .then(pl.lit(controls.FLR) + lr_column("flr"))
        .otherwise(pl.lit(controls.COUNT) + pl.col("count").cast(pl.String))
    )


def _outer(lines: pl.DataFrame) -> list[str]:
    """The first and the last line of each stage."""
    ends = lines.group_by("stage").agg(first=pl.col("series").first(), last=pl.col("series").last())
    return [*ends["first"], *ends["last"]]


def _series_colours(lines: pl.DataFrame) -> alt.Scale:
    stages: Sequence[str] = lines["stage"].to_list()
    colours = (
        [theme.NEUTRAL] * stages.count("pretrain")
        + theme.ramp(theme.FLR_RAMP, stages.count("finetune"))
        + theme.ramp(theme.SWA_RAMP, stages.count("average"))
    )
    return alt.Scale(domain=lines["series"].to_list(), range=colours)
