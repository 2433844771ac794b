"""Training jobs: train from the last saved state to the end of the job, one segment at a time."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile

import polars as pl
import torch
from torch import Tensor

from lratlas.devices import float32_precision, reproducible
from lratlas.execute.checkpoints import (
    TrainState,
    name_tensors,
    read_segment,
    read_state,
    segment_tensors,
    state_tensors,
)
from lratlas.execute.context import WorkerContext
from lratlas.execute.measure_job import measure_rows
from lratlas.execute.rows import convergence_table, runs_table, trace_table
from lratlas.rng import pack_generators, set_seed, torch_seed, unpack_generators
from lratlas.stacks.tensors import StackData
from lratlas.study.jobs import Job, Training
from lratlas.study.progress import table_of
from lratlas.training.averaging import Tails, add_checkpoint, average_tails
from lratlas.training.batches import augmentation_draws, batch_indices
from lratlas.training.evaluate import Scores, evaluate_stack, pool_buffers
from lratlas.training.record import Row
from lratlas.training.sphere import Weights
from lratlas.training.state import Stack, lanes_of, start_stack
from lratlas.training.trainer import Trained, train_stack

Progress = Callable[[int], None]


class Stopped(Exception):  # noqa: N818 - it names the event
    """A job stopped on request, after saving its state."""


def perform(context: WorkerContext, job: Job, progress: Progress, stopping: Callable[[], bool] = lambda: False) -> None:
    """Execute a job.

    Args:
        context: The study in this process.
        job: A job of its plan.
        progress: Called with the number of run-steps just trained.
        stopping: Whether to stop training after the current step.

    Raises:
        Stopped: Training stopped on request.
    """
    trains = isinstance(job, Training)
    with reproducible(context.device), float32_precision(tf32=trains and context.plan.tf32):
        if trains:
            _train(context, job, progress, stopping)
        else:
            context.store.write_table(table_of(job), job.id, measure_rows(context, job))


def _train(context: WorkerContext, job: Training, progress: Progress, stopping: Callable[[], bool]) -> None:
    began = time.monotonic()
    weights, buffers, data = context.initial(job.seeds, len(job.lanes))
    at = load_progress(context, job) or TrainState(stack=_start(context, job, weights, buffers))
    spent = at.seconds
    progress(job.size * (at.stack.step - job.start))

    def seconds() -> float:
        return spent + time.monotonic() - began

    last_rows: list[Row] = []
    for end in job.segments:
        if end <= at.stack.step:
            continue
        trained, tails = _train_segment(context, job, data, at, end, progress, stopping)
        at = TrainState(
            stack=trained.stack,
            tails=tails,
            seconds=seconds(),
            segment=trained.segment,
            generators=pack_generators() if trained.segment else None,
        )
        last_rows = trained.rows
        if at.segment or end < job.segments[-1]:
            store_state(context, job, at)
            if at.segment or stopping():
                raise Stopped
    _finish(context, job, data, at, last_rows, seconds)
    remove_states(context, job)


def _start(context: WorkerContext, job: Training, weights: Weights, buffers: Weights) -> Stack:
    """The stack at the first step of a job."""
    if job.parent and job.parents and job.stage == "average":
        tensors = context.store.read_weights(job.parent)
        return read_segment(tensors, job.runs, counts=(), step=job.start, device=context.device)[0]
    if job.parents:
        weights, buffers = context.end_points(job.parents)
    return start_stack(weights, buffers, context.task.update)


def _train_segment(
    context: WorkerContext,
    job: Training,
    data: StackData,
    at: TrainState,
    end: int,
    progress: Progress,
    stopping: Callable[[], bool],
) -> tuple[Trained, Tails]:
    """Train to the end of a segment and record its rows; if stopped earlier, record nothing."""
    task, first, tails = context.task, at.stack.step, at.tails
    set_seed(torch_seed(first, job.id))  # layers like dropout draw from these generators
    if at.generators:
        unpack_generators(at.generators)
    span = {"start": first, "stop": end, "samples": task.samples, "batch_size": task.samples_per_step}
    order = [batch_indices(seed=seed.training_seed, full_batch=task.full_batch, **span) for seed in job.seeds]
    draws = [augmentation_draws(task.augment, seed=seed.training_seed, **span) for seed in job.seeds if task.augment]
    lrs = [lane.lr for lane in job.lanes]
    checkpoints = job.average.steps if job.average else ()
    trained = train_stack(
        context.program,
        at.stack,
        lrs=torch.tensor(lrs, dtype=context.dtype, device=context.device).expand(len(job.seeds), -1).contiguous(),
        batches=_side_by_side(order, same=task.full_batch).to(context.device),
        draws={name: torch.stack([draw[name] for draw in draws], 1) for name in draws[0]} if draws else None,
        train=data.train,
        test=data.test if job.stage != "average" else None,
        trace_every=job.trace_every if job.stage != "average" else None,
        snapshots=[step for step in checkpoints if first < step <= end],
        epoch=job.epoch,
        progress=progress,
        segment=at.segment,
        leave=stopping,
    )
    for step, weights in trained.snapshots.items():
        assert job.average is not None
        place = checkpoints.index(step)
        rank = place if job.stage == "average" else len(checkpoints) - 1 - place
        tails = add_checkpoint(tails, job.average.counts, weights, rank=rank)
    if trained.segment:
        return trained, tails
    if trained.fitted:
        context.store.write_table("convergence", f"{job.id}-{end}", convergence_table(job, trained.fitted))
    if job.stage != "average":
        frame = trace_table(job.runs, trained.rows, task.steps_per_epoch)
        context.store.write_table("traces", f"{job.id}-{end}", frame)
    return trained, tails


def _side_by_side(order: Sequence[Tensor], *, same: bool) -> Tensor:
    """The indices of all seeds, [steps, seeds, batch]; full batches are equal for all seeds and not copied."""
    return order[0][:, None].expand(-1, len(order), -1) if same else torch.stack([*order], 1)


def _finish(
    context: WorkerContext,
    job: Training,
    data: StackData,
    at: TrainState,
    rows: list[Row],
    seconds: Callable[[], float],
) -> None:
    program, stack, tensors, tables = context.program, at.stack, dict[str, Tensor](), list[pl.DataFrame]()

    def score(weights: Weights, buffers: Weights) -> tuple[Scores, Scores]:
        return (
            evaluate_stack(program, weights, buffers, data.train),
            evaluate_stack(program, weights, buffers, data.test),
        )

    if job.stage != "average":
        tensors |= name_tensors(job.runs, "weights", stack.weights) | name_tensors(job.runs, "buffers", stack.buffers)
        if job.keep_state:
            tensors |= segment_tensors(job.runs, stack, {}, 0.0)
        gradient = rows[-1].gradient_norm if rows else None
        scores = score(stack.weights, stack.buffers)
        start = _start_loss(context, job) if job.stage == "pretrain" else None
        tables.append(runs_table(job, job.runs, job.parents, stack, *scores, gradient=gradient, start=start))
    if job.average:
        means = average_tails(at.tails, rule=context.task.update, like=stack.weights)
        size = context.task.samples_per_step
        for count, runs in zip(job.average.counts, job.average.runs, strict=True):
            mean = means[count]
            buffers = pool_buffers(program, mean, stack.buffers, data.train, batch_size=size)
            tensors |= name_tensors(runs, "weights", mean) | name_tensors(runs, "buffers", buffers)
            tables.append(runs_table(job, runs, job.runs, stack, *score(mean, buffers), count=count))
    context.store.write_weights(job.id, tensors)
    table = pl.concat(tables)
    each = seconds() / job.size
    # The runs of a stack share its time; in a job only for averages, the runs with the most checkpoints share it.
    longest = pl.col("count").max() if job.stage == "average" else None
    spent = pl.when(pl.col("count").eq_missing(longest)).then(each).otherwise(0.0)
    context.store.write_table("runs", job.id, table.with_columns(seconds=spent))


def _start_loss(context: WorkerContext, job: Training) -> Tensor:
    """Test loss of each run's model before its first step; batch norm uses the statistics of the training set.

    The initial running statistics differ, and training replaces them at any LR: the loss would seem to change.
    """
    weights, buffers, data = context.initial(job.seeds, len(job.lanes))
    # All lanes of a seed start from the same weights. A compiled program compiles for each stack size, which takes
    # longer than evaluating all lanes once; an eager program evaluates a single lane.
    if not context.program.compiled:
        weights, buffers = (lanes_of(tensors, slice(0, 1)) for tensors in (weights, buffers))
    size = context.task.samples_per_step
    pooled = pool_buffers(context.program, weights, buffers, data.train, batch_size=size)
    return evaluate_stack(context.program, weights, pooled, data.test).loss.expand(-1, len(job.lanes))


def load_progress(context: WorkerContext, job: Training) -> TrainState | None:
    """The latest stored state of a job for which all earlier rows are recorded; None if there is none.

    Raises:
        StudyError: The state cannot be read.
    """
    store = context.store
    recorded = {*takewhile(lambda end: all(store.has_part(t, f"{job.id}-{end}") for t in job.recorded), job.segments)}
    ends = [end for end in job.segments if end in recorded and store.has_weights(f"{job.id}-{end}")]
    read = partial(_read_state, context, job)
    if store.has_weights(job.part_way):
        at = read(job.part_way)
        step = at.stack.step
        if step > max(ends, default=job.start) and recorded.issuperset(end for end in job.segments if end <= step):
            return at
    return read(f"{job.id}-{ends[-1]}", step=ends[-1]) if ends else None


def _read_state(context: WorkerContext, job: Training, name: str, *, step: int | None = None) -> TrainState:
    counts = job.average.counts if job.average else ()
    return read_state(context.store.read_weights(name), job.runs, counts=counts, device=context.device, step=step)


def store_state(context: WorkerContext, job: Training, at: TrainState) -> None:
    """Store the state of a job; at the end of a segment, remove its earlier checkpoints.

    Raises:
        StudyError: The file cannot be written.
    """
    name = f"{job.id}-{at.stack.step}" if at.segment is None else job.part_way
    context.store.write_weights(name, state_tensors(job.runs, at))
    if at.segment is None:
        remove_states(context, job, but=name)


def remove_states(context: WorkerContext, job: Training, *, but: str | None = None) -> None:
    """Remove the obsolete checkpoints of a job.

    Raises:
        StudyError: A checkpoint cannot be removed.
    """
    for name in context.store.weights():
        if name.startswith(f"{job.id}-") and name != but:
            context.store.remove_weights(name)
