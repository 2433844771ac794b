"""The validation metric over the LR, with what a search concludes: data, words and drawing of the chart."""

import math
from collections.abc import Iterator, Sequence

import altair as alt
import polars as pl

from lratlas.report import theme
from lratlas.report.axes import log_axis
from lratlas.report.charts.controls import Control, control
from lratlas.report.charts.metric_scale import (
    AVERAGED,
    LAST,
    anneal_data,
    constant_rows,
    interval,
    more_is_better,
    window,
)
from lratlas.report.frames import repeat_by_seed
from lratlas.report.rows import EVERY_SEED, inline
from lratlas.report.theme import Drawing, Text
from lratlas.search.advice import Advice
from lratlas.search.rungs import ANNEALED_PART
from lratlas.text import format_lr

_HALVINGS = tuple(2**halvings for halvings in range(7))  # a full training over these: lengths at which LRs are compared
_WHOLE = 0.1  # largest distance of the inverse of a share from a whole number
WIDTH, _HEIGHT = 745, 400
_WEIGHTS = {AVERAGED: "averaged", LAST: "last"}
_ABOVE = 18  # pixels above the plot, for the regime names
_BELOW = 4  # pixels, so that marks at the end of the scale are not cut
_MEAN, _SEEDS = f"datum.seed === '{EVERY_SEED}'", f"datum.seed !== '{EVERY_SEED}'"
ANNEALED = theme.FLR_RAMP[1]
EXPECTED = theme.STRONG[2]
_CROSS = "M-.9,-.9L.9,.9M-.9,.9L.9,-.9"
_METRIC_FORMAT = ".4~g"
_WORD = 0.12  # width of the word "expected", as a share of the axis
_REGIMES = {
    "1": "the loss converges",
    "2": "the loss is in equilibrium",
    "3": "the loss diverges, or nothing is learned",
}


def part_text(steps: int, *, of: int) -> str:
    """A length as a share of a full training, in words.

    Example:
        >>> [part_text(steps, of=6400) for steps in (100, 1280, 6400, 2000)]
        ['1/64', '1/5', '1', '0.31']
        >>> part_text(1, of=95)  # rounded to whole steps
        '1/64'
    """
    halved = next((number for number in _HALVINGS if steps == max(1, round(of / number))), None)
    number = halved or round(of / steps)
    if halved is None and not (number > 1 and abs(of / steps - number) < _WHOLE):
        return f"{steps / of:.2g}"
    return f"1/{number}" if number > 1 else "1"


def kinds_of_weights(advice: Advice) -> tuple[str, ...]:
    """The available metrics: ``averaged``, which ranks the LRs, and ``last`` if both were reported.

    Under a schedule the last weights rank the LRs, and there is no choice.
    """
    told = advice.evidence.filter(~pl.col("annealed"))
    both = told["averaged"].count() and told["value"].count() and advice.finish != "schedule"
    return (AVERAGED, LAST) if both else (AVERAGED,)


def curves_data(advice: Advice) -> pl.DataFrame:
    """The metric over the LR, a curve for each trained number of steps.

    Args:
        advice: The result of a search.

    Returns:
        One row per curve and LR, for the mean over seeds and then for each seed: ``weights`` (see
        `kinds_of_weights`), ``seed`` (null: the mean), ``steps``, ``part`` (of a full training, in words), ``lr``,
        ``metric``, ``seeds``, ``drawn`` (the coordinate, clipped to slightly beyond the scale) and ``outside`` (beyond
        the scale). Failed and annealed segments have no row.
    """
    rows = pl.concat(
        constant_rows(advice).select("lr", "seed", "steps", weights=pl.lit(kind), metric=kind)
        for kind in kinds_of_weights(advice)
    )
    means = (
        repeat_by_seed(rows.drop_nulls("metric"))
        .group_by("weights", "seed", "steps", "lr")
        .agg(pl.col("metric").mean(), seeds=pl.col("one").n_unique())
        .join(advice.compared.select("steps", "lr", compared="metric"), on=["steps", "lr"], how="left")
        .sort("weights", "seed", "steps", "lr")
    )
    ranked = pl.col("seed").is_null() & (pl.col("weights") == AVERAGED)
    means = means.with_columns(metric=pl.when(ranked).then(pl.coalesce("compared", "metric")).otherwise("metric"))
    shown = window(advice)
    rows = _with_part(means.drop("compared"), advice)
    return rows.with_columns(drawn=shown.coordinates(), outside=shown.outside())


