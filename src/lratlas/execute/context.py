"""The context of a worker: the store, spec, plan and tasks of its study, and objects built from them once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import torch

from lratlas.config.extras import Extras
from lratlas.config.sections import Spec
from lratlas.config.tasks import Tasks
from lratlas.execute.checkpoints import stack_of
from lratlas.measure.base import Measurement
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.stacks.tensors import StackData, initial_tensors, program_of, samples, single_feature_samples
from lratlas.study.jobs import Grid, Job, Seed, Training
from lratlas.study.plan import Plan
from lratlas.study.store import Store
from lratlas.training.prepared import Prepared, task_on
from lratlas.training.program import Program
from lratlas.training.sphere import Weights


@dataclass(frozen=True)
class WorkerContext:
    """A study in a worker process; programs and data are built once."""

    store: Store
    spec: Spec
    plan: Plan
    tasks: Tasks
    extras: Extras = ()

    @cached_property
    def device(self) -> torch.device:
        """The device that stacks train on."""
        return torch.device(self.plan.device)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return getattr(torch, self.plan.dtype)

    @cached_property
    def task(self) -> Prepared:
        """The first repetition's task, on the device; all repetitions have the same model, loss and rule."""
        return self.task_of(0)

    def task_of(self, repetition: int) -> Prepared:
        """A repetition's task on the device; repetitions with equal tasks share one object."""
        task = self.tasks.of(repetition)
        if task not in self._tasks:
            self._tasks[task] = task_on(task, self.device, self.dtype)
        return self._tasks[task]

    @cached_property
    def _tasks(self) -> WeakKeyDictionary[Prepared, Prepared]:
        return WeakKeyDictionary()

    @cached_property
    def program(self) -> Program:
        """The training step and the evaluation."""
        return program_of(
            self.task,
            strategy=self.plan.strategy,
            compiled=self.plan.compiled,
            device=self.device,
            mixed_precision=self.spec.training.mixed_precision,
        )

    @cached_property
    def _holders(self) -> Mapping[str, str]:
        return self.plan.holders()

    @cached_property
    def jobs(self) -> Mapping[str, Job]:
        """All jobs of the plan by id."""
        return {job.id: job for job in self.plan.jobs}

    @cached_property
    def _initial(self) -> dict[tuple[int, ...], tuple[Weights, Weights, StackData]]:
        return {}

    def vector(self, weights: Weights) -> Weights:
        """The weights that angles and norms use: those on the sphere, those before a norm layer, or all."""
        names = self.plan.pre_norm
        return {name: weights[name] for name in names} if names else self.task.update.vector(weights)

    @cached_property
    def measurements(self) -> Mapping[str, Measurement]:
        """The measurements by name."""
        return {measurement.name: measurement for measurement in (*MEASUREMENTS, *self.extras)}

    def training(self, name: str) -> Training:
        """The training job of the given id."""
        job = self.jobs[name]
        assert isinstance(job, Training)
        return job

    def initial(self, seeds: Sequence[Seed], lanes: int) -> tuple[Weights, Weights, StackData]:
        """Initial weights and buffers of a stack, and its data."""
        key = (lanes, *(seed.seed for seed in seeds))
        if key not in self._initial:
            self._initial.clear()  # one stack's data at a time; the next job often uses the same data
            self._initial[key] = self._make_stack(seeds, lanes)
        return self._initial[key]

    def _make_stack(self, seeds: Sequence[Seed], lanes: int) -> tuple[Weights, Weights, StackData]:
        tasks = [self.task_of(seed.seed) for seed in seeds]
        drawn = [seed.training_seed for seed in seeds]
        dtype, device = self.dtype, self.device
        weights, buffers, frozen = initial_tensors(tasks, drawn, lanes, dtype=dtype, device=device)
        data = StackData(
            train=samples(tasks, "train", frozen, dtype=dtype, device=device),
            test=samples(tasks, "test", frozen, dtype=dtype, device=device),
            features=single_feature_samples(tasks, frozen, dtype=dtype, device=device),
            frozen=frozen,
        )
        return weights, buffers, data

    def end_points(self, runs: Grid) -> tuple[Weights, Weights]:
        """Final weights and buffers of the given runs, as a stack."""
        held = {run: self._holders[run] for row in runs for run in row}
        files = {name: self.store.read_weights(name) for name in {*held.values()}}
        by_run = {run: files[name] for run, name in held.items()}
        weights, buffers = (stack_of(by_run, runs, kind, self.device) for kind in ("weights", "buffers"))
        return weights, buffers
