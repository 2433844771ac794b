"""Charts of a search."""

import math
from collections.abc import Sequence

import altair as alt
import polars as pl

from lratlas.report import theme
from lratlas.report.charts.controls import Control, control
from lratlas.report.charts.search_data import (
    AVERAGED,
    LAST,
    curves_data,
    errors_data,
    expected_data,
    kinds_of_weights,
    lr_range,
    regimes_data,
    rungs_data,
    signs_data,
    window,
)
from lratlas.report.charts.search_words import (
    advice_text,
    better,
    branches_data,
    course_text,
    courses_data,
    names_data,
    projection_data,
)
from lratlas.report.frames import lr_column
from lratlas.report.theme import EVERY_SEED, Drawing, log_axis
from lratlas.search.advice import Advice
from lratlas.text import format_lr

_WIDTH, _HEIGHT = 745, 400
_WEIGHTS = {AVERAGED: "averaged", LAST: "last"}
_ABOVE = 18  # pixels above the plot, for the regime names
_BELOW = 4  # pixels, so that marks at the end of the scale are not cut
_FRACTION = "datum.value === 1 ? '1' : '1/' + round(1 / datum.value)"
_MEAN, _SEEDS = f"datum.seed === '{EVERY_SEED}'", f"datum.seed !== '{EVERY_SEED}'"


def advice_chart(advice: Advice) -> Drawing:
    """The validation metric over the LR, a line for each number of steps, with the conclusions.

    Args:
        advice: The result of a search.

    Returns:
        The chart: the good range, the recommended LR and the regimes behind lines that are darker for more steps;
        errors at the longest length, and the expected result of a full training.
    """
    data = rungs_data(advice)
    weights = _weights(advice, "advice")
    pick = alt.selection_point(name="pick", fields=["part"], bind="legend", toggle="true")
    parts = data.unique("steps").sort("steps")["part"].to_list()
    colour = _by_name("part:N", parts, theme.ORDERED_RAMP, title=["share of a", "full training"])
    rows = alt.Chart(theme.inline(data)).transform_filter(weights.passes("weights"))
    base = rows.encode(
        x=_lr_axis(advice),
        y=_metric_axis(advice),
        color=colour,
        opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1)),
    )
    lines = base.transform_filter(_MEAN).mark_line(clip=True, strokeWidth=1.8)
    points = base.transform_filter(f"{_SEEDS} && !datum.outside").mark_point(clip=True, filled=True, size=24, opacity=1)
    targets = theme.hover(rows.transform_filter(f"{_SEEDS} && !datum.outside")).encode(
        x=alt.X("lr:Q"), y=alt.Y("drawn:Q"), tooltip=[*_tips(advice), alt.Tooltip("seed:N")]
    )
    ends = (
        data.filter(pl.col("seed").is_null(), ~pl.col("outside"))
        .sort("lr")
        .group_by("weights", "part", maintain_order=True)
        .last()
    )
    names = (
        alt.Chart(theme.inline(ends))
        .transform_filter(weights.passes("weights"))
        .mark_text(align="left", dx=8, fontSize=12, fontWeight="bold")
        .encode(x=alt.X("lr:Q"), y=alt.Y("drawn:Q"), text="part:N")
    )
    layers = [
        *theme.shading(regimes_data(advice), width=_WIDTH, lettering=12),
        *good_range(advice),
        *thresholds(advice),
        *recommendation_layers(advice),
        lines.add_params(pick, theme.zoom("advice")),
        points,
        names,
        targets,
        *errors(advice, weights, colour),
        *expectation_layers(advice, alt.X("lr:Q")),
        *signs(advice, weights),
    ]
    chart = alt.LayerChart(layer=layers, width=_WIDTH, height=_HEIGHT)
    return theme.finish(chart, advice_text(advice), weights.parameter)


