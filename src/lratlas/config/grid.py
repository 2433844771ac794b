"""Learning rates of a spec: a list, or a geometric grid between two ends."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, cast

from pydantic import BeforeValidator

from lratlas.config.values import format_value
from lratlas.errors import SpecError
from lratlas.text import lr_fault, to_python

LARGEST_GRID = 10_000
_RANGE = ("low", "high", "per_decade")


def lr_grid(low: float, high: float, *, per_decade: int) -> tuple[float, ...]:
    """A geometric grid of learning rates, ``low * 10 ** (i / per_decade)`` up to ``high``.

    Both ends are included; ``high`` is left out only if it is not a point of the grid.

    Args:
        low: The smallest learning rate.
        high: An upper limit for the largest one.
        per_decade: Points per factor of ten.

    Returns:
        The learning rates, ascending.

    Raises:
        SpecError: An end is not a positive number that float32 can hold, the ends are swapped,
            ``per_decade`` is below 1, or the grid would have more than 10,000 points.

    >>> lr_grid(1e-3, 1e-1, per_decade=1)
    (0.001, 0.01, 0.1)
    """
    low, high, per_decade = to_python(low), to_python(high), to_python(per_decade)
    fault = _grid_fault(low, high, per_decade)
    if fault is not None:
        raise SpecError(f"The grid of LRs {fault}.")
    decades = math.log10(high) - math.log10(low)
    # The small tolerance includes ``high`` if rounding puts the last point just above it.
    count = math.floor(decades * per_decade + 1e-9) + 1
    points = [_point(low, index, per_decade) for index in range(count)]
    if math.isclose(points[-1], high, rel_tol=1e-9):
        points[-1] = high
    return tuple(sorted({float(min(point, high)) for point in points}))


def closest(lr: float, lrs: Sequence[float]) -> float | None:
    """The nearest LR of a grid, within a part in a thousand of ``lr``; None if there is none.

    >>> closest(0.0316, [0.01, 10**-1.5])
    0.03162277660168379
    """
    nearest = min(lrs, key=lambda each: abs(math.log(each / lr)))
    return nearest if math.isclose(nearest, lr, rel_tol=1e-3) else None


def _point(low: float, index: int, per_decade: int) -> float:
    decade, rest = divmod(index, per_decade)
    # Whole decades shift as decimals: 1e-4 becomes exactly 1e-3, 1e-2, …
    return float(Decimal(repr(float(low))).scaleb(decade)) * 10 ** (rest / per_decade)


def _grid_fault(low: object, high: object, per_decade: object) -> str | None:
    """The fault of a range, worded to follow the name of the field."""
    for name, end in (("low", low), ("high", high)):
        if allowed := lr_fault(end):
            return f"has {name} = {format_value(end)}, but {name} must be {allowed}"
    if isinstance(per_decade, bool) or not isinstance(per_decade, int) or per_decade < 1:
        return f"has per_decade = {format_value(per_decade)}, but per_decade must be a whole number of at least 1"
    low, high = cast("float", low), cast("float", high)
    if low > high:
        return f"has low = {low!r} above high = {high!r}, but low must not exceed high"
    # Compared before multiplying, since a huge integer does not fit a float.
    decades = math.log10(high) - math.log10(low)
    if per_decade > LARGEST_GRID * 1e16 or decades * per_decade + 1 > LARGEST_GRID:
        return f"has more than {LARGEST_GRID:,} LRs, but at most {LARGEST_GRID:,} are allowed"
    return None


def _sort_lrs(value: object) -> tuple[float, ...]:
    """The learning rates of a field, ascending; a fault is a ``ValueError`` that pydantic reports."""
    if isinstance(value, Mapping):
        return _from_range(cast("Mapping[object, object]", value))
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError(  # noqa: TRY004 - pydantic reports a ValueError and lets a TypeError pass
            f"is {format_value(value)}, but must be a list of positive numbers or a range {{low, high, per_decade}}"
        )
    return _from_list(to_python(list(cast("Iterable[object]", value))))


def _from_range(value: Mapping[object, object]) -> tuple[float, ...]:
    if set(value) != set(_RANGE):
        held = ", ".join(str(key) for key in value) or "nothing"
        raise ValueError(f"is a range with {held}, but a range has exactly {', '.join(_RANGE)}")
    low, high, per_decade = (value[key] for key in _RANGE)
    fault = _grid_fault(low, high, per_decade)
    if fault is not None:
        raise ValueError(fault)
    return lr_grid(cast("float", low), cast("float", high), per_decade=cast("int", per_decade))


def _from_list(values: Sequence[object]) -> tuple[float, ...]:
    if not values:
        raise ValueError("is empty, but must hold at least one LR")
    if len(values) > LARGEST_GRID:
        raise ValueError(f"holds {len(values):,} LRs, but at most {LARGEST_GRID:,} are allowed")
    for value in values:
        if allowed := lr_fault(value):
            raise ValueError(f"holds {format_value(value)}, but every LR must be {allowed}")
    lrs = sorted(float(cast("float", value)) for value in values)
    for one, other in itertools.pairwise(lrs):
        if one == other:
            raise ValueError(f"holds {one!r} twice, but LRs must be different")
    return tuple(lrs)


LRs = Annotated[tuple[float, ...], BeforeValidator(_sort_lrs)]
"""A field of learning rates: a list or a range when read, a sorted tuple afterwards."""
