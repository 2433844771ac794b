"""The marks on a search's charts next to its lines: the LR, its range, errors, what is expected, failures."""

import math

import altair as alt

from lratlas.analysis.wording import format_lr
from lratlas.report import look
from lratlas.report.advice_data import AVERAGED, errors_data, expected_data, lr_range, signs_data, window
from lratlas.report.controls import Control
from lratlas.search.advice import Advice

ANNEALED = look.FLR_RAMP[1]
_EXPECTED = look.STRONG[2]
_CROSS = "M-.9,-.9L.9,.9M-.9,.9L.9,-.9"
_METRIC_FORMAT = ".4~g"
_WORD = 0.12  # width of the word "expected", as a share of the axis


def good_range(advice: Advice) -> list[alt.Chart]:
    """The band of good LRs, or of those that tie; none where it is a single one."""
    if advice.low is None or advice.high is None or advice.low >= advice.high:
        return []
    rows = alt.Chart(alt.InlineData(values=[{"low": advice.low, "high": advice.high}]))
    name = "LRs that tie" if advice.verdict == "tie" else "good range"
    tips = [alt.Tooltip(f"{end}:Q").title(f"{name}, {end}").format(look.LR_FORMAT) for end in ("low", "high")]
    return [
        rows.mark_rect(opacity=0.22, color=look.NEUTRAL, clip=True).encode(
            x=alt.X("low:Q"), x2=alt.X2("high:Q"), tooltip=tips
        )
    ]


def thresholds(advice: Advice) -> list[alt.Chart]:
    """A dashed line for each threshold that was seen."""
    brackets = {"convergence threshold": advice.convergence, "divergence threshold": advice.divergence}
    rows = [
        {"name": name, "at": bracket.value, "below": bracket.below, "above": bracket.above}
        for name, bracket in brackets.items()
        if bracket
    ]
    tips = [
        alt.Tooltip("name:N"),
        *(alt.Tooltip(f"{name}:Q").format(look.LR_FORMAT) for name in ("at", "below", "above")),
    ]
    rules = alt.Chart(alt.InlineData(values=rows)).mark_rule(strokeDash=[3, 3], color=look.NEUTRAL, clip=True)
    return [rules.encode(x=alt.X("at:Q"), tooltip=tips)] if rows else []


def recommended(advice: Advice) -> list[alt.Chart]:
    """The recommended LR: a vertical line, and its value above the plot; none without one."""
    if advice.lr is None:
        return []
    rows = alt.Chart(alt.InlineData(values=[{"lr": advice.lr, "name": f"use {format_lr(advice.lr)}"}]))
    tip = alt.Tooltip("lr:Q").title("recommended LR").format(look.LR_FORMAT)
    label = rows.mark_text(baseline="bottom", fontWeight="bold", fontSize=12, clip=False)
    return [
        rows.mark_rule(strokeWidth=2, clip=True).encode(x=alt.X("lr:Q"), tooltip=[tip]),
        label.encode(x=alt.X("lr:Q"), y=alt.value(-5), text=alt.Text("name:N")),
    ]


def errors(advice: Advice, weights: Control) -> list[alt.Chart]:
    """The best metric of the longest length as a dotted line, and each LR's difference to it as a bar."""
    data = errors_data(advice)
    if data["low"].count() == 0:
        return []
    rows = alt.Chart(look.inline(data)).transform_filter(weights.is_at(AVERAGED))
    colour = look.LENGTH_RAMP[-1]
    tips = [
        alt.Tooltip("lr:Q").title("LR").format(look.LR_FORMAT),
        *(alt.Tooltip(f"{name}:Q").format(_METRIC_FORMAT) for name in ("metric", "low", "high", "best")),
        alt.Tooltip("seeds:Q"),
    ]
    y, y2 = alt.Y("drawn_low:Q"), alt.Y2("drawn_high:Q")
    return [
        rows.mark_rule(strokeDash=[1, 3], strokeWidth=1.2, color=colour, clip=True).encode(
            y=alt.Y("mean(drawn_best):Q")
        ),
        rows.mark_rule(strokeWidth=1.6, color=colour, clip=True).encode(x=alt.X("lr:Q"), y=y, y2=y2, tooltip=tips),
        *_caps(rows, alt.X("lr:Q"), colour),
    ]


