"""LR Atlas as a user calls it: `lratlas.find` on the problem as a task, every setting but the length its default."""

import os
import tempfile
import time
from pathlib import Path

import lratlas
from benchmarks.advice.choices import FOUND, Choice
from benchmarks.advice.problem import Problem, as_task, batches

METHOD = "LR Atlas"
BUDGETS = (1.5, 3.0)  # full trainings
_APART = 1000  # between the first training seeds of two searches, none of which is a judge's


def choices(problem: Problem, seed: int) -> list[Choice]:
    """What is advised with each budget."""
    plain = training_seconds(problem, seed)
    return [search(problem, seed=seed, budget=budget, plain=plain) for budget in BUDGETS]


def search(problem: Problem, *, seed: int, budget: float, plain: float) -> Choice:
    """Search for the initial LR of a problem; ``plain`` is the processor time of a full training."""
    task = as_task(problem)
    began = processor_seconds()
    with tempfile.TemporaryDirectory() as folder:
        advice = lratlas.find(
            task,
            steps=problem.steps,
            budget=budget,
            warmup=problem.warmup,
            seed=_APART * (seed + 1),
            folder=Path(folder) / "search",
            device="cpu",
        )
    seconds = processor_seconds() - began
    unit = 100 if problem.metric == "accuracy" else 1
    return Choice(
        method=METHOD if budget == BUDGETS[0] else f"{METHOD}, {budget:g}",
        problem=problem.name,
        seed=seed,
        lr=advice.lr if advice.verdict == FOUND else None,
        cost=advice.cost,
        finish=advice.finish,
        verdict=advice.verdict,
        low=advice.low,
        high=advice.high,
        expected=_times(unit, advice.expected),
        expected_low=_times(unit, advice.expected_low),
        expected_high=_times(unit, advice.expected_high),
        seconds=seconds,
        training_seconds=plain,
    )


def training_seconds(problem: Problem, seed: int) -> float:
    """Processor time of a full training in a plain PyTorch loop, at the customary LR."""
    model = problem.make_model(seed).train()
    optimizer = problem.make_optimizer([*model.parameters()], problem.default_lr)
    began = time.process_time()
    for x, y in batches(problem, seed=seed, start=0, stop=problem.steps):
        optimizer.zero_grad()
        problem.losses(model(x), y).mean().backward()
        optimizer.step()
    return time.process_time() - began


def processor_seconds() -> float:
    """Processor time of this process and of all its children that have ended."""
    return sum(os.times()[:4])


def _times(unit: float, value: float | None) -> float | None:
    return None if value is None else unit * value
