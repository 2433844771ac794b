"""The data and the state of a stack, and functions that split and join its lanes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lratlas.data.parts import Parts, each, floats_to, leaves
from lratlas.data.parts import rows as at
from lratlas.training.rules import Rule, State
from lratlas.training.sphere import Weights


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Data sets of a stack.

    Attributes:
        x: Inputs of each data set, [data sets, n, ...], or a tuple or dictionary of such tensors.
        y: Targets, in the same form.
        which: Index of each seed's data set, int64 [seeds].
        shares: Share of each class in each seed's training labels, [seeds, C].
        frozen: Each seed's parameters that are not trained, [seeds, *parameter].
        transform: Applied to inputs [n, ...] before the model, in training and evaluation.
        augment: ``(inputs [n, ...], draws of [n, ...]) -> inputs``, before ``transform`` and only in training.
    """

    x: Parts
    y: Parts
    which: Tensor
    shares: Tensor
    frozen: Weights
    transform: Callable[[Any], Any] | None = None
    augment: Callable[[Any, Mapping[str, Tensor]], Tensor] | None = None

    @property
    def count(self) -> int:
        """Number of samples in each data set."""
        return leaves(self.x)[0].shape[1]

    def take_samples(self, rows: Tensor, draws: Mapping[str, Tensor] | None = None) -> tuple[Parts, Parts]:
        """The model's inputs and the targets of the samples ``rows`` [..., seeds, n].

        Args:
            rows: Indices of samples.
            draws: Random draws for ``augment``, each [..., seeds, n, *]; None to skip augmentation.
        """
        which, lead = self.which[:, None], rows.dim()
        x, y = (at(parts, (which, rows)) for parts in (self.x, self.y))
        flat = each(partial(torch.flatten, start_dim=0, end_dim=lead - 1), x)
        if draws and self.augment:
            flat = self.augment(flat, {name: value.flatten(0, lead - 1) for name, value in draws.items()})
        if self.transform:
            flat = self.transform(flat)
        flat = floats_to(flat, self.shares.dtype)
        return each(partial(torch.unflatten, dim=0, sizes=rows.shape), flat), y


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The state of a stack between two steps; the leading axes of every tensor are [seeds, lanes].

    Attributes:
        weights: Trained parameters.
        buffers: The model's buffers, such as batch-norm statistics.
        state: The update rule's state.
        alive: False for runs whose loss or gradient was ever not finite; they are no longer trained.
        step: Number of completed steps.

    Each dictionary of tensors is sorted by name at the start, after each step and when read from a file: a compiled
    program depends on the order.
    """

    weights: Weights
    buffers: Weights
    state: State
    alive: Tensor
    step: int = 0

    def part(self, lanes: slice) -> "Stack":
        """A stack of some of the lanes."""
        return Stack(
            weights=lanes_of(self.weights, lanes),
            buffers=lanes_of(self.buffers, lanes),
            state=lanes_of(self.state, lanes),
            alive=self.alive[:, lanes],
            step=self.step,
        )


def start_stack(weights: Weights, buffers: Weights, rule: Rule) -> Stack:
    """A stack before its first step, with all runs alive."""
    lead = next(iter(weights.values()))
    alive = torch.ones(lead.shape[:2], dtype=torch.bool, device=lead.device)
    own, held, state = (dict(sorted(part.items())) for part in (weights, buffers, rule.start(weights)))
    return Stack(weights=own, buffers=held, state=state, alive=alive)


def width(weights: Weights) -> int:
    """Number of lanes."""
    return next(iter(weights.values())).shape[1]


def lanes_of(tensors: Weights, lanes: slice) -> Weights:
    """Select lanes of a stack's tensors; shared values, such as a step count, stay unchanged."""
    return {name: value[:, lanes].contiguous() if value.dim() >= 2 else value for name, value in tensors.items()}


def join_lanes(parts: Sequence[Tensor]) -> Tensor:
    """Join consecutive parts [..., lanes]."""
    return torch.cat([*parts], -1)


def join_weights(parts: Sequence[Weights]) -> Weights:
    """The inverse of `lanes_of`, for consecutive parts."""
    return {
        name: torch.cat([part[name] for part in parts], 1) if value.dim() >= 2 else value
        for name, value in parts[0].items()
    }
