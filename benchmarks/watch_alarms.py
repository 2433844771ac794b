"""What a watch says of synthetic losses: flat, falling for ever, and falling to a plateau, with correlated noise."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from lratlas.monitor.rules import Rules
from lratlas.monitor.tracker import RegimeTracker

Floats = NDArray[np.float64]

CHANCE = 2.3
SPREAD = 0.3  # standard deviation of the logarithm of a mini-batch's loss
CORRELATIONS = (0.0, 0.5, 0.9, 0.99)
COURSES: dict[str, Callable[[Floats], Floats]] = {
    "flat": lambda step: np.full_like(step, 0.5),
    "to a plateau": lambda step: 0.5 + 1.5 * np.exp(-step / 200),
    "t^-1/2": lambda step: 2.0 * (1 + step / 50) ** -0.5,
    "t^-1": lambda step: 2.0 / (1 + step / 50),
}


@dataclass(frozen=True, kw_only=True)
class Alarms:
    """Shares of the repetitions of one kind of loss."""

    course: str
    correlation: float  # of neighbouring steps
    chance_loss: float | None  # what the watch is given
    repeats: int
    steps: int
    ever_converging: float
    ever_equilibrium: float
    ever_diverging: float
    last_converging: float
    last_equilibrium: float


def alarms(*, repeats: int, steps: int) -> list[Alarms]:
    """All courses with noise of all correlations, with and without a chance loss."""
    return [
        measure(course, correlation, chance_loss=chance_loss, repeats=repeats, steps=steps)
        for chance_loss in (CHANCE, None)
        for course in COURSES
        for correlation in CORRELATIONS
    ]


def measure(course: str, correlation: float, *, chance_loss: float | None, repeats: int, steps: int) -> Alarms:
    """The regimes ever named, at any look, and at the last one."""
    rng = np.random.default_rng(0)
    ever, last = list[set[str]](), list[str]()
    for _ in range(repeats):
        tracker, said = RegimeTracker(rules=Rules(chance_loss=chance_loss)), set[str]()
        noise = ar1(steps, correlation, rng)
        losses = COURSES[course](np.arange(steps, dtype=np.float64)) * np.exp(SPREAD * noise - SPREAD**2 / 2)
        for loss in losses.tolist():
            look = tracker.add(steps=1, loss=loss)
            if look is not None:
                said.add(look.regime)
        ever.append(said)
        last.append(tracker.regime)
    return Alarms(
        course=course,
        correlation=correlation,
        chance_loss=chance_loss,
        repeats=repeats,
        steps=steps,
        ever_converging=_share(["converging" in said for said in ever]),
        ever_equilibrium=_share(["equilibrium" in said for said in ever]),
        ever_diverging=_share(["diverging" in said for said in ever]),
        last_converging=_share([said == "converging" for said in last]),
        last_equilibrium=_share([said == "equilibrium" for said in last]),
    )


def ar1(count: int, correlation: float, rng: np.random.Generator) -> Floats:
    """Stationary Gaussian noise of unit variance whose neighbours correlate as asked."""
    shocks = rng.normal(size=count)
    shocks[1:] *= np.sqrt(1 - correlation**2)
    return np.asarray(lfilter([1.0], [1.0, -correlation], shocks), dtype=np.float64)


def _share(values: list[bool]) -> float:
    return sum(values) / len(values)
