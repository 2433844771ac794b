"""How much worse a choice is than the best that the oracle knows.

The regret of a choice is the oracle's best test metric, over all LRs and finishes of a full training, minus the test
metric at the choice, each a mean over the oracle's seeds. It is counted in points for an accuracy, in per cent of the
oracle's best loss for a loss; where both are to be compared, 2.5 % of the loss count as a point.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.advice.measuring import FINISHES
from benchmarks.advice.problem import Problem, chance

LOSS_PER_POINT = 2.5  # per cent of the loss that count as a point of accuracy
_KEPT_FINISH, _KEPT = "average10", (1 / 8, 1 / 4, 1 / 2)
TARGET = 0.2  # points; 0.5 % of the loss

CHOICES = pl.Schema(
    {
        "method": pl.String,
        "problem": pl.String,
        "seed": pl.Int64,
        "draw": pl.Int64,
        "lr": pl.Float64,  # null: the method is a training of its own, whose test metric is given
        "finish": pl.String,  # null: whichever is best at that LR by the oracle's validation
        "horizon": pl.Float64,
        "cost": pl.Float64,
        "test": pl.Float64,
    }
)
Curves = Mapping[tuple[str, float], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a method answers to a problem.

    Attributes:
        method: Its name in tables.
        problem: Name of the problem.
        seed: Of weights and batches of what the method trained; its choice is scored on all seeds of the oracle.
        lr: The LR; None for a method that needs none and was trained itself.
        finish: How to finish; None for whichever is best there by the oracle's validation, a favour.
        horizon: The share of a full training to train for.
        cost: Of the search alone, in full trainings.
        draw: Seed of the method's own random numbers.
        test: Test metric of the method's own training; only where there is no LR.
    """

    method: str
    problem: str
    seed: int
    lr: float | None
    finish: str | None = None
    horizon: float = 1.0
    cost: float = 0.0
    draw: int = 0
    test: float | None = None


@dataclass(frozen=True, kw_only=True)
class Surface:
    """What a problem's LRs lead to, as means over seeds, one array over the LRs per (finish, horizon).

    Attributes:
        problem: The problem.
        lrs: Its LRs, ascending.
        validation: The metric that choices are made on.
        test: The metric that they are judged by.
        floor: The test metric of a model that has learned nothing.
    """

    problem: Problem
    lrs: NDArray[np.float64]
    validation: Curves
    test: Curves
    floor: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """A way to finish, and the test metric that it leads to."""

    finish: str
    test: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """How good a choice is.

    Attributes:
        finish: The finish that it was judged with; None where the method was trained itself.
        test: Its test metric.
        regret: To the best over all LRs and finishes, in points of accuracy or per cent of the loss.
        lr_regret: To the best over all LRs with the same finish and horizon; None where there is no finish.
        points: ``regret`` in points, for both kinds of metric.
        kept_points: The same where, of averages after an eighth, a quarter and half of the training and all finishes
            at its end, the one that validates best is kept.
    """

    finish: str | None
    test: float
    regret: float
    lr_regret: float | None
    points: float
    kept_points: float


def surface(problem: Problem, runs: pl.DataFrame, *, seed: int | None = None) -> Surface:
    """Collect a problem's rows of the oracle.

    A loss above chance level counts as chance level: nobody keeps such a model, and a diverging one has no scale.

    Args:
        problem: The problem.
        runs: Rows of the oracle, of other problems too.
        seed: Only this seed, as a method sees it that trained with it; None for the mean of all.

    Raises:
        ValueError: The oracle has no rows of the problem and seed.
    """
    own = runs.filter((pl.col("problem") == problem.name) & (True if seed is None else pl.col("seed") == seed))
    if own.is_empty():
        raise ValueError(f"The oracle has no runs of {problem.name}{'' if seed is None else f' with seed {seed}'}.")
    floors = {"validation": chance(problem, problem.split.validation), "test": chance(problem, problem.split.test)}
    if not problem.higher_is_better:
        own = own.with_columns(pl.col(name).clip(upper_bound=floor) for name, floor in floors.items())
    means = own.group_by("finish", "horizon", "lr").agg(pl.col("validation", "test").mean()).sort("lr")
    parts = {(str(key[0]), float(key[1])): part for key, part in means.group_by("finish", "horizon")}
    return Surface(
        problem=problem,
        lrs=means["lr"].unique().sort().to_numpy(),
        validation=MappingProxyType({key: part["validation"].to_numpy() for key, part in parts.items()}),
        test=MappingProxyType({key: part["test"].to_numpy() for key, part in parts.items()}),
        floor=floors["test"],
    )


