"""The settings of a search for the initial LR."""

import math
from itertools import pairwise
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from lratlas.errors import SpecError
from lratlas.numbers import is_finite
from lratlas.study.spec.errors import sentence
from lratlas.study.spec.grid import LRs, lr_grid
from lratlas.study.spec.sections import Section

DEFAULT_LRS = lr_grid(1e-5, 1.0, per_decade=4)
LEAST_STEPS = 64
_APART = 1.001  # the least ratio of neighbouring LRs: names of segments show six digits


class Search(Section):
    """The settings of a search. Budget and costs are counted in full trainings, each ``steps`` long."""

    steps: int = Field(ge=LEAST_STEPS, description="optimizer steps of a full training")
    lrs: LRs = Field(default=DEFAULT_LRS, description="the LRs to begin with")
    budget: float = Field(
        default=1.5,
        gt=0,
        allow_inf_nan=False,
        description="what may be trained, in full trainings; every LR gets a 64th of one in any case",
    )
    direction: Literal["minimize", "maximize"] = Field(
        default="minimize", description="whether a lower or a higher metric is better"
    )
    tolerance: float = Field(
        default=0.005, ge=0, lt=1, description="metrics that differ by less than this share count as equally good"
    )
    resumable: bool = Field(default=True, description="whether trainings can go on from a checkpoint")
    anneal: bool = Field(default=True, description="whether the LR can be annealed within a segment")

    @field_validator("lrs")
    @classmethod
    def _apart(cls, lrs: tuple[float, ...]) -> tuple[float, ...]:
        for one, other in pairwise(lrs):
            if other < _APART * one:
                raise ValueError(f"holds {one!r} and {other!r}, but LRs must differ by a thousandth at least")
        return lrs

    def horizon(self, share: float) -> int:
        """A share of the full training, in steps."""
        return max(1, round(share * self.steps))

    def score(self, metric: float | None) -> float:
        """The metric with its sign such that more is better; minus infinity where there is none."""
        if metric is None or not is_finite(metric):
            return -math.inf
        return metric if self.direction == "maximize" else -metric

    def metric(self, score: float) -> float:
        """The inverse of `score`."""
        return score if self.direction == "maximize" else -score


def make_search(**settings: object) -> Search:
    """The settings of a search, checked.

    Raises:
        SpecError: One of them is out of range or unknown; the sentence names it and what is allowed.
    """
    try:
        return Search.model_validate(settings)
    except ValidationError as error:
        raise SpecError(sentence(error, Search)) from error
