"""Train the segments of a search on a task; segments with the same first and last step train as one stack."""

import math
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch
from torch import Tensor

from lratlas.data.parts import each as for_each
from lratlas.execute.checkpoints import TrainState
from lratlas.files import write_file
from lratlas.notices import LOG
from lratlas.rng import preserve_generators, stream, torch_seed
from lratlas.search.journal import CHECKPOINT, STATES, stated_paths
from lratlas.search.segments import BLOCKS, LAST_WEIGHTS, Segment, ends_low
from lratlas.search.states import load_final_states, load_state, stops, store_final_states, store_state
from lratlas.stacks.strategy import faster_strategy, faster_threads
from lratlas.stacks.tensors import initial_tensors, program_of, samples
from lratlas.study.store import seal_weights
from lratlas.training.averaging import add_checkpoint, average_tails
from lratlas.training.batches import augmentation_draws, batch_indices
from lratlas.training.compiling import why_not_compiled
from lratlas.training.evaluate import evaluate_stack, pool_buffers
from lratlas.training.prepared import Prepared, make_model
from lratlas.training.program import Program, Strategy
from lratlas.training.sphere import Weights
from lratlas.training.state import Samples, start_stack
from lratlas.training.trainer import train_stack

_STRATEGY, _THREADS = "strategy.txt", "threads.txt"
_LANES = 8  # LRs that train together, about
_CHECKPOINTS = 16  # weights that enter an average, at most
_STAIRS = 64  # pieces of a changing LR, at most
_STATISTICS = 1024  # training samples for the batch-norm statistics of an average, at most
_KEPT_EVERY = 10.0  # seconds of training that an interruption may cost
_PARTS = 8  # parts of the validation set, for the standard error of a metric


