"""Segments of training that a search asks for, and the schedule of the LR in them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np

from lratlas.text import first_not_finite, is_finite, number

__all__ = ["Segment", "SegmentResult", "make_segment"]

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


def sample_schedule(schedule: Callable[[float], object]) -> tuple[float, ...]:
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


BLOCKS = 64  # means of consecutive losses that are stored of a segment, at most
LAST_WEIGHTS = 1 / 8
"""From this share of a full training on the last weights are evaluated as well as their average."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of one training, from one step count to another.

    Attributes:
        name: Unique within a search and fit for a file name.
        parent: Name of the segment whose final state is trained on; None for fresh weights.
        lr: The learning rate of the trial, before schedule and warm-up. Where parameter groups have different ones,
            all are to be multiplied by one factor.
        seed: Of initial weights and batch order.
        start: Optimizer steps done before; 0 without a parent.
        stop: Optimizer steps done at the end.
        average_from: Weights after steps later than this one enter the average that is evaluated.
        anneal_from: The step from which on the LR goes linearly to zero, reached at ``stop``; None for no such end.
        schedule: The LR's schedule, shrunk so that it ends at ``stop``.
        warmup: Steps over which the LR grows linearly to its value.
    """

    name: str
    parent: str | None
    lr: float
    seed: int
    start: int
    stop: int
    average_from: int
    anneal_from: int | None = None
    schedule: Shape = "constant"
    warmup: int = 0

    @property
    def steps(self) -> int:
        """Optimizer steps to be done."""
        return self.stop - self.start

    @property
    def annealed(self) -> bool:
        """Whether the LR goes to zero at the end of a training that was constant before."""
        return self.anneal_from is not None

    def share_at(self, step: int) -> float:
        """What the LR is multiplied by in a step, ``start <= step < stop``; steps count from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.anneal_from is not None:
            return 1.0 if step < self.anneal_from else 1 - (step - self.anneal_from) / (self.stop - self.anneal_from)
        return factor(self.schedule, (step - self.warmup) / (self.stop - self.warmup))

    def lr_at(self, step: int) -> float:
        """The LR of a step, ``start <= step < stop``; steps count from 0."""
        return self.lr * self.share_at(step)


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """What is known of a segment once it was trained.

    Attributes:
        segment: Which one.
        value: The validation metric of the weights at the end; None where it failed or was not told.
        averaged: The metric of the averaged weights; None where it failed or was not told.
        error: The standard error of the metric, from the validation samples; None where it was not told.
        losses: Training losses: means over equal parts of the segment, in order; NaN where one was not finite.
        failure: Why it failed; None where it went well.
        seconds: Wall time between being asked for and being told; of segments that were trained together, its share.
    """

    segment: Segment
    value: float | None = None
    averaged: float | None = None
    error: float | None = None
    losses: tuple[float, ...] = ()
    failure: str | None = None
    seconds: float = 0.0

    @property
    def quality(self) -> float | None:
        """The metric that counts: that of the averaged weights, else of the last; None where it failed.

        Under a schedule the weights at its end count.
        """
        if ends_low(self.segment) or self.averaged is None:
            return self.value if self.value is not None else self.averaged
        return self.averaged


def ends_low(segment: Segment) -> bool:
    """Whether the LR falls towards the end, so that the last weights count and not an average."""
    return segment.annealed or segment.schedule != "constant"


def make_segment(
    *,
    lr: float,
    seed: int,
    start: int,
    stop: int,
    parent: str | None,
    anneal_from: int | None = None,
    schedule: Shape = "constant",
    warmup: int = 0,
) -> Segment:
    """A segment with the name that follows from what it is; weights of the last tenth of all steps are averaged."""
    ending = "-annealed" if anneal_from is not None else ""
    return Segment(
        name=f"lr{lr:.6g}-seed{seed}-to{stop}{ending}",
        parent=parent,
        lr=lr,
        seed=seed,
        start=start,
        stop=stop,
        average_from=max(start, min(stop - 1, stop - stop // 10)),
        anneal_from=anneal_from,
        schedule=schedule,
        warmup=warmup,
    )


def block_losses(losses: Sequence[float]) -> tuple[float, ...]:
    """Losses of consecutive steps as means over equal parts, at most 64.

    Args:
        losses: One per step, or per report, in order.

    Returns:
        The means; NaN for each part in which a loss was not finite.
    """
    parts = np.array_split(np.asarray(losses, dtype=np.float64), min(BLOCKS, len(losses))) if len(losses) else []
    return tuple(float(part.mean()) if first_not_finite(part.tolist()) is None else math.nan for part in parts)


def mean_of_last_fifth(losses: Sequence[float]) -> float:
    """What a segment is judged by where nothing but losses is reported: the mean of the last fifth of them."""
    last = losses[-max(1, len(losses) // 5) :]
    return sum(last) / len(last)
