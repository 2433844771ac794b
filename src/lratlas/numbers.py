"""Numbers as people give them: Python's, NumPy's and PyTorch's; which are finite, and which can be learning rates."""

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, cast

SMALLEST_LR = 2.0**-126
"""The smallest normal number of float32; below it digits are lost."""
LARGEST_LR = (2 - 2**-23) * 2.0**127
"""The largest number of float32."""
_DEEPEST = 32  # nested containers
_BUILT_IN = frozenset({bool, int, float, str, type(None)})


def plain(value: Any, depth: int = 0) -> Any:
    """The value with Python's own numbers and lists in place of those of NumPy, PyTorch and the like.

    Lists, tuples and mappings are searched too. Anything else is returned as it is.

    >>> import numpy as np
    >>> plain({"lrs": np.array([0.5, 1.0]), "epochs": np.int64(3)})
    {'lrs': [0.5, 1.0], 'epochs': 3}
    """
    if type(value) in _BUILT_IN or depth > _DEEPEST:
        return value
    if hasattr(value, "tolist"):  # arrays, their scalars, tensors
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(part, depth + 1) for key, part in cast("Mapping[Any, Any]", value).items()}
    if type(value) in {list, tuple}:
        return type(value)(plain(part, depth + 1) for part in value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def number(value: object) -> float | None:
    """A number as a float, also one written as text such as "nan"; None for anything else, booleans included.

    An array or tensor with one element is a number too. Whole numbers that no float can hold are infinite.
    """
    if type(value) is float:
        return value
    found = plain(value)
    while hasattr(value, "tolist") and isinstance(found, list) and len(cast("list[object]", found)) == 1:
        (found,) = cast("list[object]", found)
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return None
    try:
        return float(found)
    except OverflowError:
        return math.inf if cast("int", found) > 0 else -math.inf
    except ValueError:
        return None


def is_finite(value: object) -> bool:
    """Whether a value is a number (see `number`) and neither NaN nor infinite."""
    found = number(value)
    return found is not None and math.isfinite(found)


def first_not_finite(values: Iterable[object]) -> int | None:
    """The index of the first value that is not finite; None if all are finite."""
    return next((place for place, value in enumerate(values) if not is_finite(value)), None)


def finite_or_none(value: Any) -> Any:
    """The value with None for each number that JSON does not know: NaN and the infinities. Containers are searched."""
    if isinstance(value, Mapping):
        return {key: finite_or_none(part) for key, part in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(part) for part in cast("list[Any]", value)]
    value = plain(value)
    return None if isinstance(value, float) and not is_finite(value) else value


def lr_fault(value: object) -> str | None:
    """What a learning rate must be, if this value cannot be one; worded to follow "must be". None if it can."""
    if isinstance(value, str) or not is_finite(value) or (lr := cast("float", number(value))) <= 0:
        return "a positive finite number"
    if not SMALLEST_LR <= lr <= LARGEST_LR:
        return f"from {SMALLEST_LR:.3g} to {LARGEST_LR:.3g}, the range of float32"
    return None
