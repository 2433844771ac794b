"""What a watch says of synthetic losses whose learning rate moves.

Trainings that converge, one in equilibrium at a level that follows the learning rate, and one that becomes stationary.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from watch_alarms import SPREAD, ar1

from lratlas.monitor.rules import Regime, Rules
from lratlas.monitor.tracker import RegimeTracker

Floats = NDArray[np.float64]

CORRELATION = 0.5  # of neighbouring steps
SCHEDULES: dict[str, Callable[[Floats], Floats]] = {  # the factor of the learning rate, from the share of the steps
    "cosine": lambda at: (1 + np.cos(np.pi * at)) / 2,
    "linear": lambda at: 1 - at,
    "warm-up, cosine": lambda at: np.minimum(at / 0.1, 1) * (1 + np.cos(np.pi * np.maximum((at - 0.1) / 0.9, 0))) / 2,
    "0.95 fifty times": lambda at: 0.95 ** np.floor(50 * at),
}
# From the sum of the factors so far, which is the training's own time, and the factor
COURSES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "converges, t^-1/2": lambda time, _: 2.0 * (1 + time / 50) ** -0.5,
    "converges, t^-1": lambda time, _: 2.0 / (1 + time / 50),
    "follows the LR": lambda time, factor: 0.1 + 1.5 * np.exp(-time / 200) + 0.6 * factor,
    "stationary": lambda time, _: 0.5 + 1.5 * np.exp(-time / 200),
}


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Shares of one kind of training under one schedule."""

    course: str
    schedule: str
    declared: bool  # whether the watch knows that there is a schedule
    repeats: int
    steps: int
    looks: int  # of one training
    looks_converging: float  # share of all looks
    looks_equilibrium: float
    moving_converging: float  # share of the looks at which the learning rate moved
    moving_equilibrium: float
    ever_equilibrium: float  # share of the trainings
    last: dict[Regime, float]  # shares of the trainings at the end


def verdicts(*, repeats: int, steps: int) -> list[Verdicts]:
    """All kinds of trainings under all schedules, declared and not."""
    return [
        measure(course, schedule, declared=declared, repeats=repeats, steps=steps)
        for declared in (False, True)
        for course in COURSES
        for schedule in SCHEDULES
    ]


def measure(course: str, schedule: str, *, declared: bool, repeats: int, steps: int) -> Verdicts:
    """What is said at all looks, without a chance loss."""
    rng = np.random.default_rng(0)
    factors = SCHEDULES[schedule](np.arange(steps) / steps)
    level = COURSES[course](np.cumsum(factors), factors)
    said, moving, last, ever, looks = Counter[Regime](), Counter[Regime](), Counter[Regime](), 0, 0
    for _ in range(repeats):
        tracker, seen = RegimeTracker(rules=Rules(scheduled=declared)), set[Regime]()
        losses = level * np.exp(SPREAD * ar1(steps, CORRELATION, rng) - SPREAD**2 / 2)
        for loss, lr in zip(losses.tolist(), factors.tolist(), strict=True):
            look = tracker.add(steps=1, loss=loss, lr=lr)
            if look is not None:
                said[look.regime] += 1
                moving[look.regime] += look.lr_moves
                seen.add(look.regime)
        last[tracker.look().regime] += 1
        ever += "equilibrium" in seen
    total, of_moving = said.total(), max(moving.total(), 1)
    looks = total // repeats
    return Verdicts(
        course=course,
        schedule=schedule,
        declared=declared,
        repeats=repeats,
        steps=steps,
        looks=looks,
        looks_converging=said["converging"] / total,
        looks_equilibrium=said["equilibrium"] / total,
        moving_converging=moving["converging"] / of_moving,
        moving_equilibrium=moving["equilibrium"] / of_moving,
        ever_equilibrium=ever / repeats,
        last={regime: count / repeats for regime, count in sorted(last.items())},
    )
