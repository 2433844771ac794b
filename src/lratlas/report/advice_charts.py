"""The drawings of a search for the initial LR; what they show comes from ``lratlas.report.advice_data``."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from lratlas.analysis.wording import format_lr
from lratlas.report import look
from lratlas.report.advice_courses import branches_data, courses_data, names_data
from lratlas.report.advice_data import (
    AVERAGED,
    LAST,
    curves_data,
    kinds_of_weights,
    lr_range,
    regimes_data,
    signs_data,
    window,
)
from lratlas.report.advice_words import advice_text, better, course_text
from lratlas.report.controls import Control, control
from lratlas.report.look import Drawing
from lratlas.report.rows import lr_column
from lratlas.report.source import EVERY_SEED
from lratlas.search.advice import Advice

_WIDTH, _HEIGHT = 620, 340
_WEIGHTS = {AVERAGED: "averaged", LAST: "last"}
_CROSS = "M-.9,-.9L.9,.9M-.9,.9L.9,-.9"
_ANNEALED = look.FLR_RAMP[1]
_FRACTION = "datum.value === 1 ? '1' : '1/' + round(1 / datum.value)"
_MEAN, _SEEDS = f"datum.seed === '{EVERY_SEED}'", f"datum.seed !== '{EVERY_SEED}'"


def advice_chart(advice: Advice) -> Drawing:
    """The validation metric over the LR, a line for each number of steps, with what follows from it.

    Args:
        advice: What a search came to.

    Returns:
        The chart: the good range, the recommended LR and the regimes behind lines that grow darker with the steps.
    """
    data, signs = curves_data(advice), signs_data(advice)
    weights = _weights(advice, "advice")
    pick = alt.selection_point(name="pick", fields=["part"], bind="legend", toggle="true")
    parts = data.unique("steps").sort("steps")["part"].to_list()
    colour = _by_name("part:N", parts, look.SWA_RAMP).title(["share of a", "full training"])
    rows = alt.Chart(look.inline(data)).transform_filter(weights.passes("weights"))
    base = rows.encode(
        x=_lr_axis(advice),
        y=_metric_axis(advice),
        color=colour,
        opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1)),
    )
    lines = base.transform_filter(_MEAN).mark_line(clip=True, strokeWidth=1.8)
    points = base.transform_filter(f"{_SEEDS} && !datum.outside").mark_point(clip=True, filled=True, size=24, opacity=1)
    targets = look.hover(rows.transform_filter(f"{_SEEDS} && !datum.outside")).encode(
        x=alt.X("lr:Q"), y=alt.Y("drawn:Q"), tooltip=[*_tips(), alt.Tooltip("seed:N")]
    )
    layers = [
        *look.shading(regimes_data(advice), width=_WIDTH, lettering=10),
        *_good_range(advice),
        *_thresholds(advice),
        *_recommended(advice),
        lines.add_params(pick, look.zoom("advice")),
        points,
        targets,
        *_signs(signs, advice, weights),
    ]
    chart = alt.LayerChart(layer=layers, width=_WIDTH, height=_HEIGHT)
    return look.finish(chart, advice_text(advice).alt, weights.parameter)


def course_chart(advice: Advice) -> Drawing:
    """The validation metric over the share of a full training, a line for each LR that went on.

    Args:
        advice: What a search came to.
    """
    data, branches = courses_data(advice).with_columns(name=lr_column("lr")), branches_data(advice)
    weights, x = _weights(advice, "course"), _share_axis([*data["share"], *branches["share"]])
    on = data.filter("went_on").unique("lr").sort("lr")["name"].to_list()
    pick = alt.selection_point(name="pick", fields=["name"], bind="legend", toggle="true")
    colour = _by_name("name:N", on, look.PLR_RAMP).title("LR")
    opacity = alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1))
    rows = alt.Chart(look.inline(data)).transform_filter(weights.passes("weights"))
    names = alt.Chart(look.inline(names_data(advice))).transform_filter(weights.passes("weights"))
    base = rows.encode(x=x, y=_metric_axis(advice))
    went_on = base.transform_filter("datum.went_on").encode(color=colour, opacity=opacity)
    branch = (
        alt.Chart(look.inline(branches))
        .transform_filter(weights.passes("weights"))
        .encode(x=x, y=alt.Y("drawn:Q"), tooltip=_branch_tips())
    )
    tips = [*_tips(), alt.Tooltip("fate:N").title("then")]
    layers = [
        base.transform_filter("!datum.went_on && !datum.outside").mark_point(clip=True, size=26, color=look.NEUTRAL),
        went_on.mark_line(clip=True, strokeWidth=1.8).add_params(pick, look.zoom("course")),
        went_on.transform_filter("!datum.outside").mark_point(clip=True, filled=True, size=30, opacity=1),
        went_on.transform_filter("datum.outside")
        .mark_point(clip=True, filled=True, size=36, opacity=1, shape=_away(advice))
        .encode(y=alt.datum(window(advice).edge)),
        names.mark_text(align="left", dx=7, fontSize=10, clip=True).encode(
            x=x, y=alt.Y("drawn:Q"), text=alt.Text("name:N"), opacity=opacity
        ),
        branch.mark_line(clip=True, strokeDash=[4, 3], color=_ANNEALED).encode(detail=alt.Detail("lr:Q")),
        branch.transform_filter("datum.end").mark_point(
            shape="diamond", size=70, strokeWidth=2, opacity=1, color=_ANNEALED
        ),
        look.hover(rows.transform_filter("!datum.outside")).encode(x=x, y=alt.Y("drawn:Q"), tooltip=tips),
    ]
    chart = alt.LayerChart(layer=layers, width=_WIDTH, height=300)
    return look.finish(chart, course_text(advice).alt, weights.parameter)


def _weights(advice: Advice, chart: str) -> Control:
    """The choice between averaged and last weights, where there is one."""
    options = {kind: _WEIGHTS[kind] for kind in kinds_of_weights(advice)}
    return control("weights", chart, options, AVERAGED)


def _away(advice: Advice) -> str:
    """The sign at the worse edge that points at what is beyond it."""
    return "triangle-down" if window(advice).more_is_better else "triangle-up"


def _lr_axis(advice: Advice) -> alt.X:
    axis = look.plr_axis(elr=False).title("initial LR")
    axis.shorthand = "lr:Q"
    return axis.scale(type="log", nice=False, domain=list(lr_range(advice)))


def _share_axis(shares: Sequence[float]) -> alt.X:
    """A log axis of shares, with room for the names of LRs on the right."""
    return (
        alt.X("share:Q")
        .scale(type="log", base=2, nice=False, domain=[min(shares) * 0.85, max(shares) * 1.9])
        .title("share of a full training")
        .axis(values=[2.0**-halvings for halvings in range(6, -1, -1)], labelExpr=_FRACTION, grid=False)
    )


def _by_name(field: str, names: Sequence[str], stops: Sequence[str]) -> alt.Color:
    """Colours along a ramp for the lines with these names, in order."""
    colours = look.ramp(stops, len(names))
    return alt.Color(field).scale(domain=names, range=colours).sort(None).legend(symbolType="stroke", symbolOpacity=1)


def _metric_axis(advice: Advice) -> alt.Y:
    shown = window(advice)
    return (
        alt.Y("drawn:Q")
        .scale(domain=[shown.low, shown.high], nice=False, zero=False)
        .title(f"validation metric ({better(advice)})")
        .axis(format="~g")
    )


def _tips() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("lr:Q").title("LR").format(look.LR_FORMAT),
        alt.Tooltip("steps:Q").format(","),
        alt.Tooltip("part:N").title("share"),
        alt.Tooltip("metric:Q").format(".5~g"),
    ]


def _branch_tips() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("lr:Q").title("LR, annealed").format(look.LR_FORMAT),
        alt.Tooltip("steps:Q").format(","),
        alt.Tooltip("metric:Q").format(".5~g"),
    ]


def _good_range(advice: Advice) -> list[alt.Chart]:
    """The band of good LRs; none where it is a single one."""
    if advice.low is None or advice.high is None or advice.low >= advice.high:
        return []
    rows = alt.Chart(alt.InlineData(values=[{"low": advice.low, "high": advice.high}]))
    tips = [alt.Tooltip(f"{end}:Q").title(f"good range, {end}").format(look.LR_FORMAT) for end in ("low", "high")]
    return [
        rows.mark_rect(opacity=0.22, color=look.NEUTRAL, clip=True).encode(
            x=alt.X("low:Q"), x2=alt.X2("high:Q"), tooltip=tips
        )
    ]


def _thresholds(advice: Advice) -> list[alt.Chart]:
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


def _signs(signs: pl.DataFrame, advice: Advice, weights: Control) -> list[alt.Chart]:
    """Annealed branches, failures, and triangles at the edge; none where all is on the curves."""
    if signs.is_empty():
        return []
    shapes = {"annealed": "diamond", "failed": _CROSS, "off the scale": _away(advice)}
    found = [name for name in shapes if name in signs["sign"].unique().to_list()]
    shape = alt.Shape("sign:N").scale(domain=found, range=[shapes[name] for name in found]).title(None)
    tips = [
        alt.Tooltip("sign:N"),
        alt.Tooltip("lr:Q").title("LR").format(look.LR_FORMAT),
        alt.Tooltip("steps:Q").format(","),
        alt.Tooltip("metric:Q").format(".5~g"),
        alt.Tooltip("reason:N"),
    ]
    return [
        alt.Chart(look.inline(signs))
        .transform_filter(f"datum.weights === null || {weights.passes('weights')}")
        .mark_point(size=55, strokeWidth=1.8, opacity=1)
        .encode(
            x=alt.X("lr:Q"),
            y=alt.Y("drawn:Q"),
            shape=shape,
            color=alt.condition("datum.sign === 'annealed'", alt.value(_ANNEALED), alt.value(look.NEUTRAL)),
            tooltip=tips,
        )
    ]


def _recommended(advice: Advice) -> list[alt.Chart]:
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
