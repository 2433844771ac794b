"""Schedules of the LR: what it is multiplied by, as a function of the share of the training that is done."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from lratlas.numbers import is_finite, number

Named = Literal["constant", "linear", "cosine"]
NAMED = get_args(Named)
Shape = Named | tuple[float, ...]
"""A named schedule, or factors at equal distances from the first step to the last."""

SAMPLED = 257  # points that a function is sampled at; between them it is linear


def factor(shape: Shape, share: float) -> float:
    """What the LR is multiplied by where a share of the training, in [0, 1], is done."""
    if shape == "constant":
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
    factors = list[float]()
    for share in np.linspace(0.0, 1.0, SAMPLED).tolist():
        try:
            value = number(schedule(share))
        except Exception as error:
            raise ValueError(f"fails at the share {share:g} of the training: {error}") from error
        if value is None or not is_finite(value) or value < 0:
            raise ValueError(f"is {value} at the share {share:g} of the training, but must be 0 or larger")
        factors.append(value)
    if not any(factors):
        raise ValueError("is 0 throughout the training")
    return tuple(factors)
