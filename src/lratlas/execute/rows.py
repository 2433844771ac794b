"""Table rows from the tensors of a stack, in the order [seed][lane]."""

from collections.abc import Mapping, Sequence

import polars as pl
import torch
from torch import Tensor

from lratlas.devices import widened
from lratlas.study.jobs import Grid, Training, run_columns
from lratlas.tables import SCHEMAS
from lratlas.training.evaluate import Scores
from lratlas.training.record import COLUMNS, Fitted, Row
from lratlas.training.state import Stack


def runs_table(
    job: Training,
    runs: Grid,
    parents: Grid | None,
    stack: Stack,
    train: Scores,
    test: Scores,
    *,
    gradient: Tensor | None = None,
    start: Tensor | None = None,
    count: int | None = None,
) -> pl.DataFrame:
    """Rows of the ``runs`` table for one grid of run ids; seconds are 0.

    Args:
        job: The job that trained the runs.
        runs: The run ids.
        parents: The ids of the runs that they start from.
        stack: The final stack.
        train: Scores on the training set.
        test: Scores on the test set.
        gradient: Mean gradient norm since the last trace row; None for averages.
        start: Test loss before the first step; None for all stages except pre-training.
        count: Number of averaged checkpoints; None for the job's own runs.
    """
    shape = (len(job.seeds), len(job.lanes))
    return pl.DataFrame(
        {
            **run_columns(job, runs, parents, count),
            "diverged": (~stack.alive).flatten().tolist(),
            "train_loss": flat(train.loss),
            "train_accuracy": flat(train.accuracy),
            "test_loss": flat(test.loss),
            "test_accuracy": flat(test.accuracy),
            "gradient_norm": flat(_fill_missing(gradient, shape)),
            "seconds": 0.0,
            "start_loss": flat(_fill_missing(start, shape)),
        },
        schema_overrides=SCHEMAS["runs"],
    ).with_columns(_finite())


def trace_table(runs: Grid, rows: Sequence[Row], steps_per_epoch: int) -> pl.DataFrame:
    """Rows of the ``traces`` table.

    Args:
        runs: The ids of the stack's runs.
        rows: The rows that training recorded.
        steps_per_epoch: Full batches in the training set.
    """
    names = [run for row in runs for run in row]
    frames = [
        pl.DataFrame(
            {"run": names, "step": row.step, "epoch": row.step / steps_per_epoch}
            | {column: flat(getattr(row, column)) for column in COLUMNS}
        )
        for row in rows
    ]
    return pl.concat(frames).with_columns(_finite())


def convergence_table(job: Training, fitted: Fitted) -> pl.DataFrame:
    """Rows of the ``convergence`` table for one segment; null if a run first fits all samples elsewhere, or never.

    Args:
        job: The job.
        fitted: The result of training the segment.
    """
    epochs = [epochs or None for epochs in fitted.epochs.flatten().tolist()]
    return pl.DataFrame(
        {
            "plr": [lane.plr for _ in job.seeds for lane in job.lanes],
            "seed": [seed.seed for seed in job.seeds for _ in job.lanes],
            "epochs": pl.Series(epochs, dtype=pl.Int64),
            "test_accuracy": flat(fitted.test_accuracy),
        }
    ).with_columns(_finite())


def make_rows(identity: Mapping[str, object], columns: Mapping[str, object], schema: pl.Schema) -> pl.DataFrame:
    """Rows of a measurement's table; values that are not finite become null.

    Args:
        identity: The columns that identify the models.
        columns: The measured values: one value for all models, one per model, or a list per model, which adds a row for
            each of its entries.
        schema: The columns of the table.
    """
    frame = pl.DataFrame({**identity, **columns})
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    rows = frame.explode(lists) if lists else frame
    return rows.select(schema.names()).cast(schema).with_columns(_finite())


def flat(values: Tensor) -> list[float]:
    """Flatten values [seeds, lanes] to a list, in the row order of the tables."""
    return widened(values).flatten().tolist()


def _fill_missing(values: Tensor | None, shape: tuple[int, int]) -> Tensor:
    """The values, or NaN for each run if there are none."""
    return torch.full(shape, torch.nan) if values is None else values


def _finite() -> pl.Expr:
    """All float columns, with null for values that are not finite."""
    return pl.when(pl.col(pl.Float64).is_finite()).then(pl.col(pl.Float64))
