"""What the jobs that measure do: finished runs from the store, one table of rows each."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from itertools import combinations

import polars as pl
from torch import Tensor

from lratlas.data.band_ranges import Band
from lratlas.execute.context import StackData, WorkerContext
from lratlas.execute.rows import flat, model_rows, norms_table
from lratlas.measure.bands import band_accuracies
from lratlas.measure.features import single_feature_accuracies
from lratlas.measure.geometry import angular_distance, arc, barrier, path_errors
from lratlas.measure.hessian import seed_samples
from lratlas.measure.norms import group_norms
from lratlas.study.plan import Bands, Features, Geometry, Grid, Measurement, Norms, Sharpness, Training
from lratlas.training.evaluate import evaluate_stack
from lratlas.training.prepared import make_model
from lratlas.training.sphere import Weights

Found = Iterator[tuple[Mapping[str, object], Tensor]]  # columns of a row and the accuracies [seeds, lanes]
Values = list[float]


def measured(context: WorkerContext, job: Measurement) -> pl.DataFrame:
    """The rows that a job adds to its table."""
    if isinstance(job, Features):
        return _features(context, job)
    if isinstance(job, Bands):
        return _bands(context, job)
    if isinstance(job, Norms):
        return _norms(context, job)
    if isinstance(job, Sharpness):
        return _sharpness(context, job)
    return _geometry(context, job)


def _features(context: WorkerContext, job: Features) -> pl.DataFrame:
    def found(weights: Weights, buffers: Weights, data: StackData) -> Found:
        accuracies = single_feature_accuracies(context.program, weights, buffers, data.features)
        yield from (({"feature": feature}, accuracy) for feature, accuracy in enumerate(accuracies))

    return _of_all_runs(context, job.training, found)


def _bands(context: WorkerContext, job: Bands) -> pl.DataFrame:
    bands = [Band(*band) for band in job.bands]

    def found(weights: Weights, buffers: Weights, data: StackData) -> Found:
        for kept in (True, False):
            accuracies = band_accuracies(context.program, weights, buffers, data.test, bands, kept=kept)
            for band, accuracy in zip(bands, accuracies, strict=True):
                yield {"low": band.low, "high": band.high, "kept": kept}, accuracy

    return _of_all_runs(context, job.training, found)


def _of_all_runs(
    context: WorkerContext, training: str, found: Callable[[Weights, Weights, StackData], Found]
) -> pl.DataFrame:
    """Accuracies of a training job's own runs and of its averages, one after the other."""
    job = context.training(training)
    _, _, data = context.initial(job.seeds, len(job.lanes))
    return pl.concat(
        model_rows(job, runs, count, {**columns, "accuracy": flat(accuracy)})
        for runs, count in _grids(job)
        for columns, accuracy in found(*context.end_points(runs), data)
    )


def _norms(context: WorkerContext, job: Norms) -> pl.DataFrame:
    if job.training is None:
        weights, _, _ = context.initial(job.seeds, 1)
        return norms_table(None, job.seeds, group_norms(context.vector(weights)))
    training = context.training(job.training)
    weights, _ = context.end_points(training.runs)
    return norms_table(training, training.seeds, group_norms(context.vector(weights)), runs=training.runs)


def _sharpness(context: WorkerContext, job: Sharpness) -> pl.DataFrame:
    from lratlas.measure.sharpness import sharpness_measure  # its solver takes a second to import

    training = context.training(job.training)
    _, _, data = context.initial(training.seeds, len(training.lanes))
    own = [seed_samples(data.train, at) for at in range(len(training.seeds))]
    task = context.task
    curvature = sharpness_measure(
        make_model(task, 0), task.objective, task.update, batch_size=task.samples_per_step, limit=job.samples
    )

    def found(weights: Weights, buffers: Weights, data: StackData) -> dict[str, Values]:
        error = 1 - evaluate_stack(context.program, weights, buffers, data.test).accuracy
        each = [
            asdict(curvature(_run(weights, at, lane), _run(buffers, at, lane), own[at], seed.training_seed))
            for at, seed in enumerate(training.seeds)
            for lane in range(len(training.lanes))
        ]
        columns = {name: [row[name] for row in each] for name in each[0]}
        return {**columns, "test_error": flat(error)}

    return pl.concat(
        model_rows(training, runs, count, found(*context.end_points(runs), data)) for runs, count in _grids(training)
    )


def _run(tensors: Weights, seed: int, lane: int) -> Weights:
    return {name: value[seed, lane] for name, value in tensors.items()}


def _geometry(context: WorkerContext, job: Geometry) -> pl.DataFrame:
    training = context.training(job.training)
    _, _, data = context.initial(training.seeds, len(training.lanes))
    points = {role: context.end_points(runs) for role, runs in job.solutions.items()}
    tables: list[pl.DataFrame] = []
    for a, b in combinations(points, 2):
        (first, buffers), (second, _) = points[a], points[b]
        errors = partial(
            path_errors,
            context.program,
            first,
            second,
            buffers,
            {"train": data.train, "test": data.test},
            points=context.spec.measure.interpolation,
            batch_size=context.task.samples_per_step,
        )
        line, along = errors(), errors(path=arc) if job.great_circle else None
        tables.append(
            pl.DataFrame(
                {
                    "plr": [lane.plr for _ in training.seeds for lane in training.lanes],
                    "seed": [seed.seed for seed in training.seeds for _ in training.lanes],
                    "a": a,
                    "b": b,
                    "angle": flat(angular_distance(context.vector(first), context.vector(second))),
                    "train_barrier": flat(barrier(line["train"])),
                    "test_barrier": flat(barrier(line["test"])),
                    "train_barrier_arc": flat(barrier(along["train"])) if along else None,
                    "test_barrier_arc": flat(barrier(along["test"])) if along else None,
                }
            )
        )
    return pl.concat(tables)


def _grids(job: Training) -> list[tuple[Grid, int | None]]:
    """The run ids of a job's own runs and of its averages, with the averages' counts."""
    own: list[tuple[Grid, int | None]] = [(job.runs, None)] if job.stage != "average" else []
    if job.average:
        own += zip(job.average.runs, job.average.counts, strict=True)
    return own
