"""What searches cost in processor time, next to what they cost in steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.advice.choices import Choice


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a method's searches of a problem cost, as means over searches; seconds of all problems are added up.

    Attributes:
        method: Its name.
        problem: Name of the problem; None for all together.
        trainings: Steps trained, in full trainings.
        seconds: Processor time.
        training_seconds: Processor time of a plain full training.
    """

    method: str
    problem: str | None
    trainings: float
    seconds: float
    training_seconds: float

    @property
    def ratio(self) -> float:
        """The processor time in plain full trainings."""
        return self.seconds / self.training_seconds


def costs(choices: Iterable[Choice]) -> list[Cost]:
    """The costs of the methods whose searches were timed, on each problem and then over all problems."""
    found = dict[tuple[str, str], list[tuple[float, float, float]]]()
    for choice in choices:
        if choice.seconds is not None and choice.training_seconds is not None:
            numbers = choice.cost, choice.seconds, choice.training_seconds
            found.setdefault((choice.method, choice.problem), []).append(numbers)
    own = [_cost(method, problem, rows) for (method, problem), rows in sorted(found.items())]
    return [cost for method in sorted({each.method for each in own}) for cost in _with_total(method, own)]


def _cost(method: str, problem: str, rows: Sequence[tuple[float, float, float]]) -> Cost:
    steps, seconds, plain = np.mean(rows, axis=0).tolist()
    return Cost(method=method, problem=problem, trainings=steps, seconds=seconds, training_seconds=plain)


def _with_total(method: str, costs: Iterable[Cost]) -> list[Cost]:
    own = [cost for cost in costs if cost.method == method]
    total = Cost(
        method=method,
        problem=None,
        trainings=float(np.mean([cost.trainings for cost in own])),
        seconds=sum(cost.seconds for cost in own),
        training_seconds=sum(cost.training_seconds for cost in own),
    )
    return [*own, total]