def found(known: Surface, lr: float, *, finish: str | None = None, horizon: float = 1.0) -> Found:
    """The test metric at any LR: linear in its logarithm between those of the grid.

    Below the grid it is that of the smallest LR, above it chance level.

    Raises:
        ValueError: The oracle has no such finish at that horizon.
    """
    there = [name for name in FINISHES if (name, horizon) in known.test and finish in {None, name}]
    if not there:
        raise ValueError(f"The oracle of {known.problem.name} has no {finish or 'finish'} at the horizon {horizon:g}.")
    sign = 1 if known.problem.higher_is_better else -1
    best = max(there, key=lambda name: sign * _at(known.lrs, known.validation[name, horizon], lr))
    above = lr > known.lrs[-1] * (1 + 1e-9)
    return Found(finish=best, test=known.floor if above else _at(known.lrs, known.test[best, horizon], lr))


def kept(known: Surface, lr: float) -> float:
    """The test metric of the best by validation: averages on the way, and every finish at the end."""
    wanted = [*((_KEPT_FINISH, share) for share in _KEPT), *((name, 1.0) for name in FINISHES)]
    ways = [way for way in wanted if way in known.validation]
    sign = 1 if known.problem.higher_is_better else -1
    best = max(ways, key=lambda way: sign * _at(known.lrs, known.validation[way], lr))
    return found(known, lr, finish=best[0], horizon=best[1]).test


def best_test(known: Surface, *, finish: str | None = None, horizon: float = 1.0) -> float:
    """The best test metric of all LRs, with one finish or all."""
    values = [curve for key, curve in known.test.items() if key[1] == horizon and finish in {None, key[0]}]
    return float(np.max(values) if known.problem.higher_is_better else np.min(values))


def score(known: Surface, choice: Choice) -> Score:
    """Judge a choice.

    Raises:
        ValueError: It has neither an LR nor a test metric, or a finish or horizon that the oracle has not.
    """
    if choice.lr is None:
        if choice.test is None:
            raise ValueError(f"{choice.method} on {choice.problem}: a choice needs an LR or a test metric.")
        test = choice.test if known.problem.higher_is_better else min(choice.test, known.floor)
        regret = _regret(known, best_test(known), test)
        points = _points(known, regret)
        return Score(finish=None, test=test, regret=regret, lr_regret=None, points=points, kept_points=points)
    there = found(known, choice.lr, finish=choice.finish, horizon=choice.horizon)
    regret = _regret(known, best_test(known), there.test)
    return Score(
        finish=there.finish,
        test=there.test,
        regret=regret,
        lr_regret=_regret(known, best_test(known, finish=there.finish, horizon=choice.horizon), there.test),
        points=_points(known, regret),
        kept_points=_points(known, _regret(known, best_test(known), kept(known, choice.lr))),
    )


def scores(choices: pl.DataFrame, surfaces: Iterable[Surface]) -> pl.DataFrame:
    """Judge all choices of these problems.

    Args:
        choices: Rows of `CHOICES`.
        surfaces: Of the problems; choices of other problems are left out.

    Returns:
        One row per choice: method, problem, seed, draw, lr, cost, metric, then the fields of `Score`.
    """
    known = {each.problem.name: each for each in surfaces}
    rows = list[dict[str, object]]()
    for row in choices.filter(pl.col("problem").is_in(list(known))).iter_rows(named=True):
        choice = Choice(**row)
        where = known[choice.problem]
        told = {name: row[name] for name in ("method", "problem", "seed", "draw", "lr", "cost")}
        rows.append(told | {"metric": where.problem.metric} | vars(score(where, choice)))
    typed = {"lr": pl.Float64, "finish": pl.String, "lr_regret": pl.Float64}
    return pl.DataFrame(rows, schema_overrides=typed, infer_schema_length=None)


def _at(lrs: NDArray[np.float64], values: NDArray[np.float64], lr: float) -> float:
    return float(np.interp(np.log(lr), np.log(lrs), values))


def _regret(known: Surface, best: float, test: float) -> float:
    return best - test if known.problem.higher_is_better else 100 * (test - best) / best


def _points(known: Surface, regret: float) -> float:
    return regret if known.problem.higher_is_better else regret / LOSS_PER_POINT
