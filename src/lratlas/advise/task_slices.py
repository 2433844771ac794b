"""Training the slices of a search on a task: those that begin and end at the same steps together, as a stack."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lratlas.advise.slices import BLOCKS, Slice
from lratlas.errors import SearchError
from lratlas.streams import stream, torch_seed
from lratlas.study.atomic import write_file
from lratlas.study.checkpoints import read_segment, segment_tensors
from lratlas.task import Task, make_model
from lratlas.training.averaging import add_checkpoint, averaged
from lratlas.training.choice import faster_strategy
from lratlas.training.evaluating import evaluate_stack, pooled_buffers
from lratlas.training.order import augmentation_draws, batch_indices
from lratlas.training.program import Program, Strategy, build, can_compile
from lratlas.training.sphere import Weights
from lratlas.training.stacking import initial_tensors, samples
from lratlas.training.stacks import Samples, Stack, start_stack
from lratlas.training.trainer import Row, train_stack

_CHECKPOINTS = 16  # that enter an average, at most
_STAIRS = 32  # of the descent of an annealed LR
_STATISTICS = 1024  # training samples for the batch-norm statistics of an average


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of a slice.

    Attributes:
        value: The validation metric of the weights at the end; NaN if it diverged.
        averaged: That of the averaged weights.
        losses: Training losses, means over equal parts.
    """

    value: float
    averaged: float
    losses: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A task, and where and how its slices are trained.

    Attributes:
        task: The task; choices are made on its validation set.
        states: Folder of final states.
        device: Where to train.
        compiled: Whether to compile the step, which takes a while and then makes it faster.
    """

    task: Task
    states: Path
    device: torch.device
    compiled: bool = False

    @cached_property
    def strategy(self) -> Strategy:
        """Whether several LRs are trained as one program; measured."""
        if not self.task.update.stacks:
            return "single"
        return faster_strategy(self.task, device=str(self.device), dtype="float32")

    @cached_property
    def program(self) -> Program:
        """The step and the evaluation."""
        compiled = self.compiled and can_compile()
        model = make_model(self.task, 0)
        return build(model, self.task.objective, self.task.update, compiled=compiled, strategy=self.strategy)

    @property
    def by_accuracy(self) -> bool:
        """Whether the validation metric is an accuracy; it is the loss where there are no labels."""
        return self.task.classes > 0


def groups(bench: Bench, slices: Sequence[Slice]) -> list[list[Slice]]:
    """The slices that can be trained as one stack, together; each alone where that is faster."""
    together = dict[tuple[int, int, int, int | None, int], list[Slice]]()
    for number, each in enumerate(slices):
        alone = number if bench.strategy == "single" else -1
        together.setdefault((each.seed, each.start, each.stop, each.anneal_from, alone), []).append(each)
    return list(together.values())


def train_slices(bench: Bench, slices: Sequence[Slice]) -> list[Trained]:
    """Train slices that differ in nothing but their LR, and keep their final states.

    Args:
        bench: The task and where it is trained.
        slices: Of one seed, from the same step to the same step.

    Returns:
        What came of each, in the same order.

    Raises:
        SearchError: The state of a parent is missing or damaged.
    """
    first, task, names = slices[0], bench.task, [[each.name for each in slices]]
    initial = initial_tensors([task], [first.seed], len(slices), dtype=torch.float32, device=bench.device)
    stack = _parents(bench, slices) if first.parent else start_stack(initial[0], initial[1], task.update)
    data = samples([task], "train", initial[2], dtype=torch.float32, device=bench.device)
    with torch.random.fork_rng():
        # Dropout and the like draw from here.
        torch.manual_seed(torch_seed(first.seed, f"slice-{first.start}"))
        stack, rows, checkpoints = _trained(bench, slices, stack, data)
    for name in names[0]:
        write_file(_path(bench, name), save(_state(stack, names, name)))
    return _results(bench, stack, rows, checkpoints, data)


def forget_states(bench: Bench, needed: Collection[str]) -> None:
    """Remove the final states of all slices but those named."""
    for path in bench.states.glob("*.safetensors"):
        if path.stem not in needed:
            path.unlink(missing_ok=True)


def _trained(
    bench: Bench, slices: Sequence[Slice], stack: Stack, data: Samples
) -> tuple[Stack, list[Row], list[Weights]]:
    """The stack at the end, its trace rows, and the checkpoints that are averaged."""
    first, task = slices[0], bench.task
    span = {"seed": first.seed, "samples": len(task.train[0]), "batch_size": task.samples_per_step}
    at = {int(step) for step in np.linspace(first.stop, first.average_from, _CHECKPOINTS, endpoint=False)}
    rows, checkpoints = list[Row](), list[Weights]()
    for start, stop in pairwise(_stairs(first)):
        order = batch_indices(start=start, stop=stop, full_batch=task.full_batch, **span)
        draws = augmentation_draws(task.augment, start=start, stop=stop, **span) if task.augment else {}
        middle = (start + stop - 1) // 2
        lrs = [each.lr_at(middle) for each in slices]
        trained = train_stack(
            bench.program,
            stack,
            lrs=torch.tensor([lrs], dtype=torch.float32, device=bench.device),
            batches=order[:, None].to(bench.device),
            draws={name: value[:, None] for name, value in draws.items()} or None,
            train=data,
            trace_every=max(1, first.steps // BLOCKS),
            snapshots=[step for step in at if start < step <= stop],
        )
        stack = trained.stack
        rows += trained.rows
        checkpoints += trained.snapshots.values()
    return stack, rows, checkpoints


def _stairs(of: Slice) -> list[int]:
    """Steps between which the LR is held: an annealed one goes down in at most 32 stairs."""
    if of.anneal_from is None:
        return [of.start, of.stop]
    down = np.linspace(of.anneal_from, of.stop, min(_STAIRS, of.stop - of.anneal_from) + 1)
    return sorted({of.start, *(int(step) for step in down)})


def _results(
    bench: Bench, stack: Stack, rows: Sequence[Row], checkpoints: Sequence[Weights], data: Samples
) -> list[Trained]:
    task, program = bench.task, bench.program
    held = samples([task], "validation", data.frozen, dtype=torch.float32, device=bench.device)

    def metric(weights: Weights, buffers: Weights) -> Tensor:
        scores = evaluate_stack(program, weights, buffers, held)
        return (scores.accuracy if bench.by_accuracy else scores.loss)[0]

    mean = _mean(checkpoints, task)
    few = _some(data, _STATISTICS)
    pooled = pooled_buffers(program, mean, stack.buffers, few, batch_size=task.samples_per_step)
    values, averages = metric(stack.weights, stack.buffers), metric(mean, pooled)
    losses = torch.stack([row.train_loss[0] for row in rows])
    return [
        Trained(
            value=float(values[lane]) if stack.alive[0, lane] else math.nan,
            averaged=float(averages[lane]) if stack.alive[0, lane] else math.nan,
            losses=tuple(losses[:, lane].tolist()),
        )
        for lane in range(len(values))
    ]


def _mean(checkpoints: Sequence[Weights], task: Task) -> Weights:
    tails = {}
    for weights in checkpoints:
        tails = add_checkpoint(tails, [len(checkpoints)], weights, rank=0)
    return averaged(tails, rule=task.update, dtype=torch.float32)[len(checkpoints)]


def _some(data: Samples, count: int) -> Samples:
    """A fixed random part of a data set."""
    rows = torch.from_numpy(stream(0, "statistics").permutation(data.x.shape[1])[:count].copy()).to(data.x.device)
    return replace(data, x=data.x[:, rows], y=data.y[:, rows])


def _state(stack: Stack, names: Sequence[Sequence[str]], name: str) -> dict[str, Tensor]:
    """The tensors of one slice of the stack, and those that the stack shares."""
    tensors = segment_tensors(names, stack, {}, 0.0)
    own = {key: value for key, value in tensors.items() if key.startswith((f"{name}/", "stack/"))}
    return {key: value.cpu().clone().contiguous() for key, value in own.items()}


def _parents(bench: Bench, slices: Sequence[Slice]) -> Stack:
    """The final states of the slices' parents, as a stack."""
    tensors = dict[str, Tensor]()
    for each in slices:
        path = _path(bench, str(each.parent))
        try:
            tensors |= load(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise SearchError(f"{path}, from which {each.name} has to go on, cannot be read: {error}.") from error
    names = [[str(each.parent) for each in slices]]
    return read_segment(tensors, names, counts=(), step=slices[0].start, device=bench.device)[0]


def _path(bench: Bench, name: str) -> Path:
    return bench.states / f"{name}.safetensors"