def course_chart(advice: Advice) -> Drawing:
    """The validation metric over the share of a full training, a line for each LR that continued.

    Args:
        advice: The result of a search.
    """
    data, branches = courses_data(advice).with_columns(name=lr_column("lr")), branches_data(advice)
    whole = [1.0] if expected_data(advice).height else []
    weights, x = _weights(advice, "course"), _share_axis([*data["share"], *branches["share"], *whole])
    on = data.filter("went_on").unique("lr").sort("lr")["name"].to_list()
    pick = alt.selection_point(name="pick", fields=["name"], bind="legend", toggle="true")
    colour = _by_name("name:N", on, theme.ORDERED_RAMP, title=["LR"])
    opacity = alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1))
    rows = alt.Chart(theme.inline(data)).transform_filter(weights.passes("weights"))
    names = alt.Chart(theme.inline(names_data(advice))).transform_filter(weights.passes("weights"))
    base = rows.encode(x=x, y=_metric_axis(advice))
    went_on = base.transform_filter("datum.went_on").encode(color=colour, opacity=opacity)
    branch = (
        alt.Chart(theme.inline(branches))
        .transform_filter(weights.passes("weights"))
        .encode(x=x, y=alt.Y("drawn:Q"), tooltip=_branch_tips(advice))
    )
    tips = [*_tips(advice), alt.Tooltip("fate:N").title("then")]
    layers = [
        base.transform_filter("!datum.went_on && !datum.outside").mark_point(clip=True, size=26, color=theme.NEUTRAL),
        went_on.mark_line(clip=True, strokeWidth=1.8).add_params(pick, theme.zoom("course")),
        went_on.transform_filter("!datum.outside").mark_point(clip=True, filled=True, size=30, opacity=1),
        went_on.transform_filter("datum.outside")
        .mark_point(clip=True, filled=True, size=36, opacity=1, shape=away(advice))
        .encode(y=alt.datum(window(advice).edge)),
        names.mark_text(align="left", dx=7, fontSize=10, clip=True).encode(
            x=x, y=alt.Y("drawn:Q"), text=alt.Text("name:N"), opacity=opacity
        ),
        branch.mark_line(clip=True, strokeDash=[4, 3], color=ANNEALED).encode(detail=alt.Detail("lr:Q")),
        branch.transform_filter("datum.end").mark_point(
            shape="diamond", size=70, strokeWidth=2, opacity=1, color=ANNEALED
        ),
        *projection(advice, x, weights),
        *expectation_layers(advice, x, share=1.0),
        theme.hover(rows.transform_filter("!datum.outside")).encode(x=x, y=alt.Y("drawn:Q"), tooltip=tips),
    ]
    chart = alt.LayerChart(layer=layers, width=_WIDTH, height=360)
    return theme.finish(chart, course_text(advice), weights.parameter)


def _weights(advice: Advice, chart: str) -> Control:
    """The control for averaged or last weights, if both exist."""
    options = {kind: _WEIGHTS[kind] for kind in kinds_of_weights(advice)}
    return control("weights", chart, options, AVERAGED)


def _lr_axis(advice: Advice) -> alt.X:
    low, high = lr_range(advice)
    axis = alt.X("lr:Q").scale(type="log", nice=False, domain=[low, high])
    return axis.title("initial LR").axis(log_axis(low, high))


def _share_axis(shares: Sequence[float]) -> alt.X:
    """A log axis of shares, with room for the names of LRs on the right."""
    return (
        alt.X("share:Q")
        .scale(type="log", base=2, nice=False, domain=[min(shares) * 0.85, max(shares) * 1.9])
        .title("share of a full training")
        .axis(values=[2.0**-halvings for halvings in range(6, -1, -1)], labelExpr=_FRACTION, grid=False)
    )


def _by_name(field: str, names: Sequence[str], stops: Sequence[str], *, title: list[str]) -> alt.Color:
    """Colours along a ramp for the lines with these names, in order."""
    if not names:
        return alt.Color(field).legend(None)
    colours = theme.ramp(stops, len(names))
    legend = alt.Legend(symbolType="stroke", symbolOpacity=1)
    return alt.Color(field).scale(domain=names, range=colours).sort(None).legend(legend).title(title)


