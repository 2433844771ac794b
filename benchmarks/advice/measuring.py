"""What one LR and seed make of a problem: every way to finish, at every horizon, and the trace of the training."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.advice.problem import PARTS, Problem
from benchmarks.advice.training import (
    Average,
    Quality,
    Run,
    Trace,
    advance,
    anneal,
    evaluate,
    evaluate_average,
    merged,
    restore,
    snapshot,
    start,
)

HORIZONS = tuple(2.0**-power for power in range(6, -1, -1))  # shares of a full training
ANNEALED = 1 / 16  # the shortest horizon that is annealed
BRANCH = 0.8  # where the annealed branch leaves the constant LR, as a share of the horizon
WINDOWS = {"average50": 0.5, "average25": 0.75, "average10": 0.9}  # where the averaged checkpoints begin
FINISHES = ("constant", "average10", "average25", "average50", "anneal")
_MARKS = (0.5, 0.75, BRANCH, 0.9, 1.0)
_CHECKPOINTS = 100  # over a horizon, so that a tenth of it has ten

RUNS = pl.Schema(
    {
        "problem": pl.String,
        "lr": pl.Float64,
        "seed": pl.Int64,
        "horizon": pl.Float64,  # share of a full training
        "finish": pl.String,
        "validation": pl.Float64,  # accuracy in points, or loss
        "test": pl.Float64,
        "diverged": pl.Boolean,
        "seconds": pl.Float64,  # of the training up to there, on one core
    }
)
TRACES = pl.Schema(
    {
        "problem": pl.String,
        "lr": pl.Float64,
        "seed": pl.Int64,
        "share": pl.Float64,  # of a full training, at the end of the steps that are averaged
        "train_loss": pl.Float64,  # null once the run has diverged
        "gradient_norm": pl.Float64,
    }
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The rows of one full training: `RUNS` and `TRACES`."""

    runs: pl.DataFrame
    traces: pl.DataFrame


JUDGED = frozenset(
    {("average10", 1 / 8), ("average10", 1 / 4), ("average10", 1 / 2), ("average10", 1.0), ("anneal", 1.0)}
)
"""What a judge keeps a model of, see `scoring.ENDS` and `scoring.ON_THE_WAY`."""


def measure(problem: Problem, *, lr: float, seed: int, only: Collection[tuple[str, float]] | None = None) -> Measured:
    """Train once at a constant LR; on the way, evaluate all that could have been had for less.

    Args:
        problem: What is trained.
        lr: The constant LR.
        seed: Of weights and batches.
        only: The finishes and horizons that are evaluated; None for all.
    """
    run, traces = start(problem, seed=seed, lr=lr), list[Trace]()
    named = {"problem": problem.name, "lr": lr, "seed": seed}
    rows = [
        named | {"horizon": horizon, "finish": finish, "seconds": seconds} | asdict(quality)
        for horizon in HORIZONS
        for finish, (quality, seconds) in _to_horizon(run, horizon, traces, only).items()
    ]
    parts = [named | part for part in _parts(traces, problem.steps // PARTS)]
    return Measured(runs=pl.DataFrame(rows, schema=RUNS), traces=pl.DataFrame(parts, schema=TRACES))


def _to_horizon(
    run: Run, horizon: float, traces: list[Trace], only: Collection[tuple[str, float]] | None
) -> dict[str, tuple[Quality, float]]:
    """Train to a horizon; quality and seconds of each finish there."""

    def wanted(finish: str) -> bool:
        return only is None or (finish, horizon) in only

    last = round(horizon * run.problem.steps)
    traces.append(advance(run, round(_MARKS[0] * last) - run.step))
    found, sums = dict[str, tuple[Quality, float]](), dict[float, Average]()
    for begin, end in pairwise(_MARKS):
        if begin == BRANCH and horizon >= ANNEALED and wanted("anneal"):
            found["anneal"] = _annealed(run, last)
        run.average = Average()
        # A run that diverged takes no steps, so that the number left is not what was asked for.
        traces.append(advance(run, round(end * last) - run.step, every=max(1, last // _CHECKPOINTS)))
        sums[begin] = run.average
    if wanted("constant"):
        found["constant"] = evaluate(run), run.seconds
    for finish, window in (each for each in WINDOWS.items() if wanted(each[0])):
        average = merged(*(part for begin, part in sums.items() if begin >= window))
        found[finish] = evaluate_average(run, average), run.seconds
    return {finish: found[finish] for finish in FINISHES if finish in found}


def _annealed(run: Run, last: int) -> tuple[Quality, float]:
    """Quality and seconds of a branch that ends at step ``last``; the run itself is left as it was."""
    kept = snapshot(run)
    anneal(run, last - run.step)
    result = evaluate(run), run.seconds
    restore(run, kept)
    return result


def _parts(traces: Sequence[Trace], steps: int) -> list[dict[str, float | None]]:
    """Means over each 1/64 of the training."""
    losses = np.concatenate([trace.losses for trace in traces])
    norms = np.concatenate([trace.gradient_norms for trace in traces])
    return [
        {
            "share": (part + 1) / PARTS,
            "train_loss": _mean(losses[part * steps : (part + 1) * steps], whole=True),
            "gradient_norm": _mean(norms[part * steps : (part + 1) * steps], whole=False),
        }
        for part in range(PARTS)
    ]


def _mean(values: NDArray[np.float64], *, whole: bool) -> float | None:
    """The mean; null where nothing is left, or, if the ``whole`` has to be finite, where something is not."""
    kept = values[np.isfinite(values)]
    return None if not len(kept) or (whole and len(kept) < len(values)) else float(kept.mean())
