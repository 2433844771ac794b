"""The methods' scores, put together: one row per method and problem, and one per method."""

from types import MappingProxyType

import polars as pl

from benchmarks.advice.scoring import TARGET

HEADINGS = MappingProxyType(
    {
        "method": "method",
        "cost": "cost",
        "median": "median",
        "worst": "worst",
        "kept_median": "kept",
        "kept_worst": "worst",
        "worst_choice": "one choice",
        "within": "within",
        "accuracy_median": "points",
        "accuracy_worst": "worst",
        "loss_median": "% of loss",
        "loss_worst": "worst",
        "lr_median": "same finish",
    }
)
"""The columns of the standings and what stands above them."""
EXPLANATION = f"""\
Regret: the oracle's best test metric (mean of its seeds) minus that at the choice, in points of accuracy, or in % of
the loss, 2.5 % counting as a point. A problem's regret is the mean over training seeds and the method's own draws.
cost        full trainings that the search took, median over all choices
median      and worst: over problems, in points
kept        the same where the best of some averages on the way and of all finishes, by validation, is kept
one choice  the worst single choice, in points
within      share of all choices with a regret of at most {TARGET:g} points
points      median and worst over the problems with an accuracy; % of loss: over those with a loss
same finish median over problems of the regret to the best LR with the same finish, in points"""


def by_problem(scored: pl.DataFrame) -> pl.DataFrame:
    """Means over seeds and draws.

    Args:
        scored: Rows of `scoring.scores`.

    Returns:
        method, problem, metric, cost, regret (points or per cent), points, kept_points, lr_points; by method and
        problem.
    """
    ratio = pl.col("points") / pl.col("regret")
    same_finish = pl.when(pl.col("regret") == 0).then(pl.col("lr_regret")).otherwise(pl.col("lr_regret") * ratio)
    return (
        scored.with_columns(lr_points=same_finish)
        .group_by("method", "problem", "metric")
        .agg(pl.col("cost", "regret", "points", "kept_points", "lr_points").mean())
        .sort("method", "problem")
    )


def standings(scored: pl.DataFrame) -> pl.DataFrame:
    """One row per method, the best median first.

    Args:
        scored: Rows of `scoring.scores`.
    """
    single = scored.group_by("method").agg(
        cost=pl.col("cost").median(),
        worst_choice=pl.col("points").max(),
        within=(pl.col("points") <= TARGET + 1e-9).mean(),
    )
    accuracy, loss = (pl.col("regret").filter(pl.col("metric") == kind) for kind in ("accuracy", "loss"))
    means = (
        by_problem(scored)
        .group_by("method")
        .agg(
            median=pl.col("points").median(),
            worst=pl.col("points").max(),
            kept_median=pl.col("kept_points").median(),
            kept_worst=pl.col("kept_points").max(),
            accuracy_median=accuracy.median(),
            accuracy_worst=accuracy.max(),
            loss_median=loss.median(),
            loss_worst=loss.max(),
            lr_median=pl.col("lr_points").median(),
        )
    )
    return means.join(single, on="method").select(*HEADINGS).sort("median", "worst", "method")


def as_text(table: pl.DataFrame) -> str:
    """The standings with explanations, to be printed."""
    headings = [HEADINGS[name] for name in table.columns]
    rows = [[_shown(name, value) for name, value in row.items()] for row in table.iter_rows(named=True)]
    return _aligned([headings, *rows]) + "\n\n" + EXPLANATION


def problems_as_text(scored: pl.DataFrame, methods: list[str]) -> str:
    """The regret on every problem, in points, methods in this order."""
    table = by_problem(scored)
    names = table["problem"].unique().sort().to_list()
    found = {(row["method"], row["problem"]): row["points"] for row in table.iter_rows(named=True)}
    rows = [[method, *(_shown("points", found.get((method, name))) for name in names)] for method in methods]
    return _aligned([["points", *names], *rows])


def _shown(name: str, value: object) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0%}" if name == "within" else f"{value:.2f}" if abs(value) < 99.5 else f"{value:.0f}"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = list[str]()
    for first, *others in rows:
        padded = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)
