"""Test inputs for losses and metrics: outputs of the model's shape, and targets with every label."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lratlas.data.parts import Parts, each, leaves, logits_of, rows
from lratlas.training.objective import class_axes
from lratlas.training.prepared import Prepared

TARGET_ROWS = 64
"""Maximum number of targets in a test batch."""
_TARGET_NUMBERS = 2**18  # approximate number of outputs in a test batch
_TARGET_VALUES = 4096  # maximum number of different values of integer targets
_LABEL_NUMBERS = 2**21  # approximate number of outputs in all test batches with these values
_SEARCHED = 2**21  # approximate number of integer targets searched for different values


def noise_like(part: Tensor, *, draws: torch.Generator) -> Tensor:
    """Noise in the shape of a floating-point tensor, drawn in float64; other tensors are returned unchanged."""
    if not part.is_floating_point():
        return part
    return torch.randn(part.shape, generator=draws, dtype=torch.float64).to(part)


@dataclass(frozen=True)
class Outputs:
    """Outputs of a model's shape.

    Attributes:
        like: The model's outputs for some samples.
        count: The number of samples.
    """

    like: Any
    count: int

    @property
    def rows(self) -> int:
        """Number of rows of a moderate batch; the original number unless every tensor has a row per sample."""
        found = tensors_of(self.like)
        if any(part.dim() and len(part) != self.count for part in found):
            return self.count
        return min(TARGET_ROWS, max(2, _TARGET_NUMBERS // self.each_row))

    @property
    def each_row(self) -> int:
        """Numbers per sample."""
        return max([1, *(part.numel() // self.count for part in tensors_of(self.like))])

    def draw(self, count: int, dtype: torch.dtype, *, scale: float = 1.0, squash: bool = False) -> Any:
        """Random outputs for ``count`` samples; if squashed, between 0 and 1 like probabilities."""
        draws = torch.Generator().manual_seed(0)

        def try_leaf(leaf: Tensor) -> Tensor:
            part = leaf[torch.arange(count) % self.count] if leaf.shape[:1] == (self.count,) else leaf
            if not part.is_floating_point():
                return part
            noise = scale * noise_like(part.to(dtype), draws=draws)
            return noise.sigmoid() if squash else noise

        return _rebuild(self.like, try_leaf)


def tensors_of(outputs: Any) -> list[Tensor]:
    """The tensors of outputs: those in a structure, or the attributes of a plain object."""
    return leaves(outputs) or leaves(list(getattr(outputs, "__dict__", {}).values()))


def _rebuild(outputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The outputs with ``function`` applied to every tensor."""

    def change_leaf(leaf: Any) -> Any:
        return function(leaf) if isinstance(leaf, Tensor) else leaf

    if leaves(outputs) or not hasattr(outputs, "__dict__"):
        return each(change_leaf, outputs)
    made = copy.copy(outputs)
    for name, value in vars(outputs).items():
        object.__setattr__(made, name, each(change_leaf, value))
    return made


def targets_for(task: Prepared, outputs: Outputs) -> Iterator[Parts]:
    """Batches of targets from the whole training set, and with every existing or possible label."""
    y, size = task.train[1], outputs.rows
    yield rows(y, telling_targets(y, size))
    if not isinstance(y, Tensor):
        return
    draws = torch.Generator().manual_seed(0)
    shape = (size, *y.shape[1:])
    if _is_integer(y):
        room = max(math.prod(shape), _LABEL_NUMBERS * math.prod(shape[1:]) // outputs.each_row)
        yield from _spread(_all_values(task, outputs.like, min(room, _TARGET_VALUES)), shape, y.dtype, draws)
    if bool(((y == 0) | (y == 1)).all()):
        bits = torch.randint(2, shape, generator=draws)
        bits[0], bits[-1] = 0, 1
        yield bits.to(y.dtype)


def _is_integer(part: Tensor) -> bool:
    return not part.is_floating_point() and part.dtype != torch.bool


def _some(part: Tensor) -> Tensor:
    """Evenly spaced rows of a tensor with at most `_SEARCHED` numbers."""
    return _even(len(part), max(1, _SEARCHED // max(1, part[0].numel())))


def _even(count: int, most: int) -> Tensor:
    """Evenly spaced indices of a range."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().long()


def _all_values(task: Prepared, outputs: Any, most: int) -> Tensor:
    """All classes and all other values, such as an ``ignore_index``; at most ``most`` of them."""
    y, logits = task.train[1], logits_of(outputs)
    classes = task.classes if task.objective.labels == "classes" else 0
    if not classes and isinstance(logits, Tensor) and logits.dim():
        axes = class_axes(logits, y[torch.arange(len(logits)) % len(y)])
        classes = logits.shape[axes[0]] if axes else 0
    pairs = [pair for pair in (task.train, task.test, task.validation) if pair]
    found = np.unique(np.concatenate([np.unique(part[_some(part)].numpy()) for _, y in pairs for part in leaves(y)]))
    others = torch.from_numpy(found[(found < 0) | (found >= classes)].astype(np.int64))
    others, labels = others[_even(len(others), most)], torch.arange(classes)
    return torch.cat([others, labels[_even(classes, most - len(others))]])


def _spread(values: Tensor, shape: tuple[int, ...], dtype: torch.dtype, draws: torch.Generator) -> Iterator[Tensor]:
    """Batches of targets with every value, in random positions."""
    room = math.prod(shape)
    for part in values[torch.randperm(len(values), generator=draws)].split(room):
        yield part[torch.randperm(room, generator=draws) % len(part)].reshape(shape).to(dtype)


def telling_targets(y: Parts, size: int) -> Tensor:
    """Rows of targets: evenly spaced rows, and the first rows of different integers."""
    first = list[Tensor]()
    for part in leaves(y):
        if _is_integer(part):
            at = _some(part)
            found = part[at].reshape(len(at), -1)
            _, places = np.unique(found.numpy(), return_index=True)
            first.append(at[torch.from_numpy(places) // found.shape[1]])
    at = torch.cat(first).unique() if first else torch.zeros(0, dtype=torch.long)
    at = at[_even(len(at), size - size // 4)] if len(at) else at
    even = _even(len(leaves(y)[0]), size)
    return torch.cat([at, even[~torch.isin(even, at)][: size - len(at)]])
