"""The theme of all charts: colours, words, shading, marked LRs, and fonts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import altair as alt
import polars as pl

from lratlas.recommendation import Recommendation
from lratlas.report.frames import regime_bands
from lratlas.report.rows import inline
from lratlas.tables import Tables, table
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
LR_FORMAT = ".2~e"
PERCENT = ".1%"
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


def ramp(stops: Sequence[str], count: int) -> list[str]:
    """``count`` colours evenly spaced along two or more hexadecimal colours; a single one is the last."""
    parts = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops]
    legs = list(pairwise(parts))
    places = [len(legs) * ((i + 1) / count if count == 1 else i / (count - 1)) for i in range(count)]
    starts = [min(int(place), len(legs) - 1) for place in places]
    mixed = [_between(*legs[start], place - start) for start, place in zip(starts, places, strict=True)]
    return ["#" + "".join(f"{part:02X}" for part in colour) for colour in mixed]


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
