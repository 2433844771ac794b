"""The chart of the methods' regrets: a dot per problem, and the median of each method."""

import altair as alt
import polars as pl

from benchmarks.advice.scoring import TARGET
from benchmarks.advice.standings import by_problem

_HEIGHT = 18  # pixels of a method
_LINEAR = 0.2  # points; below, the axis is linear, above, logarithmic


def chart_data(scored: pl.DataFrame) -> pl.DataFrame:
    """One row per method and problem: method, problem, metric, points, and the median of the method.

    Args:
        scored: Rows of `scoring.scores`.
    """
    table = by_problem(scored)
    medians = table.group_by("method").agg(median=pl.col("points").median())
    return (
        table.select("method", "problem", "metric", "points")
        .join(medians, on="method")
        .sort("median", "method", "problem")
    )


def chart(data: pl.DataFrame) -> alt.LayerChart | alt.FacetChart:
    """Regret of each method, the best median on top.

    Args:
        data: Of `chart_data`.
    """
    order = data["method"].unique(maintain_order=True).to_list()
    base = alt.Chart(data).encode(
        alt.Y("method:N", sort=order, title=None, axis=alt.Axis(labelLimit=300)),
    )
    axis = alt.Scale(type="symlog", constant=_LINEAR, nice=False)
    regret = alt.X("points:Q", scale=axis, title="regret, points of accuracy (2.5 % of the loss count as one)").axis(
        values=[0, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], format="~r"
    )
    dots = base.mark_circle(size=45, opacity=0.7).encode(regret, alt.Color("metric:N", title="metric"))
    medians = base.mark_tick(thickness=2.5, color="black").encode(alt.X("median:Q", scale=axis))
    target = alt.Chart(pl.DataFrame({"target": [TARGET]})).mark_rule(strokeDash=[4, 3], color="gray").encode(x="target")
    # The longest names would be cut off by a font wider than the one that they were measured with.
    chart = alt.layer(target, dots, medians).properties(width=460, height=_HEIGHT * len(order))
    return chart.properties(padding={"left": 40, "top": 5, "right": 5, "bottom": 5})