@dataclass(frozen=True, kw_only=True)
class TrainedSegment:
    """Result of a segment.

    Attributes:
        value: Validation metric of the final weights; NaN if the segment diverged.
        averaged: Validation metric of the averaged weights.
        error: Standard error of the metric, from the validation samples; None for an accuracy.
        losses: Training losses, as means over equal parts.
    """

    value: float | None
    averaged: float | None
    error: float | None
    losses: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SegmentTrainer:
    """A task, and the place and settings of its training.

    Attributes:
        task: The task; choices are made on its validation set.
        root: The search folder.
        device: Device to train on.
        steps: Steps of a full training.
        by_loss: Whether to use the validation loss even if there is an accuracy.
        compiled: Whether to compile the step: slow to start, then faster.
    """

    task: Prepared
    root: Path
    device: torch.device
    steps: int
    by_loss: bool = False
    compiled: bool = False

    @property
    def states(self) -> Path:
        """Folder of final states."""
        return self.root / STATES

    @cached_property
    def is_compiled(self) -> bool:
        """Whether the step is compiled: as asked for, if compilation works on the device."""
        reason = why_not_compiled(self.device) if self.compiled else ""
        if reason:
            LOG.warning("Training runs uncompiled: %s.", reason)
        return self.compiled and not reason

    @cached_property
    def strategy(self) -> Strategy:
        """Whether several LRs train as one program; measured once per search, because its last bits depend on it."""
        if not self.task.update.stacks:
            return "single"
        path = self.root / _STRATEGY
        if path.exists() and (kept := path.read_text()) in get_args(Strategy):
            return cast("Strategy", kept)
        measured = faster_strategy(
            self.task, device=str(self.device), dtype="float32", compiled=self.is_compiled, lanes=_LANES
        )
        write_file(path, measured.encode())
        return measured

    @cached_property
    def threads(self) -> int:
        """Number of PyTorch threads; measured once per search, because its last bits depend on it."""
        path = self.root / _THREADS
        if path.exists() and (kept := path.read_text()).isdecimal():
            return min(int(kept), torch.get_num_threads())
        lanes = 1 if self.strategy == "single" else _LANES
        measured = faster_threads(self.task, self.strategy, lanes=lanes, device=str(self.device))
        write_file(path, str(measured).encode())
        return measured

    @contextmanager
    def one_pace(self) -> Generator[None]:
        """Use the search's number of PyTorch threads in the block."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    @cached_property
    def program(self) -> Program:
        """The training step and the evaluation."""
        return program_of(self.task, strategy=self.strategy, compiled=self.is_compiled, device=self.device)


def groups(trainer: SegmentTrainer, segments: Sequence[Segment]) -> list[list[Segment]]:
    """Group the segments that can train as one stack; single segments if that is faster."""
    together = dict[tuple[int, int, int, int | None, int], list[Segment]]()
    for number, each in enumerate(segments):
        alone = number if trainer.strategy == "single" else -1
        together.setdefault((each.seed, each.start, each.stop, each.anneal_from, alone), []).append(each)
    return list(together.values())


def train_segments(trainer: SegmentTrainer, segments: Sequence[Segment]) -> list[TrainedSegment]:
    """Train segments that differ only in their LR, and save their final states.

    Args:
        trainer: The task and its settings.
        segments: Segments of one seed, with the same first and last step.

    Returns:
        One result per segment, in order.

    Raises:
        SearchError: The state of a parent is missing or damaged.
    """
    first, task = segments[0], trainer.task
    initial = initial_tensors([task], [first.seed], len(segments), dtype=torch.float32, device=trainer.device)
    at = [] if ends_low(first) else _averaging_steps(first)
    so_far = load_state(trainer.states, segments, count=len(at), device=trainer.device)
    if so_far is None:
        if first.parent:
            parents = [str(each.parent) for each in segments]
            stack = load_final_states(trainer.states, parents, step=first.start, device=trainer.device)
        else:
            stack = start_stack(initial[0], initial[1], task.update)
        so_far = TrainState(stack=stack)
    data = samples([task], "train", initial[2], dtype=torch.float32, device=trainer.device)
    with preserve_generators():
        trained = _train_stack(trainer, segments, so_far, at, data)
    store_final_states(trainer.states, segments, trained.stack)
    return _results(trainer, first, trained, data)


def _averaging_steps(of: Segment) -> list[int]:
    """The steps whose weights enter the average of a segment."""
    return sorted({int(step) for step in np.linspace(of.stop, of.average_from, _CHECKPOINTS, endpoint=False)})


def _train_stack(
    trainer: SegmentTrainer, segments: Sequence[Segment], so_far: TrainState, averaged_at: Sequence[int], data: Samples
) -> TrainState:
    """Train a stack from its current step to its end; saves it on the way."""
    first, task, every = segments[0], trainer.task, max(1, segments[0].steps // BLOCKS)
    span = {"seed": first.seed, "samples": task.samples, "batch_size": task.samples_per_step}
    rests, kept_at = stops(segments, every=every), time.monotonic()
    ends = sorted({so_far.stack.step, *_stairs(first), *rests})
    for start, stop in pairwise(end for end in ends if end >= so_far.stack.step):
        # Dropout and similar layers draw from this generator.
        torch.manual_seed(torch_seed(first.seed, f"segment-{start}"))
        order = batch_indices(start=start, stop=stop, full_batch=task.full_batch, **span)
        draws = augmentation_draws(task.augment, start=start, stop=stop, **span) if task.augment else {}
        middle = (start + stop - 1) // 2
        lrs = [each.lr_at(middle) for each in segments]
        trained = train_stack(
            trainer.program,
            so_far.stack,
            lrs=torch.tensor([lrs], dtype=torch.float32, device=trainer.device),
            batches=order[:, None].to(trainer.device),
            draws={name: value[:, None] for name, value in draws.items()} or None,
            train=data,
            trace_every=every,
            snapshots=[step for step in averaged_at if start < step <= stop],
        )
        tails = so_far.tails
        for weights in trained.snapshots.values():
            tails = add_checkpoint(tails, [len(averaged_at)], weights, rank=0)
        losses = (*so_far.losses, *(row.train_loss[0] for row in trained.rows))
        so_far = TrainState(stack=trained.stack, tails=tails, losses=losses)
        if stop in rests and time.monotonic() - kept_at > _KEPT_EVERY:
            store_state(trainer.states, segments, so_far)
            kept_at = time.monotonic()
    return so_far


def _stairs(of: Segment) -> list[int]:
    """Boundaries of the pieces with a constant LR: at most 64 in the warm-up, and 64 in a later change."""
    ends = {of.start, of.stop}
    changes = [(0, of.warmup)]
    if of.anneal_from is not None or of.schedule != "constant":
        changes.append((of.warmup if of.anneal_from is None else of.anneal_from, of.stop))
    for first, last in changes:
        ends |= {int(step) for step in np.linspace(first, last, min(_STAIRS, last - first) + 1)}
    return sorted(step for step in ends if of.start <= step <= of.stop)


def _results(trainer: SegmentTrainer, first: Segment, trained: TrainState, data: Samples) -> list[TrainedSegment]:
    task, program, stack = trainer.task, trainer.program, trained.stack
    held = samples([task], "validation", data.frozen, dtype=torch.float32, device=trainer.device)
    scheduled, values, averages = ends_low(first), None, None
    if scheduled or first.stop >= LAST_WEIGHTS * trainer.steps:
        values = _metric(trainer, stack.weights, stack.buffers, held)
    if not scheduled:
        (mean,) = average_tails(trained.tails, rule=task.update, like=stack.weights).values()
        few = _some(data, min(_STATISTICS, first.steps * task.samples_per_step))
        pooled = pool_buffers(program, mean, stack.buffers, few, batch_size=task.samples_per_step)
        averages = _metric(trainer, mean, pooled, held)
    counts = averages or values
    assert counts is not None
    losses = torch.stack(trained.losses)
    alive = stack.alive[0].tolist()
    return [
        TrainedSegment(
            value=values[lane].mean if values and alive[lane] else None if alive[lane] else math.nan,
            averaged=averages[lane].mean if averages and alive[lane] else None if alive[lane] else math.nan,
            error=counts[lane].error,
            losses=tuple(losses[:, lane].tolist()),
        )
        for lane in range(len(alive))
    ]


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """Validation metric and its standard error over parts of the set; None if it follows from the metric."""

    mean: float
    error: float | None


def _metric(trainer: SegmentTrainer, weights: Weights, buffers: Weights, held: Samples) -> list[_Measured]:
    """Validation metric of each lane."""
    objective = trainer.task.objective
    by_loss = trainer.by_loss or not objective.has_accuracy

    def evaluate_part(part: Samples) -> Tensor:
        scores = evaluate_stack(trainer.program, weights, buffers, part)
        return (scores.loss if by_loss else scores.accuracy)[0]

    if (not by_loss and objective.labels in {"classes", "binary"}) or objective.by_batches or held.count < 2 * _PARTS:
        return [_Measured(mean=value, error=None) for value in evaluate_part(held).tolist()]
    size = held.count // _PARTS
    ends = [held.count - size * number for number in range(_PARTS, -1, -1)]
    ends[0] = 0
    parts = torch.stack(
        [evaluate_part(_rows(held, torch.arange(*at, device=held.which.device))) for at in pairwise(ends)]
    )
    shares = torch.tensor([stop - start for start, stop in pairwise(ends)], dtype=parts.dtype, device=parts.device)
    means = (parts * shares[:, None]).sum(0) / shares.sum()
    errors = parts.std(0) / math.sqrt(_PARTS)
    return [_Measured(mean=mean, error=error) for mean, error in zip(means.tolist(), errors.tolist(), strict=True)]


def _some(data: Samples, count: int) -> Samples:
    """A fixed random subset of a data set."""
    rows = torch.from_numpy(stream(0, "statistics").permutation(data.count)[:count].copy()).to(data.which.device)
    return _rows(data, rows)


def _rows(data: Samples, rows: Tensor) -> Samples:
    return replace(data, x=for_each(lambda part: part[:, rows], data.x), y=for_each(lambda part: part[:, rows], data.y))


def write_checkpoint(trainer: SegmentTrainer, segment: Segment) -> Path:
    """Write the model's state after a segment for PyTorch's ``load_state_dict``; the segment's state must still exist.

    Returns:
        The file, within the search folder.

    Raises:
        SearchError: The state is missing or damaged.
    """
    model = make_model(trainer.task, segment.seed)
    stack = load_final_states(trainer.states, [segment.name], step=segment.stop, device=trainer.device)
    state = model.state_dict()
    state |= {name: value[0, 0] for name, value in (stack.weights | stack.buffers).items() if name in state}
    path = trainer.root / CHECKPOINT
    about = {"segment": segment.name, "step": str(segment.stop), "lr": repr(segment.lr), "seed": str(segment.seed)}
    write_file(path, seal_weights(state, stated_paths(path)[0], about))
    return path
