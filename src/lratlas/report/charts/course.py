"""The validation metric over the share of a full training: data, words and drawing of the chart."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from lratlas.report import theme
from lratlas.report.charts.advice import (
    ANNEALED,
    EXPECTED,
    WIDTH,
    away,
    better,
    curves_data,
    errors_data,
    expectation_layers,
    expected_data,
    line_colours,
    metric_axis,
    point_tips,
    weights_control,
)
from lratlas.report.charts.controls import Control
from lratlas.report.charts.metric_scale import anneal_data, window
from lratlas.report.frames import lr_column
from lratlas.report.labels import spread
from lratlas.report.rows import inline
from lratlas.report.theme import Drawing, Text
from lratlas.search.advice import Advice

_NAME = 0.045  # height of a name next to a line, as a share of the scale
_FRACTION = "datum.value === 1 ? '1' : '1/' + round(1 / datum.value)"


def courses_data(advice: Advice) -> pl.DataFrame:
    """The metric over the share of a full training, a line for each LR, first seed.

    Returns:
        One row per LR and rung: ``weights``, ``lr``, ``steps``, ``share`` (of a full training), ``part`` (the share in
        words), ``metric``, ``drawn``, ``outside``, ``went_on`` (trained for more than its first rung),
        ``is_last`` (the row is the end of its line), ``fate`` (of the LR afterwards).
    """
    data = curves_data(advice).filter(pl.col("seed") == pl.col("seed").min().over("lr"))
    longest = pl.lit(data["steps"].max(), pl.Int64)
    end = pl.col("steps").max().over("weights", "lr")
    fates = (
        pl.when(pl.col("lr").is_in(_lrs_failed_later(advice)))
        .then(pl.lit("failed after ") + pl.col("last_part"))
        .when(end == longest)
        .then(pl.lit("trained the longest"))
        .otherwise(pl.lit("dropped after ") + pl.col("last_part"))
    )
    return (
        data.with_columns(
            share=pl.col("steps") / advice.steps,
            went_on=pl.col("steps").n_unique().over("weights", "lr") > 1,
            is_last=pl.col("steps") == end,
            last_part=pl.col("part").sort_by("steps").last().over("weights", "lr"),
        )
        .with_columns(fate=fates)
        .select("weights", "lr", "steps", "share", "part", "metric", "drawn", "outside", "went_on", "is_last", "fate")
        .sort("weights", "lr", "steps")
    )


def names_data(advice: Advice) -> pl.DataFrame:
    """Places for the names of continued LRs, next to the ends of their lines and apart from each other.

    Returns:
        One row per line that ends within the scale: ``weights``, ``lr``, ``share``, ``drawn`` (the height),
        ``name``.
    """
    shown, courses = window(advice), courses_data(advice)
    ends = courses.filter(pl.col("is_last") & pl.col("went_on") & ~pl.col("outside")).select(
        "weights", "lr", "share", "drawn"
    )
    ends = ends.with_columns(height=pl.col("drawn").map_elements(shown.height, return_dtype=pl.Float64))
    groups = ends.sort("height").partition_by("weights", "share", maintain_order=True)
    placed = [group.with_columns(height=pl.Series(spread(group["height"].to_list(), gap=_NAME))) for group in groups]
    names = pl.concat([ends.clear(), *placed]).with_columns(name=lr_column("lr"))
    return names.with_columns(drawn=pl.col("height").map_elements(shown.at, return_dtype=pl.Float64)).drop("height")


def branches_data(advice: Advice) -> pl.DataFrame:
    """The annealed ends, each as a line from the metric at the start of the decay.

    Returns:
        Two rows per branch: ``weights`` (of the metric at its start), ``lr``, ``steps``, ``share``, ``metric``,
        ``drawn``, ``end`` (whether the row is the end of the branch).
    """
    courses = courses_data(advice)
    tips = anneal_data(advice).select("lr", "steps", "metric", share=pl.col("steps") / advice.steps)
    tips = tips.with_columns(drawn=window(advice).within())
    before = courses.join(tips.select("lr", tip="steps"), on="lr").filter(pl.col("steps") < pl.col("tip"))
    left = before.group_by("weights", "lr", "tip").agg(pl.all().sort_by("steps").last()).with_columns(end=False)
    own = tips.join(left.select("weights", "lr", steps="tip"), on=["lr", "steps"]).with_columns(end=True)
    names = ["weights", "lr", "steps", "share", "metric", "drawn", "end"]
    return pl.concat([left.select(names), own.select(names)]).sort("weights", "lr", "end")


def projection_data(advice: Advice) -> pl.DataFrame:
    """The lines of the projection: from the ends of the LRs within the noise of the best to the expected value.

    Returns:
        Two rows per LR: ``weights``, ``lr``, ``share``, ``drawn``; none without an expected value.
    """
    expected = expected_data(advice)
    near = errors_data(advice).filter("longest", "near")["lr"]
    ends = courses_data(advice).filter(pl.col("is_last"), pl.col("lr").is_in(near.implode()), ~pl.col("outside"))
    starts = ends.select("weights", "lr", "share", "drawn")
    if expected.is_empty():
        return starts.clear()
    return pl.concat([starts, starts.with_columns(share=pl.lit(1.0), drawn=pl.lit(expected["drawn"][0]))])


def _lrs_failed_later(advice: Advice) -> list[float]:
    """LRs that failed after a successful segment."""
    constant = advice.evidence.filter(~pl.col("annealed"))
    well = constant.filter(pl.col("failure").is_null())["lr"]
    return constant.filter(pl.col("failure").is_not_null() & pl.col("lr").is_in(well.implode()))["lr"].to_list()


def course_in_words(advice: Advice) -> str:
    """Headline: the number of LRs trained for each length."""
    courses = courses_data(advice)
    if courses.is_empty():
        return "Which LRs continued, and for how long"
    longest = courses.filter(pl.col("steps") == pl.col("steps").max())
    few, all_lrs, part = longest["lr"].n_unique(), advice.evidence["lr"].n_unique(), longest["part"][0]
    whole = "a full training" if part == "1" else f"{part} of a full training"
    return f"{few} of {all_lrs} LRs {'was' if few == 1 else 'were'} trained for {whole}"


def course_text(advice: Advice) -> Text:
    """The words of `course_chart`."""
    rest = courses_data(advice).filter(~pl.col("went_on") & ~pl.col("outside")).height
    left = " Circles: LRs that did not continue." if rest else ""
    dashed = " Dashed: the end with an annealed LR." if branches_data(advice).height else ""
    expected = (
        " Green: projected from the LRs within the noise of the best one (dashed), not measured, with its 90% interval;"
        " each further doubling of the length is assumed to gain less than the one before it."
        if expected_data(advice).height
        else ""
    )
    return Text(
        heading=course_in_words(advice),
        caption=f"A line for each LR that was trained beyond the first share, for the first seed; {better(advice)}. A "
        f"line ends, labelled with its LR, where the LR was dropped for better ones.{left}{dashed}{expected}",
        alt="Line chart of the validation metric against the share of a full training, doubling along the axis, one "
        "line for each learning rate that continued; lines end where the learning rate was dropped.",
    )


def course_chart(advice: Advice) -> Drawing:
    """The validation metric over the share of a full training, a line for each LR that continued.

    Args:
        advice: The result of a search.
    """
    data, branches = courses_data(advice).with_columns(name=lr_column("lr")), branches_data(advice)
    whole = [1.0] if expected_data(advice).height else []
    weights, x = weights_control(advice, "course"), _share_axis([*data["share"], *branches["share"], *whole])
    on = data.filter("went_on").unique("lr").sort("lr")["name"].to_list()
    pick = alt.selection_point(name="pick", fields=["name"], bind="legend", toggle="true")
    colour = line_colours("name:N", on, theme.ORDERED_RAMP, title=["LR"])
    opacity = alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.1))
    rows = alt.Chart(inline(data)).transform_filter(weights.passes("weights"))
    names = alt.Chart(inline(names_data(advice))).transform_filter(weights.passes("weights"))
    base = rows.encode(x=x, y=metric_axis(advice))
    went_on = base.transform_filter("datum.went_on").encode(color=colour, opacity=opacity)
    branch = (
        alt.Chart(inline(branches))
        .transform_filter(weights.passes("weights"))
        .encode(x=x, y=alt.Y("drawn:Q"), tooltip=_branch_tips(advice))
    )
    tips = [*point_tips(advice), alt.Tooltip("fate:N").title("then")]
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
    chart = alt.LayerChart(layer=layers, width=WIDTH, height=360)
    return theme.finish(chart, course_text(advice), weights.parameter)


def _share_axis(shares: Sequence[float]) -> alt.X:
    """A log axis of shares, with room for the names of LRs on the right."""
    return (
        alt.X("share:Q")
        .scale(type="log", base=2, nice=False, domain=[min(shares) * 0.85, max(shares) * 1.9])
        .title("share of a full training")
        .axis(values=[2.0**-halvings for halvings in range(6, -1, -1)], labelExpr=_FRACTION, grid=False)
    )


def _branch_tips(advice: Advice) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("lr:Q").title("LR, annealed").format(theme.LR_FORMAT),
        alt.Tooltip("steps:Q").title(advice.counted).format(","),
        alt.Tooltip("metric:Q").format(".5~g"),
    ]


def projection(advice: Advice, x: alt.X, weights: Control) -> list[alt.Chart]:
    """Dashed lines from the ends behind the projection to the expected value; none without a projection."""
    data = projection_data(advice)
    if data.is_empty():
        return []
    rows = alt.Chart(inline(data)).transform_filter(weights.passes("weights"))
    line = rows.mark_line(clip=True, strokeDash=[2, 4], strokeWidth=1.4, color=EXPECTED)
    return [line.encode(x=x, y=alt.Y("drawn:Q"), detail=alt.Detail("lr:Q"))]
