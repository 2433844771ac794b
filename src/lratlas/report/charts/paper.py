"""The figures of the paper, drawn from a study's tables for print, with error bands and named lines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from lratlas.errors import StudyError
from lratlas.report import axes, theme
from lratlas.report.charts.catalog import CHARTS, TableChart
from lratlas.report.charts.geometry import geometry_rows
from lratlas.report.charts.learned import band_rows, feature_rows
from lratlas.report.charts.quality import accuracy_data, last_tenth_data
from lratlas.report.frames import over_seeds, regime_bands
from lratlas.report.labels import line_names, place_names
from lratlas.report.rows import inline
from lratlas.report.theme import Drawing, Text
from lratlas.tables import Tables

_HEIGHT, _LABEL = 210, 11.5  # pixels: height of a panel, and distance between labels
_ROOM = 115  # pixels next to a panel for the names of its lines
_WHOLE = 660  # pixels, for all panels with the names next to them
_MANY = 12  # lines; from this number on each is thinner
_RANKED = ("all features", "best feature", "second", "third")


@dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """A figure of the paper.

    Attributes:
        number: Its number in the paper for images, and by default for the ticks.
        shows: Its content in words.
        draw: The function from tables to a drawing; a name for a chart of the data set.
        ticks: Its number for the ticks; None if it is the number for images.
    """

    number: int
    shows: str
    draw: TableChart | str
    ticks: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """Lines with bands: rows with ``series``, ``plr``, ``mean``, ``low``, ``high``, and their style."""

    title: str
    rows: pl.DataFrame
    colours: Mapping[str, str]
    y: str
    share: bool = True
    named: bool = True


def swings_figure(tables: Tables, *, elr: bool = False) -> Drawing:
    """Test accuracy over the last tenth of pre-training (Fig. 1)."""
    rows = over_seeds(last_tenth_data(tables))
    return _draw(tables, [_Panel(title="", rows=rows, colours={"pre-training": theme.STRONG[1]}, y=_ACCURACY)], elr=elr)


def quality_figure(tables: Tables, *, elr: bool = False) -> Drawing:
    """Test accuracy after fine-tuning and after averaging, next to pre-training (Figs. 2, 10, 15)."""
    data = over_seeds(accuracy_data(tables))
    panels = [
        _Panel(
            title=title,
            rows=(rows := data.filter(pl.col("stage").is_in(["pretrain", stage]))),
            colours=_ramp(rows, stage, ramp),
            y=_ACCURACY,
        )
        for title, stage, ramp in (
            ("fine-tuned", "finetune", theme.FLR_RAMP),
            ("weights averaged", "average", theme.SWA_RAMP),
        )
        if stage in data["stage"]
    ]
    if not panels:
        raise StudyError("It needs fine-tuned or averaged models, but there are none.")
    return _draw(tables, panels, elr=elr)


def geometry_figure(tables: Tables, *, elr: bool = False) -> Drawing:
    """Angle and barriers between the solutions of one PLR, medians and quartiles over seeds (Figs. 3, 14, 16)."""
    rows, middle = geometry_rows(tables), pl.col("value")
    summed = (
        rows.group_by("measure", "pair", "plr")
        .agg(mean=middle.median(), low=middle.quantile(0.25), high=middle.quantile(0.75))
        .drop_nulls()
        .sort("measure", "pair", "plr")
        .rename({"pair": "series"})
    )
    names = {"angle": "angle, radians", "train_barrier": "train error barrier", "test_barrier": "test error barrier"}
    colours = dict(zip(rows["pair"].unique(maintain_order=True), theme.STRONG, strict=False))
    shown = [name for name in names if name in summed["measure"]]
    panels = [
        _Panel(
            title=names[name],
            rows=summed.filter(measure=name),
            colours=colours,
            y="",
            share=name != "angle",
            named=name == shown[-1],
        )
        for name in shown
    ]
    return _draw(tables, panels, elr=elr)


def features_figure(tables: Tables, *, elr: bool = False) -> Drawing:
    """Sorted single-feature accuracies before and after fine-tuning, and the test accuracy (Fig. 5)."""
    rows = feature_rows(tables)
    others = pl.format("feature {}", "rank")
    named = rows.with_columns(series=pl.col("rank").replace_strict(range(4), _RANKED, default=others))
    colours = dict.fromkeys(named.sort("rank", descending=True)["series"].unique(maintain_order=True), theme.NEUTRAL)
    colours |= dict(zip(_RANKED, ("#000000", *theme.STRONG), strict=True))
    return _draw(tables, _by_model(named, colours, "accuracy on one feature"), elr=elr)


def bands_figure(tables: Tables, *, elr: bool = False) -> Drawing:
    """Accuracy on single Fourier bands, before and after fine-tuning (Figs. 6, 7, 18)."""
    rows = band_rows(tables).filter("kept")
    names = rows.sort("low")["band"].unique(maintain_order=True).to_list()
    colours = dict(zip(names, theme.ramp(theme.BAND_RAMP, len(names)), strict=True))
    return _draw(tables, _by_model(rows.rename({"band": "series"}), colours, "accuracy on one band"), elr=elr)


_ACCURACY = "test accuracy"

FIGURES: Sequence[PaperFigure] = (
    PaperFigure(number=1, shows="test accuracy over the last epochs of pre-training", draw=swings_figure),
    PaperFigure(number=2, ticks=15, shows="test accuracy after fine-tuning and averaging", draw=quality_figure),
    PaperFigure(number=3, ticks=16, shows="angle and barriers between solutions", draw=geometry_figure),
    PaperFigure(number=4, shows="one feature of the ticks", draw="ticks"),
    PaperFigure(number=5, shows="accuracy on single features", draw=features_figure),
    PaperFigure(number=7, shows="accuracy on single Fourier bands", draw=bands_figure),
    PaperFigure(number=9, shows="an image and its Fourier bands", draw="band_picture"),
    PaperFigure(number=11, shows="epochs to convergence", draw=CHARTS["convergence"]),
    PaperFigure(number=12, shows="two stages", draw=CHARTS["two_stages"]),
    PaperFigure(number=13, shows="norms of the filters", draw=CHARTS["norms"]),
    PaperFigure(number=17, shows="single features of all models", draw=CHARTS["features_full"]),
    PaperFigure(number=26, shows="sharpness and test error", draw=CHARTS["sharpness"]),
)
"""All figures that a study can have the data for; the paper's other figures repeat them for other tasks."""