def _metric_axis(advice: Advice) -> alt.Y:
    shown = window(advice)
    axis = alt.Axis(format="~g")
    if curves_data(advice).is_empty():
        axis = alt.Axis(labels=False, ticks=False, grid=False)
    if shown.limit is not None and shown.more_is_better:
        axis.labelExpr = f"format({shown.limit!r} - datum.value, '.6~g')"
    if shown.ticks is not None:
        axis.values = shown.ticks
    scale = alt.Scale(
        type="linear" if shown.limit is None else "log",
        domain=shown.domain,
        nice=False,
        rangeMin=alt.expr(f"height - {_BELOW}"),
        rangeMax=_ABOVE,
    )
    return alt.Y("drawn:Q").scale(scale).title(f"validation metric ({better(advice)})").axis(axis)


def _tips(advice: Advice) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("lr:Q").title("LR").format(theme.LR_FORMAT),
        alt.Tooltip("steps:Q").title(advice.counted).format(","),
        alt.Tooltip("part:N").title("share"),
        alt.Tooltip("metric:Q").format(".5~g"),
    ]


def _branch_tips(advice: Advice) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("lr:Q").title("LR, annealed").format(theme.LR_FORMAT),
        alt.Tooltip("steps:Q").title(advice.counted).format(","),
        alt.Tooltip("metric:Q").format(".5~g"),
    ]


ANNEALED = theme.FLR_RAMP[1]
_EXPECTED = theme.STRONG[2]
_CROSS = "M-.9,-.9L.9,.9M-.9,.9L.9,-.9"
_METRIC_FORMAT = ".4~g"
_WORD = 0.12  # width of the word "expected", as a share of the axis


def good_range(advice: Advice) -> list[alt.Chart]:
    """The band of good or tied LRs; none for a single LR."""
    if advice.low is None or advice.high is None or advice.low >= advice.high:
        return []
    rows = alt.Chart(alt.InlineData(values=[{"low": advice.low, "high": advice.high}]))
    name = "LRs that tie" if advice.verdict == "tie" else "good range"
    tips = [alt.Tooltip(f"{end}:Q").title(f"{name}, {end}").format(theme.LR_FORMAT) for end in ("low", "high")]
    return [
        rows.mark_rect(opacity=0.22, color=theme.NEUTRAL, clip=True).encode(
            x=alt.X("low:Q"), x2=alt.X2("high:Q"), tooltip=tips
        )
    ]


def thresholds(advice: Advice) -> list[alt.Chart]:
    """A dashed line for each observed threshold."""
    brackets = {"convergence threshold": advice.convergence, "divergence threshold": advice.divergence}
    rows = [
        {"name": name, "at": bracket.value, "below": bracket.below, "above": bracket.above}
        for name, bracket in brackets.items()
        if bracket
    ]
    tips = [
        alt.Tooltip("name:N"),
        *(alt.Tooltip(f"{name}:Q").format(theme.LR_FORMAT) for name in ("at", "below", "above")),
    ]
    rules = alt.Chart(alt.InlineData(values=rows)).mark_rule(strokeDash=[3, 3], color=theme.NEUTRAL, clip=True)
    return [rules.encode(x=alt.X("at:Q"), tooltip=tips)] if rows else []


def recommendation_layers(advice: Advice) -> list[alt.Chart]:
    """The recommended LR: a vertical line, and its value above the plot; none without a recommendation."""
    if advice.lr is None:
        return []
    rows = alt.Chart(alt.InlineData(values=[{"lr": advice.lr, "name": f"use {format_lr(advice.lr)}"}]))
    tip = alt.Tooltip("lr:Q").title("recommended LR").format(theme.LR_FORMAT)
    label = rows.mark_text(baseline="bottom", fontWeight="bold", fontSize=12, clip=False)
    return [
        rows.mark_rule(strokeWidth=2, clip=True).encode(x=alt.X("lr:Q"), tooltip=[tip]),
        label.encode(x=alt.X("lr:Q"), y=alt.value(-5), text=alt.Text("name:N")),
    ]


