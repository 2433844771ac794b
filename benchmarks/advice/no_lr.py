"""Optimizers that promise that there is no LR to choose, each trained once in full per problem and judge's seed.

Prodigy with the cosine schedule that its README recommends, and schedule-free AdamW with its default LR and a warm-up
over the first twentieth. Weight decay and betas are the problem's. Rows are stored in `no_lr.parquet`; what is there
is not trained again, so after a change of a problem its rows have to go.

    python -m benchmarks.advice.no_lr [PROBLEM …] [--folder FOLDER]
"""

import argparse
import contextlib
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from prodigyopt import Prodigy
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn

from benchmarks.advice.oracle import FOLDER, JUDGES, read
from benchmarks.advice.problem import Problem
from benchmarks.advice.problems import PROBLEMS, problem_named
from benchmarks.advice.scoring import JUDGED
from benchmarks.advice.surface import Surface
from benchmarks.advice.training import Average, Quality, Run, advance, evaluate, evaluate_average

TABLE = "no_lr"
ROWS = pl.Schema(
    {
        "method": pl.String,
        "problem": pl.String,
        "seed": pl.Int64,
        "validation": pl.Float64,
        "test": pl.Float64,
        "diverged": pl.Boolean,
        "seconds": pl.Float64,
    }
)
_SCHEDULE_FREE_LR = 0.0025  # the package's default
_WARMUP = 1 / 20  # of the training


def prodigy(problem: Problem, seed: int) -> tuple[Quality, float]:
    """Quality of Prodigy's last weights, and the seconds of its training."""

    def optimizer(weights: list[nn.Parameter]) -> Prodigy:
        settings: dict[str, Any] = {"weight_decay": _decay(problem), "betas": _betas(problem)}
        return Prodigy(weights, **settings)  # annotated as if weight decay were whole

    with contextlib.redirect_stdout(io.StringIO()):  # it announces its weight decay
        run = _run(problem, seed, optimizer, lr=1.0)
    advance(run, problem.steps, lr_at=lambda step: (1 + math.cos(math.pi * step / problem.steps)) / 2)
    return evaluate(run), run.seconds


def schedule_free(problem: Problem, seed: int) -> tuple[Quality, float]:
    """Quality of schedule-free AdamW's averaged weights, and the seconds of its training."""
    warmup = max(1, round(_WARMUP * problem.steps))

    def optimizer(weights: list[nn.Parameter]) -> AdamWScheduleFree:
        return AdamWScheduleFree(
            weights,
            lr=_SCHEDULE_FREE_LR,
            warmup_steps=warmup,
            weight_decay=_decay(problem),
            betas=_betas(problem),
        )

    run = _run(problem, seed, optimizer, lr=_SCHEDULE_FREE_LR)
    made = cast("AdamWScheduleFree", run.optimizer)
    made.train()
    advance(run, problem.steps, lr_at=lambda _: _SCHEDULE_FREE_LR)
    made.eval()
    # Its averaged weights need their own batch-norm statistics, like any average.
    return evaluate_average(run, Average(count=1, total=_weights(run))), run.seconds


METHODS: Mapping[str, Callable[[Problem, int], tuple[Quality, float]]] = MappingProxyType(
    {"Prodigy": prodigy, "schedule-free AdamW": schedule_free}
)


def judge(rows: pl.DataFrame, surfaces: Mapping[str, Surface]) -> pl.DataFrame:
    """These trainings as rows of `scoring.JUDGED`, of one search that cost nothing.

    Args:
        rows: Of `ROWS`; a method that lacks a judge's seed of a problem is left out there.
        surfaces: Of the judges, by the name of the problem.
    """
    found = list[dict[str, object]]()
    wanted = rows.filter(pl.col("seed").is_in(JUDGES) & pl.col("problem").is_in(list(surfaces))).sort("seed")
    for (method, problem), part in wanted.group_by("method", "problem", maintain_order=True):
        known = surfaces[str(problem)]
        tests = part["test"].to_numpy()
        if len(tests) == len(JUDGES):
            named = {"method": method, "problem": problem, "seed": 0, "draw": 0}
            tests = tests if known.problem.higher_is_better else np.minimum(tests, known.floors[1])
            found += [named | {"judge": one, "test": value} for one, value in zip(JUDGES, tests, strict=True)]
    return pl.DataFrame(found, schema=JUDGED)


def train_missing(problem: Problem, folder: Path) -> None:
    """Train what the folder's table has not, and add it."""
    for method, train in METHODS.items():
        for seed in JUDGES:
            rows = read(folder, TABLE, ROWS)
            if rows.filter(method=method, problem=problem.name, seed=seed).is_empty():
                quality, seconds = train(problem, seed)
                row = {"method": method, "problem": problem.name, "seed": seed, "seconds": seconds} | vars(quality)
                _write(pl.concat([rows, pl.DataFrame([row], schema=ROWS)]), folder)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the optimizers that need no LR.")
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", help=f"of {', '.join(PROBLEMS)}; all if none")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the table is")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in given.problems or PROBLEMS:
        train_missing(problem_named(name), given.folder)
        means = read(given.folder, TABLE, ROWS).filter(problem=name).group_by("method").agg(pl.col("test").mean())
        print(name, dict(means.sort("method").iter_rows()), flush=True)


def _run(
    problem: Problem,
    seed: int,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    *,
    lr: float,
) -> Run:
    model = problem.make_model(seed).train()
    return Run(problem=problem, seed=seed, lr=lr, model=model, optimizer=optimizer(list(model.parameters())))


def _decay(problem: Problem) -> float:
    """The problem's weight decay, AdamW's own default where it says nothing."""
    return cast("float", problem.rule.get("weight_decay", 0.01 if problem.rule["name"] == "adamw" else 0.0))


def _betas(problem: Problem) -> tuple[float, float]:
    return cast("tuple[float, float]", problem.rule.get("betas", (0.9, 0.999)))


def _weights(run: Run) -> dict[str, Tensor]:
    return {name: value.detach().double() for name, value in run.model.named_parameters()}


def _write(rows: pl.DataFrame, folder: Path) -> None:
    """Write the table so that it is either whole or as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{TABLE}.{os.getpid()}.tmp"
    rows.write_parquet(temporary)
    temporary.replace(folder / f"{TABLE}.parquet")


if __name__ == "__main__":
    main()
