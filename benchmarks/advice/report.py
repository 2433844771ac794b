"""The tables and the chart of the benchmark, as Markdown and as a picture."""

from collections.abc import Iterable, Mapping, Sequence

import altair as alt
import polars as pl

from benchmarks.advice.coverage import Coverage
from benchmarks.advice.cpu import Cost
from benchmarks.advice.expected import Reached
from benchmarks.advice.resampling import Estimate
from benchmarks.advice.standings import Regrets, Standing

TARGET = 0.2
"""The regret in points that is aimed at; 0.5% of the loss."""
_HEIGHT = 18  # pixels of a method
_LINEAR = 0.2  # points; below, the axis is linear, above, logarithmic
_ALL = "**all**"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def standings_table(standings: Iterable[Standing]) -> str:
    """Method by method: the cost, and the regret over problems."""
    rows = [
        [
            each.method,
            str(each.problems),
            f"{each.cost:.2f}",
            _estimate(each.median),
            _estimate(each.worst),
            each.worst_problem,
            _number(each.worst_search),
            f"{each.declined:.0%}",
        ]
        for each in standings
    ]
    headings = ["method", "problems", "cost", "median", "worst", "worst on", "worst search", "no LR advised"]
    return markdown(headings, rows)


def problems_table(regrets: Regrets, methods: Iterable[str]) -> str:
    """The regret of every method on every problem, a row per problem."""
    names = list(methods)
    problems = sorted({problem for _, problem in regrets})
    rows = [[problem, *(_regret(regrets, name, problem) for name in names)] for problem in problems]
    return markdown(["points", *names], rows)


def verdicts_table(verdicts: pl.DataFrame, matters: Mapping[str, bool]) -> str:
    """How often each verdict was given, next to whether the LR matters on the problem."""
    methods = verdicts["method"].unique().sort().to_list()
    given = dict[tuple[str, str], list[str]]()
    for row in verdicts.iter_rows(named=True):
        given.setdefault((row["problem"], row["method"]), []).append(f"{row['verdict']} {row['searches']}")
    rows = [
        [
            problem,
            "yes" if matters[problem] else "no",
            *(", ".join(given.get((problem, name), "–")) for name in methods),
        ]
        for problem in verdicts["problem"].unique().sort()
        if problem in matters
    ]
    return markdown(["problem", "LR matters", *methods], rows)


def coverage_table(coverages: Iterable[Coverage]) -> str:
    """How the ranges agree with the good LRs."""
    rows = [
        [
            each.method,
            each.problem or _ALL,
            str(each.searches),
            str(each.without),
            _estimate(each.found),
            _estimate(each.right),
        ]
        for each in coverages
    ]
    headings = ["method", "problem", "ranges", "no LR advised", "good LRs in the range", "range that is good"]
    return markdown(headings, rows)


def expected_table(reached: Iterable[Reached]) -> str:
    """How many trainings ended inside the expected interval."""
    rows = [
        [
            each.method,
            each.problem or _ALL,
            str(each.intervals),
            f"{each.share:.0%}",
            "" if each.low is None or each.high is None else f"{each.low:.0%} to {each.high:.0%}",
            _number(each.width),
            f"{each.off:+.2f}",
        ]
        for each in reached
    ]
    headings = ["method", "problem", "intervals", "trainings inside", "95% interval", "width", "reached − expected"]
    return markdown(headings, rows)


def cost_table(costs: Iterable[Cost]) -> str:
    """Steps and processor time of the searches that were run."""
    rows = [
        [
            each.method,
            each.problem or _ALL,
            f"{each.trainings:.2f}",
            f"{each.seconds:.1f}",
            f"{each.training_seconds:.1f}",
            f"{each.ratio:.2f}",
        ]
        for each in costs
    ]
    headings = ["method", "problem", "cost in steps", "CPU s", "CPU s of one training", "cost in CPU time"]
    return markdown(headings, rows)


def chart_data(regrets: Regrets, standings: Sequence[Standing]) -> pl.DataFrame:
    """One row per method and problem: method, problem, points, and the median of the method; the best method first."""
    medians = {each.method: each.median.value for each in standings if each.median}
    order = list(medians)
    rows = [
        {"method": method, "problem": problem, "points": regrets[method, problem].whole, "median": medians[method]}
        for method, problem in sorted(regrets, key=lambda each: (order.index(each[0]), each[1]))
    ]
    return pl.DataFrame(rows)


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
    regret = alt.X("points:Q", scale=axis, title="regret, points of accuracy (2.5% of a loss count as one)").axis(
        values=[0, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], format="~r"
    )
    dots = base.mark_circle(size=45, opacity=0.7).encode(regret)
    medians = base.mark_tick(thickness=2.5, color="black").encode(alt.X("median:Q", scale=axis))
    target = alt.Chart(pl.DataFrame({"target": [TARGET]})).mark_rule(strokeDash=[4, 3], color="gray").encode(x="target")
    # The longest names would be cut off by a font wider than the one that they were measured with.
    drawn = alt.layer(target, dots, medians).properties(width=460, height=_HEIGHT * len(order))
    return drawn.properties(padding={"left": 40, "top": 5, "right": 5, "bottom": 5})


def _regret(regrets: Regrets, method: str, problem: str) -> str:
    return _estimate(regrets[method, problem].estimate) if (method, problem) in regrets else "–"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 99.5 else f"{value:.0f}"


def _estimate(value: Estimate | None) -> str:
    return "–" if value is None else str(value)
