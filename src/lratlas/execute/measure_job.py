"""Measuring jobs: read finished runs from the store and compute the rows of one table."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import polars as pl

from lratlas.execute.context import WorkerContext
from lratlas.execute.rows import make_rows
from lratlas.measure.base import Measurement, Models, grids
from lratlas.measure.each import measure_each
from lratlas.study.jobs import Measuring, Seed, initial_columns, model_columns
from lratlas.training.prepared import make_model


def measure_rows(context: WorkerContext, job: Measuring) -> pl.DataFrame:
    """The rows that a job adds to its table.

    Raises:
        MeasurementError: A custom measurement failed, or returned other columns than it declares.
    """
    measurement = context.measurements[job.measurement]
    options = {**context.spec.measure.options_of(measurement), **job.options}
    measure = measurement.function if measurement.needs.stacked else partial(measure_each, measurement)
    return pl.concat(
        make_rows(identity, columns, measurement.schema)
        for identity, models in _stacks(context, job, measurement)
        for columns in measure(models, options)
    )


def _stacks(
    context: WorkerContext, job: Measuring, measurement: Measurement
) -> Iterator[tuple[Mapping[str, object], Models]]:
    """The stacks of models that a job measures, one at a time, with the columns that identify the models."""
    if job.training is None:
        weights, buffers, _ = context.initial(job.seeds, 1)
        yield initial_columns(job.seeds), _models(context, job.seeds, 1)(weights=weights, buffers=buffers)
        return
    training = context.training(job.training)
    models = _models(context, training.seeds, len(training.lanes))
    for runs, count in grids(training, measurement.needs.stages):
        identity = model_columns(training, runs, count)
        if job.solutions:
            yield identity, models(solutions={role: context.end_points(grid) for role, grid in job.solutions.items()})
        else:
            weights, buffers = context.end_points(runs)
            yield identity, models(weights=weights, buffers=buffers, runs=runs)


def _models(context: WorkerContext, seeds: Sequence[Seed], lanes: int) -> "partial[Models]":
    """A constructor for models of the given seeds, called with their weights."""
    return partial(
        Models,
        task=context.task,
        fresh=lambda at: make_model(context.task_of(seeds[at].seed), seeds[at].training_seed),
        program=lambda: context.program,
        setting=lambda: context.initial(seeds, lanes)[2],
        vector=context.vector,
        seeds=[seed.training_seed for seed in seeds],
        lanes=lanes,
    )