def errors(advice: Advice, weights: Control, colour: alt.Color) -> list[alt.Chart]:
    """Bars of every LR's difference to the best one at each length, and a dotted line at the best of the longest."""
    data = errors_data(advice)
    if data["low"].count() == 0:
        return []
    rows = alt.Chart(theme.inline(data)).transform_filter(weights.is_at(AVERAGED))
    tips = [
        alt.Tooltip("lr:Q").title("LR").format(theme.LR_FORMAT),
        *(alt.Tooltip(f"{name}:Q").format(_METRIC_FORMAT) for name in ("metric", "low", "high", "best")),
        alt.Tooltip("seeds:Q"),
    ]
    y, y2 = alt.Y("drawn_low:Q"), alt.Y2("drawn_high:Q")
    bars = rows.transform_filter("datum.low !== null && !datum.outside").encode(
        x=alt.X("lr:Q"), color=colour, tooltip=tips
    )
    return [
        rows.transform_filter("datum.longest")
        .mark_rule(strokeDash=[1, 3], strokeWidth=1.2, color=theme.ORDERED_RAMP[-1], clip=True)
        .encode(y=alt.Y("mean(drawn_best):Q")),
        bars.mark_rule(strokeWidth=1.6, clip=True).encode(y=y, y2=y2),
        *(
            bars.mark_tick(orient="horizontal", width=7, thickness=1.6, clip=True).encode(y=alt.Y(f"drawn_{end}:Q"))
            for end in ("low", "high")
        ),
    ]


def expectation_layers(advice: Advice, x: alt.X, *, share: float | None = None) -> list[alt.Chart | alt.LayerChart]:
    """The expected result of a full training: a hollow square on a pale bar, its 90% interval; none if unknown.

    Args:
        advice: The result of a search.
        x: The channel of the column ``lr`` or ``share``.
        share: The share of a full training, if the axis shows shares.
    """
    data = expected_data(advice)
    if data.is_empty():
        return []
    rows = alt.Chart(theme.inline(data.with_columns(share=share)))
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


def projection(advice: Advice, x: alt.X, weights: Control) -> list[alt.Chart]:
    """Dashed lines from the ends behind the projection to the expected value; none without a projection."""
    data = projection_data(advice)
    if data.is_empty():
        return []
    rows = alt.Chart(theme.inline(data)).transform_filter(weights.passes("weights"))
    line = rows.mark_line(clip=True, strokeDash=[2, 4], strokeWidth=1.4, color=_EXPECTED)
    return [line.encode(x=x, y=alt.Y("drawn:Q"), detail=alt.Detail("lr:Q"))]


def signs(advice: Advice, weights: Control) -> list[alt.Chart]:
    """Annealed ends, failures, and triangles at the edge; none if the curves show everything."""
    data = signs_data(advice)
    if data.is_empty():
        return []
    shapes = {"annealed": "diamond", "failed": _CROSS, "off the scale": away(advice)}
    found = [name for name in shapes if name in data["sign"].unique().to_list()]
    shape = alt.Shape("sign:N").scale(domain=found, range=[shapes[name] for name in found]).title(None)
    tips = [
        alt.Tooltip("sign:N"),
        alt.Tooltip("lr:Q").title("LR").format(theme.LR_FORMAT),
        alt.Tooltip("steps:Q").title(advice.counted).format(","),
        alt.Tooltip("metric:Q").format(".5~g"),
        alt.Tooltip("reason:N"),
    ]
    return [
        alt.Chart(theme.inline(data))
        .transform_filter(f"datum.weights === null || {weights.passes('weights')}")
        .mark_point(size=55, strokeWidth=1.8, opacity=1)
        .encode(
            x=alt.X("lr:Q"),
            y=alt.Y("drawn:Q"),
            shape=shape,
            color=alt.condition("datum.sign === 'annealed'", alt.value(ANNEALED), alt.value(theme.NEUTRAL)),
            tooltip=tips,
        )
    ]


def away(advice: Advice) -> str:
    """The sign at the worse edge that points beyond it."""
    return "triangle-down" if window(advice).more_is_better else "triangle-up"


def _left_is_freer(advice: Advice) -> bool:
    """Whether a word fits better on the left of the advised LR, away from error bars and from the end of the axis."""
    lr = advice.lr or 1.0
    bars = errors_data(advice).drop_nulls("low")["lr"]
    low, high = lr_range(advice)
    left = max([low, *bars.filter(bars <= lr)])
    right = min([high, *bars.filter(bars > lr)])
    is_near_the_end = math.log(high / lr) < _WORD * math.log(high / low)
    return is_near_the_end or (lr / left > right / lr and math.log(lr / low) > _WORD * math.log(high / low))
