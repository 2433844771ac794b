"""Charts of custom measurements: data and drawings from the declaration of the measurement."""

import altair as alt
import polars as pl

from lratlas.measure.base import Chart
from lratlas.report import axes, theme
from lratlas.report.charts import controls
from lratlas.report.charts.score_lines import quality, quality_chart
from lratlas.report.frames import name_models, need, stage_order
from lratlas.report.rows import source
from lratlas.report.theme import Drawing, Text
from lratlas.tables import Tables, finite, table

_PLR = "plr"
_MODEL = ["stage", "flr", "count"]
_LINES = "Mean over seeds ± one standard deviation"
_MARKS = "A mark for each row of the table"


def make_text(name: str, chart: Chart) -> Text:
    """The words of a custom measurement's chart.

    Args:
        name: The name of the measurement.
        chart: Its declared chart.
    """
    drawn = _LINES if chart.x == _PLR else _MARKS
    series = f", by {_axis_title(chart.series)}" if chart.series else ""
    against = "the pre-training LR" if chart.x == _PLR else _axis_title(chart.x)
    return Text(
        heading=chart.title or _axis_title(name).capitalize(),
        caption=f"{_axis_title(chart.y).capitalize()} against {against}{series}, from the table {name} of a custom"
        f" measurement. {drawn}. Runs that diverged are omitted.",
        alt=f"Chart of {_axis_title(chart.y)} against {against}{series}, for pre-trained, fine-tuned and averaged"
        " models.",
    )


def make_data(tables: Tables, name: str, chart: Chart) -> pl.DataFrame:
    """The data of a custom measurement's chart.

    Args:
        tables: The study's tables; the measurement's table and ``runs``.
        name: The name of the measurement.
        chart: Its declared chart.

    Returns:
        Against the PLR, one row per line and PLR, as from `lratlas.report.charts.quality.accuracy_data`; with a series,
        over all seeds together, with ``model`` and the series. Against another column, the rows of the table with
        ``model``.

    Raises:
        StudyError: The table has no number to show.
    """
    rows = finite(need(tables, name, name, chart.y), table(tables, "runs")).drop_nulls([chart.x, chart.y])
    value = pl.col(chart.y)
    if chart.x != _PLR:
        return name_models(rows.sort(stage_order(), "flr", "count", _PLR, "seed"))
    kept = [*_MODEL, _PLR, "seed", *([chart.series] if chart.series else [])]
    each = rows.group_by(kept, maintain_order=True).agg(value.mean())
    if chart.series is None:
        return quality(each, chart.y)
    spread = value.std().fill_null(0.0)
    return name_models(
        each.group_by(*_MODEL, chart.series, _PLR)
        .agg(mean=value.mean(), low=value.mean() - spread, high=value.mean() + spread, seeds=pl.col("seed").n_unique())
        .sort(stage_order(), "flr", "count", chart.series, _PLR)
    )


def make_chart(tables: Tables, name: str, chart: Chart, *, elr: bool = False) -> Drawing:
    """The drawing of a custom measurement's chart.

    Args:
        tables: The study's tables; the measurement's table, ``runs``, and ``regimes`` for the shading.
        name: The name of the measurement.
        chart: Its declared chart.
        elr: The LRs are effective ones.

    Raises:
        StudyError: The table has no number to show.
    """
    data, text = make_data(tables, name, chart), make_text(name, chart)
    if chart.x == _PLR and chart.series is None:
        y = alt.Y("mean:Q").title(_axis_title(chart.y))
        return quality_chart(tables, controls.chosen_from(data), y, name=name, share=False, elr=elr, words=text)
    models = data["model"].unique(maintain_order=True).to_list()
    across = theme.columns(len(models), most=3)
    panels = [_panel(tables, data.filter(model=model), chart, 780 // across - 40, elr=elr) for model in models]
    return theme.finish(alt.concat(*panels, columns=across, spacing=14), text)


def _panel(tables: Tables, data: pl.DataFrame, chart: Chart, width: int, *, elr: bool) -> alt.LayerChart:
    """The lines or marks of one kind of model."""
    rows = source(data, by=[name for name in ("model", "seed") if name in data.columns]).chart()
    title = data["model"][0]
    if chart.x == _PLR:
        lines = rows.mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=20)).encode(
            x=axes.plr_axis(elr=elr),
            y=alt.Y("mean:Q").scale(axes.scale(data, "low", "high")).title(_axis_title(chart.y)),
            color=alt.Color(f"{chart.series}:N").legend(orient="bottom"),
            tooltip=[f"{chart.series}:N", theme.plr_tip(), "mean:Q", "low:Q", "high:Q", "seeds:Q"],
        )
        return theme.panel(lines, tables, width=width).properties(title=title)
    colour = (
        alt.Color(f"{chart.series}:N")
        if chart.series
        else alt.Color("plr:Q")
        .scale(type="log", range=list(theme.ORDERED_RAMP), interpolate="lab")
        .title("PLR")
        .legend(format="~e", labelExpr=axes.PLAIN_EXPONENT, tickCount=5)
    )
    marks = rows.mark_point(filled=True, size=30).encode(
        x=alt.X(f"{chart.x}:Q").scale(zero=False).title(_axis_title(chart.x)),
        y=alt.Y(f"{chart.y}:Q").scale(zero=False).title(_axis_title(chart.y)),
        color=colour,
        tooltip=[theme.plr_tip(), "seed:N", f"{chart.x}:Q", f"{chart.y}:Q"],
    )
    return alt.LayerChart(layer=[marks]).properties(width=width, height=230, title=title)


def _axis_title(name: str) -> str:
    return name.replace("_", " ")
