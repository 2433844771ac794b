"""What the jobs that measure do: finished runs from the store, one table of rows each."""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations

import polars as pl
from torch import Tensor

from lratlas.data.bands import Band
from lratlas.measure.features import single_feature_accuracies
from lratlas.measure.frequencies import band_accuracies
from lratlas.measure.geometry import angular_distance, barrier, path_errors
from lratlas.study.plan import Bands, Features, Geometry, Grid, Measurement, Training
from lratlas.study.rows import flat, measured_rows
from lratlas.study.study import Setting, Study
from lratlas.training.sphere import Weights

Found = Iterator[tuple[Mapping[str, object], Tensor]]  # columns of a row and the accuracies [seeds, lanes]


def measured(study: Study, job: Measurement) -> pl.DataFrame:
    """The rows that a job adds to its table."""
    if isinstance(job, Features):
        return _features(study, job)
    if isinstance(job, Bands):
        return _bands(study, job)
    return _geometry(study, job)


def _features(study: Study, job: Features) -> pl.DataFrame:
    def found(weights: Weights, buffers: Weights, setting: Setting) -> Found:
        accuracies = single_feature_accuracies(study.program, weights, buffers, setting.features)
        yield from (({"feature": feature}, accuracy) for feature, accuracy in enumerate(accuracies))

    return _of_all_runs(study, job.training, found)


def _bands(study: Study, job: Bands) -> pl.DataFrame:
    bands = [Band(*band) for band in job.bands]

    def found(weights: Weights, buffers: Weights, setting: Setting) -> Found:
        for kept in (True, False):
            accuracies = band_accuracies(study.program, weights, buffers, setting.test, bands, kept=kept)
            for band, accuracy in zip(bands, accuracies, strict=True):
                yield {"low": band.low, "high": band.high, "kept": kept}, accuracy

    return _of_all_runs(study, job.training, found)


def _of_all_runs(study: Study, training: str, found: Callable[[Weights, Weights, Setting], Found]) -> pl.DataFrame:
    """Accuracies of a training job's own runs and of its averages, one after the other."""
    job = study.training(training)
    _, _, setting = study.initial(job.seeds, len(job.lanes))
    return pl.concat(
        measured_rows(job, runs, count, columns, accuracy)
        for runs, count in _grids(job)
        for columns, accuracy in found(*study.end_points(runs), setting)
    )


def _geometry(study: Study, job: Geometry) -> pl.DataFrame:
    training = study.training(job.training)
    _, _, setting = study.initial(training.seeds, len(training.lanes))
    points = {role: study.end_points(runs) for role, runs in job.solutions.items()}
    rule = study.task.update
    tables: list[pl.DataFrame] = []
    for a, b in combinations(points, 2):
        (first, buffers), (second, _) = points[a], points[b]
        errors = path_errors(
            study.program,
            first,
            second,
            buffers,
            {"train": setting.train, "test": setting.test},
            points=study.spec.measure.interpolation,
            batch_size=study.task.samples_per_step,
        )
        tables.append(
            pl.DataFrame(
                {
                    "plr": [lane.plr for _ in training.seeds for lane in training.lanes],
                    "seed": [seed.seed for seed in training.seeds for _ in training.lanes],
                    "a": a,
                    "b": b,
                    "angle": flat(angular_distance(rule.vector(first), rule.vector(second))),
                    "train_barrier": flat(barrier(errors["train"])),
                    "test_barrier": flat(barrier(errors["test"])),
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
