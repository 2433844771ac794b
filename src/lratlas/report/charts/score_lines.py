"""Lines of a score against the PLR, of pre-trained, fine-tuned and averaged models: data and drawing."""

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from lratlas.analysis.scores import average_runs, fine_tuned_runs, means, score_of
from lratlas.recommendation import Recommendation
from lratlas.report import axes, theme
from lratlas.report.charts import controls
from lratlas.report.frames import lr_column, lr_text, over_seeds, regime_bands, repeat_by_seed, stage_order
from lratlas.report.labels import line_names, place_names
from lratlas.report.rows import EVERY_SEED, source
from lratlas.report.theme import Drawing, Text
from lratlas.tables import Tables, add_missing_columns, table

_WIDTH, _HEIGHT = 705, 390  # pixels, without the axis and the labels on the right
_LABEL = 17  # pixels from one label to the next
_REACH = 4.0  # an axis ends at this multiple of the median distance from the best value
_FEW = 6  # lines with a band; more bands would hide each other


def quality(runs: pl.DataFrame, column: str) -> pl.DataFrame:
    """Means and deviations of a score for each line and PLR, over seeds and for each seed.

    Args:
        runs: One row per model, with a column for the score.
        column: The name of this column.

    Returns:
        The columns of `lratlas.report.charts.quality.accuracy_data`.
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


def _series() -> pl.Expr:
    return (
        pl.when(pl.col("stage") == "pretrain")
        .then(pl.lit("pre-training"))
        .when(pl.col("stage") == "finetune")
        .then(pl.lit(controls.FLR) + lr_column("flr"))
        .otherwise(pl.lit(controls.COUNT) + pl.col("count").cast(pl.String))
    )


def best_lines(tables: Tables) -> list[str]:
    """The lines compared for the answer: pre-trained, fine-tuned with the lowest FLR, and the best SWA-k.

    Args:
        tables: The study's tables; only ``runs`` is read.

    Returns:
        Their names as in `quality`, only of existing models.
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
    scale = axes.round_scale(
        *(
            controls.either(a, b, *choices)
            for a, b in zip((frame.low, frame.high), (later.low, later.high), strict=True)
        ),
        log=log,
    )
    x = axes.plr_axis(elr=elr)
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
