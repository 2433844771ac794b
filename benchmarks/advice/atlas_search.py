"""LR Atlas's own search on a problem, by ask and tell: real trainings, choices on the validation set alone."""

import math
import tempfile
from dataclasses import replace

from benchmarks.advice.problem import Problem
from benchmarks.advice.scoring import Choice
from benchmarks.advice.training import Average, Run, Snapshot, advance, evaluate, evaluate_average, restore
from benchmarks.advice.training import snapshot as taken
from benchmarks.advice.training import start as begun
from lratlas.search.advice import Advice
from lratlas.search.finder import Finder
from lratlas.search.segments import Segment
from lratlas.study.spec.grid import lr_grid

METHOD = "LR Atlas"
BUDGETS = (1.5, 3.0)  # full trainings
_CHECKPOINTS = 10  # that enter an average
_SGD, _ADAM = lr_grid(1e-4, 10.0, per_decade=4), lr_grid(1e-5, 1.0, per_decade=4)  # what a user would begin with


def choices(problem: Problem, seed: int) -> list[Choice]:
    """The advised LR with each budget, and the upper end of its good range; the seed is that of weights and batches."""
    made = list[Choice]()
    for budget in BUDGETS:
        name = METHOD if budget == BUDGETS[0] else f"{METHOD}, {budget:g}"
        advice = search(problem, seed=seed, budget=budget)
        made.append(Choice(method=name, problem=problem.name, seed=seed, lr=advice.lr, cost=advice.cost))
        made.append(replace(made[-1], method=f"{name}, upper end", lr=advice.high))
    return made


def search(problem: Problem, *, seed: int, budget: float) -> Advice:
    """Search for the initial LR of a problem with real trainings."""
    states = dict[str, Snapshot]()
    with tempfile.TemporaryDirectory() as folder:
        finder = Finder(
            folder,
            steps=problem.steps,
            lrs=_SGD if problem.rule["name"] == "sgd" else _ADAM,
            budget=budget,
            direction="maximize" if problem.higher_is_better else "minimize",
        )
        while asked := finder.ask():
            run = begun(problem, seed=seed + 1000 * asked.seed, lr=asked.lr)
            if asked.parent:
                restore(run, states[asked.parent])
            losses = _train(run, asked)
            if run.diverged:
                finder.fail(asked, "the loss is not finite", losses=[*losses, math.nan])
            else:
                value, averaged = evaluate(run).validation, evaluate_average(run, run.average).validation
                finder.tell(asked, value=value, averaged=averaged, losses=losses)
            run.average = Average()
            states[asked.name] = taken(run)
            for name in states.keys() - finder.needed():
                del states[name]
        return finder.advice()


def _train(run: Run, asked: Segment) -> list[float]:
    """Train the segment; checkpoints of its end are in the run's average. Returns the losses."""
    run.average = Average()
    warmed = run.problem.lr_factor
    trace = advance(run, asked.average_from - run.step, lr_at=lambda step: asked.lr_at(step) * warmed(step))
    every = max(1, (asked.stop - asked.average_from) // _CHECKPOINTS)
    rest = advance(run, asked.stop - run.step, lr_at=lambda step: asked.lr_at(step) * warmed(step), every=every)
    return [*trace.losses, *rest.losses]
