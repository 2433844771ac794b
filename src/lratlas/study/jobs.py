"""What one job of a plan does: it reads the store, trains or measures one stack, and writes its parts.

Every job is idempotent. Its runs part (or its one table part) is written last and says that it is done.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import polars as pl
import torch
from torch import Tensor

from lratlas.measure.features import single_feature_accuracies
from lratlas.measure.geometry import angular_distance, barrier, path_errors
from lratlas.streams import torch_seed
from lratlas.study.checkpoints import named, read_segment, segment_tensors, stack_of
from lratlas.study.plan import Features, Geometry, Grid, Plan, Seed, Training
from lratlas.study.rows import flat, runs_table, trace_table
from lratlas.study.spec import Spec
from lratlas.study.store import Store
from lratlas.study.tasks import Tasks
from lratlas.task import make_model
from lratlas.training.averaging import Tails, add_checkpoint, averaged
from lratlas.training.order import batch_indices
from lratlas.training.program import Program, build
from lratlas.training.sphere import Weights
from lratlas.training.stacking import initial_tensors, samples, single_feature_samples
from lratlas.training.trainer import Row, Samples, Scores, Stack, evaluate_stack, start_stack, train_stack

Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The data and the frozen parameters of a stack's seeds."""

    train: Samples
    test: Samples
    features: list[Samples]
    frozen: Weights


@dataclass(frozen=True)
class Study:
    """A study as a process that works on it sees it; programs and data are made once per process."""

    store: Store
    spec: Spec
    plan: Plan
    tasks: Tasks

    @cached_property
    def device(self) -> torch.device:
        """Where stacks are trained."""
        return torch.device(self.plan.device)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return getattr(torch, self.plan.dtype)

    @cached_property
    def radius(self) -> float | None:
        """Norm of the sphere, None for unconstrained weights."""
        return self.tasks.of(0).update.radius

    @cached_property
    def program(self) -> Program:
        """The step and the evaluation."""
        task = self.tasks.of(0)
        return build(make_model(task, 0), task.objective, task.update, compiled=self.plan.compiled)

    @cached_property
    def holders(self) -> Mapping[str, str]:
        """The job whose final checkpoint holds each run."""
        return self.plan.holders()

    def initial(self, seeds: Sequence[Seed], lanes: int) -> tuple[Weights, Weights, Setting]:
        """Initial weights and buffers of a stack, and its setting."""
        tasks = [self.tasks.of(seed.seed) for seed in seeds]
        drawn = [seed.training_seed for seed in seeds]
        dtype, device = self.dtype, self.device
        weights, buffers, frozen = initial_tensors(tasks, drawn, lanes, dtype=dtype, device=device)
        setting = Setting(
            train=samples(tasks, "train", frozen, dtype=dtype, device=device),
            test=samples(tasks, "test", frozen, dtype=dtype, device=device),
            features=single_feature_samples(tasks, frozen, dtype=dtype, device=device),
            frozen=frozen,
        )
        return weights, buffers, setting

    def end_points(self, runs: Grid) -> Weights:
        """Final weights of the given runs as a stack."""
        files = {name: self.store.read_weights(name) for name in {self.holders[run] for row in runs for run in row}}
        return stack_of({run: files[self.holders[run]] for row in runs for run in row}, runs, "weights", self.device)


def is_done(store: Store, job: Training | Features | Geometry) -> bool:
    """Whether the store has everything that the job writes."""
    if isinstance(job, Features):
        return job.id in store.parts("features")
    if isinstance(job, Geometry):
        return job.id in store.parts("pairs")
    traces = {f"{job.id}-{end}" for end in job.segments} if job.stage != "average" else set[str]()
    return job.id in store.parts("runs") and store.has_weights(job.id) and traces <= store.parts("traces")


def perform(study: Study, job: Training | Features | Geometry, progress: Progress) -> None:
    """Do one job; ``progress`` is called with the run-steps just trained."""
    if isinstance(job, Training):
        _train(study, job, progress)
    elif isinstance(job, Features):
        _measure_features(study, job)
    else:
        _measure_geometry(study, job)


