"""The theme of all charts: colours, sizes, axes, and compact rows inside them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import altair as alt
import polars as pl

from lratlas.recommendation import Recommendation
from lratlas.report.frames import regime_bands
from lratlas.tables import Tables, harmless_table, table
from lratlas.text import format_lr, harmless_parts

Drawing: TypeAlias = alt.LayerChart | alt.HConcatChart | alt.ConcatChart | alt.Chart

# Okabe and Ito's colours, distinguishable with any colour vision. Orange and light blue are darkened, and the ramps
# chosen, so that every colour of a mark has a contrast of 3 to 1 to a white page and to a dark one.
REGIME_COLOURS = {
    "1": "#0072B2",
    "2A": "#009E73",
    "2B": "#CC8400",
    "2": "#2E96D1",
    "3": "#CC79A7",
    "undecided": "#828282",
}
NEUTRAL = "#828282"
# For lines over the shaded regimes: also a contrast of 3 to 1 to the tint of any regime.
STRONG = ("#D55E00", "#1A85C9", "#009468")
FLR_RAMP = ("#2D9DC6", "#1F74C4", "#6A55C8")
SWA_RAMP = ("#C48600", "#D4551A", "#B83A50")
# For ordered values, LRs and lengths: darker for more, with steps visible with any colour vision. Green is reserved for
# expected values.
ORDERED_RAMP = ("#A59000", "#E54B5F", "#9C48B8", "#5742FB")
# From low frequencies to high ones, like the spectrum of light.
BAND_RAMP = ("#C03A00", "#C48600", "#009E73", "#0072B2")

# The name of a band that is wide enough for it.
REGIME_NAMES = {
    "1": "converges",
    "2A": "plateau, one basin",
    "2B": "plateau, several basins",
    "2": "plateau",
    "3": "diverges",
    "undecided": "undecided",
}
# Pixels above an axis for the names of regimes.
HEADROOM = 30
LR_FORMAT = ".2~e"
PERCENT = ".1%"
# Vega writes 1e+0 instead of 1e0.
PLAIN_EXPONENT = "replace(datum.label, '+', '')"
# Figures embed the first font; the others have its metrics.
FONT = "Arimo, Helvetica, Arial, sans-serif"


@dataclass(frozen=True, kw_only=True)
class Text:
    """The words of one chart.

    Attributes:
        heading: The finding in the data, or the content of the chart if there is none.
        caption: How to read the chart.
        alt: A description for readers who cannot see the chart.
    """

    heading: str
    caption: str
    alt: str


def inline(frame: pl.DataFrame) -> alt.InlineData:
    """The rows of a frame embedded in the chart, floats rounded to six digits, NaN as null (JSON has no NaN)."""
    return alt.InlineData(values=values_of(frame))


def ramp(stops: Sequence[str], count: int) -> list[str]:
    """``count`` colours evenly spaced along two or more hexadecimal colours; a single one is the last."""
    parts = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops]
    legs = list(pairwise(parts))
    places = [len(legs) * ((i + 1) / count if count == 1 else i / (count - 1)) for i in range(count)]
    starts = [min(int(place), len(legs) - 1) for place in places]
    mixed = [_between(*legs[start], place - start) for start, place in zip(starts, places, strict=True)]
    return ["#" + "".join(f"{part:02X}" for part in colour) for colour in mixed]


def plr_axis(*, elr: bool) -> alt.X:
    """The log axis of the pre-training LR, with one labelled tick per decade until zoomed in."""
    return (
        alt.X("plr:Q")
        .scale(type="log", nice=False)
        .title("pre-training LR (ELR)" if elr else "pre-training LR")
        .axis(
            format="~e",
            labelExpr=PLAIN_EXPONENT,
            tickCount=6,
            labelOverlap="greedy",
            labelSeparation=4,
            grid=False,
        )
    )


def power_axis() -> alt.Axis:
    """The axis of a log scale over many decades."""
    return alt.Axis(format="~e", labelExpr=PLAIN_EXPONENT, tickCount=5)


def limits(
    data: pl.DataFrame, lowest: str, highest: str, *, floor: float | None = None, share: bool = False
) -> tuple[float, float] | None:
    """The ends of a scale that covers two columns.

    Args:
        data: The rows.
        lowest: The column with the lowest values.
        highest: The column with the highest.
        floor: The start of the scale, unless there are lower values.
        share: The values are shares of a whole: deviations below 0 or above 1 are cut off.

    Returns:
        The ends; None if a column has no value.
    """
    ends = data.select(low=pl.min_horizontal(pl.col(lowest).min(), pl.lit(floor)), high=pl.col(highest).max())
    low, high = ends.row(0)
    if low is None or high is None:
        return None
    if share:
        low, high = max(low, 0.0), min(high, 1.0)
    return low, max(high, low + 1e-3)


def scale(
    data: pl.DataFrame,
    lowest: str,
    highest: str,
    *,
    floor: float | None = None,
    share: bool = False,
    height: int | None = None,
) -> alt.Scale:
    """The `round_scale` with these `limits`."""
    ends = limits(data, lowest, highest, floor=floor, share=share)
    return round_scale(*ends, height=height) if ends else alt.Scale()


def round_scale(low: Any, high: Any, *, height: int | None = None, log: bool = False) -> alt.Scale:
    """The scale from ``low`` to ``high``, numbers or expressions, rounded to ticks, with room above for names.

    The room is in pixels, beyond the scale: an axis never extends beyond the possible values.

    Args:
        low: The lower end.
        high: The upper end.
        height: The height of the panel, in pixels; None for a chart with a single panel.
        log: The scale is logarithmic, and not rounded.
    """
    ends = alt.Scale(domain=[low, high], rangeMin=height or alt.expr("height"), rangeMax=HEADROOM, nice=not log)
    if log:
        ends.type = "log"
    else:
        ends.zero = False
    return ends


def columns(panels: int, *, most: int) -> int:
    """The number of columns of a grid of panels, with rows filled as evenly as possible.

    >>> columns(4, most=3), columns(5, most=3), columns(17, most=5)
    (2, 3, 5)
    """
    return math.ceil(panels / math.ceil(panels / most))


def plr_tip() -> alt.Tooltip:
    """The tooltip with the PLR of a mark."""
    return alt.Tooltip("plr:Q").title("PLR").format(LR_FORMAT)


def zoom(name: str) -> alt.Parameter:
    """Drag to pan and Alt + wheel to zoom along x, so that the plain wheel still scrolls the page."""
    return alt.selection_interval(name=f"zoom_{name}", bind="scales", encodings=["x"], zoom="wheel![event.altKey]")


def shading(bands: pl.DataFrame, *, width: int, lettering: int = 11) -> list[alt.Chart]:
    """Background layers for lines over PLR: a tinted, labelled band per regime; no layers without bands.

    Args:
        bands: The regimes (see `lratlas.report.frames.regime_bands`).
        width: The width of the panel, in pixels; names that would touch are on two levels.
        lettering: Size of the names, in pixels.
    """
    if bands.is_empty():
        return []
    pixels = (pl.col("high") / pl.col("low")).log() / math.log(bands["high"][-1] / bands["low"][0]) * width
    whole = pl.col("regime").replace_strict({name: f"{name} {said}" for name, said in REGIME_NAMES.items()})
    needed = whole.str.len_chars() * 0.7 * lettering
    label = (
        pl.when(pixels > needed)
        .then(whole)
        .otherwise(pl.col("regime"))
        .replace({"undecided": "?", "undecided undecided": "undecided"})
    )
    named = bands.with_columns(
        label=label, lowered=pl.Series(_lower_names(bands, width, 1.6 * lettering), dtype=pl.Boolean)
    )
    colours = alt.Scale(domain=list(REGIME_COLOURS), range=list(REGIME_COLOURS.values()))
    rows = inline(named)
    tips = [alt.Tooltip("regime:N"), *(alt.Tooltip(f"{end}:Q").format(LR_FORMAT) for end in ("low", "high"))]
    bars = (
        alt.Chart(rows)
        .mark_rect(opacity=0.16, clip=True)
        .encode(
            x=alt.X("low:Q"), x2=alt.X2("high:Q"), fill=alt.Fill("regime:N").scale(colours).legend(None), tooltip=tips
        )
    )
    labels = (
        alt.Chart(rows)
        .mark_text(
            baseline="top",
            fontWeight="bold",
            fontSize=lettering,
            dy=alt.expr(f"datum.lowered ? {lettering} : 0"),
            clip=True,
        )
        .encode(x=alt.X("middle:Q"), y=alt.YValue(4), text=alt.Text("label:N"), tooltip=tips)
    )
    return [bars, labels]


def hover(base: alt.Chart) -> alt.Chart:
    """Invisible points on lines, so that the pointer can read each of their values.

    Args:
        base: A chart with the data of the lines and the tooltip; the points add any missing encodings.
    """
    return base.mark_point(filled=True, opacity=0, size=70, clip=True)


def panel(
    lines: alt.Chart | alt.LayerChart, tables: Tables, *, width: int, height: int = 250, lettering: int = 11
) -> alt.LayerChart:
    """One of several charts side by side, with shaded regimes behind its lines and the threshold marked.

    Args:
        lines: The lines of the panel.
        tables: The study's tables; ``regimes`` and ``boundaries``.
        width: The width in pixels.
        height: The height in pixels.
        lettering: Size of the names of regimes, in pixels.
    """
    bands = regime_bands(tables)
    behind = [*shading(bands, width=width, lettering=lettering), *marked(tables, lettering=0)]
    return alt.LayerChart(layer=[*behind, lines, *pointed(bands)]).properties(width=width, height=height)


def spec_of(chart: Drawing) -> dict[str, Any]:
    """The chart as a Vega-Lite specification, with harmless text."""
    return harmless_parts(chart.to_dict(validate=False))


POINTED = "lr_pointed_at"
"""The parameter of every chart with the LR under the pointer, in any chart; 0 for none."""


def pointed(bands: pl.DataFrame) -> list[alt.Chart]:
    """A vertical line at the LR under the pointer; none without regimes.

    Args:
        bands: The regimes (see `lratlas.report.frames.regime_bands`); an LR outside them is not shown.
    """
    if bands.is_empty():
        return []
    # Always one row: a scale without values would warn.
    low, high = bands["low"][0], bands["high"][-1]
    inside = f"{POINTED} > {low!r} && {POINTED} < {high!r}"
    rows = alt.Chart(alt.InlineData(values=[{}])).transform_calculate(plr=f"{inside} ? {POINTED} : {low!r}")
    return [rows.mark_rule(strokeWidth=1, opacity=alt.expr(f"{inside} ? 1 : 0")).encode(x=alt.X("plr:Q"))]


def marked(tables: Tables, best: Recommendation | None = None, *, lettering: int = 12) -> list[alt.Chart]:
    """The convergence threshold with its interval and the recommended LR, if known, with names above the panel.

    Args:
        tables: The study's tables; only ``boundaries`` is read.
        best: The recommended LR.
        lettering: Size of the names, in pixels; 0 for none.
    """
    reached = pl.col("value").is_not_null()
    found = (
        table(tables, "boundaries")
        .filter(reached, boundary="convergence")
        .select(
            pl.col("value").alias("at"),
            pl.coalesce("low", "below").alias("low"),
            pl.coalesce("high", "above").alias("high"),
        )
    )
    layers, left = list[alt.Chart](), best is None or found.is_empty() or found["at"][0] <= best.lr
    if not found.is_empty():
        name = f"threshold {format_lr(found['at'][0])}"
        rows = alt.Chart(inline(found.with_columns(name=pl.lit(name))))
        tips = _lr_tips({"at": "convergence threshold", "low": "low", "high": "high"})
        layers += [
            rows.mark_rect(opacity=0.25, color=NEUTRAL, clip=True).encode(
                x=alt.X("low:Q"), x2=alt.X2("high:Q"), tooltip=tips
            ),
            rows.mark_rule(strokeDash=[5, 3], strokeWidth=1.5, clip=True).encode(x=alt.X("at:Q"), tooltip=tips),
            *_named(rows, "at", left=left, lettering=lettering),
        ]
    if best:
        row = {"lr": best.lr, "low": best.low, "high": best.high, "name": f"use {format_lr(best.lr)}"}
        rows = alt.Chart(inline(pl.DataFrame([row])))
        tips = _lr_tips({"lr": "recommended LR", "low": "good range from", "high": "to"})
        layers += [
            rows.mark_rule(strokeWidth=2.5, clip=True).encode(x=alt.X("lr:Q"), tooltip=tips),
            *_named(rows, "lr", left=not left, lettering=lettering),
        ]
        if best.low < best.high:
            layers.append(
                rows.mark_rule(strokeWidth=5).encode(x=alt.X("low:Q"), x2="high:Q", y=alt.value(0), tooltip=tips)
            )
    return layers


def _lr_tips(titles: Mapping[str, str]) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q").title(title).format(LR_FORMAT) for name, title in titles.items()]


def _named(rows: alt.Chart, field: str, *, left: bool, lettering: int) -> list[alt.Chart]:
    """The name of a vertical line above the panel, on one side of it."""
    if not lettering:
        return []
    align, shift = ("right", -2) if left else ("left", 2)
    text = rows.mark_text(align=align, dx=shift, baseline="bottom", fontSize=lettering, fontWeight="bold", clip=False)
    return [text.encode(x=alt.X(f"{field}:Q"), y=alt.value(-5), text=alt.Text("name:N"))]


def finish(chart: Drawing, words: Text, *parameters: alt.Parameter) -> Any:
    """Add the common fonts and legend, the words, and the controls to a chart.

    Args:
        chart: The chart.
        words: Its heading and caption, for the page, and the description for screen readers.
        parameters: Variables that the reader sets below the chart.
    """
    config = alt.Config(
        font=FONT,
        axis=alt.AxisConfig(
            labelFontSize=12, titleFontSize=13, titleFontWeight="normal", gridColor=NEUTRAL, gridOpacity=0.15
        ),
        legend=alt.LegendConfig(
            labelFontSize=12,
            titleFontSize=13,
            titleFontWeight="normal",
            symbolStrokeWidth=3,
            # Shapes without an encoded colour must be visible on light and dark pages.
            symbolBaseFillColor=NEUTRAL,
            symbolBaseStrokeColor=NEUTRAL,
        ),
        title=alt.TitleConfig(fontSize=13, fontWeight="normal", anchor="start"),
        view=alt.ViewConfig(stroke=NEUTRAL, strokeOpacity=0.4),
    )
    drawn: Any = chart
    lifted = () if drawn.params is alt.Undefined else drawn.params  # from its panels
    pointed_at = alt.param(name=POINTED, value=0)
    drawn.params = [pointed_at.param, *(each.param for each in parameters), *lifted]
    meta = {"heading": words.heading, "caption": words.caption}
    # In one call, since each call copies the whole chart, panel by panel.
    return drawn.properties(description=words.alt, config=config, usermeta=meta)


def _lower_names(bands: pl.DataFrame, width: int, name: float) -> list[bool]:
    """For each band whether its name is on the lower level: every other one of the names that are too close."""
    middles = bands["middle"].log().to_list()
    pixels = width / math.log(bands["high"][-1] / bands["low"][0])
    lowered: list[bool] = []
    for left, right in pairwise([-math.inf, *middles]):
        lowered.append((right - left) * pixels < name and not (lowered and lowered[-1]))
    return lowered


def _between(start: list[int], stop: list[int], share: float) -> list[int]:
    return [round(a + share * (b - a)) for a, b in zip(start, stop, strict=True)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``: powers of ten if there are two or more, else also 2 and 5 times these.

    Example:
        >>> log_ticks(3, 200), log_ticks(3, 60)
        ([10.0, 100.0], [5.0, 10.0, 20.0, 50.0])
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**decade for decade in decades if low <= 10.0**decade <= high]
    if len(tens) > 1:
        return tens
    return [
        float(f"{digit}e{decade}")
        for decade in decades
        for digit in (1, 2, 5)
        if low <= float(f"{digit}e{decade}") <= high
    ]


def log_axis(low: float, high: float) -> alt.Axis:
    """An axis from ``low`` to ``high`` with `log_ticks`, or Vega's ticks if there is at most one; no labels touch."""
    ticks = log_ticks(low, high)
    axis = alt.Axis(format=LR_FORMAT, labelExpr=PLAIN_EXPONENT, labelOverlap="greedy", grid=False)
    if len(ticks) > 1:
        axis.values = ticks
    else:
        axis.tickCount = 3
    return axis


