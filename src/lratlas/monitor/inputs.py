"""Check the numbers that a user passes to `watch`: losses and accuracies."""

import sys
from math import isnan, nan
from typing import TYPE_CHECKING, TypeGuard

from lratlas.errors import SpecError
from lratlas.text import number, to_python

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDING = 1e-6  # a mean accuracy in float32 may exceed 1 by a few units in the last place


def one_number(value: object, name: str) -> "float | Tensor":
    """The value as a float, or as a detached tensor with one element, which may be on an accelerator.

    NaN and the infinities are numbers: they are what a diverging training produces.

    Raises:
        SpecError: If it is neither a real number nor a tensor or array with one.
    """
    if type(value) is float:
        return value
    if _is_tensor(value):
        return _one_element(value, name)
    found = None if isinstance(to_python(value), str) else number(value)
    if found is None:
        text = repr(value)
        given = text if len(text) <= 60 else f"a {type(value).__name__}"
        raise SpecError(f"the {name} is {given}; it must be one number or a tensor with one element")
    return found


def share(value: float, name: str) -> float:
    """The value, a share from 0 to 1; NaN means that it is not known.

    Raises:
        SpecError: If it is out of range, such as a percentage.
    """
    if isnan(value):
        return nan
    if not -_ROUNDING <= value <= 1 + _ROUNDING:
        percent = f"; if it is a percentage, divide it by 100 ({value / 100:.6g})" if 1 < value <= 100 else ""
        raise SpecError(f"the {name} is {value:.6g}; it must be a share from 0 to 1{percent}")
    return value


def _is_tensor(value: object) -> "TypeGuard[Tensor]":
    """Whether a value is a tensor; where there is one, PyTorch has been imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _one_element(value: "Tensor", name: str) -> "Tensor":
    if value.numel() != 1:
        raise SpecError(f"the {name} is a tensor of shape {tuple(value.shape)}; it must have one element")
    if value.is_complex() or str(value.dtype) == "torch.bool":
        raise SpecError(f"the {name} is a tensor of type {value.dtype}; it must hold a real number")
    if value.is_meta:
        raise SpecError(f"the {name} is a tensor on the device 'meta', which has no value")
    return value.detach()