def rungs_data(advice: Advice) -> pl.DataFrame:
    """`curves_data` without the length at which LRs only stopped for annealing."""
    data = curves_data(advice)
    stops = data["steps"].unique().to_list()
    before = [stop - round(ANNEALED_PART * stop) for stop in stops]
    return data.filter(~pl.col("steps").is_in(before))


def errors_data(advice: Advice) -> pl.DataFrame:
    """Each LR's difference to the best one with its error, at the lengths at which LRs were compared.

    Returns:
        One row per length and LR: ``lr``, ``steps``, ``part`` (of a full training, in words), ``longest`` (of all
        lengths), ``outside`` (beyond the scale), ``seeds``, ``metric``, ``near`` (within the noise of the best one),
        ``best`` (the metric of the best LR), ``low`` and ``high`` (the 90% interval of the difference, around the
        metric; null for the best LR, which is compared with itself), and the places of the last three on the scale.
    """
    shown, best = window(advice), pl.col("metric").max() if more_is_better(advice) else pl.col("metric").min()
    rows = _with_part(advice.compared.sort("steps", "lr"), advice).with_columns(
        best=best.over("steps"), longest=pl.col("steps") == pl.col("steps").max()
    )
    is_best = pl.col("lr") == pl.col("lr").filter(pl.col("metric") == pl.col("best")).first().over("steps")
    rows = rows.with_columns(pl.when(~is_best).then(end).alias(end.meta.output_name()) for end in interval())
    drawn = {f"drawn_{name}": shown.within(name) for name in ("best", "low", "high")}
    rows = rows.with_columns(outside=shown.outside())
    return rows.select(
        "lr", "steps", "part", "longest", "outside", "seeds", "metric", "near", "best", "low", "high", **drawn
    )


def expected_data(advice: Advice) -> pl.DataFrame:
    """The expected result of a full training at the advised LR, and its place on the scale.

    Returns:
        One row, or none without an LR: ``lr``, ``metric``, ``low``, ``high``, ``drawn``, ``drawn_low``, ``drawn_high``.
    """
    row = {"lr": advice.lr, "metric": advice.expected, "low": advice.expected_low, "high": advice.expected_high}
    schema = dict.fromkeys(row, pl.Float64)
    rows = pl.DataFrame([row], schema=schema).drop_nulls().filter(pl.all_horizontal(pl.all().is_finite()))
    shown = window(advice)
    return rows.with_columns(drawn=shown.within(), drawn_low=shown.within("low"), drawn_high=shown.within("high"))


def signs_data(advice: Advice) -> pl.DataFrame:
    """The signs that are not on a curve: failed LRs, annealed branches, and points where curves leave the scale.

    Returns:
        One row per sign: ``sign`` (``failed``, ``annealed`` or ``off the scale``), ``weights`` (null: any), ``lr``,
        ``seed`` (null: mean over seeds), ``steps``, ``metric`` (null for failures), ``drawn`` (its place) and
        ``reason`` (of a failure).
    """
    shown = window(advice)
    off = curves_data(advice).filter(pl.col("outside") & pl.col("seed").is_null())
    failed = advice.evidence.filter(pl.col("failure").is_not_null()).unique("lr", keep="first", maintain_order=True)
    floats = dict.fromkeys(("lr", "metric", "drawn"), pl.Float64)
    schema = pl.Schema(
        {"sign": pl.String, "weights": pl.String, "seed": pl.Int64, "steps": pl.Int64, "reason": pl.String} | floats
    )
    parts = [
        failed.with_columns(sign=pl.lit("failed"), drawn=shown.edge, reason="failure"),
        anneal_data(advice).with_columns(sign=pl.lit("annealed"), drawn=shown.within()),
        off.with_columns(sign=pl.lit("off the scale"), drawn=shown.edge),
    ]
    return pl.concat([schema.to_frame(), *(_fill_columns(part, schema) for part in parts)])