def _train(study: Study, job: Training, progress: Progress) -> None:
    began = time.monotonic()
    weights, buffers, setting = study.initial(job.seeds, len(job.lanes))
    rule = study.tasks.of(0).update
    done = _resumable(study.store, job)
    stack, tails, spent = start_stack(weights, buffers, rule), Tails(), 0.0
    if done:
        counts = job.average.counts if job.average else ()
        stack, tails, spent = _segment(study, job, f"{job.id}-{done[-1]}", counts, done[-1])
    elif job.parent and job.parents and job.stage == "average":
        stack, _, _ = _segment(study, job, job.parent, (), job.start)
    elif job.parents:
        stack = start_stack(study.end_points(job.parents), buffers, rule)
    progress(job.size * (stack.step - job.start))
    last_rows: list[Row] = []
    for end in job.segments:
        if end <= stack.step:
            continue
        stack, tails, last_rows = _train_segment(study, job, setting, stack, tails, end, progress)
        if end < job.segments[-1]:
            tensors = segment_tensors(job.runs, stack, tails, spent + time.monotonic() - began)
            study.store.write_weights(f"{job.id}-{end}", tensors)
            done = _forget(study, job, done, keep=end)
    _finish(study, job, setting, stack, tails, last_rows, lambda: spent + time.monotonic() - began)
    _forget(study, job, done)


def _segment(study: Study, job: Training, name: str, counts: Sequence[int], step: int) -> tuple[Stack, Tails, float]:
    return read_segment(study.store.read_weights(name), job.runs, counts=counts, step=step, device=study.device)


def _resumable(store: Store, job: Training) -> list[int]:
    """The segment ends at which the job can go on: their checkpoint and all trace rows before them are there."""
    traces, ends = store.parts("traces"), list[int]()
    for end in job.segments:
        if job.stage != "average" and f"{job.id}-{end}" not in traces:
            break
        if store.has_weights(f"{job.id}-{end}"):
            ends.append(end)
    return ends


