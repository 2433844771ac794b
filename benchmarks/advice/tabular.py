"""Searches whose trainings the oracle has done already: they look up what they would have measured.

LRs are drawn from a problem's own range, which is more than a person knows, and rounded to the oracle's grid. A
training's final validation is that of its best model, and averaging and annealing both are free: both are favours. A
training that diverges reports chance level, since samplers ignore one that fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
import polars as pl
from numpy.typing import NDArray
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler

from benchmarks.advice.choices import Choice
from benchmarks.advice.measuring import HORIZONS
from benchmarks.advice.problem import PARTS, Problem
from benchmarks.advice.scoring import ENDS, kept_on_grid
from benchmarks.advice.surface import Surface, Way, surface
from lratlas.rng import stream

DRAWS = 10
BUDGETS = (1.5, 3.0)  # full trainings
TRIAL = 1 / 4
"""The share of a full training after which a trial of TPE ends."""
_LONGEST_SCREEN = 1 / 16  # where one epoch is more than that
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How far one training went, and what it reported.

    Attributes:
        lr: Its LR.
        horizon: Where it ended, as a share of a full training.
        value: The validation metric there: of the best finish if it was not pruned, else of the last weights.
    """

    lr: float
    horizon: float
    value: float


def tpe_choices(problem: Problem, runs: pl.DataFrame, seed: int) -> list[Choice]:
    """Optuna's TPE with its median pruner and short trials, for each budget and ten seeds of TPE."""
    known = surface(problem, runs, [seed])
    return [tpe_search(known, budget=budget, seed=seed, draw=draw) for budget in BUDGETS for draw in range(DRAWS)]


def tpe_search(known: Surface, *, budget: float, seed: int, draw: int) -> Choice:
    """Ask Optuna for LRs until the budget is used up, and choose the best of the trials that got farthest.

    Trials report the validation metric of the last weights at the oracle's horizons.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize" if known.problem.higher_is_better else "minimize",
        sampler=TPESampler(seed=draw),
        pruner=MedianPruner(),
    )
    trials, left = list[Trial](), budget
    while left >= HORIZONS[0] - _ROUNDING:
        trials.append(_trained(study, known, budget=left))
        left -= trials[-1].horizon
    farthest = max(trial.horizon for trial in trials)
    chosen = max(
        (trial for trial in trials if trial.horizon == farthest), key=lambda trial: known.problem.sign * trial.value
    )
    return Choice(
        method=f"TPE, {budget:g}",
        problem=known.problem.name,
        seed=seed,
        draw=draw,
        lr=chosen.lr,
        cost=budget - left,
    )


def screen_choices(problem: Problem, runs: pl.DataFrame, seed: int) -> list[Choice]:
    """Random search with a one-epoch screen, for each budget and ten seeds of its draws."""
    known = surface(problem, runs, [seed])
    return [screen_search(known, budget=budget, seed=seed, draw=draw) for budget in BUDGETS for draw in range(DRAWS)]


def screen_search(known: Surface, *, budget: float, seed: int, draw: int) -> Choice:
    """Train random LRs for an epoch, continue the best ones to the end, and choose the best of these.

    Two thirds of the budget are full trainings, the rest is screening; no LR is drawn twice.
    """
    finished = round(budget / 1.5)
    epoch = len(known.problem.split.train[1]) / known.problem.batch_size / known.problem.steps
    horizon = min(HORIZONS, key=lambda each: abs(np.log(each / min(epoch, _LONGEST_SCREEN))))
    count = min(int((budget - finished * (1 - horizon)) / horizon + _ROUNDING), len(known.lrs))
    drawn = stream(draw, "advice/screen").permutation(len(known.lrs))[:count]
    early = known.validation["constant", horizon][0][drawn]
    ranked = drawn[np.argsort(-known.problem.sign * early, kind="stable")]
    return Choice(
        method=f"random, one-epoch screen, {budget:g}",
        problem=known.problem.name,
        seed=seed,
        draw=draw,
        lr=best_finished(known, ranked[:finished]),
        cost=count * horizon + finished * (1 - horizon),
    )


def grid_choices(problem: Problem, runs: pl.DataFrame, seed: int) -> list[Choice]:
    """Every LR of the oracle in full, chosen by the validation data of one seed: what a search can hope for."""
    known = surface(problem, runs, [seed])
    lr, cost = best_finished(known, np.arange(len(known.lrs))), float(len(known.lrs))
    return [Choice(method="whole grid, one seed", problem=problem.name, seed=seed, lr=lr, cost=cost)]


def default_choices(problem: Problem, seed: int) -> list[Choice]:
    """The LR that is customary for the optimizer."""
    return [Choice(method="default LR", problem=problem.name, seed=seed, lr=problem.default_lr)]


def best_finished(known: Surface, places: NDArray[np.int64]) -> float:
    """The LR at these places whose training validates best under the rule of `scoring`; of equals the middle one."""
    places = np.sort(places)
    values = known.problem.sign * kept_on_grid(known).validation[0, places]
    equal = places[values == values.max()]
    return float(known.lrs[equal[len(equal) // 2]])


def _trained(study: optuna.Study, known: Surface, *, budget: float) -> Trial:
    """One trial, with its result reported: to its end, until it is pruned, or until the budget is used up."""
    trial = study.ask()
    drawn = trial.suggest_float("lr", float(known.lrs[0]), float(known.lrs[-1]), log=True)
    place = int(np.abs(np.log(known.lrs / drawn)).argmin())
    lr, reached = float(known.lrs[place]), HORIZONS[0]
    for horizon in (each for each in HORIZONS if each <= min(TRIAL, budget + _ROUNDING)):
        reached = horizon
        trial.report(_value(known, place, [("constant", horizon)]), round(PARTS * horizon))
        if horizon < TRIAL and trial.should_prune():
            break
    if reached == TRIAL:
        value = _value(known, place, [("constant", TRIAL), *((finish, TRIAL) for finish, _ in ENDS["either"])])
        study.tell(trial, value)
        return Trial(lr=lr, horizon=reached, value=value)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return Trial(lr=lr, horizon=reached, value=_value(known, place, [("constant", reached)]))


def _value(known: Surface, place: int, ways: Sequence[Way]) -> float:
    """The best validation metric of these models of one training."""
    sign = known.problem.sign
    return sign * max(sign * float(known.validation[way][0, place]) for way in ways)
