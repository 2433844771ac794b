"""From a spec to a plan: which runs are trained together, in which segments, and what is measured on them.

Planning depends on the spec, the task and the plan so far, never on the machine's cores.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeVar

from lratlas.errors import SpecError
from lratlas.study.plan import Average, Bands, Features, Geometry, Lane, Plan, Seed, Training, identity
from lratlas.study.spec import Spec

T = TypeVar("T")
GEOMETRY_COUNT = 5  # SWA-5 stands for the averaged solution (paper, Fig. 3)


def make_plan(
    spec: Spec,
    seeds: Sequence[Seed],
    *,
    steps_per_epoch: int,
    chance_loss: float,
    elr: bool,
    singles: bool,
    bands: Sequence[tuple[int, int]] = (),
    strategy: Literal["stack", "single"] = "stack",
    task: str = "",
    device: str = "cpu",
    compiled: bool = False,
    old: Plan | None = None,
) -> Plan:
    """The plan for a spec; jobs of ``old`` are kept as they are and only runs that it lacks are added.

    Args:
        spec: What to explore.
        seeds: One entry per repetition.
        steps_per_epoch: Full batches in the training set.
        chance_loss: Training loss of the best constant prediction.
        elr: Whether LRs are effective ones.
        singles: Whether to measure single-feature accuracies.
        bands: Fourier bands to measure accuracies on.
        strategy: Whether runs are trained as stacks or one by one.
        task: What is trained, for people.
        device: Where to train.
        compiled: Whether to compile the step. As the device it is planned, since another choice gives other bits.
        old: The plan of the study that is extended.

    Raises:
        SpecError: Averaging needs more checkpoints than there are.
    """
    planner = _Planner(spec, seeds, steps_per_epoch, spec.training.stack if strategy == "stack" else 1, old)
    pretrained = planner.pretrainings()
    extended = [planner.averaging(job) for job in pretrained] if spec.average and spec.average.extend else []
    finetuned = {job.id: planner.finetunings(job) for job in pretrained}
    trainings = (*pretrained, *extended, *(job for jobs in finetuned.values() for job in jobs))
    solved = [_geometry(job, [*finetuned[job.id]], [job, *extended]) for job in pretrained]
    return Plan(
        strategy=strategy,
        task=task,
        dtype=spec.training.dtype,
        device=device,
        compiled=compiled,
        chance_loss=chance_loss,
        elr=elr,
        trainings=trainings,
        features=tuple(Features(id=f"features-{job.id}", training=job.id) for job in trainings if singles),
        geometry=tuple(job for job in solved if job) if spec.measure.geometry else (),
        bands=_bands(trainings, tuple(bands), old),
    )


class _Planner:
    """The parts of a plan for one spec."""

    def __init__(self, spec: Spec, seeds: Sequence[Seed], steps_per_epoch: int, largest: int, old: Plan | None) -> None:
        self.spec, self.seeds, self.per_epoch = spec, seeds, steps_per_epoch
        self.largest = largest  # runs in a stack
        self.old = old.trainings if old else ()
        self.steps = self._steps(spec.pretrain.steps, spec.pretrain.epochs)
        self.trace_every = max(1, self.steps // spec.trace.points)
        self.every = (spec.average.every if spec.average else None) or steps_per_epoch

    def pretrainings(self) -> list[Training]:
        """Stacks of several seeds with all their PLRs."""
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

    def finetunings(self, parent: Training) -> list[Training]:
        """Stacks of the fine-tuning runs that start from one pre-training job."""
        section = self.spec.finetune
        if section is None:
            return []
        steps = self._steps(section.steps, section.epochs)
        jobs = [job for job in self.old if job.stage == "finetune" and job.parent == parent.id]
        known = {lane.flr for job in jobs for lane in job.lanes}
        missing = [flr for flr in section.lrs if flr not in known]
        for flrs in _chunks(missing, max(1, self.largest // parent.size)):
            lanes = tuple(Lane(plr=lane.plr, flr=flr) for flr in flrs for lane in parent.lanes)
            parents = tuple(tuple(run for _ in flrs for run in row) for row in parent.runs)
            runs = tuple(
                tuple(
                    identity(seed.fingerprint, "finetune", lane.flr, steps, above, self._numerics)
                    for lane, above in zip(lanes, row, strict=True)
                )
                for seed, row in zip(parent.seeds, parents, strict=True)
            )
            jobs.append(
                Training(
                    id=f"finetune-{identity(runs)}",
                    stage="finetune",
                    seeds=parent.seeds,
                    lanes=lanes,
                    runs=runs,
                    parent=parent.id,
                    parents=parents,
                    segments=self._segments(0, steps),
                    trace_every=self.trace_every,
                )
            )
        return jobs

    def averaging(self, parent: Training) -> Training:
        """Training that goes on at the PLR after pre-training, for its checkpoints alone."""
        assert self.spec.average is not None
        count = max(self.spec.average.counts)
        steps = tuple(self.steps + self.every * (index + 1) for index in range(count))
        average = self._average(parent.seeds, parent.lanes, parent.runs, steps)
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
                    f"average.counts: SWA-{count} needs {count} checkpoints {self.every} steps apart, but pre-training"
                    f" has {self.steps} steps; at most {(self.steps - 1) // self.every + 1} fit."
                )
            own = self._average(seeds, lanes, runs, steps)
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
        )

    def _average(
        self,
        seeds: Sequence[Seed],
        lanes: Sequence[Lane],
        runs: Sequence[Sequence[str]],
        steps: tuple[int, ...],
    ) -> Average:
        assert self.spec.average is not None
        counts = self.spec.average.counts
        identities = tuple(
            tuple(
                tuple(
                    identity(seed.fingerprint, "average", count, steps, run) for run, _ in zip(row, lanes, strict=True)
                )
                for seed, row in zip(seeds, runs, strict=True)
            )
            for count in counts
        )
        return Average(counts=counts, steps=steps, runs=identities)

    def _pretrain_run(self, seed: Seed, lr: float) -> str:
        return identity(seed.fingerprint, "pretrain", lr, seed.training_seed, seed.seed, self.steps, self._numerics)

    @property
    def _numerics(self) -> str:
        training = self.spec.training
        return f"{training.dtype} under bfloat16" if training.mixed_precision else training.dtype

    def _steps(self, steps: int | None, epochs: int | None) -> int:
        return steps if steps is not None else (epochs or 0) * self.per_epoch

    def _segments(self, start: int, end: int) -> tuple[int, ...]:
        # Whole trace intervals, so that no row's mean has to be carried across a segment's end.
        length = -(-self.spec.training.segment_steps // self.trace_every) * self.trace_every
        first = (start // length + 1) * length
        return (*range(first, end, length), end)


def _geometry(job: Training, finetuned: Iterable[Training], averaged: Iterable[Training]) -> Geometry | None:
    """The comparison of low and high FLR and SWA-5 for one pre-training job; None unless two of them are there."""
    solutions: dict[Literal["low", "high", "swa"], tuple[tuple[str, ...], ...]] = {}
    by_flr: dict[float, tuple[tuple[str, ...], ...]] = {}
    width = len(job.lanes)
    for child in finetuned:
        for at in range(0, len(child.lanes), width):
            by_flr[child.lanes[at].flr or 0.0] = tuple(row[at : at + width] for row in child.runs)
    if by_flr:
        solutions["low"] = by_flr[min(by_flr)]
    if len(by_flr) > 1:
        solutions["high"] = by_flr[max(by_flr)]
    for holder in averaged:
        if holder.average and holder.runs == job.runs:
            counts = holder.average.counts
            nearest = min(counts, key=lambda count: (abs(count - GEOMETRY_COUNT), count))
            solutions["swa"] = holder.average.runs[counts.index(nearest)]
    if len(solutions) < 2:
        return None
    return Geometry(id=f"geometry-{identity(solutions)}", training=job.id, solutions=solutions)


def _bands(trainings: Sequence[Training], bands: tuple[tuple[int, int], ...], old: Plan | None) -> tuple[Bands, ...]:
    """The measurements of bands that ``old`` has, and for each training job one of the bands that it lacks."""
    jobs = list(old.bands if old else ())
    for training in trainings:
        known = {band for job in jobs if job.training == training.id for band in job.bands}
        missing = tuple(band for band in bands if band not in known)
        if missing:
            jobs.append(Bands(id=f"bands-{identity(training.id, missing)}", training=training.id, bands=missing))
    return tuple(jobs)


def _chunks(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    for first in range(0, len(items), size):
        yield tuple(items[first : first + size])
