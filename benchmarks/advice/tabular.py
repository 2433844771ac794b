"""Searches whose trainings the oracle has done already: they look up what they would have measured.

LRs are drawn from a problem's own range, which is more than a person knows, and rounded to the oracle's grid. A
training's final validation is that of its best finish, with no charge for finishing in all ways: both are favours. A
training that diverges tells chance level, for samplers ignore one that fails.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import optuna
import polars as pl
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner
from optuna.samplers import TPESampler

from benchmarks.advice.measuring import FINISHES, HORIZONS
from benchmarks.advice.problem import PARTS, Problem
from benchmarks.advice.scoring import Choice, Surface, surface
from lratlas.streams import stream

DRAWS = 10
BUDGETS = (1.5, 3.0)  # full trainings
LENGTHS: Mapping[str, float] = MappingProxyType({"": 1.0, ", short trials": 0.25})
"""What trials are called, and the share of a full training at which they end."""
PRUNERS: Mapping[str, Callable[[int], BasePruner]] = MappingProxyType(
    {
        "Hyperband": lambda steps: HyperbandPruner(min_resource=1, max_resource=steps),
        "median": lambda _: MedianPruner(),
    }
)
"""What makes each pruner, given the step, in 64ths of a full training, at which trials end."""
_LONGEST_SCREEN = 1 / 16  # where one epoch is more than that
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How far one training went, and what it told.

    Attributes:
        lr: Its LR.
        horizon: Where it ended, as a share of a full training.
        value: The validation metric there: of the best finish if it was not cut short, else as it was.
        finish: That finish; None if it was cut short.
    """

    lr: float
    horizon: float
    value: float
    finish: str | None


def tpe_choices(problem: Problem, runs: pl.DataFrame, seed: int) -> list[Choice]:
    """Optuna's TPE with each pruner, budget, length of trials, and ten seeds of its own."""
    known = surface(problem, runs, seed=seed)
    return [
        tpe_search(known, pruner=pruner, length=length, budget=budget, seed=seed, draw=draw)
        for pruner in PRUNERS
        for length in LENGTHS
        for budget in BUDGETS
        for draw in range(DRAWS)
    ]


