"""The drawings, one function each; what they show comes from ``lratlas.report.charts.study_data``."""

from collections.abc import Mapping, Sequence
from pkgutil import resolve_name
from typing import Protocol

import altair as alt
import polars as pl

from lratlas.measure.base import Text
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.report import theme
from lratlas.report.charts import controls
from lratlas.report.charts.convergence import convergence_chart
from lratlas.report.charts.minima import two_stages_chart
from lratlas.report.charts.study_data import (
    accuracy_data,
    geometry_data,
    last_tenth_data,
    loss_data,
    loss_limit,
    traces_data,
)
from lratlas.report.charts.texts import TEXTS
from lratlas.report.frames import over_seeds, regime_bands
from lratlas.report.theme import Drawing, source
from lratlas.tables import Tables

_WIDTH = 545  # pixels, of the chart of accuracies
_FAR = 30  # losses that differ by more than this factor are drawn on a log axis
_PANELS = {
    "angle": "angle, radians",
    "train_barrier": "train error barrier",
    "test_barrier": "test error barrier",
}
# Without this the legend shows the faint areas of the deviations instead of the lines.
_LINES = alt.Legend(symbolType="stroke", symbolOpacity=1)


class TableChart(Protocol):
    """A function that draws one chart from nothing but the tables of a study."""

    def __call__(self, tables: Tables, *, elr: bool = False) -> Drawing:
        """The chart; ``elr`` says that the LRs are effective ones."""
        ...


def accuracy_chart(tables: Tables, *, at_loss: float | None = None, elr: bool = False) -> Drawing:
    """Test accuracy against PLR: pre-training, each FLR and each SWA-k, with the regimes shaded (Figs. 1, 2).

    Args:
        tables: The study's tables; ``runs``, ``regimes`` for the shading, ``traces`` for ``at_loss``.
        at_loss: Compare at the first trace row with this training loss or less, instead of at the end.
        elr: The LRs are effective ones.

    Raises:
        StudyError: There is no such accuracy in the tables.
    """
    data = controls.chosen_from(accuracy_data(tables, at_loss=at_loss))
    name = "accuracy" if at_loss is None else "accuracy_at_loss"
    title = "test accuracy" if at_loss is None else f"test accuracy at training loss {at_loss:g}"
    y = alt.Y("mean:Q").title(title).axis(format="%")
    return quality_chart(tables, data, y, name=name, share=True, elr=elr)


def last_tenth_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Mean and standard deviation of the test accuracy over the last tenth of pre-training, against PLR (Fig. 1).

    Args:
        tables: The study's tables; ``runs`` and ``traces``, and ``regimes`` for the shading.
        elr: The LRs are effective ones.

    Raises:
        StudyError: There is no test accuracy in the last tenth of a run.
    """
    data = controls.chosen_from(last_tenth_data(tables))
    y = alt.Y("mean:Q").title("test accuracy, last tenth").axis(format="%")
    return quality_chart(tables, data, y, name="last_tenth", share=True, elr=elr)


def loss_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Test loss against PLR, drawn as the accuracy, for tasks that have none; on a log axis where losses differ much.

    Args:
        tables: The study's tables; ``runs``, and ``regimes`` for the shading.
        elr: The LRs are effective ones.

    Raises:
        StudyError: There is no test loss of a run that did not diverge.
    """
    drawn = (pl.col(name).clip(upper_bound=loss_limit(tables)) for name in ("mean", "low", "high"))
    data = controls.chosen_from(loss_data(tables)).with_columns(drawn)
    lowest, highest = (data["mean"].quantile(share) or 0.0 for share in (0.0, 1.0))
    y = alt.Y("mean:Q").title("test loss")
    if not 0 < _FAR * lowest < highest:
        return quality_chart(tables, data, y, name="loss", share=False, elr=elr)
    # A deviation as large as the mean has no lower end there.
    data = data.with_columns(low=pl.max_horizontal("low", pl.lit(lowest / 2)))
    y = y.axis(theme.power_axis())
    return quality_chart(tables, data, y, name="loss", share=False, elr=elr, scale=alt.Scale(type="log"))