def regimes_data(advice: Advice) -> pl.DataFrame:
    """The LR ranges of the regimes, from the observed thresholds: the gap between two regimes contains the threshold.

    Returns:
        One row per band, ascending: ``regime`` (``1``, ``2``, ``3``), ``low``, ``high``, ``middle`` (their geometric
        mean).
    """
    low, high = lr_range(advice)
    first, last = advice.convergence, advice.divergence
    ends = {
        "1": (low, first.below) if first else None,
        "2": (first.above, last.below if last else high) if first else None,
        "3": (last.above, high) if last else None,
    }
    rows = [{"regime": name, "low": at[0], "high": at[1]} for name, at in ends.items() if at and at[0] < at[1]]
    schema = {"regime": pl.String} | dict.fromkeys(("low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema=schema).with_columns(middle=(pl.col("low") * pl.col("high")).sqrt())


def lr_range(advice: Advice) -> tuple[float, float]:
    """The range of the tested LRs and the LRs in the advice, with a small margin on either side."""
    named = [each for each in (advice.lr, advice.low, advice.high) if each is not None]
    lrs = [*advice.evidence["lr"], *named]
    room = max((max(lrs) / min(lrs)) ** 0.02, 1.15)
    return min(lrs) / room, max(lrs) * room


def _with_part(rows: pl.DataFrame, advice: Advice) -> pl.DataFrame:
    names = {str(steps): part_text(steps, of=advice.steps) for steps in rows["steps"].unique()}
    return rows.with_columns(part=pl.col("steps").cast(pl.String).replace(names))


def _fill_columns(rows: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """The rows with these columns; missing ones are null."""
    lacking = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in rows.columns]
    return rows.with_columns(lacking).select(schema.names()).cast(schema)


def advice_in_words(advice: Advice) -> str:
    """Headline: the finding of the search about the LRs."""
    if advice.low is None or advice.high is None:
        return {"not_learned": "No LR has learned anything yet", "diverged": "All LRs diverged"}.get(
            advice.verdict, "Validation metric against the LR"
        )
    low, high = format_lr(advice.low), format_lr(advice.high)
    if advice.lr is None:
        return f"No LR from {low} to {high} is clearly better than the others"
    if low == high:
        return f"Best at {format_lr(advice.lr)}"
    return f"Best around {format_lr(advice.lr)}; good range {low} to {high}"


def advice_text(advice: Advice) -> Text:
    """The words of `advice_chart`."""
    return Text(
        heading=advice_in_words(advice),
        caption=" ".join(_sentences(advice)),
        alt="Line chart of the validation metric against the learning rate on a log axis, one line for each length,"
        " from light for the shortest to dark for the longest. The recommended learning rate and the good range are "
        "marked if they exist; failed learning rates are crosses at the edge. The values are in the table below.",
    )


def _sentences(advice: Advice) -> Iterator[str]:
    signs = signs_data(advice)["sign"].unique().to_list()
    if not curves_data(advice).is_empty():
        yield f"Lines: measured on validation data after each share of a full training; {better(advice)}."
    if advice.lr is not None:
        band = "; the grey band is the good range" if advice.low != advice.high else ""
        yield f"The vertical line is the LR to use{band}."
    elif advice.low is not None:
        yield "The grey band marks the LRs that tie."
    if errors_data(advice)["low"].count():
        yield (
            "Bars: at each length the 90% interval of an LR's difference from the best one. Dotted: the best metric of"
            " the longest comparison; an LR whose bar reaches it is within the noise of the best one."
        )
    if expected_data(advice).height:
        yield (
            "Green: the expected result of a full training at the recommended LR, not measured, with its 90% interval."
        )
    if window(advice).limit is not None:
        yield f"The scale is logarithmic in the distance to the best possible metric, {window(advice).limit:g}."
    if regimes := regimes_data(advice)["regime"].to_list():
        named = "; ".join(f"{regime}, {_REGIMES[regime]}" for regime in regimes)
        yield f"Shaded: {named}. A dashed line is a threshold, in the gap between two LRs of different regimes."
    if "annealed" in signs:
        yield "Diamonds: the LR fell to zero over the last fifth of the training."
    if "failed" in signs:
        yield "Crosses: the training failed."
    if "off the scale" in signs:
        yield "Triangles: values beyond the scale, which ends near the best."
    if len(kinds_of_weights(advice)) > 1:
        yield "LRs are ranked by averaged weights; last weights are those at the end of a segment."


def better(advice: Advice) -> str:
    """The direction in which the metric is better, in words."""
    return "higher is better" if more_is_better(advice) else "lower is better"


def advice_chart(advice: Advice) -> Drawing:
    """The validation metric over the LR, a line for each number of steps, with the conclusions.

    Args:
        advice: The result of a search.

    Returns:
        The chart: the good range, the recommended LR and the regimes behind lines that are darker for more steps;
        errors at the longest length, and the expected result of a full training.
    """
    data = rungs_data(advice)
    weights = weights_control(advice, "advice")
    pick = alt.selection_point(name="pick", fields=["part"], bind="legend", toggle="true")
    parts = data.unique("steps").sort("steps")["part"].to_list()
    colour = line_colours("part:N", parts, theme.ORDERED_RAMP, title=["share of a", "full training"])
    rows = alt.Chart(inline(data)).transform_filter(weights.passes("weights"))
    base = rows.encode(
        x=_lr_axis(advice),
        y=metric_axis(advice),
        color=colour,
        opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1)),
    )
    lines = base.transform_filter(_MEAN).mark_line(clip=True, strokeWidth=1.8)
    points = base.transform_filter(f"{_SEEDS} && !datum.outside").mark_point(clip=True, filled=True, size=24, opacity=1)
    targets = theme.hover(rows.transform_filter(f"{_SEEDS} && !datum.outside")).encode(
        x=alt.X("lr:Q"), y=alt.Y("drawn:Q"), tooltip=[*point_tips(advice), alt.Tooltip("seed:N")]
    )
    ends = (
        data.filter(pl.col("seed").is_null(), ~pl.col("outside"))
        .sort("lr")
        .group_by("weights", "part", maintain_order=True)
        .last()
    )
    names = (
        alt.Chart(inline(ends))
        .transform_filter(weights.passes("weights"))
        .mark_text(align="left", dx=8, fontSize=12, fontWeight="bold")
        .encode(x=alt.X("lr:Q"), y=alt.Y("drawn:Q"), text="part:N")
    )
    layers = [
        *theme.shading(regimes_data(advice), width=WIDTH, lettering=12),
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
    chart = alt.LayerChart(layer=layers, width=WIDTH, height=_HEIGHT)
    return theme.finish(chart, advice_text(advice), weights.parameter)


def weights_control(advice: Advice, chart: str) -> Control:
    """The control for averaged or last weights, if both exist."""
    options = {kind: _WEIGHTS[kind] for kind in kinds_of_weights(advice)}
    return control("weights", chart, options, AVERAGED)


def _lr_axis(advice: Advice) -> alt.X:
    low, high = lr_range(advice)
    axis = alt.X("lr:Q").scale(type="log", nice=False, domain=[low, high])
    return axis.title("initial LR").axis(log_axis(low, high))


def line_colours(field: str, names: Sequence[str], stops: Sequence[str], *, title: list[str]) -> alt.Color:
    """Colours along a ramp for the lines with these names, in order."""
    if not names:
        return alt.Color(field).legend(None)
    colours = theme.ramp(stops, len(names))
    legend = alt.Legend(symbolType="stroke", symbolOpacity=1)
    return alt.Color(field).scale(domain=names, range=colours).sort(None).legend(legend).title(title)


def metric_axis(advice: Advice) -> alt.Y:
    """The vertical axis, for places on the scale."""
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


def point_tips(advice: Advice) -> list[alt.Tooltip]:
    """What the pointer shows at a measured point."""
    return [
        alt.Tooltip("lr:Q").title("LR").format(theme.LR_FORMAT),
        alt.Tooltip("steps:Q").title(advice.counted).format(","),
        alt.Tooltip("part:N").title("share"),
        alt.Tooltip("metric:Q").format(".5~g"),
    ]


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
    rows = alt.Chart(inline(data)).transform_filter(weights.is_at(AVERAGED))
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
    rows = alt.Chart(inline(data.with_columns(share=share)))
    tips = [
        alt.Tooltip("metric:Q").title("expected").format(_METRIC_FORMAT),
        *(alt.Tooltip(f"{end}:Q").title(f"90% interval, {end}").format(_METRIC_FORMAT) for end in ("low", "high")),
    ]
    point = rows.mark_point(shape="square", size=60, strokeWidth=2, opacity=1, color=EXPECTED)
    side = -1 if share is None and _left_is_freer(advice) else 1
    text = rows.mark_text(
        align="right" if side < 0 else "left", dx=9 * side, color=EXPECTED, fontSize=10, fontWeight="bold"
    )
    return [
        rows.mark_rule(strokeWidth=9, opacity=0.4, color=EXPECTED).encode(
            x=x, y=alt.Y("drawn_low:Q"), y2=alt.Y2("drawn_high:Q"), tooltip=tips
        ),
        point.encode(x=x, y=alt.Y("drawn:Q"), tooltip=tips),
        text.encode(x=x, y=alt.Y("drawn:Q"), text=alt.datum("expected")),
    ]


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
        alt.Chart(inline(data))
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
