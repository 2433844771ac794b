"""How every chart looks: colours, axes, shading, and the interaction they share."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import altair as alt
import polars as pl

Drawing: TypeAlias = alt.LayerChart | alt.HConcatChart | alt.ConcatChart | alt.Chart

# Okabe and Ito's colours, told apart with any colour vision and readable on white and on black.
REGIME_COLOURS = {
    "1": "#0072B2",
    "2A": "#009E73",
    "2B": "#E69F00",
    "2": "#56B4E9",
    "3": "#CC79A7",
    "undecided": "#8C8C8C",
}
NEUTRAL = "#8C8C8C"
STRONG = ("#D55E00", "#0072B2", "#009E73")
FLR_RAMP = ("#7FC4EA", "#1668A6")
SWA_RAMP = ("#F3B04C", "#BF4B00")

# From low frequencies to high ones, as in the spectrum of light.
BAND_RAMP = ("#C03A00", "#E69F00", "#009E73", "#0072B2")

LR_FORMAT = ".2~e"
PERCENT = ".1%"
# Vega writes 1e+0 where everybody writes 1e0.
PLAIN_EXPONENT = "replace(datum.label, '+', '')"
FONT = "Helvetica, Arial, sans-serif"


def inline(frame: pl.DataFrame) -> alt.InlineData:
    """The rows of a frame inside the chart, floats cut to six digits and NaN made null (JSON has no NaN)."""
    floats = pl.selectors.float()
    rows = frame.with_columns(floats.round_sig_figs(6).fill_nan(None)).to_dicts()
    return alt.InlineData(values=rows)


def ramp(stops: Sequence[str], count: int) -> list[str]:
    """``count`` colours evenly spaced along two or more hexadecimal colours; one alone is the last."""
    parts = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops]
    legs = list(pairwise(parts))
    places = [len(legs) * ((i + 1) / count if count == 1 else i / (count - 1)) for i in range(count)]
    starts = [min(int(place), len(legs) - 1) for place in places]
    mixed = [_between(*legs[start], place - start) for start, place in zip(starts, places, strict=True)]
    return ["#" + "".join(f"{part:02X}" for part in colour) for colour in mixed]


def plr_axis(*, elr: bool) -> alt.X:
    """The log axis of the pre-training LR, one labelled tick per decade until zoomed in."""
    return (
        alt.X("plr:Q")
        .scale(type="log", nice=False)
        .title("pre-training LR (ELR)" if elr else "pre-training LR")
        .axis(
            format="~e",
            labelExpr=PLAIN_EXPONENT,
            tickCount=6,
            labelOverlap="greedy",
            grid=False,
            tickSize=alt.condition("slice(format(datum.value, '.0e'), 0, 2) == '1e'", alt.value(6), alt.value(2.5)),
        )
    )


def power_axis() -> alt.Axis:
    """The axis of a log scale over many decades."""
    return alt.Axis(format="~e", labelExpr=PLAIN_EXPONENT, tickCount=5)


def headroom(low: float | None, high: float | None, *, room: float = 0.09) -> alt.Scale:
    """A scale for values from ``low`` to ``high``, with room above (a share) for the names of the regimes."""
    if low is None or high is None:
        return alt.Scale()
    return alt.Scale(domain=[low, high + room * max(high - low, 1e-3)], nice=True, zero=False)


def scale(
    data: pl.DataFrame, lowest: str, highest: str, *, floor: float | None = None, room: float = 0.09
) -> alt.Scale:
    """The scale that shows two columns whole, from ``floor`` or lower, with `headroom`."""
    ends = data.select(low=pl.min_horizontal(pl.col(lowest).min(), pl.lit(floor)), high=pl.col(highest).max())
    return headroom(*ends.row(0), room=room)


def plr_tip() -> alt.Tooltip:
    """The PLR of a mark, read when it is pointed at."""
    return alt.Tooltip("plr:Q").title("PLR").format(LR_FORMAT)


def zoom(name: str) -> alt.Parameter:
    """Drag to move and Alt + wheel to zoom along x, so that a plain wheel still scrolls the page."""
    return alt.selection_interval(name=f"zoom_{name}", bind="scales", encodings=["x"], zoom="wheel![event.altKey]")


def shading(bands: pl.DataFrame, *, lettering: int = 11) -> list[alt.Chart]:
    """Layers to put behind lines over PLR: a tinted, labelled band per regime; no layers for no bands."""
    if bands.is_empty():
        return []
    named = bands.with_columns(label=pl.col("regime").replace({"undecided": "?"}))
    colours = alt.Scale(domain=list(REGIME_COLOURS), range=list(REGIME_COLOURS.values()))
    rows = inline(named)
    tips = ["regime:N", *(alt.Tooltip(f"{end}:Q").format(LR_FORMAT) for end in ("low", "high"))]
    bars = (
        alt.Chart(rows)
        .mark_rect(opacity=0.16, clip=True)
        .encode(x=alt.X("low:Q"), x2="high:Q", fill=alt.Fill("regime:N").scale(colours).legend(None), tooltip=tips)
    )
    labels = (
        alt.Chart(rows)
        .mark_text(baseline="top", fontWeight="bold", fontSize=lettering, clip=True)
        .encode(x=alt.X("middle:Q"), y=alt.value(4), text="label:N", tooltip=tips)
    )
    return [bars, labels]


def panel(lines: alt.Chart, bands: pl.DataFrame, *, width: int, height: int = 230) -> alt.LayerChart:
    """One of several charts side by side, with the regimes shaded behind its lines."""
    # Smaller letters: in a narrow panel the names of 2A and 2B would touch.
    return alt.LayerChart(layer=[*shading(bands, lettering=8), lines]).properties(width=width, height=height)


def finish(chart: Drawing, description: str) -> Any:
    """Fonts, legend and the description read out by screen readers, the same on every chart."""
    return (
        chart.properties(description=description)
        .configure(font=FONT)
        .configure_axis(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", gridOpacity=0.35)
        .configure_legend(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", symbolStrokeWidth=3)
        .configure_title(fontSize=12, fontWeight="normal", anchor="start")
        .configure_view(stroke=NEUTRAL, strokeOpacity=0.4)
    )


def _between(start: list[int], stop: list[int], share: float) -> list[int]:
    return [round(a + share * (b - a)) for a, b in zip(start, stop, strict=True)]
