"""What a job of the two studies is assumed to take on a GPU, and what it leaves on the disk."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmarks.scale_studies import IMAGES, SIDE, TEST_IMAGES, Name
from lratlas.measure.bands import bands_of_job
from lratlas.study.jobs import Job, Training
from lratlas.study.plan import Plan
from lratlas.study.progress import table_of

GPU_FLOPS = 30e12
"""Operations a second that a GPU is assumed to sustain on a ResNet-18 of width 32, everything included."""

MLP_RUN_STEP = 6.75e-6
"""Seconds of one core for a step of one MLP in a stack of 115, as `benchmarks/ticks.py` measured (ticks.json)."""

GPU_AS_CORE = 1.0
"""How many times faster than that core a GPU is assumed to train a stack of small MLPs."""

BACKWARD = 3  # forward and backward pass cost three forward passes
BATCH, TRACE_POINTS, LINE_POINTS, PAIRS = 128, 40, 21, 3
WIDTH, BYTES = 32, 4  # of the ResNet-18, and of a number
_FEW = 5  # jobs of a kind from which its spread is taken


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a study leaves on the disk: files and bytes, and what it writes and removes again on the way."""

    table_files: int
    weight_files: int
    table_bytes: float
    weight_bytes: float
    segment_files: int
    segment_bytes: float


def seconds_of(name: Name, plan: Plan, measured: Mapping[str, Any], *, speed: float = 1.0) -> dict[str, float]:
    """Seconds of each job of a plan on a GPU.

    Args:
        name: Which study.
        plan: Its plan.
        measured: What `scale_folders.py` printed.
        speed: Of a GPU, relative to what is assumed.
    """
    draw, spread = random.Random(1), ratios(measured)
    mean = _operations(plan) if name == "resnet" else _as_measured(plan, measured["studies"]["digits"])
    rate = speed * (GPU_FLOPS if name == "resnet" else GPU_AS_CORE)
    return {job: amount / rate * draw.choice(spread) for job, amount in mean.items()}


def ratios(measured: Mapping[str, Any]) -> list[float]:
    """How much longer or shorter jobs of a kind took than the kind's mean, in all studies that were measured."""
    found = list[float]()
    for study in measured["studies"].values():
        for kind in study["kinds"].values():
            mean = sum(kind["seconds"]) / len(kind["seconds"])
            found += [each / mean for each in kind["seconds"] if len(kind["seconds"]) >= _FEW]
    return found


def left_by(name: Name, plan: Plan, measured: Mapping[str, Any]) -> Left:
    """What is on the disk in the end."""
    study, other, tables = measured["studies"]["ticks"], measured["studies"]["digits"], dict[str, int]()
    per_model = study["bytes_a_model"] if name == "mlp" else BYTES * weights(WIDTH)
    # What few rows take in Parquet is mostly overhead, and much the same for all measurements.
    per_part: dict[str, float] = {
        **dict.fromkeys(("features", "bands", "pairs"), other["bytes_a_part"]["pairs"]),
        **study["bytes_a_part"],
    }
    for job in plan.trainings:
        for table in job.recorded:
            tables[table] = tables.get(table, 0) + len(job.segments)
    tables |= {"runs": len(plan.trainings), **Counter(table_of(job) for job in plan.measurements)}
    models = {job.id: models_in(job) for job in plan.trainings}
    segments = sum(len(job.segments) - 1 for job in plan.trainings)
    return Left(
        table_files=sum(tables.values()),
        weight_files=len(plan.trainings),
        table_bytes=sum(number * per_part[table] for table, number in tables.items() if number),
        weight_bytes=per_model * sum(models.values()),
        segment_files=segments,
        # Sums of averages under way are left out.
        segment_bytes=per_model * sum((len(job.segments) - 1) * job.size for job in plan.trainings),
    )


def models_in(job: Training) -> int:
    """Models in the last checkpoint of a job."""
    averages = len(job.average.counts) if job.average else 0
    return job.size * ((job.stage != "average") + averages)


def _as_measured(plan: Plan, study: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of a core: training by run-steps, measurements by models, each as long as the geometry of digits."""
    size = {job.id: models_in(job) for job in plan.trainings}

    def seconds(job: Job) -> float:
        if isinstance(job, Training):
            return job.work * MLP_RUN_STEP
        return size[job.training or ""] * study["kinds"]["geometry"]["seconds_a_unit"]

    return {job.id: seconds(job) for job in plan.jobs}


def _operations(plan: Plan) -> dict[str, float]:
    """Operations of each job of a study that trains ResNet-18s one by one."""
    forward, size = operations(WIDTH), {job.id: models_in(job) for job in plan.trainings}
    everything = IMAGES + TEST_IMAGES

    def images(job: Job) -> float:
        """How many images are passed forward, or cost as much."""
        if isinstance(job, Training):
            traced = TRACE_POINTS * TEST_IMAGES if job.stage != "average" else 0
            averaged = (len(job.average.counts) if job.average else 0) * (IMAGES + everything)
            return job.work * BATCH * BACKWARD + traced + everything + averaged
        if job.measurement == "bands":
            return size[job.training or ""] * 2 * len(bands_of_job(job)) * TEST_IMAGES
        assert job.measurement == "geometry"
        return PAIRS * LINE_POINTS * (IMAGES + everything)

    return {job.id: forward * images(job) for job in plan.jobs}


@cache
def operations(width: int) -> float:
    """Operations of the forward pass of a ResNet-18 for one image, a multiplication and an addition counted as two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _model(width).eval()(torch.zeros(1, 3, SIDE, SIDE))
    return float(counter.get_total_flops())


@cache
def weights(width: int) -> int:
    """Numbers in a ResNet-18: weights and statistics."""
    return sum(value.numel() for value in _model(width).state_dict().values())


def _model(width: int) -> Any:
    from lratlas.models.resnet import ResNet18

    return ResNet18(channels=3, classes=10, width=width, scale_invariant=True)
