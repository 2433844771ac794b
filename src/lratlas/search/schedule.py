"""Schedules of the LR: what it is multiplied by, as a function of the share of the training that is done."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, cast, get_args

import numpy as np

from lratlas.numbers import is_finite, number

Named = Literal["constant", "linear", "cosine", "own"]
NAMED = get_args(Named)
"""``own`` is that of the training itself, which ends with each segment; the search multiplies nothing."""
Shape = Named | tuple[float, ...]
"""A named schedule, or factors at equal distances from the first step to the last."""

SAMPLED = 257  # points that a function is sampled at; between them it is linear


def factor(shape: Shape, share: float) -> float:
    """What the LR is multiplied by where a share of the training, in [0, 1], is done."""
    if shape == "constant" or shape == "own":  # noqa: PLR1714 - the type of what is left follows
        return 1.0
    if shape == "linear":
        return 1.0 - share
    if shape == "cosine":
        return (1.0 + math.cos(math.pi * share)) / 2
    return float(np.interp(share, np.linspace(0.0, 1.0, len(shape)), shape))


def sampled(schedule: Callable[[float], object]) -> tuple[float, ...]:
    """A function of the share of the training that is done, as its values at equal distances.

    Raises:
        ValueError: It fails, or returns something else than numbers that are finite and not negative.
    """
    values = list[object]()
    for share in np.linspace(0.0, 1.0, SAMPLED).tolist():
        try:
            values.append(schedule(share))
        except Exception as error:
            raise ValueError(f"fails at the share {share:g} of the training: {error}") from error
    return factors(values)


def factors(values: object) -> tuple[float, ...]:
    """Factors at equal distances from the first step to the last, checked.

    Raises:
        ValueError: They are no list of at least two numbers, one is negative or not finite, or all are 0.
    """
    if not isinstance(values, list | tuple) or len(cast("Sequence[object]", values)) < 2:
        raise ValueError(f"is {values!r}; choose {', '.join(NAMED)}, or give a function or a list of factors")
    found = list[float]()
    for share, given in zip(np.linspace(0.0, 1.0, len(values)), values, strict=True):
        value = number(given)
        if value is None or not is_finite(value) or value < 0:
            raise ValueError(f"is {given!r} at the share {share:g} of the training, but must be a number of at least 0")
        found.append(value)
    if not any(found):
        raise ValueError("is 0 throughout the training")
    return tuple(found)
