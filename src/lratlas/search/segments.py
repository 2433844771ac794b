"""Segments of training in a search, and the schedule of the LR in them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np

from lratlas.text import first_not_finite, is_finite, number

__all__ = ["Segment", "SegmentResult", "make_segment"]

Named = Literal["constant", "linear", "cosine", "own"]
NAMED = get_args(Named)
"""``own`` is a schedule in the training code that ends with each segment; the search multiplies nothing."""
Shape = Named | tuple[float, ...]
"""A named schedule, or factors at equal distances from the first step to the last."""

SAMPLED = 257  # points at which a function is sampled; linear between them


def factor(shape: Shape, share: float) -> float:
    """Factor of the LR after a share of the training, in [0, 1]."""
    if shape == "constant" or shape == "own":  # noqa: PLR1714 - the type of what is left follows
        return 1.0
    if shape == "linear":
        return 1.0 - share
    if shape == "cosine":
        return (1.0 + math.cos(math.pi * share)) / 2
    return float(np.interp(share, np.linspace(0.0, 1.0, len(shape)), shape))


def sample_schedule(schedule: Callable[[float], object]) -> tuple[float, ...]:
    """Sample a function of the finished share of the training at equal distances.

    Raises:
        ValueError: The function fails, or returns anything but finite numbers of at least 0.
    """
    values = list[object]()
    for share in np.linspace(0.0, 1.0, SAMPLED).tolist():
        try:
            values.append(schedule(share))
        except Exception as error:
            raise ValueError(f"fails at fraction {share:g} of the training: {error}") from error
    return factors(values)


def factors(values: object) -> tuple[float, ...]:
    """Check factors at equal distances from the first step to the last.

    Raises:
        ValueError: The value is not a list of at least two numbers, a number is negative or not finite, or all are 0.
    """
    if not isinstance(values, list | tuple) or len(cast("Sequence[object]", values)) < 2:
        raise ValueError(f"is {values!r}; choose {', '.join(NAMED)}, or pass a function or a list of factors")
    found = list[float]()
    for share, given in zip(np.linspace(0.0, 1.0, len(values)), values, strict=True):
        value = number(given)
        if value is None or not is_finite(value) or value < 0:
            raise ValueError(f"is {given!r} at fraction {share:g} of the training, but must be a number of at least 0")
        found.append(value)
    if not any(found):
        raise ValueError("is 0 throughout the training")
    return tuple(found)


BLOCKS = 64  # means of consecutive losses that are stored per segment, at most
LAST_WEIGHTS = 1 / 8
"""From this share of a full training on, the last weights are evaluated as well as their average."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Part of a training, from one step to another.

    Attributes:
        name: Name of the segment: unique within a search and a valid file name.
        parent: Name of the segment from whose final state training continues; None for fresh weights.
        lr: Learning rate of the trial, before schedule and warm-up. If parameter groups have different LRs, multiply
            all by one factor.
        seed: Seed of initial weights and batch order.
        start: Optimizer steps before the segment; 0 without a parent.
        stop: Optimizer steps at the end of the segment.
        average_from: Weights after later steps than this one enter the evaluated average.
        anneal_from: Step from which the LR falls linearly to zero, reached at ``stop``; None without an annealed end.
        schedule: LR schedule, shrunk so that it ends at ``stop``.
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
        """Optimizer steps of the segment."""
        return self.stop - self.start

    @property
    def annealed(self) -> bool:
        """Whether the LR falls to zero at the end of a training with a constant LR."""
        return self.anneal_from is not None

    def share_at(self, step: int) -> float:
        """Factor of the LR in a step, ``start <= step < stop``; steps count from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.anneal_from is not None:
            return 1.0 if step < self.anneal_from else 1 - (step - self.anneal_from) / (self.stop - self.anneal_from)
        return factor(self.schedule, (step - self.warmup) / (self.stop - self.warmup))

    def lr_at(self, step: int) -> float:
        """LR of a step, ``start <= step < stop``; steps count from 0."""
        return self.lr * self.share_at(step)


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """Result of a trained segment.

    Attributes:
        segment: The segment.
        value: Validation metric of the final weights; None if the segment failed or the metric was not reported.
        averaged: Validation metric of the averaged weights; None if the segment failed or it was not reported.
        error: Standard error of the metric, from the validation samples; None if it was not reported.
        losses: Training losses: means over equal parts of the segment, in order; NaN for a part that is not finite.
        failure: Why the segment failed; None if it succeeded.
        seconds: Wall time between ask() and tell(); for segments trained together, an equal share of it.
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
        """The metric that counts: that of the averaged weights, else of the last weights; None if the segment failed.

        Under a schedule, the final weights count.
        """
        if ends_low(self.segment) or self.averaged is None:
            return self.value if self.value is not None else self.averaged
        return self.averaged


def ends_low(segment: Segment) -> bool:
    """Whether the LR falls towards the end; the final weights then count instead of an average."""
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
    """Make a segment and its name; weights of the last tenth of all steps are averaged."""
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
    """Average losses of consecutive steps over equal parts, at most 64.

    Args:
        losses: One loss per step, or per report, in order.

    Returns:
        The means; NaN for each part with a loss that is not finite.
    """
    parts = np.array_split(np.asarray(losses, dtype=np.float64), min(BLOCKS, len(losses))) if len(losses) else []
    return tuple(float(part.mean()) if first_not_finite(part.tolist()) is None else math.nan for part in parts)


def mean_of_last_fifth(losses: Sequence[float]) -> float:
    """Mean of the last fifth of the losses: the metric of a segment that only reports losses."""
    last = losses[-max(1, len(losses) // 5) :]
    return sum(last) / len(last)
