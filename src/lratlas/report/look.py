"""How every chart looks: colours, axes, shading, and the interaction they share."""

from typing import Any

import altair as alt
import polars as pl

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

LR_FORMAT = ".2~e"
# Vega writes 1e+0 where everybody writes 1e0.
PLAIN_EXPONENT = "replace(datum.label, '+', '')"
FONT = "Helvetica, Arial, sans-serif"


def inline(frame: pl.DataFrame) -> alt.InlineData:
    """The rows of a frame inside the chart, floats cut to six digits and NaN made null (JSON has no NaN)."""
    floats = pl.selectors.float()
    rows = frame.with_columns(floats.round_sig_figs(6).fill_nan(None)).to_dicts()
    return alt.InlineData(values=rows)


def ramp(ends: tuple[str, str], count: int) -> list[str]:
    """``count`` colours from one hexadecimal colour to another, evenly spaced; one alone is the last."""
    start, stop = ([int(end[i : i + 2], 16) for i in (1, 3, 5)] for end in ends)
    shares = [(i + 1) / count if count == 1 else i / (count - 1) for i in range(count)]
    mixed = ([round(a + share * (b - a)) for a, b in zip(start, stop, strict=True)] for share in shares)
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


def headroom(low: float | None, high: float | None) -> alt.Scale:
    """A scale for values from ``low`` to ``high``, with room above for the names of the regimes."""
    if low is None or high is None:
        return alt.Scale()
    return alt.Scale(domain=[low, high + 0.09 * max(high - low, 1e-3)], nice=True, zero=False)


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


def finish(chart: alt.LayerChart | alt.HConcatChart | alt.Chart, description: str) -> Any:
    """Fonts, legend and the description read out by screen readers, the same on every chart."""
    return (
        chart.properties(description=description)
        .configure(font=FONT)
        .configure_axis(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", gridOpacity=0.35)
        .configure_legend(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", symbolStrokeWidth=3)
        .configure_title(fontSize=12, fontWeight="normal", anchor="start")
        .configure_view(stroke=NEUTRAL, strokeOpacity=0.4)
    )
