"""Build the tensors of a stack from tasks and seeds, and the program that trains it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lratlas.data.collect import Pair
from lratlas.data.parts import Parts, count, floats_to, rows
from lratlas.training.prepared import Prepared, make_model
from lratlas.training.program import Program, Strategy, build
from lratlas.training.sphere import Weights
from lratlas.training.state import Samples


@dataclass(frozen=True, kw_only=True)
class StackData:
    """The data and the frozen parameters of a stack's seeds."""

    train: Samples
    test: Samples
    features: list[Samples]
    frozen: Weights


def program_of(
    task: Prepared, *, strategy: Strategy, compiled: bool, device: torch.device, mixed_precision: bool = False
) -> Program:
    """The training step and the evaluation of a task's stacks; see `lratlas.training.program.build`."""
    return build(
        make_model(task, 0),
        task.objective,
        task.update,
        compiled=compiled,
        strategy=strategy,
        mixed_precision=mixed_precision,
        batch_size=task.samples_per_step,
        draws=task.conformance.draws,
        channels_last=task.conformance.channels_last,
        device=device,
    )


def initial_tensors(
    tasks: Sequence[Prepared], seeds: Sequence[int], lanes: int, *, dtype: torch.dtype, device: torch.device
) -> tuple[Weights, Weights, Weights]:
    """Initial trained parameters and buffers, [seeds, lanes, ...], and frozen parameters, [seeds, ...].

    All lanes of a seed start from the same point; on a sphere, it is rescaled to the rule's radius.

    Args:
        tasks: The task of each seed.
        seeds: Training seed of each seed of the stack.
        lanes: Runs per seed.
        dtype: Dtype of floating-point tensors.
        device: The device to put the tensors on.
    """
    models = [make_model(task, seed) for task, seed in zip(tasks, seeds, strict=True)]
    named = [dict(model.named_parameters()) for model in models]
    trained = sorted(name for name, value in named[0].items() if value.requires_grad)

    def stack(parts: list[Tensor]) -> Tensor:
        stacked = torch.stack([part.detach() for part in parts]).to(device)
        return stacked.to(dtype) if stacked.is_floating_point() else stacked

    def spread(value: Tensor) -> Tensor:
        return value[:, None].expand(-1, lanes, *value.shape[1:]).contiguous()

    weights = {name: spread(stack([point[name] for point in named])) for name in trained}
    frozen = {name: stack([point[name] for point in named]) for name in named[0] if name not in trained}
    held = [dict(model.named_buffers()) for model in models]
    buffers = {name: spread(stack([point[name] for point in held])) for name in held[0]}
    return tasks[0].update.constrain(weights), buffers, frozen


def samples(
    tasks: Sequence[Prepared],
    part: Literal["train", "validation", "test"],
    frozen: Weights,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> Samples:
    """The training or test sets of a stack's seeds; a data set that several seeds share is stored once."""
    return _samples(tasks, [getattr(task, part) for task in tasks], frozen, dtype, device)


def single_feature_samples(
    tasks: Sequence[Prepared], frozen: Weights, *, dtype: torch.dtype, device: torch.device
) -> list[Samples]:
    """The single-feature test sets of a stack's seeds, one per feature; empty if the tasks have none."""
    pairs = [task.singles for task in tasks]
    if pairs[0] is None:
        return []
    features = [[rows(pair, at) for pair in pairs if pair] for at in range(count(pairs[0][0]))]
    return [_samples(tasks, feature, frozen, dtype, device) for feature in features]


def _samples(
    tasks: Sequence[Prepared], pairs: Sequence[Pair], frozen: Weights, dtype: torch.dtype, device: torch.device
) -> Samples:
    owners = {id(task): None for task in tasks}
    first = {id(task): pair for task, pair in zip(tasks, pairs, strict=True)}
    x, y = (_stack_parts([first[owner][part] for owner in owners], device) for part in (0, 1))
    order = list(owners)
    return Samples(
        x=floats_to(x, dtype),
        y=floats_to(y, dtype),
        which=torch.tensor([order.index(id(task)) for task in tasks], device=device),
        shares=torch.stack([task.shares for task in tasks]).to(device=device, dtype=dtype),
        frozen=frozen,
        transform=tasks[0].transform,
        augment=tasks[0].augment.apply if tasks[0].augment else None,
    )


def _stack_parts(parts: Sequence[Parts], device: torch.device) -> Parts:
    """Stack the same part of several data sets on a new first axis."""
    return tree_map(lambda *each_part: torch.stack(each_part).to(device), *parts)
