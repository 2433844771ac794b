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
from lratlas.study.execute.resuming import Point, forget, generator_state, keep, reached, set_generator_state
from lratlas.study.execute.rows import convergence_table, runs_table, trace_table
from lratlas.study.execute.study import Setting, Study
from lratlas.study.plan.plan import TABLE_OF, Job, Training
from lratlas.training.averaging import Tails, add_checkpoint, averaged
from lratlas.training.evaluating import Scores, evaluate_stack, pooled_buffers
from lratlas.training.order import augmentation_draws, batch_indices
from lratlas.training.record import Row
from lratlas.training.sphere import Weights
from lratlas.training.stacks import Stack, lanes_of, start_stack
from lratlas.training.trainer import Trained, train_stack

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
    at = reached(study, job) or Point(stack=_start(study, job, weights, buffers))
    spent = at.seconds
    progress(job.size * (at.stack.step - job.start))

    def seconds() -> float:
        return spent + time.monotonic() - began

    last_rows: list[Row] = []
    for end in job.segments:
        if end <= at.stack.step:
            continue
        trained, tails = _train_segment(study, job, setting, at, end, progress, stopping)
        at = Point(
            stack=trained.stack,
            tails=tails,
            seconds=seconds(),
            under_way=trained.under_way,
            generator=generator_state(study.device) if trained.under_way else None,
            files=at.files,
        )
        last_rows = trained.rows
        if at.under_way or end < job.segments[-1]:
            at = keep(study, job, at)
            if at.under_way or stopping():
                raise Stopped
    _finish(study, job, setting, at, last_rows, seconds)
    forget(study, at)


def _start(study: Study, job: Training, weights: Weights, buffers: Weights) -> Stack:
    """The stack at a job's first step."""
    if job.parent and job.parents and job.stage == "average":
        tensors = study.store.read_weights(job.parent)
        return read_segment(tensors, job.runs, counts=(), step=job.start, device=study.device)[0]
    if job.parents:
        weights, buffers = study.end_points(job.parents)
    return start_stack(weights, buffers, study.task.update)


def _train_segment(
    study: Study,
    job: Training,
    setting: Setting,
    at: Point,
    end: int,
    progress: Progress,
    stopping: Callable[[], bool],
) -> tuple[Trained, Tails]:
    """Train to the end of a segment and record its rows; or to where it is left, which records nothing."""
    task, first, tails = study.task, at.stack.step, at.tails
    # Dropout and the like draw from here.
    if at.generator is not None:
        set_generator_state(at.generator, study.device)
    else:
        torch.manual_seed(torch_seed(first, job.id))
    span = {"start": first, "stop": end, "samples": task.samples, "batch_size": task.samples_per_step}
    order = [batch_indices(seed=seed.training_seed, full_batch=task.full_batch, **span) for seed in job.seeds]
    draws = [augmentation_draws(task.augment, seed=seed.training_seed, **span) for seed in job.seeds if task.augment]
    lrs = [lane.lr for lane in job.lanes]
    checkpoints = job.average.steps if job.average else ()
    trained = train_stack(
        study.program,
        at.stack,
        lrs=torch.tensor(lrs, dtype=study.dtype, device=study.device).expand(len(job.seeds), -1).contiguous(),
        batches=_side_by_side(order, same=task.full_batch).to(study.device),
        draws={name: torch.stack([draw[name] for draw in draws], 1) for name in draws[0]} if draws else None,
        train=setting.train,
        test=setting.test if job.stage != "average" else None,
        trace_every=job.trace_every if job.stage != "average" else None,
        snapshots=[step for step in checkpoints if first < step <= end],
        epoch=job.epoch,
        progress=progress,
        under_way=at.under_way,
        leave=stopping,
    )
    for step, weights in trained.snapshots.items():
        assert job.average is not None
        place = checkpoints.index(step)
        rank = place if job.stage == "average" else len(checkpoints) - 1 - place
        tails = add_checkpoint(tails, job.average.counts, weights, rank=rank)
    if trained.under_way:
        return trained, tails
    if trained.fitted:
        study.store.write_table("convergence", f"{job.id}-{end}", convergence_table(job, trained.fitted))
    if job.stage != "average":
        frame = trace_table(job.runs, trained.rows, task.steps_per_epoch)
        study.store.write_table("traces", f"{job.id}-{end}", frame)
    return trained, tails


def _side_by_side(order: Sequence[Tensor], *, same: bool) -> Tensor:
    """The indices of all seeds, [steps, seeds, batch]; those of full batches are the same and not copied."""
    return order[0][:, None].expand(-1, len(order), -1) if same else torch.stack([*order], 1)


def _finish(
    study: Study,
    job: Training,
    setting: Setting,
    at: Point,
    rows: list[Row],
    seconds: Callable[[], float],
) -> None:
    program, stack, tensors, tables = study.program, at.stack, dict[str, Tensor](), list[pl.DataFrame]()

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
        start = _start_loss(study, job) if job.stage == "pretrain" else None
        tables.append(runs_table(job, job.runs, job.parents, stack, *scores, gradient=gradient, start=start))
    if job.average:
        means = averaged(at.tails, rule=study.task.update, dtype=study.dtype)
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


def _start_loss(study: Study, job: Training) -> Tensor:
    """Test loss of each run's model before its first step, batch norm with the statistics of the training set.

    Initial models come with other statistics, which training replaces at any LR: their loss would seem to move.
    """
    weights, buffers, setting = study.initial(job.seeds, len(job.lanes))
    # All lanes of a seed start from the same weights. A compiled program is compiled for each size of stack, which
    # takes longer than evaluating all lanes once; an eager one evaluates a single lane.
    if not study.program.compiled:
        weights, buffers = (lanes_of(tensors, slice(0, 1)) for tensors in (weights, buffers))
    size = study.task.samples_per_step
    pooled = pooled_buffers(study.program, weights, buffers, setting.train, batch_size=size)
    return evaluate_stack(study.program, weights, pooled, setting.test).loss.expand(-1, len(job.lanes))