def expected(advice: Advice, x: alt.X, *, share: float | None = None) -> list[alt.Chart | alt.LayerChart]:
    """What a full training is expected to reach: a hollow square on a pale bar, its 90% interval; none without one.

    Args:
        advice: What a search came to.
        x: The channel, of the column ``lr`` or ``share``.
        share: Of a full training, where the axis shows it.
    """
    data = expected_data(advice)
    if data.is_empty():
        return []
    rows = alt.Chart(look.inline(data.with_columns(share=share)))
    tips = [
        alt.Tooltip("metric:Q").title("expected").format(_METRIC_FORMAT),
        *(alt.Tooltip(f"{end}:Q").title(f"90% interval, {end}").format(_METRIC_FORMAT) for end in ("low", "high")),
    ]
    point = rows.mark_point(shape="square", size=60, strokeWidth=2, opacity=1, color=_EXPECTED)
    side = -1 if share is None and _left_is_freer(advice) else 1
    text = rows.mark_text(
        align="right" if side < 0 else "left", dx=9 * side, color=_EXPECTED, fontSize=10, fontWeight="bold"
    )
    return [
        rows.mark_rule(strokeWidth=9, opacity=0.4, color=_EXPECTED).encode(
            x=x, y=alt.Y("drawn_low:Q"), y2=alt.Y2("drawn_high:Q"), tooltip=tips
        ),
        point.encode(x=x, y=alt.Y("drawn:Q"), tooltip=tips),
        text.encode(x=x, y=alt.Y("drawn:Q"), text=alt.datum("expected")),
    ]


def signs(advice: Advice, weights: Control) -> list[alt.Chart]:
    """Annealed ends, failures, and triangles at the edge; none where all is on the curves."""
    data = signs_data(advice)
    if data.is_empty():
        return []
    shapes = {"annealed": "diamond", "failed": _CROSS, "off the scale": away(advice)}
    found = [name for name in shapes if name in data["sign"].unique().to_list()]
    shape = alt.Shape("sign:N").scale(domain=found, range=[shapes[name] for name in found]).title(None)
    tips = [
        alt.Tooltip("sign:N"),
        alt.Tooltip("lr:Q").title("LR").format(look.LR_FORMAT),
        alt.Tooltip("steps:Q").title(advice.counted).format(","),
        alt.Tooltip("metric:Q").format(".5~g"),
        alt.Tooltip("reason:N"),
    ]
    return [
        alt.Chart(look.inline(data))
        .transform_filter(f"datum.weights === null || {weights.passes('weights')}")
        .mark_point(size=55, strokeWidth=1.8, opacity=1)
        .encode(
            x=alt.X("lr:Q"),
            y=alt.Y("drawn:Q"),
            shape=shape,
            color=alt.condition("datum.sign === 'annealed'", alt.value(ANNEALED), alt.value(look.NEUTRAL)),
            tooltip=tips,
        )
    ]


def away(advice: Advice) -> str:
    """The sign at the worse edge that points at what is beyond it."""
    return "triangle-down" if window(advice).more_is_better else "triangle-up"


def _caps(rows: alt.Chart, x: alt.X, colour: str) -> list[alt.Chart]:
    """The short lines at both ends of a bar."""
    caps = rows.mark_tick(orient="horizontal", width=7, thickness=1.6, color=colour, clip=True)
    return [caps.encode(x=x, y=alt.Y(f"drawn_{end}:Q")) for end in ("low", "high")]


def _left_is_freer(advice: Advice) -> bool:
    """Whether a word fits better on the left of the advised LR, away from error bars and from the end of the axis."""
    lr = advice.lr or 1.0
    bars = errors_data(advice).drop_nulls("low")["lr"]
    low, high = lr_range(advice)
    left = max([low, *bars.filter(bars <= lr)])
    right = min([high, *bars.filter(bars > lr)])
    is_near_the_end = math.log(high / lr) < _WORD * math.log(high / low)
    return is_near_the_end or (lr / left > right / lr and math.log(lr / low) > _WORD * math.log(high / low))
