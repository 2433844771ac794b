"""What a plan measures on its training jobs: every measurement that the spec switches on, once."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lratlas.study.plan.plan import Bands, Features, Geometry, Norms, Plan, Seed, Sharpness, Training, identity
from lratlas.study.spec.sections import Spec
from lratlas.tables import GEOMETRY_COUNT


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """The measuring jobs of a plan, by kind; fields as in `Plan`."""

    features: tuple[Features, ...]
    bands: tuple[Bands, ...]
    geometry: tuple[Geometry, ...]
    norms: tuple[Norms, ...]
    sharpness: tuple[Sharpness, ...]


def measurements(
    spec: Spec,
    seeds: Sequence[Seed],
    trainings: Sequence[Training],
    *,
    singles: bool,
    bands: Sequence[tuple[int, int]],
    old: Plan | None,
) -> Measurements:
    """The measuring jobs for the training jobs of a plan.

    What came by a second PLR is scored like every run but not measured further: the tables tell models apart by one
    PLR.

    Args:
        spec: What is measured.
        seeds: One entry per repetition.
        trainings: The training jobs.
        singles: Whether to measure single-feature accuracies.
        bands: Fourier bands to measure accuracies on.
        old: The plan of the study that is extended.
    """
    wanted, indirect = spec.measure, {job.id for job in trainings if job.stage == "second"}
    direct = [job for job in trainings if job.id not in indirect and job.parent not in indirect]
    own = [job for job in direct if job.stage != "average"]
    children = defaultdict[str | None, list[Training]](list)
    for job in direct:
        children[job.parent].append(job)
    first = [job for job in direct if job.stage == "pretrain"]
    pairs = [_geometry(job, children.get(job.id, []), great_circle=wanted.great_circle) for job in first]
    return Measurements(
        features=tuple(Features(id=f"features-{job.id}", training=job.id) for job in direct if singles),
        bands=_bands(direct, tuple(bands), old),
        geometry=tuple(job for job in pairs if job and wanted.geometry),
        norms=(*_initial_norms(seeds, old), *(Norms(id=f"norms-{job.id}", training=job.id) for job in own))
        if wanted.norms
        else (),
        sharpness=tuple(_sharpness(job, wanted.sharpness_samples) for job in direct if wanted.sharpness),
    )


def _geometry(job: Training, children: Sequence[Training], *, great_circle: bool) -> Geometry | None:
    """The comparison of low and high FLR and SWA-5 for one pre-training job; None unless two of them are there."""
    solutions: dict[Literal["low", "high", "swa"], tuple[tuple[str, ...], ...]] = {}
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
    if len(solutions) < 2:
        return None
    name = identity(solutions, "great circle") if great_circle else identity(solutions)
    return Geometry(id=f"geometry-{name}", training=job.id, solutions=solutions, great_circle=great_circle)


def _bands(trainings: Sequence[Training], bands: tuple[tuple[int, int], ...], old: Plan | None) -> tuple[Bands, ...]:
    """The measurements of bands that ``old`` has, and for each training job one of the bands that it lacks."""
    jobs, known = list(old.bands if old else ()), defaultdict[str, set[tuple[int, int]]](set)
    for job in jobs:
        known[job.training].update(job.bands)
    for training in trainings:
        missing = tuple(band for band in bands if band not in known[training.id])
        if missing:
            jobs.append(Bands(id=f"bands-{identity(training.id, missing)}", training=training.id, bands=missing))
    return tuple(jobs)


def _initial_norms(seeds: Sequence[Seed], old: Plan | None) -> tuple[Norms, ...]:
    """The measurements of initial models that ``old`` has, and one of the seeds that it lacks."""
    known = tuple(job for job in (old.norms if old else ()) if job.training is None)
    measured = {seed.seed for job in known for seed in job.seeds}
    missing = tuple(seed for seed in seeds if seed.seed not in measured)
    return (*known, Norms(id=f"norms-initial-{identity(missing)}", seeds=missing)) if missing else known


def _sharpness(job: Training, samples: int) -> Sharpness:
    return Sharpness(id=f"sharpness-{identity(job.id, samples)}", training=job.id, samples=samples)
