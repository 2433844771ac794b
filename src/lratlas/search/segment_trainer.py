"""Training the segments of a search on a task: those that begin and end at the same steps together, as a stack."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch
from torch import Tensor

from lratlas.data.parts import each as for_each
from lratlas.errors import SearchError
from lratlas.search.segments import BLOCKS, Segment
from lratlas.search.train_state import TrainState, forget, forget_all, keep, kept, stops
from lratlas.stacks.strategy import faster_strategy
from lratlas.stacks.tensors import initial_tensors, samples
from lratlas.streams import generators_kept, stream, torch_seed
from lratlas.study.execute.checkpoints import read_segment, segment_tensors
from lratlas.study.store.atomic import write_file
from lratlas.study.store.weights import opened_weights, sealed_weights
from lratlas.training.averaging import add_checkpoint, averaged
from lratlas.training.compiling import can_compile
from lratlas.training.evaluating import evaluate_stack, pooled_buffers
from lratlas.training.order import augmentation_draws, batch_indices
from lratlas.training.prepared import Prepared, make_model
from lratlas.training.program import Program, Strategy, build
from lratlas.training.sphere import Weights
from lratlas.training.stacks import Samples, Stack, start_stack
from lratlas.training.trainer import train_stack

STATES = "states"
"""The folder of final states, within that of the search."""
_STRATEGY = "strategy.txt"
_CHECKPOINTS = 16  # that enter an average, at most
_STAIRS = 32  # of the descent of an annealed LR
_STATISTICS = 1024  # training samples for the batch-norm statistics of an average


@dataclass(frozen=True, kw_only=True)
class TrainedSegment:
    """What came of a segment.

    Attributes:
        value: The validation metric of the weights at the end; NaN if it diverged.
        averaged: That of the averaged weights.
        losses: Training losses, means over equal parts.
    """

    value: float
    averaged: float
    losses: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SegmentTrainer:
    """A task, and where and how its segments are trained.

    Attributes:
        task: The task; choices are made on its validation set.
        root: The folder of the search.
        device: Where to train.
        compiled: Whether to compile the step, which takes a while and then makes it faster.
    """

    task: Prepared
    root: Path
    device: torch.device
    compiled: bool = False

    @property
    def states(self) -> Path:
        """The folder of final states."""
        return self.root / STATES

    @cached_property
    def strategy(self) -> Strategy:
        """Whether several LRs are trained as one program; measured once for a search, whose last bits depend on it."""
        if not self.task.update.stacks:
            return "single"
        path = self.root / _STRATEGY
        if path.exists() and (kept := path.read_text()) in get_args(Strategy):
            return cast("Strategy", kept)
        measured = faster_strategy(self.task, device=str(self.device), dtype="float32")
        write_file(path, measured.encode())
        return measured

    @cached_property
    def program(self) -> Program:
        """The step and the evaluation."""
        compiled = self.compiled and can_compile()
        model = make_model(self.task, 0)
        return build(
            model,
            self.task.objective,
            self.task.update,
            compiled=compiled,
            strategy=self.strategy,
            batch_size=self.task.samples_per_step,
            draws=self.task.conformance.draws,
            channels_last=self.task.conformance.channels_last,
        )

    @property
    def by_accuracy(self) -> bool:
        """Whether the validation metric is an accuracy; it is the loss where there is no accuracy."""
        return self.task.objective.has_accuracy


def groups(bench: SegmentTrainer, segments: Sequence[Segment]) -> list[list[Segment]]:
    """The segments that can be trained as one stack, together; each alone where that is faster."""
    together = dict[tuple[int, int, int, int | None, int], list[Segment]]()
    for number, each in enumerate(segments):
        alone = number if bench.strategy == "single" else -1
        together.setdefault((each.seed, each.start, each.stop, each.anneal_from, alone), []).append(each)
    return list(together.values())


def train_segments(bench: SegmentTrainer, segments: Sequence[Segment]) -> list[TrainedSegment]:
    """Train segments that differ in nothing but their LR, and keep their final states.

    Args:
        bench: The task and where it is trained.
        segments: Of one seed, from the same step to the same step.

    Returns:
        What came of each, in the same order.

    Raises:
        SearchError: The state of a parent is missing or damaged.
    """
    first, task, names = segments[0], bench.task, [[each.name for each in segments]]
    initial = initial_tensors([task], [first.seed], len(segments), dtype=torch.float32, device=bench.device)
    at = _averaged_at(first)
    so_far = kept(bench.states, segments, count=len(at), device=bench.device)
    if so_far is None:
        stack = _parents(bench, segments) if first.parent else start_stack(initial[0], initial[1], task.update)
        so_far = TrainState(stack=stack, tails={}, losses=())
    data = samples([task], "train", initial[2], dtype=torch.float32, device=bench.device)
    with generators_kept():
        trained = _trained(bench, segments, so_far, at, data)
    for name in names[0]:
        write_file(_path(bench, name), sealed_weights(_state(trained.stack, names, name)))
    forget(bench.states, segments)
    return _results(bench, trained, data)


def forget_states(bench: SegmentTrainer, needed: Collection[str]) -> None:
    """Remove the final states of all segments but those named, and once none is needed all that is left."""
    for path in bench.states.glob("*.safetensors"):
        if path.stem not in needed:
            path.unlink(missing_ok=True)
    if not needed:
        forget_all(bench.states)


def _averaged_at(of: Segment) -> list[int]:
    """The steps after which the weights enter the average of a segment."""
    return sorted({int(step) for step in np.linspace(of.stop, of.average_from, _CHECKPOINTS, endpoint=False)})


def _trained(
    bench: SegmentTrainer, segments: Sequence[Segment], so_far: TrainState, averaged_at: Sequence[int], data: Samples
) -> TrainState:
    """The stack trained from where it is to its end; it is kept on the way."""
    first, task, every = segments[0], bench.task, max(1, segments[0].steps // BLOCKS)
    span = {"seed": first.seed, "samples": task.samples, "batch_size": task.samples_per_step}
    rests = stops(segments, every=every)
    ends = sorted({so_far.stack.step, *_stairs(first), *rests})
    for start, stop in pairwise(end for end in ends if end >= so_far.stack.step):
        # Dropout and the like draw from here.
        torch.manual_seed(torch_seed(first.seed, f"segment-{start}"))
        order = batch_indices(start=start, stop=stop, full_batch=task.full_batch, **span)
        draws = augmentation_draws(task.augment, start=start, stop=stop, **span) if task.augment else {}
        middle = (start + stop - 1) // 2
        lrs = [each.lr_at(middle) for each in segments]
        trained = train_stack(
            bench.program,
            so_far.stack,
            lrs=torch.tensor([lrs], dtype=torch.float32, device=bench.device),
            batches=order[:, None].to(bench.device),
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
        if stop in rests:
            keep(bench.states, segments, so_far)
    return so_far


def _stairs(of: Segment) -> list[int]:
    """Steps between which the LR is held: an annealed one goes down in at most 32 stairs."""
    if of.anneal_from is None:
        return [of.start, of.stop]
    down = np.linspace(of.anneal_from, of.stop, min(_STAIRS, of.stop - of.anneal_from) + 1)
    return sorted({of.start, *(int(step) for step in down)})


def _results(bench: SegmentTrainer, trained: TrainState, data: Samples) -> list[TrainedSegment]:
    task, program, stack = bench.task, bench.program, trained.stack
    held = samples([task], "validation", data.frozen, dtype=torch.float32, device=bench.device)

    def metric(weights: Weights, buffers: Weights) -> Tensor:
        scores = evaluate_stack(program, weights, buffers, held)
        return (scores.accuracy if bench.by_accuracy else scores.loss)[0]

    (mean,) = averaged(trained.tails, rule=task.update, dtype=torch.float32).values()
    few = _some(data, _STATISTICS)
    pooled = pooled_buffers(program, mean, stack.buffers, few, batch_size=task.samples_per_step)
    values, averages = metric(stack.weights, stack.buffers), metric(mean, pooled)
    losses = torch.stack(trained.losses)
    return [
        TrainedSegment(
            value=float(values[lane]) if stack.alive[0, lane] else math.nan,
            averaged=float(averages[lane]) if stack.alive[0, lane] else math.nan,
            losses=tuple(losses[:, lane].tolist()),
        )
        for lane in range(len(values))
    ]


def _some(data: Samples, count: int) -> Samples:
    """A fixed random part of a data set."""
    rows = torch.from_numpy(stream(0, "statistics").permutation(data.count)[:count].copy()).to(data.which.device)
    return replace(data, x=for_each(lambda part: part[:, rows], data.x), y=for_each(lambda part: part[:, rows], data.y))


def _state(stack: Stack, names: Sequence[Sequence[str]], name: str) -> dict[str, Tensor]:
    """The tensors of one segment of the stack, and those that the stack shares."""
    tensors = segment_tensors(names, stack, {}, 0.0)
    return {key: value for key, value in tensors.items() if key.startswith((f"{name}/", "stack/"))}


def _parents(bench: SegmentTrainer, segments: Sequence[Segment]) -> Stack:
    """The final states of the segments' parents, as a stack."""
    tensors = dict[str, Tensor]()
    for each in segments:
        path = _path(bench, str(each.parent))
        try:
            tensors |= opened_weights(path.read_bytes())
        except OSError as error:
            raise SearchError(f"{path}, from which {each.name} has to go on, cannot be read: {error}.") from error
        except ValueError as error:
            raise SearchError(f"{path}, from which {each.name} has to go on, {error}.") from error
    names = [[str(each.parent) for each in segments]]
    return read_segment(tensors, names, counts=(), step=segments[0].start, device=bench.device)[0]


def _path(bench: SegmentTrainer, name: str) -> Path:
    return bench.states / f"{name}.safetensors"
