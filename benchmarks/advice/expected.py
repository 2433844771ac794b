"""Whether trainings reach the validation metric that the advice expects of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.advice.choices import Choice
from benchmarks.advice.surface import Surface, Values

NOMINAL = 0.9
"""The share of trainings that an interval should hold."""
WAY = ("average10", 1.0)
"""The model that the advice expects something of: the averaged weights at the end of a full training."""
_Z = 1.959964  # of a 95% interval


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How many trainings ended inside the intervals of a method.

    Attributes:
        method: Its name.
        problem: Name of the problem; None for all together.
        intervals: How many searches gave an interval.
        share: The share of the judges' trainings that ended inside.
        low: The lower end of the 95% interval of that share; None for a single problem.
        high: The upper end.
        width: The mean width of the intervals, in points of accuracy or percent of the expected loss.
        off: The mean of reached minus expected in the same unit, positive where trainings end better.
    """

    method: str
    problem: str | None
    intervals: int
    share: float
    low: float | None
    high: float | None
    width: float
    off: float


def reached(choices: Iterable[Choice], surfaces: Mapping[str, Surface]) -> list[Reached]:
    """How each method's intervals hold on each problem and then over all problems, which count alike."""
    by_method = dict[str, dict[str, list[Choice]]]()
    for choice in choices:
        if choice.problem in surfaces and choice.lr is not None and choice.expected_low is not None:
            by_method.setdefault(choice.method, {}).setdefault(choice.problem, []).append(choice)
    return [each for method, own in sorted(by_method.items()) for each in _of_method(method, own, surfaces)]


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share among ``count`` independent trials."""
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * np.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return float(middle - half), float(middle + half)


def _of_method(method: str, own: Mapping[str, Sequence[Choice]], surfaces: Mapping[str, Surface]) -> list[Reached]:
    rows = [_of_problem(method, surfaces[problem], choices) for problem, choices in sorted(own.items())]
    share = float(np.mean([row.share for row in rows]))
    # All trainings of a problem share its data, and those of a search its interval: they count as one trial.
    low, high = wilson(share, len(rows))
    pooled = Reached(
        method=method,
        problem=None,
        intervals=sum(row.intervals for row in rows),
        share=share,
        low=low,
        high=high,
        width=float(np.mean([row.width for row in rows])),
        off=float(np.mean([row.off for row in rows])),
    )
    return [*rows, pooled]


def _of_problem(method: str, known: Surface, choices: Sequence[Choice]) -> Reached:
    ends = np.stack([known.validation_at(WAY, _known(choice.lr)) for choice in choices])  # [searches, judges]
    low, high, expected = (
        np.array([_known(getattr(choice, name)) for choice in choices])[:, None]
        for name in ("expected_low", "expected_high", "expected")
    )
    scale: Values = np.ones_like(expected) if known.problem.higher_is_better else 100 / expected
    return Reached(
        method=method,
        problem=known.problem.name,
        intervals=len(choices),
        share=float(((ends >= low) & (ends <= high)).mean()),
        low=None,
        high=None,
        width=float(((high - low) * scale).mean()),
        off=float((known.problem.sign * (ends - expected) * scale).mean()),
    )


def _known(value: float | None) -> float:
    assert value is not None
    return value
