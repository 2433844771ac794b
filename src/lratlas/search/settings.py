"""The settings of a search for the initial LR."""

import math
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from lratlas.config.grid import LRs, lr_grid
from lratlas.config.values import Section, sentence
from lratlas.errors import SpecError
from lratlas.search.segments import NAMED, Shape, factors, sample_schedule
from lratlas.text import is_finite, to_python

DEFAULT_LRS = lr_grid(1e-5, 1.0, per_decade=4)
Counted = Literal["steps", "epochs"]
"""Unit of the length of a training."""
_EPOCH = 64  # steps that an epoch counts as when losses are read
_FEWEST = 6  # LRs of a default grid, one per decade
_APART = 1.001  # smallest ratio of neighbouring LRs: names of segments show six digits


def _default_lrs(given: dict[str, Any]) -> tuple[float, ...]:
    """Four LRs per decade; fewer if the first rung would take more than half of the budget."""
    steps, unit, budget = (given.get(name) for name in ("steps", "unit", "budget"))
    if not steps or not unit or not budget:  # one of them is wrong; validation reports it
        return DEFAULT_LRS
    count = max(_FEWEST, int(budget / 2 * steps / unit))
    if count >= len(DEFAULT_LRS):
        return DEFAULT_LRS
    low, high = math.log10(DEFAULT_LRS[0]), math.log10(DEFAULT_LRS[-1])
    return tuple(float(f"{10 ** (low + (high - low) * at / (count - 1)):.2g}") for at in range(count))


class Search(Section):
    """Settings of a search. Budget and costs are counted in full trainings, each ``steps`` long."""

    steps: int = Field(ge=1, description="optimizer steps of a full training")
    counted: Counted = Field(default="steps", description="the unit of steps: optimizer steps or epochs")
    unit: int = Field(default=1, ge=1, description="segments end at multiples of this many steps, such as one epoch")
    budget: float = Field(
        default=1.5,
        gt=0,
        allow_inf_nan=False,
        description="the most to train, in full trainings; every LR gets at least 1/64 of one, or one unit",
    )
    lrs: LRs = Field(default_factory=_default_lrs, description="the initial LRs", validate_default=True)
    direction: Literal["minimize", "maximize"] = Field(
        default="minimize", description="whether a lower or a higher metric is better"
    )
    tolerance: float = Field(
        default=0.01, ge=0, lt=1, description="metrics that differ by less than this fraction count as equal"
    )
    resumable: bool = Field(default=True, description="whether trainings can continue from a checkpoint")
    anneal: bool = Field(default=True, description="whether the LR can be annealed within a segment")
    schedule: Shape = Field(
        default="constant",
        description="the LR schedule: constant, linear, cosine, own, or factors at equal distances",
    )
    warmup: int = Field(default=0, ge=0, description="warm-up steps of a full training")
    chance: float | None = Field(default=None, allow_inf_nan=False, description="the metric of an untrained model")
    limit: float | None = Field(default=None, allow_inf_nan=False, description="the best possible value of the metric")
    samples: int | None = Field(
        default=None, ge=1, description="number of validation samples, if the metric is an accuracy"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="the first seed of weights and batch order")

    @field_validator("lrs")
    @classmethod
    def _apart(cls, lrs: tuple[float, ...]) -> tuple[float, ...]:
        for one, other in pairwise(lrs):
            if other < _APART * one:
                raise ValueError(f"holds {one!r} and {other!r}, but LRs must differ by at least 0.1%")
        return lrs

    @field_validator("schedule", mode="before")
    @classmethod
    def _schedule(cls, given: object) -> object:
        if isinstance(given, str) or given is None:
            if given not in NAMED:
                raise ValueError(
                    f"is {given!r}; choose {', '.join(NAMED)}, or pass a function of the fraction of the training"
                )
            return given
        if callable(given):
            return sample_schedule(given)
        return factors(to_python(given))

    @field_validator("warmup")
    @classmethod
    def _warms_up_in_time(cls, warmup: int, others: ValidationInfo) -> int:
        if warmup >= (steps := others.data.get("steps", math.inf)):
            raise ValueError(
                f"is {warmup}, but a full training has {in_words(steps, others.data.get('counted', 'steps'))}"
            )
        return warmup

    @field_validator("unit")
    @classmethod
    def _fits(cls, unit: int, others: ValidationInfo) -> int:
        if unit > (steps := others.data.get("steps", unit)):
            raise ValueError(f"is {unit}, but a full training has {steps} steps")
        return unit

    @property
    def steps_each(self) -> int:
        """Optimizer steps per unit of ``steps``; an epoch counts as 64."""
        return 1 if self.counted == "steps" else _EPOCH

    @property
    def constant(self) -> bool:
        """Whether the LR is constant from the first step on."""
        return self.schedule == "constant" and not self.warmup

    @property
    def continues(self) -> bool:
        """Whether a longer training continues from a shorter one; under a schedule each length has different LRs."""
        return self.resumable and self.constant

    @property
    def anneals(self) -> bool:
        """Whether the search tries an annealed end: only if the LR is constant."""
        return self.anneal and self.schedule == "constant"

    def horizon(self, share: float) -> int:
        """A share of the full training in steps: a multiple of the unit, at least one unit."""
        units = max(1, round(share * self.steps / self.unit))
        return self.steps if share == 1 else min(self.steps, units * self.unit)

    def warmup_of(self, stop: int) -> int:
        """Warm-up steps of a training of ``stop`` steps: shrunk in proportion."""
        return round(self.warmup * stop / self.steps)

    def score(self, metric: float | None) -> float:
        """The metric with the sign that makes larger better; minus infinity if it is None."""
        if metric is None or not is_finite(metric):
            return -math.inf
        return metric if self.direction == "maximize" else -metric

    def metric(self, score: float) -> float:
        """Inverse of `score`."""
        return score if self.direction == "maximize" else -score


def in_words(steps: int, counted: Counted) -> str:
    """Length of a training, such as ``6,400 steps`` or ``1 epoch``."""
    return f"{steps:,} {counted[:-1] if steps == 1 else counted}"


def make_search(**settings: object) -> Search:
    """Make and check the settings of a search.

    Raises:
        SpecError: A setting is out of range or unknown; the message names it and lists the allowed values.
    """
    try:
        return Search.model_validate(settings)
    except ValidationError as error:
        raise SpecError(sentence(error, Search)) from error