def _train_segment(
    study: Study, job: Training, setting: Setting, stack: Stack, tails: Tails, end: int, progress: Progress
) -> tuple[Stack, Tails, list[Row]]:
    task, first = study.tasks.of(0), stack.step
    # Dropout and the like draw from here; a segment is where an interrupted job starts again.
    torch.manual_seed(torch_seed(first, job.id))
    order = [
        batch_indices(
            seed=seed.training_seed,
            start=first,
            stop=end,
            samples=setting.train.x.shape[1],
            batch_size=task.batch_size,
        )
        for seed in job.seeds
    ]
    lrs = [lane.plr if lane.flr is None else lane.flr for lane in job.lanes]
    checkpoints = job.average.steps if job.average else ()
    trained = train_stack(
        study.program,
        stack,
        lrs=torch.tensor(lrs, dtype=study.dtype, device=study.device).expand(len(job.seeds), -1).contiguous(),
        batches=torch.stack(order, 1).to(study.device),
        train=setting.train,
        test=setting.test if job.stage != "average" else None,
        trace_every=job.trace_every if job.stage != "average" else None,
        snapshots=[step for step in checkpoints if first < step <= end],
        progress=lambda steps: progress(steps * job.size),
    )
    for step, weights in trained.snapshots.items():
        assert job.average is not None
        place = checkpoints.index(step)
        rank = place if job.stage == "average" else len(checkpoints) - 1 - place
        tails = add_checkpoint(tails, job.average.counts, weights, rank=rank)
    if job.stage != "average":
        frame = trace_table(job.runs, trained.rows, setting.train.x.shape[1] // task.batch_size)
        study.store.write_table("traces", f"{job.id}-{end}", frame)
    return trained.stack, tails, trained.rows


def _finish(
    study: Study,
    job: Training,
    setting: Setting,
    stack: Stack,
    tails: Tails,
    rows: list[Row],
    seconds: Callable[[], float],
) -> None:
    program, tensors, tables = study.program, dict[str, Tensor](), list[pl.DataFrame]()

    def scored(weights: Weights) -> tuple[Scores, Scores]:
        return (
            evaluate_stack(program, weights, stack.buffers, setting.train),
            evaluate_stack(program, weights, stack.buffers, setting.test),
        )

    if job.stage != "average":
        tensors |= named(job.runs, "weights", stack.weights) | named(job.runs, "buffers", stack.buffers)
        if job.keep_state:
            tensors |= segment_tensors(job.runs, stack, {}, 0.0)
        gradient = rows[-1].gradient_norm if rows else None
        tables.append(runs_table(job, job.runs, job.parents, stack, *scored(stack.weights), gradient=gradient))
    if job.average:
        means = averaged(tails, radius=study.radius, dtype=study.dtype)
        for count, runs in zip(job.average.counts, job.average.runs, strict=True):
            tensors |= named(runs, "weights", means[count]) | named(runs, "buffers", stack.buffers)
            tables.append(runs_table(job, runs, job.runs, stack, *scored(means[count]), count=count))
    study.store.write_weights(job.id, tensors)
    table = pl.concat(tables)
    each = seconds() / job.size
    # A stack's time is shared by its runs; where it was trained for averages alone, by those over most checkpoints.
    longest = pl.col("count").max() if job.stage == "average" else None
    spent = pl.when(pl.col("count").eq_missing(longest)).then(each).otherwise(0.0)
    study.store.write_table("runs", job.id, table.with_columns(seconds=spent))


def _measure_features(study: Study, job: Features) -> None:
    training = next(each for each in study.plan.trainings if each.id == job.training)
    tables: list[pl.DataFrame] = []
    _, buffers, setting = study.initial(training.seeds, len(training.lanes))
    for runs, count in _grids(training):
        weights = study.end_points(runs)
        accuracies = single_feature_accuracies(study.program, weights, buffers, setting.features)
        stage = training.stage if count is None else "average"
        tables += [
            pl.DataFrame(
                {
                    "run": run,
                    "stage": stage,
                    "plr": training.lanes[lane].plr,
                    "flr": training.lanes[lane].flr,
                    "count": count,
                    "seed": training.seeds[seed].seed,
                    "feature": list(range(len(accuracies))),
                    "accuracy": accuracies[:, seed, lane].tolist(),
                },
                schema_overrides={"flr": pl.Float64, "count": pl.Int64},
            )
            for seed, row in enumerate(runs)
            for lane, run in enumerate(row)
        ]
    study.store.write_table("features", job.id, pl.concat(tables))


def _measure_geometry(study: Study, job: Geometry) -> None:
    training = next(each for each in study.plan.trainings if each.id == job.training)
    _, buffers, setting = study.initial(training.seeds, len(training.lanes))
    points = {role: study.end_points(runs) for role, runs in job.solutions.items()}
    tables: list[pl.DataFrame] = []
    for a, b in combinations(points, 2):
        errors = {
            part: path_errors(
                study.program,
                points[a],
                points[b],
                buffers,
                data,
                points=study.spec.measure.interpolation,
                radius=study.radius,
            )
            for part, data in (("train", setting.train), ("test", setting.test))
        }
        tables.append(
            pl.DataFrame(
                {
                    "plr": [lane.plr for _ in training.seeds for lane in training.lanes],
                    "seed": [seed.seed for seed in training.seeds for _ in training.lanes],
                    "a": a,
                    "b": b,
                    "angle": flat(angular_distance(points[a], points[b])),
                    "train_barrier": flat(barrier(errors["train"])),
                    "test_barrier": flat(barrier(errors["test"])),
                }
            )
        )
    study.store.write_table("pairs", job.id, pl.concat(tables))


def _grids(job: Training) -> list[tuple[Grid, int | None]]:
    """The run ids of a job's own runs and of its averages, with the averages' counts."""
    own: list[tuple[Grid, int | None]] = [(job.runs, None)] if job.stage != "average" else []
    if job.average:
        own += zip(job.average.runs, job.average.counts, strict=True)
    return own


def _forget(study: Study, job: Training, ends: Sequence[int], *, keep: int | None = None) -> list[int]:
    """Remove the segment checkpoints of a job that a later one has made useless."""
    for end in ends:
        if end != keep:
            study.store.remove_weights(f"{job.id}-{end}")
    return [] if keep is None else [keep]
