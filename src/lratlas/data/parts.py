"""Inputs and targets for a model and a loss: a tensor, or a tuple or dictionary of tensors."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

# Every use of a union of the three would have to narrow it.
Parts: TypeAlias = Any
"""A batch, a data set, or a part of one: a tensor, or a tuple or dictionary of tensors with equal leading axes."""


def each(function: Callable[[Tensor], Tensor], parts: Parts) -> Parts:
    """Apply ``function`` to every tensor and keep the structure."""
    return tree_map(function, parts)


def copy_tensors(value: Any) -> Any:
    """Copy the tensors of any structure; other values are returned unchanged."""

    def copy_leaf(leaf: Any) -> Any:
        return leaf.clone() if isinstance(leaf, Tensor) else leaf

    return tree_map(copy_leaf, value)


def leaves(parts: object) -> list[Tensor]:
    """The tensors in any structure of tuples, lists and dictionaries, in a fixed order."""
    return [leaf for leaf in tree_leaves(parts) if isinstance(leaf, Tensor)]


def count(parts: Parts) -> int:
    """The number of samples: the length of the first axis."""
    return len(leaves(parts)[0])


def rows(parts: Parts, at: Any) -> Parts:
    """Select samples: every tensor indexed by ``at``."""
    return each(lambda part: part[at], parts)


def floats_to(parts: Parts, dtype: torch.dtype) -> Parts:
    """Convert floating-point tensors to a dtype; other tensors stay unchanged."""
    return each(lambda part: part.to(dtype) if part.is_floating_point() else part, parts)


def shapes(parts: object) -> str:
    """Shape and dtype of every tensor, for messages; a single tensor is shown without dtype."""
    if isinstance(parts, Tensor):
        return str(tuple(parts.shape))
    if isinstance(parts, dict):
        named = cast("dict[str, Tensor]", parts)
        return "{" + ", ".join(f"{name}: {shapes(part)}" for name, part in named.items()) + "}"
    if isinstance(parts, tuple | list):
        return "(" + ", ".join(shapes(part) for part in cast("tuple[Tensor, ...]", parts)) + ")"
    return type(parts).__name__


def arguments(x: Parts) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Positional and keyword arguments for a model: ``*x`` for a tuple, ``**x`` for a dictionary."""
    if isinstance(x, dict):
        return (), x
    return x if isinstance(x, tuple) else (x,), {}


def call(model: nn.Module, x: Parts) -> Any:
    """The model's outputs: ``model(x)``, ``model(*x)`` or ``model(**x)``."""
    positional, named = arguments(x)
    return model(*positional, **named)


def is_parts(value: object) -> bool:
    """Whether a value is a tensor, or a non-empty tuple or dictionary of tensors."""
    if isinstance(value, dict):
        named = cast("dict[object, object]", value)
        return bool(named) and all(isinstance(key, str) and isinstance(part, Tensor) for key, part in named.items())
    if isinstance(value, tuple):
        several = cast("tuple[object, ...]", value)
        return bool(several) and all(isinstance(part, Tensor) for part in several)
    return isinstance(value, Tensor)


def logits_of(outputs: Any) -> Any:
    """The logits in an object or a dictionary of outputs, or the outputs themselves if there are none."""
    if isinstance(outputs, Mapping):
        return cast("Mapping[str, Any]", outputs).get("logits", outputs)
    return getattr(outputs, "logits", outputs)


def numbers_of(outputs: Any) -> Tensor:
    """All floating-point numbers of a model's outputs: a tensor unchanged, otherwise one flat tensor."""
    logits = logits_of(outputs)
    if isinstance(logits, Tensor):
        return logits
    found = leaves(logits) or leaves(getattr(outputs, "loss", None))
    return torch.cat([part.flatten() for part in found if part.is_floating_point()])
