"""fastai's range test: a short training whose LR grows from step to step, and two rules that read its curve.

fastai needs torchvision, so its test and rules are restated here, from their source:
https://github.com/fastai/fastai/blob/main/nbs/14_callback.schedule.ipynb
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.advice.choices import Choice
from benchmarks.advice.problem import Problem
from benchmarks.advice.training import advance, start

STEPS = 100
LOW, HIGH = 1e-7, 10.0
_MEMORY = 0.98  # of the running mean of the losses
_HOPELESS = 4  # times the smallest running mean: there the test ends
Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A range test: the LR of each step, and the running mean of the losses after it."""

    lrs: Values
    losses: Values


def choices(problem: Problem, seed: int) -> list[Choice]:
    """What each rule says; where the curve has nothing for a rule, the customary LR stays."""
    whole = range_test(problem, seed=seed)
    seen = readable(whole)
    return [
        Choice(
            method=f"fastai {rule.__name__}",
            problem=problem.name,
            seed=seed,
            lr=problem.default_lr if (lr := rule(seen)) is None else lr,
            cost=len(whole.losses) / problem.steps,
        )
        for rule in (valley, minimum)
    ]


def range_test(problem: Problem, *, seed: int) -> Curve:
    """Train for 100 steps, without the warm-up, until the running mean of the losses is four times its smallest."""
    lrs = LOW * (HIGH / LOW) ** (np.arange(STEPS) / STEPS)
    run = start(problem, seed=seed, lr=LOW)
    losses = advance(run, STEPS, lr_at=lambda step: float(lrs[step])).losses
    means = running_means(losses)
    over = np.flatnonzero(means > _HOPELESS * np.minimum.accumulate(means))
    count = over[0] + 1 if len(over) else len(means)
    return Curve(lrs=lrs[:count], losses=means[:count])


def running_means(losses: Values) -> Values:
    """Exponentially weighted means of the losses so far, without the bias towards zero at the start."""
    total, means = 0.0, list[float]()
    for number, loss in enumerate(losses, start=1):
        total = _MEMORY * total + (1 - _MEMORY) * loss
        means.append(total / (1 - _MEMORY**number))
    return np.array(means)


def readable(whole: Curve) -> Curve:
    """What the rules see: all but the first tenth and the last five, up to the first loss that is not finite."""
    lrs, losses = whole.lrs[STEPS // 10 : -5], whole.losses[STEPS // 10 : -5]
    bad = np.flatnonzero(~np.isfinite(losses))
    count = bad[0] if len(bad) else len(losses)
    return Curve(lrs=lrs[:count], losses=losses[:count])


def valley(seen: Curve) -> float | None:
    """Half-way through the longest falling subsequence, counted in steps back from its end."""
    count = len(seen.losses)
    if not count:
        return None
    lengths = np.ones(count, int)
    for place in range(1, count):
        higher = lengths[:place][seen.losses[:place] > seen.losses[place]]
        lengths[place] = 1 + max(higher, default=0)
    last = int(lengths.argmax())
    first = last - int(lengths[last]) if last else 0
    third = (last - first) / 3
    return float(seen.lrs[first + int(third) + int(third / 2)])


def minimum(seen: Curve) -> float | None:
    """A tenth of the LR at which the loss is smallest."""
    return float(seen.lrs[seen.losses.argmin()]) / 10 if len(seen.losses) else None
