"""The data and the state of a stack as values, and stacks cut into lanes and put together again."""

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
        y: Targets, likewise.
        which: Data set of each seed, int64 [seeds].
        shares: Share of each class in each seed's training labels, [seeds, C].
        frozen: Each seed's parameters that are not trained, [seeds, *parameter].
        transform: What is done to inputs [n, ...] before the model sees them, in training and evaluation.
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
        """Samples in each data set."""
        return leaves(self.x)[0].shape[1]

    def take_samples(self, rows: Tensor, draws: Mapping[str, Tensor] | None = None) -> tuple[Parts, Parts]:
        """Inputs as the model gets them, and targets, of the samples ``rows`` [..., seeds, n].

        Args:
            rows: Indices of samples.
            draws: Random draws for ``augment``, each [..., seeds, n, *]; None to leave the inputs as they are.
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
        alive: False for runs whose loss or gradient was once not finite; they are not trained on.
        step: Steps done.

    Tensors are sorted by name in each dictionary, at the start, after each step and from a file: a compiled program
    is made for one order.
    """

    weights: Weights
    buffers: Weights
    state: State
    alive: Tensor
    step: int = 0

    def part(self, lanes: slice) -> "Stack":
        """The stack of some of the lanes."""
        return Stack(
            weights=lanes_of(self.weights, lanes),
            buffers=lanes_of(self.buffers, lanes),
            state=lanes_of(self.state, lanes),
            alive=self.alive[:, lanes],
            step=self.step,
        )


def start_stack(weights: Weights, buffers: Weights, rule: Rule) -> Stack:
    """A stack before its first step, all runs alive."""
    lead = next(iter(weights.values()))
    alive = torch.ones(lead.shape[:2], dtype=torch.bool, device=lead.device)
    own, held, state = (dict(sorted(part.items())) for part in (weights, buffers, rule.start(weights)))
    return Stack(weights=own, buffers=held, state=state, alive=alive)


def width(weights: Weights) -> int:
    """Number of lanes."""
    return next(iter(weights.values())).shape[1]


def lanes_of(tensors: Weights, lanes: slice) -> Weights:
    """Some of the lanes of a stack's tensors; what is shared by the stack, such as a step count, stays as it is."""
    return {name: value[:, lanes].contiguous() if value.dim() >= 2 else value for name, value in tensors.items()}


def join_lanes(parts: Sequence[Tensor]) -> Tensor:
    """[..., lanes] put together again from consecutive parts."""
    return torch.cat([*parts], -1)


def join_weights(parts: Sequence[Weights]) -> Weights:
    """The inverse of `lanes_of`, for consecutive parts."""
    return {
        name: torch.cat([part[name] for part in parts], 1) if value.dim() >= 2 else value
        for name, value in parts[0].items()
    }
