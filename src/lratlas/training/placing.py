"""A user's functions on the device where they are needed: tensors are copied there, or named where they cannot be."""

import copy
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from lratlas.errors import TaskError


def on_device(function: Any, what: str, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """A user's function with its tensors on a device: modules, partial arguments and tensors are copied there.

    Args:
        function: A module, function or `functools.partial`.
        what: What it is, for the message.
        device: Where it is needed.
        dtype: What floating-point tensors are converted to; None to leave them.

    Raises:
        TaskError: It holds tensors elsewhere that cannot be moved, such as in a closure.
    """
    if isinstance(function, nn.Module):
        return copy.deepcopy(function).to(device, dtype)
    if isinstance(function, Tensor):
        return function.to(device, dtype if function.is_floating_point() else None)
    if isinstance(function, partial):
        inner = cast("partial[Any]", function)
        named = {key: on_device(value, what, device, dtype) for key, value in inner.keywords.items()}
        others = (on_device(value, what, device, dtype) for value in inner.args)
        return partial(on_device(inner.func, what, device, dtype), *others, **named)
    for name, value in _held_values(function):
        if isinstance(value, Tensor) and value.device.type != device.type:
            raise TaskError(
                f"The {what} holds the tensor {name} on {value.device}, and is needed on {device}; make it a"
                " torch.nn.Module with a buffer, which is moved, or move the tensor in the function itself."
            )
    return function


def _held_values(function: Any) -> list[tuple[str, Any]]:
    """What a function or callable object refers to, by name: closure, defaults, globals that it uses, attributes."""
    found = list(vars(function).items()) if hasattr(function, "__dict__") else []
    code = getattr(function, "__code__", None)
    if code is None:
        return found
    cells = zip(code.co_freevars, function.__closure__ or (), strict=False)
    for name, cell in cells:
        try:
            found.append((name, cell.cell_contents))
        except ValueError:  # not assigned yet
            continue
    held = function.__globals__
    return found + [(name, held[name]) for name in code.co_names if name in held]
