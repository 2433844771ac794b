"""The drawings of a search for the initial LR; what they show comes from ``lratlas.report.advice_data``."""

from collections.abc import Sequence

import altair as alt

from lratlas.report import advice_marks as marks
from lratlas.report import look
from lratlas.report.advice_courses import branches_data, courses_data, names_data
from lratlas.report.advice_data import (
    AVERAGED,
    LAST,
    curves_data,
    expected_data,
    kinds_of_weights,
    lr_range,
    regimes_data,
    rungs_data,
    window,
)
from lratlas.report.advice_words import advice_text, better, course_text
from lratlas.report.controls import Control, control
from lratlas.report.log_axis import log_axis
from lratlas.report.look import Drawing
from lratlas.report.rows import lr_column
from lratlas.report.source import EVERY_SEED
from lratlas.search.advice import Advice

_WIDTH, _HEIGHT = 620, 340
_WEIGHTS = {AVERAGED: "averaged", LAST: "last"}
_ABOVE = 18  # pixels above the plot, for the names of regimes
_BELOW = 4  # pixels, so that marks at the end of the scale are whole
_FRACTION = "datum.value === 1 ? '1' : '1/' + round(1 / datum.value)"
_MEAN, _SEEDS = f"datum.seed === '{EVERY_SEED}'", f"datum.seed !== '{EVERY_SEED}'"


def advice_chart(advice: Advice) -> Drawing:
    """The validation metric over the LR, a line for each number of steps, with what follows from it.

    Args:
        advice: What a search came to.

    Returns:
        The chart: the good range, the recommended LR and the regimes behind lines that grow darker with the steps;
        errors at the longest length, and what a full training is expected to reach.
    """
    data = rungs_data(advice)
    weights = _weights(advice, "advice")
    pick = alt.selection_point(name="pick", fields=["part"], bind="legend", toggle="true")
    parts = data.unique("steps").sort("steps")["part"].to_list()
    colour = _by_name("part:N", parts, look.LENGTH_RAMP, title=["share of a", "full training"])
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
        x=alt.X("lr:Q"), y=alt.Y("drawn:Q"), tooltip=[*_tips(advice), alt.Tooltip("seed:N")]
    )
    layers = [
        *look.shading(regimes_data(advice), width=_WIDTH, lettering=10),
        *marks.good_range(advice),
        *marks.thresholds(advice),
        *marks.recommended(advice),
        lines.add_params(pick, look.zoom("advice")),
        points,
        targets,
        *marks.errors(advice, weights),
        *marks.expected(advice, alt.X("lr:Q")),
        *marks.signs(advice, weights),
    ]
    chart = alt.LayerChart(layer=layers, width=_WIDTH, height=_HEIGHT)
    return look.finish(chart, advice_text(advice).alt, weights.parameter)


def course_chart(advice: Advice) -> Drawing:
    """The validation metric over the share of a full training, a line for each LR that continued.

    Args:
        advice: What a search came to.
    """
    data, branches = courses_data(advice).with_columns(name=lr_column("lr")), branches_data(advice)
    whole = [1.0] if expected_data(advice).height else []
    weights, x = _weights(advice, "course"), _share_axis([*data["share"], *branches["share"], *whole])
    on = data.filter("went_on").unique("lr").sort("lr")["name"].to_list()
    pick = alt.selection_point(name="pick", fields=["name"], bind="legend", toggle="true")
    colour = _by_name("name:N", on, look.PLR_RAMP, title=["LR"])
    opacity = alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1))
    rows = alt.Chart(look.inline(data)).transform_filter(weights.passes("weights"))
    names = alt.Chart(look.inline(names_data(advice))).transform_filter(weights.passes("weights"))
    base = rows.encode(x=x, y=_metric_axis(advice))
    went_on = base.transform_filter("datum.went_on").encode(color=colour, opacity=opacity)
    branch = (
        alt.Chart(look.inline(branches))
        .transform_filter(weights.passes("weights"))
        .encode(x=x, y=alt.Y("drawn:Q"), tooltip=_branch_tips(advice))
    )
    tips = [*_tips(advice), alt.Tooltip("fate:N").title("then")]
    layers = [
        base.transform_filter("!datum.went_on && !datum.outside").mark_point(clip=True, size=26, color=look.NEUTRAL),
        went_on.mark_line(clip=True, strokeWidth=1.8).add_params(pick, look.zoom("course")),
        went_on.transform_filter("!datum.outside").mark_point(clip=True, filled=True, size=30, opacity=1),
        went_on.transform_filter("datum.outside")
        .mark_point(clip=True, filled=True, size=36, opacity=1, shape=marks.away(advice))
        .encode(y=alt.datum(window(advice).edge)),
        names.mark_text(align="left", dx=7, fontSize=10, clip=True).encode(
            x=x, y=alt.Y("drawn:Q"), text=alt.Text("name:N"), opacity=opacity
        ),
        branch.mark_line(clip=True, strokeDash=[4, 3], color=marks.ANNEALED).encode(detail=alt.Detail("lr:Q")),
        branch.transform_filter("datum.end").mark_point(
            shape="diamond", size=70, strokeWidth=2, opacity=1, color=marks.ANNEALED
        ),
        *marks.expected(advice, x, share=1.0),
        look.hover(rows.transform_filter("!datum.outside")).encode(x=x, y=alt.Y("drawn:Q"), tooltip=tips),
    ]
    chart = alt.LayerChart(layer=layers, width=_WIDTH, height=300)
    return look.finish(chart, course_text(advice).alt, weights.parameter)


def _weights(advice: Advice, chart: str) -> Control:
    """The choice between averaged and last weights, where there is one."""
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
    colours = look.ramp(stops, len(names))
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
        zero=False,
        rangeMin=alt.expr(f"height - {_BELOW}"),
        rangeMax=_ABOVE,
    )
    return alt.Y("drawn:Q").scale(scale).title(f"validation metric ({better(advice)})").axis(axis)


def _tips(advice: Advice) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("lr:Q").title("LR").format(look.LR_FORMAT),
        alt.Tooltip("steps:Q").title(advice.counted).format(","),
        alt.Tooltip("part:N").title("share"),
        alt.Tooltip("metric:Q").format(".5~g"),
    ]


def _branch_tips(advice: Advice) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("lr:Q").title("LR, annealed").format(look.LR_FORMAT),
        alt.Tooltip("steps:Q").title(advice.counted).format(","),
        alt.Tooltip("metric:Q").format(".5~g"),
    ]