def _ramp(rows: pl.DataFrame, stage: str, stops: Sequence[str]) -> dict[str, str]:
    names = rows.filter(stage=stage)["series"].unique(maintain_order=True).to_list()
    return {"pre-training": theme.NEUTRAL} | dict(zip(names, theme.ramp(stops, len(names)), strict=True))


def _by_model(rows: pl.DataFrame, colours: Mapping[str, str], y: str) -> list[_Panel]:
    """A panel for pre-trained models, and one for models fine-tuned with the lowest FLR."""
    mean, deviation = pl.col("accuracy").mean(), pl.col("accuracy").std().fill_null(0.0)
    kinds = {"pre-trained": rows.filter(stage="pretrain"), "fine-tuned": rows.filter(stage="finetune")}
    kinds["fine-tuned"] = kinds["fine-tuned"].filter(pl.col("flr") == pl.col("flr").min())
    summed = {
        title: part.group_by("series", "plr")
        .agg(mean=mean, low=mean - deviation, high=mean + deviation)
        .sort("series", "plr")
        for title, part in kinds.items()
        if part.height
    }
    if not summed:
        raise StudyError("It needs pre-trained or fine-tuned models, but there are none.")
    *_, last = summed
    return [_Panel(title=title, rows=part, colours=colours, y=y, named=title == last) for title, part in summed.items()]


def _draw(tables: Tables, panels: Sequence[_Panel], *, elr: bool) -> Drawing:
    """Panels side by side over one kind of horizontal axis."""
    names = sum(panel.named and len(panel.colours) > 1 for panel in panels)
    width = round((_WHOLE - _ROOM * names) / len(panels)) - 48
    height = None if len(panels) == 1 else _HEIGHT
    drawn = [_draw_panel(tables, panel, width, height, elr=elr) for panel in panels]
    joined = alt.hconcat(*drawn, spacing=14).resolve_scale(color="independent")
    chart: Drawing = drawn[0] if len(drawn) == 1 else joined
    return theme.finish(chart, Text(heading="", caption="", alt="A figure of the paper."))


def _draw_panel(tables: Tables, panel: _Panel, width: int, height: int | None, *, elr: bool) -> alt.LayerChart:
    colours = {name: colour for name, colour in panel.colours.items() if name in panel.rows["series"]}
    ends = axes.limits(panel.rows, "low", "high", share=panel.share, floor=None if panel.share else 0.0) or (0.0, 1.0)
    scale = axes.round_scale(*ends, height=height)
    colour = alt.Color("series:N").scale(domain=list(colours), range=list(colours.values())).legend(None)
    x, y = axes.plr_axis(elr=elr), alt.Y("mean:Q").scale(scale).title(panel.y or None)
    y = y.axis(format="~%" if panel.share else ".1f", tickCount=5)
    rows = alt.Chart(inline(panel.rows)).encode(x=x, color=colour)
    # With many lines, all bands would hide each other.
    banded = rows.transform_filter(alt.FieldOneOfPredicate(field="series", oneOf=_outer(list(colours))))
    layers = [
        *theme.shading(regime_bands(tables), width=width, lettering=10),
        *theme.marked(tables, lettering=0),
        banded.mark_area(opacity=0.16, clip=True).encode(y=alt.Y("low:Q").scale(scale), y2="high:Q"),
        rows.mark_line(strokeWidth=1.5 if len(colours) <= _MANY else 1, clip=True).encode(y=y),
    ]
    if panel.named and len(colours) > 1:
        names = _names(panel.rows, ends).encode(x=x, y=alt.Y("mean:Q").scale(scale))
        layers += line_names(names, colour, lettering=10)
    return alt.LayerChart(layer=layers).properties(width=width, height=_HEIGHT, title=panel.title)


def _outer(names: list[str]) -> list[str]:
    return names if len(names) <= 3 else [names[0], names[1], names[-1]]


def _names(rows: pl.DataFrame, ends: tuple[float, float]) -> alt.Chart:
    """The names of the lines at their ends, moved apart; for many features only the first ones."""
    last = rows.group_by("series", maintain_order=True).agg(pl.col("plr", "mean").sort_by("plr").last())
    last = last.with_columns(plr=pl.lit(rows["plr"].max())).filter(~pl.col("series").str.contains(r"^feature \d"))
    placed = place_names(last, *ends, height=_HEIGHT, room=_LABEL)
    below = max(0.0, *(ends[0] - placed["mean"].head(1)))
    return alt.Chart(inline(placed.with_columns(pl.col("mean") + below, label="series")))
