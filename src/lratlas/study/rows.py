"""Rows of the tables from the tensors of a stack, in the order [seed][lane]."""

from collections.abc import Mapping, Sequence

import polars as pl
import torch
from torch import Tensor

from lratlas.study.plan import Grid, Training
from lratlas.training.evaluating import Scores
from lratlas.training.stacks import Stack
from lratlas.training.trainer import Row


def runs_table(
    job: Training,
    runs: Grid,
    parents: Grid | None,
    stack: Stack,
    train: Scores,
    test: Scores,
    *,
    gradient: Tensor | None = None,
    count: int | None = None,
) -> pl.DataFrame:
    """Rows of the table of runs for one grid of run ids; seconds are left at 0.

    Args:
        job: The job that trained them.
        runs: Their ids.
        parents: The ids of the runs they start from.
        stack: The stack at the end.
        train: Scores on the training set.
        test: Scores on the test set.
        gradient: Mean gradient norm since the last trace row; None for averages.
        count: Number of averaged checkpoints; None for the job's own runs.
    """
    shape, size = (len(job.seeds), len(job.lanes)), job.size
    continued = job.stage == "average"  # the k-th checkpoint after pre-training is the last of SWA-k
    seeds = [seed for seed in job.seeds for _ in job.lanes]
    lanes = [lane for _ in job.seeds for lane in job.lanes]
    return pl.DataFrame(
        {
            "run": [run for row in runs for run in row],
            "stage": job.stage if count is None else "average",
            "parent": [run for row in parents for run in row] if parents else [None] * size,
            "plr": [lane.plr for lane in lanes],
            "plr2": pl.Series([None] * size, dtype=pl.Float64),
            "flr": pl.Series([lane.flr for lane in lanes], dtype=pl.Float64),
            "count": pl.Series([count] * size, dtype=pl.Int64),
            "seed": [seed.seed for seed in seeds],
            "data_seed": pl.Series([seed.data_seed for seed in seeds], dtype=pl.Int64),
            "steps": job.average.steps[count - 1] if continued and job.average and count else job.segments[-1],
            "diverged": (~stack.alive).flatten().tolist(),
            "train_loss": flat(train.loss),
            "train_accuracy": flat(train.accuracy),
            "test_loss": flat(test.loss),
            "test_accuracy": flat(test.accuracy),
            "gradient_norm": flat(torch.full(shape, torch.nan) if gradient is None else gradient),
            "seconds": 0.0,
        },
        schema_overrides={"parent": pl.String},
    ).with_columns(_finite())


def trace_table(runs: Grid, rows: Sequence[Row], steps_per_epoch: int) -> pl.DataFrame:
    """Rows of the table of traces.

    Args:
        runs: The ids of the stack's runs.
        rows: What training recorded.
        steps_per_epoch: Full batches in the training set.
    """
    columns = (
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
        "gradient_norm",
        "weight_norm",
        "chance_accuracy",
    )
    names = [run for row in runs for run in row]
    frames = [
        pl.DataFrame(
            {"run": names, "step": row.step, "epoch": row.step / steps_per_epoch}
            | {column: flat(getattr(row, column)) for column in columns}
        )
        for row in rows
    ]
    return pl.concat(frames).with_columns(_finite())


def measured_rows(
    job: Training, runs: Grid, count: int | None, columns: Mapping[str, object], accuracy: Tensor
) -> pl.DataFrame:
    """Rows of a table of accuracies, one per run: what identifies the run, then what was measured.

    Args:
        job: The training job.
        runs: The ids of its runs, or of its averages.
        count: Number of averaged checkpoints; None for the job's own runs.
        columns: Columns that are the same in all rows.
        accuracy: [seeds, lanes].
    """
    seeds, lanes = len(job.seeds), len(job.lanes)
    return pl.DataFrame(
        {
            "run": [run for row in runs for run in row],
            "stage": job.stage if count is None else "average",
            "plr": [lane.plr for lane in job.lanes] * seeds,
            "flr": [lane.flr for lane in job.lanes] * seeds,
            "count": pl.Series([count] * (seeds * lanes), dtype=pl.Int64),
            "seed": [seed.seed for seed in job.seeds for _ in job.lanes],
            **columns,
            "accuracy": flat(accuracy),
        },
        schema_overrides={"flr": pl.Float64},
    )


def flat(values: Tensor) -> list[float]:
    """The values [seeds, lanes] as a list, in the order of the rows of a table."""
    return values.double().flatten().tolist()


def _finite() -> pl.Expr:
    """Every float column with null for what is not a finite number."""
    return pl.when(pl.col(pl.Float64).is_finite()).then(pl.col(pl.Float64))
