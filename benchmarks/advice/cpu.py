"""What searches cost in processor time, next to what they cost in steps."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.advice.choices import Choice


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a method's searches of a problem cost, as means over searches.

    Attributes:
        method: Its name.
        problem: Name of the problem.
        trainings: Steps trained, in full trainings.
        seconds: Processor time.
        training_seconds: Processor time of a plain full training.
    """

    method: str
    problem: str
    trainings: float
    seconds: float
    training_seconds: float

    @property
    def ratio(self) -> float:
        """The processor time in plain full trainings."""
        return self.seconds / self.training_seconds


def costs(choices: Iterable[Choice]) -> list[Cost]:
    """The costs of the methods whose searches were timed, by method and problem."""
    found = dict[tuple[str, str], list[tuple[float, float, float]]]()
    for choice in choices:
        if choice.seconds is not None and choice.training_seconds is not None:
            numbers = choice.cost, choice.seconds, choice.training_seconds
            found.setdefault((choice.method, choice.problem), []).append(numbers)
    return [
        Cost(method=method, problem=problem, trainings=steps, seconds=seconds, training_seconds=plain)
        for (method, problem), rows in sorted(found.items())
        for steps, seconds, plain in [np.mean(rows, axis=0).tolist()]
    ]
