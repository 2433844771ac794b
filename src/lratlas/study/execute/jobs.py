"""What one job of a plan does: it reads the store, trains or measures one stack, and writes its parts.

Every job is idempotent. Its runs part (or its one table part) is written last and says that it is done.
"""

import time
from collections.abc import Callable, Sequence

import polars as pl
import torch
from torch import Tensor

from lratlas.streams import torch_seed
from lratlas.study.execute.checkpoints import named, read_segment, segment_tensors
from lratlas.study.execute.measuring import measured
from lratlas.study.execute.rows import convergence_table, runs_table, trace_table
from lratlas.study.execute.study import Setting, Study
from lratlas.study.plan.plan import TABLE_OF, Job, Training
from lratlas.study.store.store import Store
from lratlas.training.averaging import Tails, add_checkpoint, averaged
from lratlas.training.evaluating import Scores, evaluate_stack, pooled_buffers
from lratlas.training.order import augmentation_draws, batch_indices
from lratlas.training.sphere import Weights
from lratlas.training.stacks import Stack, start_stack
from lratlas.training.trainer import Row, train_stack

Progress = Callable[[int], None]


class Stopped(Exception):  # noqa: N818 - it names what happened
    """A job was left at the end of a segment, because that was asked for."""


def perform(study: Study, job: Job, progress: Progress, stopping: Callable[[], bool] = lambda: False) -> None:
    """Do one job.

    Args:
        study: The study.
        job: One of its plan.
        progress: Called with the run-steps just trained.
        stopping: Whether to leave a training at the end of the segment that it is in.

    Raises:
        Stopped: It was left there.
    """
    if isinstance(job, Training):
        _train(study, job, progress, stopping)
    else:
        study.store.write_table(TABLE_OF[type(job)], job.id, measured(study, job))


def _train(study: Study, job: Training, progress: Progress, stopping: Callable[[], bool]) -> None:
    began = time.monotonic()
    weights, buffers, setting = study.initial(job.seeds, len(job.lanes))
    rule = study.task.update
    done = _resumable(study.store, job)
    stack, tails, spent = start_stack(weights, buffers, rule), Tails(), 0.0
    if done:
        counts = job.average.counts if job.average else ()
        stack, tails, spent = _segment(study, job, f"{job.id}-{done[-1]}", counts, done[-1])
    elif job.parent and job.parents and job.stage == "average":
        stack, _, _ = _segment(study, job, job.parent, (), job.start)
    elif job.parents:
        stack = start_stack(*study.end_points(job.parents), rule)
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
            if stopping():
                raise Stopped
    _finish(study, job, setting, stack, tails, last_rows, lambda: spent + time.monotonic() - began)
    _forget(study, job, done)


def _segment(study: Study, job: Training, name: str, counts: Sequence[int], step: int) -> tuple[Stack, Tails, float]:
    return read_segment(study.store.read_weights(name), job.runs, counts=counts, step=step, device=study.device)


def _resumable(store: Store, job: Training) -> list[int]:
    """The segment ends at which the job can go on: their checkpoint and all rows recorded before them are there."""
    ends = list[int]()
    for end in job.segments:
        if not all(store.has_part(table, f"{job.id}-{end}") for table in job.recorded):
            break
        if store.has_weights(f"{job.id}-{end}"):
            ends.append(end)
    return ends


def _train_segment(
    study: Study, job: Training, setting: Setting, stack: Stack, tails: Tails, end: int, progress: Progress
) -> tuple[Stack, Tails, list[Row]]:
    task, first = study.task, stack.step
    # Dropout and the like draw from here; a segment is where an interrupted job starts again.
    torch.manual_seed(torch_seed(first, job.id))
    span = {"start": first, "stop": end, "samples": len(task.train[0]), "batch_size": task.samples_per_step}
    order = [batch_indices(seed=seed.training_seed, full_batch=task.full_batch, **span) for seed in job.seeds]
    draws = [augmentation_draws(task.augment, seed=seed.training_seed, **span) for seed in job.seeds if task.augment]
    lrs = [lane.lr for lane in job.lanes]
    checkpoints = job.average.steps if job.average else ()
    trained = train_stack(
        study.program,
        stack,
        lrs=torch.tensor(lrs, dtype=study.dtype, device=study.device).expand(len(job.seeds), -1).contiguous(),
        batches=_side_by_side(order, same=task.full_batch).to(study.device),
        draws={name: torch.stack([draw[name] for draw in draws], 1) for name in draws[0]} if draws else None,
        train=setting.train,
        test=setting.test if job.stage != "average" else None,
        trace_every=job.trace_every if job.stage != "average" else None,
        snapshots=[step for step in checkpoints if first < step <= end],
        epoch=job.epoch,
        progress=progress,
    )
    for step, weights in trained.snapshots.items():
        assert job.average is not None
        place = checkpoints.index(step)
        rank = place if job.stage == "average" else len(checkpoints) - 1 - place
        tails = add_checkpoint(tails, job.average.counts, weights, rank=rank)
    if trained.fitted:
        study.store.write_table("convergence", f"{job.id}-{end}", convergence_table(job, trained.fitted))
    if job.stage != "average":
        frame = trace_table(job.runs, trained.rows, task.steps_per_epoch)
        study.store.write_table("traces", f"{job.id}-{end}", frame)
    return trained.stack, tails, trained.rows


def _side_by_side(order: Sequence[Tensor], *, same: bool) -> Tensor:
    """The indices of all seeds, [steps, seeds, batch]; those of full batches are the same and not copied."""
    return order[0][:, None].expand(-1, len(order), -1) if same else torch.stack([*order], 1)


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

    def scored(weights: Weights, buffers: Weights) -> tuple[Scores, Scores]:
        return (
            evaluate_stack(program, weights, buffers, setting.train),
            evaluate_stack(program, weights, buffers, setting.test),
        )

    if job.stage != "average":
        tensors |= named(job.runs, "weights", stack.weights) | named(job.runs, "buffers", stack.buffers)
        if job.keep_state:
            tensors |= segment_tensors(job.runs, stack, {}, 0.0)
        gradient = rows[-1].gradient_norm if rows else None
        scores = scored(stack.weights, stack.buffers)
        tables.append(runs_table(job, job.runs, job.parents, stack, *scores, gradient=gradient))
    if job.average:
        means = averaged(tails, rule=study.task.update, dtype=study.dtype)
        size = study.task.samples_per_step
        for count, runs in zip(job.average.counts, job.average.runs, strict=True):
            mean = means[count]
            buffers = pooled_buffers(program, mean, stack.buffers, setting.train, batch_size=size)
            tensors |= named(runs, "weights", mean) | named(runs, "buffers", buffers)
            tables.append(runs_table(job, runs, job.runs, stack, *scored(mean, buffers), count=count))
    study.store.write_weights(job.id, tensors)
    table = pl.concat(tables)
    each = seconds() / job.size
    # A stack's time is shared by its runs; where it was trained for averages alone, by those over most checkpoints.
    longest = pl.col("count").max() if job.stage == "average" else None
    spent = pl.when(pl.col("count").eq_missing(longest)).then(each).otherwise(0.0)
    study.store.write_table("runs", job.id, table.with_columns(seconds=spent))


def _forget(study: Study, job: Training, ends: Sequence[int], *, keep: int | None = None) -> list[int]:
    """Remove the segment checkpoints of a job that a later one has made useless."""
    for end in ends:
        if end != keep:
            study.store.remove_weights(f"{job.id}-{end}")
    return [] if keep is None else [keep]
