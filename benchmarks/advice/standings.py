"""The regrets of all methods, put together: one row per method, one per method and problem, and the verdicts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from benchmarks.advice.choices import Choice
from benchmarks.advice.resampling import Estimate, Replicated, combined
from benchmarks.advice.scoring import best_of, kept_on_grid, points, regret
from benchmarks.advice.surface import Surface, Values

Regrets = Mapping[tuple[str, str], Replicated]
"""The regret of each method and problem."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one method does.

    Attributes:
        method: Its name.
        problems: How many problems it answered.
        cost: Full trainings that a search takes, the median over all searches.
        median: The median over problems of the regret, in points.
        worst: The largest over problems.
        worst_problem: Where that is.
        worst_search: The largest regret of a single search, a mean over judges.
        declined: The share of searches that named no LR.
    """

    method: str
    problems: int
    cost: float
    median: Estimate | None
    worst: Estimate | None
    worst_problem: str
    worst_search: float
    declined: float


def regrets(judged: pl.DataFrame, surfaces: Mapping[str, Surface]) -> Regrets:
    """The regret of each method and problem, as a mean over a method's own draws.

    Args:
        judged: Rows of `scoring.JUDGED`.
        surfaces: Of the judges, by the name of the problem.
    """
    keys = ("method", "problem")
    means = judged.group_by(*keys, "seed", "judge").agg(pl.col("test").mean()).sort(*keys, "seed", "judge")
    found = dict[tuple[str, str], Replicated]()
    for (method, problem), part in means.group_by(*keys, maintain_order=True):
        tests: Values = part["test"].to_numpy().reshape(part["seed"].n_unique(), -1)
        found[str(method), str(problem)] = regret(surfaces[str(problem)], tests)
    return found


def standings(
    found: Regrets, judged: pl.DataFrame, choices: pl.DataFrame, surfaces: Mapping[str, Surface]
) -> list[Standing]:
    """One standing per method, the best median first.

    Args:
        found: The regrets on the problems that count.
        judged: What they were made from.
        choices: Rows of `choices.CHOICES`, for the costs; a method without any costs nothing.
        surfaces: Of the judges, by the name of the problem.
    """
    counted = choices.filter(pl.col("problem").is_in(list(surfaces)))
    names = {method for method, _ in found}
    rows = [_standing(name, found, judged.filter(method=name), counted.filter(method=name), surfaces) for name in names]
    return sorted(rows, key=lambda row: (row.median.value if row.median else np.inf, row.method))


def verdicts(choices: Iterable[Choice]) -> pl.DataFrame:
    """How often a method gave each verdict: method, problem, verdict, searches."""
    rows = [(each.method, each.problem, each.verdict) for each in choices]
    table = pl.DataFrame(rows, schema={"method": pl.String, "problem": pl.String, "verdict": pl.String}, orient="row")
    return table.group_by("method", "problem", "verdict").agg(searches=pl.len()).sort("problem", "method", "verdict")


def _standing(
    method: str, found: Regrets, judged: pl.DataFrame, choices: pl.DataFrame, surfaces: Mapping[str, Surface]
) -> Standing:
    own = {problem: each for (name, problem), each in found.items() if name == method}
    return Standing(
        method=method,
        problems=len(own),
        cost=float(np.median(choices["cost"].to_numpy())) if len(choices) else 0.0,
        median=combined([*own.values()], lambda values: np.median(values, axis=-1)).estimate,
        worst=combined([*own.values()], lambda values: values.max(-1)).estimate,
        worst_problem=max(own, key=lambda problem: own[problem].whole),
        worst_search=_worst_search(judged, surfaces),
        declined=choices["lr"].null_count() / max(len(choices), 1),
    )


def _worst_search(judged: pl.DataFrame, surfaces: Mapping[str, Surface]) -> float:
    """The largest regret of one search of one method."""
    means = judged.group_by("problem", "seed", "draw").agg(pl.col("test").mean())
    worst = list[float]()
    for (problem,), part in means.group_by("problem"):
        known = surfaces[str(problem)]
        best = best_of(known, kept_on_grid(known).test.mean(0))
        worst.append(float(points(known, best, part["test"].to_numpy()).max()))
    return max(worst)
