"""Turn a spec into the jobs of a plan."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from lratlas.config.grid import closest
from lratlas.config.sections import Spec
from lratlas.errors import SpecError
from lratlas.measure.base import Measurement, Options, Wanted, jobs_of
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.study.jobs import (
    MIXED,
    Average,
    Lane,
    Measuring,
    Seed,
    Training,
    average_id,
    continued_id,
    identity,
    pretrained_id,
)
from lratlas.study.plan import Plan

T = TypeVar("T")


def make_plan(
    spec: Spec,
    seeds: Sequence[Seed],
    *,
    steps_per_epoch: int,
    chance_loss: float,
    chance_accuracy: float,
    elr: bool,
    measured: Mapping[str, Options],
    extras: Sequence[Measurement] = (),
    pre_norm: Sequence[str] = (),
    strategy: Literal["stack", "single"] = "stack",
    task: str = "",
    device: str = "cpu",
    compiled: bool = False,
    tf32: bool = False,
    old: Plan | None = None,
) -> Plan:
    """Make the plan for a spec; jobs of ``old`` stay unchanged and only missing runs are added.

    Args:
        spec: The spec of the study.
        seeds: One entry per repetition.
        steps_per_epoch: Full batches in the training set.
        chance_loss: Training loss of the best constant prediction.
        chance_accuracy: Accuracy of guessing among the classes.
        elr: Whether LRs are effective LRs.
        measured: The options of each measurement, by name (see `measurement_options`).
        extras: The custom measurements.
        pre_norm: Parameters for angles and norms; all parameters of the rule's vector if empty.
        strategy: Whether runs train as stacks or one by one.
        task: The task, for people.
        device: The device to train on.
        compiled: Whether to compile the step. Like the device it is part of the plan, since it changes the bits.
        tf32: Whether convolutions train with TF32.
        old: The plan of the study to extend.

    Raises:
        SpecError: Averaging needs more checkpoints than there are.
    """
    planner = _Planner(spec, seeds, steps_per_epoch, spec.training.stack if strategy == "stack" else 1, old)
    pretrained = planner.pretrainings()
    extended = [planner.averaging(job) for job in pretrained] if spec.average and spec.average.extend else []
    lowered = [job for parent in pretrained for job in planner.second(parent)]
    finetuned = [job for parent in (*pretrained, *lowered) for job in planner.finetunings(parent)]
    trainings = (*pretrained, *extended, *lowered, *finetuned)
    return Plan(
        strategy=strategy,
        task=task,
        dtype=spec.training.dtype,
        device=device,
        devices=_earlier_devices(old, device),
        compiled=compiled,
        tf32=tf32,
        chance_loss=chance_loss,
        chance_accuracy=chance_accuracy,
        elr=elr,
        trainings=trainings,
        measurements=measuring_jobs((*MEASUREMENTS, *extras), seeds, trainings, measured=measured, old=old),
        pre_norm=tuple(pre_norm),
    )


def _earlier_devices(old: Plan | None, device: str) -> tuple[str, ...]:
    """The devices that a study used before ``device``."""
    if old is None:
        return ()
    return old.devices if old.device == device else (*old.devices, old.device)


class _Planner:
    """Builds the parts of a plan for one spec."""

    def __init__(self, spec: Spec, seeds: Sequence[Seed], steps_per_epoch: int, largest: int, old: Plan | None) -> None:
        self.spec, self.seeds, self.per_epoch = spec, seeds, steps_per_epoch
        self.largest = largest  # runs in a stack
        self.old = old.trainings if old else ()
        # Indexed once: scanning all jobs for each job would take hours with a million jobs.
        self.children = defaultdict[tuple[str | None, str], list[Training]](list)
        for job in self.old:
            self.children[job.parent, job.stage].append(job)
        self.steps = self._steps(spec.pretrain.steps, spec.pretrain.epochs)
        self.trace_every = max(1, self.steps // spec.trace.points)
        self.epoch = steps_per_epoch if spec.measure.convergence else None
        if self.epoch:
            self.trace_every = _align_interval(self.trace_every, self.epoch)
        apart = spec.average.every_epochs if spec.average else None
        self.every = (spec.average.every if spec.average else None) or (apart or 1) * steps_per_epoch

    def pretrainings(self) -> list[Training]:
        """Stacks of several seeds, each with all PLRs."""
        jobs = [job for job in self.old if job.stage == "pretrain"]
        known = {run for job in jobs for row in job.runs for run in row}
        missing: dict[tuple[float, ...], list[Seed]] = {}
        for seed in self.seeds:
            lrs = tuple(lr for lr in self.spec.pretrain.lrs if self._pretrain_run(seed, lr) not in known)
            missing.setdefault(lrs, []).append(seed)
        for lrs, seeds in missing.items():
            for part in _chunks(lrs, self.largest):
                groups = _chunks(seeds, max(1, self.largest // len(part)))
                jobs.extend(self._pretraining(group, part) for group in groups)
        return jobs

    def second(self, parent: Training) -> list[Training]:
        """Stacks of the runs that continue some runs of a pre-training job with a second PLR."""
        section = self.spec.second
        if section is None:
            return []
        starts = {closest(plr, self.spec.pretrain.lrs) for plr in section.plrs}
        lrs = sorted({closest(lr, self.spec.pretrain.lrs) or lr for lr in section.lrs})
        places = [at for at, lane in enumerate(parent.lanes) if lane.plr in starts]
        known = {(lane.plr, lane.plr2) for job in self._children(parent, "second") for lane in job.lanes}
        wanted = [(at, Lane(plr=parent.lanes[at].plr, plr2=lr)) for lr in lrs for at in places]
        missing = [(at, lane) for at, lane in wanted if (lane.plr, lane.plr2) not in known]
        size, steps = max(1, self.largest // len(parent.seeds)), self._steps(section.steps, section.epochs)
        return self._children(parent, "second") + [
            self._child(parent, "second", part, steps) for part in _chunks(missing, size)
        ]

    def finetunings(self, parent: Training) -> list[Training]:
        """Stacks of the fine-tuning runs that start from one job."""
        section = self.spec.finetune
        if section is None:
            return []
        known = {lane.flr for job in self._children(parent, "finetune") for lane in job.lanes}
        missing = [flr for flr in section.lrs if flr not in known]
        steps = self._steps(section.steps, section.epochs)
        return self._children(parent, "finetune") + [
            self._child(
                parent,
                "finetune",
                [(at, lane.model_copy(update={"flr": flr})) for flr in flrs for at, lane in enumerate(parent.lanes)],
                steps,
            )
            for flrs in _chunks(missing, max(1, self.largest // parent.size))
        ]

    def _children(self, parent: Training, stage: str) -> list[Training]:
        return self.children.get((parent.id, stage), [])

    def _child(
        self,
        parent: Training,
        stage: Literal["second", "finetune"],
        wanted: Sequence[tuple[int, Lane]],
        steps: int,
    ) -> Training:
        """A job whose runs each start from the run at the given place of the parent job."""
        lanes = tuple(lane for _, lane in wanted)
        parents = tuple(tuple(row[at] for at, _ in wanted) for row in parent.runs)
        runs = tuple(
            tuple(
                continued_id(seed, stage, lane.lr, steps, above, self._numerics)
                for lane, above in zip(lanes, row, strict=True)
            )
            for seed, row in zip(parent.seeds, parents, strict=True)
        )
        return Training(
            id=f"{stage}-{identity(runs)}",
            stage=stage,
            seeds=parent.seeds,
            lanes=lanes,
            runs=runs,
            parent=parent.id,
            parents=parents,
            segments=self._segments(0, steps),
            trace_every=self.trace_every,
        )

    def averaging(self, parent: Training) -> Training:
        """Training that continues at the PLR after pre-training, only to collect checkpoints."""
        assert self.spec.average is not None
        count = max(self.spec.average.counts)
        steps = tuple(self.steps + self.every * (index + 1) for index in range(count))
        average = self._average(parent.seeds, parent.runs, steps)
        return Training(
            id=f"average-{identity(average.runs)}",
            stage="average",
            seeds=parent.seeds,
            lanes=parent.lanes,
            runs=parent.runs,
            parent=parent.id,
            parents=parent.runs,
            start=self.steps,
            segments=self._segments(self.steps, steps[-1]),
            trace_every=self.trace_every,
            average=average,
        )

    def _pretraining(self, seeds: Sequence[Seed], lrs: Sequence[float]) -> Training:
        runs = tuple(tuple(self._pretrain_run(seed, lr) for lr in lrs) for seed in seeds)
        lanes = tuple(Lane(plr=lr) for lr in lrs)
        section = self.spec.average
        own = None
        if section and not section.extend:
            count = max(section.counts)
            steps = tuple(self.steps - self.every * back for back in range(count - 1, -1, -1))
            if steps[0] < 1:
                raise SpecError(
                    f"average.counts: SWA-{count} needs {count} checkpoints, {self.every} steps apart, but"
                    f" pre-training has only {self.steps} steps; at most {(self.steps - 1) // self.every + 1}"
                    " checkpoints fit."
                )
            own = self._average(seeds, runs, steps)
        return Training(
            id=f"pretrain-{identity(runs)}",
            stage="pretrain",
            seeds=tuple(seeds),
            lanes=lanes,
            runs=runs,
            segments=self._segments(0, self.steps),
            trace_every=self.trace_every,
            average=own,
            keep_state=bool(section and section.extend),
            epoch=self.epoch,
        )

    def _average(self, seeds: Sequence[Seed], runs: Sequence[Sequence[str]], steps: tuple[int, ...]) -> Average:
        assert self.spec.average is not None
        counts = self.spec.average.counts
        identities = tuple(
            tuple(
                tuple(average_id(seed, count, steps, run) for run in row) for seed, row in zip(seeds, runs, strict=True)
            )
            for count in counts
        )
        return Average(counts=counts, steps=steps, runs=identities)

    def _pretrain_run(self, seed: Seed, lr: float) -> str:
        return pretrained_id(seed, lr, self.steps, self._numerics)

    @property
    def _numerics(self) -> str:
        training = self.spec.training
        return f"{training.dtype}{MIXED}" if training.mixed_precision else training.dtype

    def _steps(self, steps: int | None, epochs: int | None) -> int:
        return steps if steps is not None else (epochs or 0) * self.per_epoch

    def _segments(self, start: int, end: int) -> tuple[int, ...]:
        # Whole trace intervals, and epochs if they count, so that no interval spans the end of a segment.
        unit = max(self.trace_every, self.epoch or 1)
        length = -(-self.spec.training.segment_steps // unit) * unit
        first = (start // length + 1) * length
        return (*range(first, end, length), end)


def _align_interval(interval: int, epoch: int) -> int:
    """The trace interval nearest to ``interval`` that is a multiple or a divisor of an epoch."""
    if interval >= epoch:
        return epoch * round(interval / epoch)
    parts = (part for part in range(1, epoch + 1) if epoch % part == 0)
    return min(parts, key=lambda part: abs(math.log(part / interval)))


def _chunks(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    for first in range(0, len(items), size):
        yield tuple(items[first : first + size])


def measuring_jobs(
    measurements: Iterable[Measurement],
    seeds: Sequence[Seed],
    trainings: Sequence[Training],
    *,
    measured: Mapping[str, Options],
    old: Plan | None,
) -> tuple[Measuring, ...]:
    """The measuring jobs for the training jobs of a plan.

    Runs with a second PLR are scored like every run but not measured further: the tables identify models by one PLR.

    Args:
        measurements: The available measurements, in the order of their jobs.
        seeds: One entry per repetition.
        trainings: The training jobs.
        measured: The options of the measurements to make.
        old: The plan of the study to extend.
    """
    indirect = {job.id for job in trainings if job.stage == "second"}
    direct = [job for job in trainings if job.id not in indirect and job.parent not in indirect]
    return tuple(
        job
        for each in measurements
        if each.name in measured
        for job in jobs_of(
            each,
            Wanted(
                seeds=seeds,
                trainings=direct,
                options=measured[each.name],
                old=old.measuring(each.name) if old else (),
            ),
        )
    )
