"""Format numbers, LRs and foreign text for sentences."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, cast

SMALLEST_LR = 2.0**-126
"""The smallest normal number of float32; smaller ones lose digits."""
LARGEST_LR = (2 - 2**-23) * 2.0**127
"""The largest number of float32."""
_DEEPEST = 32  # nested containers
_BUILT_IN = frozenset({bool, int, float, str, type(None)})


ESCAPES = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)"
"""The terminal control sequences, as a regular expression."""
UNSAFE = rf"{ESCAPES}|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
"""These, all other control characters except tabs and line ends, and marks that change the writing direction."""
_UNSAFE = re.compile(rf"{UNSAFE}|[\ud800-\udfff]")  # and lone surrogates, which no file can hold


def harmless(text: str) -> str:
    r"""Foreign text, such as names and program messages, made safe for terminals, pictures, pages and records.

    >>> harmless("\x1b[31mred\x1b[0m\u202e \x07name")
    'red name'
    """
    return _UNSAFE.sub("", text)


def harmless_parts(value: Any) -> Any:
    """A JSON value with `harmless` text, in nested containers and keys too."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, Any]", value)
        return {harmless(key): harmless_parts(part) for key, part in parts.items()}
    return [harmless_parts(part) for part in cast("list[Any]", value)] if isinstance(value, list) else value


def to_python(value: Any, depth: int = 0) -> Any:
    """The value with Python numbers and lists in place of those of NumPy, PyTorch and similar libraries.

    Lists, tuples and mappings are converted recursively. Anything else is returned unchanged.

    >>> import numpy as np
    >>> to_python({"lrs": np.array([0.5, 1.0]), "epochs": np.int64(3)})
    {'lrs': [0.5, 1.0], 'epochs': 3}
    """
    if type(value) in _BUILT_IN or depth > _DEEPEST:
        return value
    if hasattr(value, "tolist"):  # arrays, their scalars, tensors
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: to_python(part, depth + 1) for key, part in cast("Mapping[Any, Any]", value).items()}
    if type(value) in {list, tuple}:
        return type(value)(to_python(part, depth + 1) for part in value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def number(value: object) -> float | None:
    """A number as a float, also from text such as "nan"; None for anything else, booleans included.

    An array or tensor with one element is a number too. Integers that no float can hold become infinite.
    """
    if type(value) is float:
        return value
    found = to_python(value)
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


def replace_nonfinite(value: Any) -> Any:
    """The value with None for each number that JSON lacks: NaN and the infinities. Containers are searched."""
    if isinstance(value, Mapping):
        return {key: replace_nonfinite(part) for key, part in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(part) for part in cast("list[Any]", value)]
    value = to_python(value)
    return None if isinstance(value, float) and not is_finite(value) else value


def lr_fault(value: object) -> str | None:
    """The requirement that a value violates as a learning rate, worded to follow "must be"; None if it is valid."""
    if isinstance(value, str) or not is_finite(value) or (lr := cast("float", number(value))) <= 0:
        return "a positive finite number"
    if not SMALLEST_LR <= lr <= LARGEST_LR:
        return f"from {SMALLEST_LR:.3g} to {LARGEST_LR:.3g}, the range of float32"
    return None


def format_lr(value: float, *, digits: int = 2) -> str:
    """An LR in short scientific notation, to two digits by default.

    Example:
        >>> format_lr(0.0075), format_lr(0.1), format_lr(3.942e-4, digits=3)
        ('7.5e-3', '1e-1', '3.94e-4')
    """
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def digits_needed(values: Collection[float]) -> int:
    """The number of digits, at least two, that LRs need so that different ones look different.

    Example:
        >>> digits_needed([7.46e-3, 7.52e-3]), digits_needed([1e-3, 1e-3])
        (3, 2)
    """
    different = len({*values})
    return next((n for n in range(2, 7) if len({format_lr(value, digits=n) for value in values}) == different), 7)


def join_words(words: Sequence[str], last: str = "and") -> str:
    """A list in a sentence, with ``last`` before the last entry; empty for no words.

    Example:
        >>> join_words(["a"]), join_words(["a", "b"]), join_words(["a", "b", "c"], "or")
        ('a', 'a and b', 'a, b or c')
    """
    return f" {last} ".join([*filter(None, [", ".join(words[:-1])]), *words[-1:]])


def signed_interval(low: float, high: float) -> str:
    """The two ends of an interval, formatted by `plain`.

    Example:
        >>> signed_interval(-0.512, 9.23)
        '−0.51 to 9.2'
    """
    return f"{plain(low)} to {plain(high)}"


def plain(value: float) -> str:
    """A number to two digits or as an integer, without an exponent and with a true minus sign.

    Example:
        >>> plain(-0.512), plain(0.00042), plain(375.9), plain(1698)
        ('−0.51', '0.00042', '376', '1,698')
    """
    digits = 0 if abs(value) >= 10 or value == 0 else 1 - math.floor(math.log10(abs(value)))
    text = f"{value:,.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")