# The value for all seeds together; Vega compares texts, and JSON's null is not one.
EVERY_SEED = "all"


def values_of(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as JSON values: floats of six digits, NaN as null, seeds as text."""
    floats = pl.selectors.float()
    rows = harmless_table(frame).with_columns(floats.round_sig_figs(6).fill_nan(None))
    if "seed" in rows.columns:
        rows = rows.with_columns(pl.col("seed").cast(pl.String).fill_null(EVERY_SEED))
    return rows.to_dicts()


@dataclass(frozen=True, kw_only=True)
class Source:
    """Packed rows for a chart that unpacks them.

    Attributes:
        data: JSON with one entry for all rows that agree in the packing columns; the other columns are lists in it.
        lists: The columns that are lists.
    """

    data: alt.InlineData
    lists: tuple[str, ...]

    def chart(self, *tests: str) -> alt.Chart:
        """A chart of the rows that pass all tests.

        Args:
            tests: Vega expressions on the packing columns. They run before rows are unpacked, so only drawn rows cost
                time.
        """
        chart = alt.Chart(self.data)
        for test in tests:
            chart = chart.transform_filter(test)
        return chart.transform_flatten(list(self.lists))


def source(frame: pl.DataFrame, by: Sequence[str]) -> Source:
    """Pack the rows of a frame in their order.

    Args:
        frame: The rows.
        by: The packing columns, which distinguish lines; filters of the chart can use them.
    """
    floats = pl.selectors.float()
    packed = (
        harmless_table(frame)
        .with_columns(floats.round_sig_figs(6).fill_nan(None))
        .group_by(by, maintain_order=True)
        .agg(pl.all())
    )
    # As one text, since Altair copies lists repeatedly, and checks every number in them.
    text = json.dumps(values_of(packed), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Source(
        data=alt.InlineData(values=text, format=alt.JsonDataFormat(type="json")),
        lists=tuple(name for name in frame.columns if name not in by),
    )
