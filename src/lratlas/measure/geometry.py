"""Geometry of minima: angles and error barriers between the solutions from one PLR (Fig. 3)."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

from lratlas.measure.base import Columns, Figure, Measurement, Models, Needs, Option, Options, Wanted
from lratlas.study.jobs import Measuring, Role, Training, identity
from lratlas.thresholds import GEOMETRY_COUNT

if TYPE_CHECKING:
    from lratlas.training.prepared import Prepared


def _measure(models: Models, options: Options) -> Iterator[Columns]:
    from lratlas.measure.paths import angular_distance, arc, barrier, path_errors

    setting = models.setting()
    for a, b in combinations(models.solutions, 2):
        (first, buffers), (second, _) = models.solutions[a], models.solutions[b]
        errors = partial(
            path_errors,
            models.program(),
            first,
            second,
            buffers,
            {"train": setting.train, "test": setting.test},
            points=options["interpolation"],
            batch_size=models.task.samples_per_step,
        )
        line, along = errors(), errors(path=arc) if options["great_circle"] else None
        found = {
            "angle": angular_distance(models.vector(first), models.vector(second)),
            "train_barrier": barrier(line["train"]),
            "test_barrier": barrier(line["test"]),
            "train_barrier_arc": barrier(along["train"]) if along else None,
            "test_barrier_arc": barrier(along["test"]) if along else None,
        }
        yield {"a": a, "b": b} | {
            name: None if values is None else values.flatten().tolist() for name, values in found.items()
        }


def _settle(options: Options, _task: "Prepared") -> Options | None:
    return {"great_circle": options["great_circle"]} if options["geometry"] else None


def _jobs(wanted: Wanted) -> Iterator[Measuring]:
    children = defaultdict[str | None, list[Training]](list)
    for job in wanted.trainings:
        children[job.parent].append(job)
    for job in wanted.trainings:
        solutions = _solutions(job, children.get(job.id, [])) if job.stage == "pretrain" else {}
        if len(solutions) > 1:
            name = identity(solutions, "great circle") if wanted.options["great_circle"] else identity(solutions)
            yield Measuring(
                id=f"geometry-{name}",
                measurement="geometry",
                training=job.id,
                solutions=solutions,
                options=dict(wanted.options),
            )


def _solutions(job: Training, children: Sequence[Training]) -> dict[Role, tuple[tuple[str, ...], ...]]:
    """The available solutions of one pre-training job with the lowest and the highest FLR and SWA-5."""
    solutions: dict[Role, tuple[tuple[str, ...], ...]] = {}
    by_flr: dict[float, tuple[tuple[str, ...], ...]] = {}
    width = len(job.lanes)
    for child in children:
        for at in range(0, len(child.lanes) if child.stage == "finetune" else 0, width):
            by_flr[child.lanes[at].lr] = tuple(row[at : at + width] for row in child.runs)
    if by_flr:
        solutions["low"] = by_flr[min(by_flr)]
    if len(by_flr) > 1:
        solutions["high"] = by_flr[max(by_flr)]
    for holder in (job, *children):
        if holder.average:
            counts = holder.average.counts
            nearest = min(counts, key=lambda count: (abs(count - GEOMETRY_COUNT), count))
            solutions["swa"] = holder.average.runs[counts.index(nearest)]
    return solutions


_CHART = Figure(
    name="geometry",
    draw="lratlas.report.charts.geometry:geometry_chart",
    data="lratlas.report.charts.geometry:geometry_data",
)

GEOMETRY = Measurement(
    name="geometry",
    columns={
        "a": "String",  # low, high, swa
        "b": "String",
        "angle": "Float64",
        "train_barrier": "Float64",
        "test_barrier": "Float64",
        "train_barrier_arc": "Float64",  # along the great circle; null where not measured
        "test_barrier_arc": "Float64",
    },
    function=_measure,
    needs=Needs(
        stacked=True,
        stages=("pretrain",),
        table="pairs",
        about=("plr", "seed"),
        order=("plr", "seed", "a", "b"),
        words="angles and error barriers between the solutions of a PLR, for each seed",
        options={
            "geometry": Option(default=True, description="angles and error barriers between solutions"),
            "interpolation": Option(
                kind=int, default=21, description="points on the line between two models", least=3, most=1001
            ),
            "great_circle": Option(default=False, description="also error barriers along the great circle"),
        },
        settle=_settle,
        jobs=_jobs,
        replaces=True,
        figures=(_CHART,),
    ),
)