def quality_chart(
    tables: Tables,
    data: pl.DataFrame,
    y: alt.Y,
    *,
    name: str,
    share: bool,
    elr: bool,
    scale: alt.Scale | None = None,
    text: Text | None = None,
) -> Drawing:
    """A line for pre-training, each FLR and each SWA-k, with deviations, over the shaded regimes.

    Args:
        tables: The study's tables; of them only ``regimes``.
        data: As of `lratlas.report.charts.study_data.quality`.
        y: The vertical axis.
        name: Of the chart.
        share: The values are shares of a whole.
        elr: The LRs are effective ones.
        scale: Of the vertical axis; None for one that shows all.
        text: The words of the chart; None for those that the package has.
    """
    form = theme.PERCENT if share else ".4~g"
    lines = data.select("series", "stage").unique(maintain_order=True)
    seed = controls.seed_control(data, name)
    flr, count = (
        controls.some_control(label, name, lines.filter(stage=stage)["series"].to_list())
        for label, stage in (("FLR", "finetune"), ("k", "average"))
    )
    pick = theme.pick("series")
    colour = alt.Color("series:N").scale(_series_colours(lines)).sort(None).title(None).legend(_LINES)
    # Only the outer lines of each kind have a band; seventeen of them would hide each other.
    packed = source(
        data.with_columns(outer=pl.col("series").is_in(_outer(lines))), by=["series", "stage", "seed", "outer"]
    )
    passes = (
        seed.passes("seed"),
        controls.passes_some(flr, "stage", "finetune", "series"),
        controls.passes_some(count, "stage", "average", "series"),
    )
    scale = scale or controls.scale(over_seeds(data), data, ("low", "high"), seed, share=share)
    x = theme.plr_axis(elr=elr)
    band = (
        packed.chart(*passes, "datum.outer")
        .mark_area(clip=True)
        .encode(
            x=x,
            y=alt.Y("low:Q").scale(scale),
            y2=alt.Y2("high:Q"),
            color=colour,
            opacity=alt.when(pick).then(alt.value(0.12 if len(lines) > 1 else 0.3)).otherwise(alt.value(0)),
        )
    )
    line = (
        packed.chart(*passes)
        .mark_line(clip=True, point=alt.OverlayMarkDef(size=22))
        .encode(
            x=x,
            y=y.scale(scale),
            color=colour,
            opacity=theme.fade(pick, 0.08),
            # The other lines are drawn over this one.
            strokeWidth=alt.condition("datum.stage == 'pretrain'", alt.value(3.2), alt.value(1.6)),
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
    chart = alt.LayerChart(
        layer=[*theme.shading(regime_bands(tables), width=_WIDTH), band, line.add_params(pick, theme.zoom(name))]
    )
    chosen = (seed.parameter, flr.parameter, count.parameter)
    return theme.finish(chart.properties(width=_WIDTH, height=330), (text or TEXTS[name]).alt, *chosen)


def geometry_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Angle, train barrier and test barrier between the solutions of each PLR, median over seeds (Fig. 3).

    Barriers along the great circle, where measured, are dashed.

    Args:
        tables: The study's tables; ``pairs``, and ``regimes`` for the shading.
        elr: The LRs are effective ones.

    Raises:
        StudyError: The table ``pairs`` is empty.
    """
    data, bands = controls.chosen_from(geometry_data(tables)), regime_bands(tables)
    seed = controls.seed_control(data, "geometry", together="median over seeds")
    pick = theme.pick("pair")
    arcs = [f"{name}_arc" for name in _PANELS if name != "angle" and data[f"{name}_arc"].count()]
    measures = [alt.Tooltip(f"{name}:Q").format(".3f") for name in (*_PANELS, *arcs)]
    colour = alt.Color("pair:N").scale(range=list(theme.STRONG)).sort(None).title(None).legend(orient="bottom")
    base = (
        source(data, by=["pair", "seed"])
        .chart(seed.passes("seed"))
        .encode(
            x=theme.plr_axis(elr=elr),
            color=colour,
            opacity=theme.fade(pick),
            tooltip=[alt.Tooltip("pair:N"), theme.plr_tip(), *measures, alt.Tooltip("seeds:Q")],
        )
    )
    panels: list[alt.LayerChart] = []
    # Without accuracies there is no error, so no barrier; the angle is always known.
    known = {name: title for name, title in _PANELS.items() if name == "angle" or data[name].count()}
    for i, (name, title) in enumerate(known.items()):
        arc = f"{name}_arc" if f"{name}_arc" in arcs else name
        ends = data.select("seed", low=pl.min_horizontal(name, arc), high=pl.max_horizontal(name, arc))
        scale = controls.scale(over_seeds(ends), ends, ("low", "high"), seed, floor=0.0)
        line = (
            base.mark_line(clip=True, strokeWidth=1.8, point=alt.OverlayMarkDef(size=26))
            .encode(y=alt.Y(f"{name}:Q").title(title).scale(scale))
            .add_params(*((pick,) if i == 0 else ()), theme.zoom(name))
        )
        panel = theme.panel(line, bands, width=170)
        if arc in arcs:
            panel += base.mark_line(clip=True, strokeWidth=1.4, strokeDash=[4, 3]).encode(y=alt.Y(f"{arc}:Q"))
        panels.append(panel)
    return theme.finish(alt.hconcat(*panels, spacing=14), TEXTS["geometry"].alt, seed.parameter)


def traces_chart(tables: Tables, *, elr: bool = False) -> Drawing:
    """Training loss and gradient norm of pre-training against the step, one line per PLR, mean over seeds.

    Args:
        tables: The study's tables; ``runs`` and ``traces``.
        elr: The LRs are effective ones.

    Raises:
        StudyError: There is no trace of a pre-training run.
    """
    limit = loss_limit(tables)
    data = controls.chosen_from(traces_data(tables)).with_columns(
        pl.col("train_loss").clip(upper_bound=limit),
        gradient_norm=pl.when((pl.col("train_loss") <= limit).fill_null(value=True)).then("gradient_norm"),
    )
    seed = controls.seed_control(data, "traces")
    rows = source(data, by=["seed", "plr"]).chart(seed.passes("seed"))
    steps = alt.Axis(format="~s", labelExpr="datum.value ? datum.label : '0'", tickCount=5, grid=False)
    x = alt.X("step:Q").axis(steps)
    colour = theme.plr_colour(elr=elr, length=210)
    panels: list[alt.LayerChart] = []
    for name, title in (("train_loss", "training loss"), ("gradient_norm", "gradient norm")):
        y = alt.Y(f"{name}:Q").scale(type="log").title(title).axis(theme.power_axis())
        line = rows.mark_line(clip=True, strokeWidth=1.3).encode(x=x, y=y, color=colour, detail=alt.Detail("plr:N"))
        values = [theme.plr_tip(), "step:Q", alt.Tooltip(f"{name}:Q").title(title).format(".3g")]
        points = theme.hover(rows).encode(x=x, y=y, tooltip=values)
        panel = alt.LayerChart(layer=[line.add_params(theme.zoom(name)), points])
        panels.append(panel.properties(width=248, height=250))
    return theme.finish(alt.hconcat(*panels, spacing=14), TEXTS["traces"].alt, seed.parameter)


CHARTS: Mapping[str, TableChart] = {
    "accuracy": accuracy_chart,
    "last_tenth": last_tenth_chart,
    "loss": loss_chart,
    **{figure.name: resolve_name(figure.draw) for measurement in MEASUREMENTS for figure in measurement.needs.figures},
    "traces": traces_chart,
    "convergence": convergence_chart,
    "two_stages": two_stages_chart,
}


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