def tpe_search(known: Surface, *, pruner: str, length: str, budget: float, seed: int, draw: int) -> Choice:
    """Ask Optuna for LRs until the budget is used up, and choose the best trial that was not cut short.

    Trials report the validation metric of the constant phase at the oracle's horizons. Where none got to its end, the
    best of those that got farthest is chosen.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    end = LENGTHS[length]
    study = optuna.create_study(
        study_name=f"{draw}",  # Hyperband assigns trials to brackets by a hash of it
        direction="maximize" if known.problem.higher_is_better else "minimize",
        sampler=TPESampler(seed=draw),
        pruner=PRUNERS[pruner](round(PARTS * end)),
    )
    trials, left = list[Trial](), budget
    while left >= HORIZONS[0] - _ROUNDING:
        trial = _trained(study, known, end=end, budget=left)
        trials.append(trial)
        left -= trial.horizon
    chosen = _best(known, trials, end)
    return Choice(
        method=f"TPE, {pruner} pruning{length}, {budget:g}",
        problem=known.problem.name,
        seed=seed,
        draw=draw,
        lr=chosen.lr,
        finish=chosen.finish,
        cost=budget - left,
    )


def screen_choices(problem: Problem, runs: pl.DataFrame, seed: int) -> list[Choice]:
    """Random search with a one-epoch screen, ten seeds of its own."""
    known = surface(problem, runs, seed=seed)
    return [screen_search(known, budget=budget, seed=seed, draw=draw) for budget in BUDGETS for draw in range(DRAWS)]


def screen_search(known: Surface, *, budget: float, seed: int, draw: int) -> Choice:
    """Train random LRs for an epoch, go on with the best ones to the end, and choose the best of these.

    Two thirds of the budget are full trainings, the rest is screening; no LR is drawn twice.
    """
    kept = round(budget / 1.5)
    epoch = len(known.problem.split.train[1]) / known.problem.batch_size / known.problem.steps
    horizon = min(HORIZONS, key=lambda each: abs(np.log(each / min(epoch, _LONGEST_SCREEN))))
    count = min(int((budget - kept * (1 - horizon)) / horizon + _ROUNDING), len(known.lrs))
    places = stream(draw, "advice/screen").permutation(len(known.lrs))[:count]
    early = known.validation["constant", horizon][places]
    ranked = places[np.argsort(-early if known.problem.higher_is_better else early, kind="stable")]
    chosen = _best(known, [_finished(known, place, 1.0) for place in ranked[:kept]], 1.0)
    return Choice(
        method=f"random, one-epoch screen, {budget:g}",
        problem=known.problem.name,
        seed=seed,
        draw=draw,
        lr=chosen.lr,
        finish=chosen.finish,
        cost=count * horizon + kept * (1 - horizon),
    )


def grid_choices(problem: Problem, runs: pl.DataFrame, seed: int) -> list[Choice]:
    """Every LR in full, chosen by one seed's validation data and by all seeds': what a search can hope for."""
    cost = float(len(problem.lrs))
    told = {
        "whole grid, one seed": (surface(problem, runs, seed=seed), cost),
        "whole grid, all seeds": (surface(problem, runs), cost * runs.filter(problem=problem.name)["seed"].n_unique()),
    }
    chosen = {method: _best_of_all(known) for method, (known, _) in told.items()}
    return [
        Choice(method=method, problem=problem.name, seed=seed, lr=best.lr, finish=best.finish, cost=told[method][1])
        for method, best in chosen.items()
    ]


def default_choices(problem: Problem, seed: int) -> list[Choice]:
    """The LR that PyTorch gives the optimizer when none is named."""
    return [Choice(method="default LR", problem=problem.name, seed=seed, lr=problem.default_lr)]


def _trained(study: optuna.Study, known: Surface, *, end: float, budget: float) -> Trial:
    """One trial of the study, told to it: to its end, until it is pruned, or until the budget is used up."""
    trial = study.ask()
    drawn = trial.suggest_float("lr", float(known.lrs[0]), float(known.lrs[-1]), log=True)
    place = int(np.abs(np.log(known.lrs / drawn)).argmin())
    reached = HORIZONS[0]
    for horizon in (each for each in HORIZONS if each <= min(end, budget + _ROUNDING)):
        reached = horizon
        trial.report(float(known.validation["constant", horizon][place]), round(PARTS * horizon))
        if horizon < end and trial.should_prune():
            break
    if reached == end:
        finished = _finished(known, place, end)
        study.tell(trial, finished.value)
        return finished
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    value = float(known.validation["constant", reached][place])
    return Trial(lr=float(known.lrs[place]), horizon=reached, value=value, finish=None)


def _best_of_all(known: Surface) -> Trial:
    return _best(known, [_finished(known, place, 1.0) for place in range(len(known.lrs))], 1.0)


def _finished(known: Surface, place: int, horizon: float) -> Trial:
    """A whole training with its best finish."""
    sign = 1 if known.problem.higher_is_better else -1
    finishes = [name for name in FINISHES if (name, horizon) in known.validation]
    finish = max(finishes, key=lambda name: sign * known.validation[name, horizon][place])
    value = float(known.validation[finish, horizon][place])
    return Trial(lr=float(known.lrs[place]), horizon=horizon, value=value, finish=finish)


def _best(known: Surface, trials: Sequence[Trial], end: float) -> Trial:
    """The best of the trials that got to the end, or else of those that got farthest; the first one of several."""
    sign = 1 if known.problem.higher_is_better else -1
    farthest = min(end, max(trial.horizon for trial in trials))
    return max((trial for trial in trials if trial.horizon == farthest), key=lambda trial: sign * trial.value)
