"""The learning rates of a running training: one number for all groups, and when they jump."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer

from lratlas.errors import SpecError
from lratlas.monitor.rules import FIRST_LOOK, SAME_LR
from lratlas.text import is_finite, number

Schedule = bool | Literal["cosine", "linear"] | Callable[[int], float]


class LearningRates:
    """Reads the learning rates of an optimizer's groups, and detects the start of a new phase.

    A phase starts when the learning rate of any group changes at once by more than a factor of 1.25, against its
    previous direction, and at least 256 steps after the last phase started; or when groups are added. All other changes
    count as gradual.

    Args:
        optimizer: The optimizer whose groups are read. Learning rates that are tensors are only read by `fetch`,
            because reading one may wait for the device.
        schedule: A function from the step to a factor explains the changes that follow it, however sudden.

    Attributes:
        phase: How many times the learning rate has jumped.
        mean: The geometric mean over the groups whose learning rate is not zero; zero without any.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule) -> None:
        self._optimizer, self._factor = optimizer, schedule if callable(schedule) else None
        self.phase, self._since, self._way = 0, 0, 0
        self.fetch()
        self._followed, self.mean = self._lrs, _geometric_mean(self._lrs)
        self._last = self._held = next(iter(self._without_schedule(0)), [])

    def fetch(self) -> None:
        """Read all learning rates, tensors included."""
        self._lrs = [_lr(group) for group in self._optimizer.param_groups]

    def follow(self, step: int) -> bool:
        """Read the learning rates after a number of steps; return whether a phase starts."""
        self._read_lrs()
        if self._lrs == self._followed and self._factor is None:
            return False
        self._followed, self.mean = self._lrs, _geometric_mean(self._lrs)
        present = self._without_schedule(step)
        if not present:
            return False
        self._held, self._last = self._held or present[0], self._last or present[0]
        sudden = all(_differs(self._last, lrs) for lrs in present)
        ways = {_way(self._last, lrs) for lrs in present}
        way = ways.pop() if len(ways) == 1 else 0
        before, self._way, self._last = self._way, way or self._way, present[0]
        if not all(_differs(self._held, lrs) for lrs in present):
            return False
        grown = len(present[0]) != len(self._held)
        # The last steps of a cosine are sudden too, but have the direction of the steps before.
        begins = grown or (sudden and way != before and step - self._since >= FIRST_LOOK)
        self._held = present[0]
        if begins:
            self._since, self._way = step, 0
        self.phase += begins
        return begins

    def state_dict(self) -> dict[str, Any]:
        """State that `follow` compares the next learning rates with."""
        return {
            "lrs": list(self._lrs),
            "followed": list(self._followed),
            "held": list(self._held),
            "last": list(self._last),
            "mean": self.mean,
            "phase": self.phase,
            "since": self._since,
            "way": self._way,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`."""
        lrs, followed, held, last = ([*state[name]] for name in ("lrs", "followed", "held", "last"))
        mean, phase, since, way = (state[name] for name in ("mean", "phase", "since", "way"))
        self._lrs, self._followed, self._held, self._last = lrs, followed, held, last
        self.mean, self.phase, self._since, self._way = mean, phase, since, way

    def _read_lrs(self) -> None:
        """Read the learning rates that are numbers."""
        groups, known = self._optimizer.param_groups, self._lrs
        if len(groups) != len(known):
            self.fetch()
            return
        pairs = zip(groups, known, strict=True)
        self._lrs = [lr if isinstance(group.get("lr"), Tensor) else _lr(group) for group, lr in pairs]

    def _without_schedule(self, step: int) -> list[list[float]]:
        """Learning rates divided by the schedule's factor, at this step or at the one before.

        Loops call the scheduler before or after the watch. With a factor of zero there is nothing to compare.
        """
        if self._factor is None:
            return [self._lrs]
        factors = [schedule_factor(self._factor, at) for at in (step, max(step - 1, 0))]
        return [[lr / factor for lr in self._lrs] for factor in factors if factor]


def _lr(group: Mapping[str, Any]) -> float:
    """The learning rate of a group; NaN if it has none, as with optimizers that set it themselves."""
    lr = group.get("lr")
    if lr is None:
        return math.nan
    if isinstance(lr, str) or (found := number(lr)) is None:
        raise SpecError(f"the learning rate of a parameter group is {lr!r}; it must be a number")
    return found


def check_schedule(schedule: object) -> None:
    """Refuse a value that is not a schedule.

    Raises:
        SpecError: If the value is neither a boolean, nor a name, nor a function from a step to a factor.
    """
    if callable(schedule):
        schedule_factor(schedule, 0)
    elif not (isinstance(schedule, bool) or (isinstance(schedule, str) and schedule in ("cosine", "linear"))):
        raise SpecError(
            f"schedule is {schedule!r}; it must be True, False, 'cosine', 'linear' or a function of the step"
        )


def schedule_factor(schedule: Callable[[int], object], step: int) -> float:
    """Factor of a schedule at a step.

    Raises:
        SpecError: If the factor is not a finite number, or negative.
    """
    factor: Any = schedule(step)
    if isinstance(factor, str) or not is_finite(factor) or float(factor) < 0:
        raise SpecError(f"schedule({step}) is {factor!r}; it must return the factor for the learning rate")
    return float(factor)


def _geometric_mean(lrs: list[float]) -> float:
    """Geometric mean of the rates that are not zero; exact for a single rate. NaN if one is unknown."""
    if any(map(math.isnan, lrs)):
        return math.nan
    positive = [lr for lr in lrs if lr > 0]
    if len(set(positive)) < 2:
        return float(positive[0]) if positive else 0.0
    return math.exp(sum(map(math.log, positive)) / len(positive))


def _way(old: list[float], new: list[float]) -> int:
    """Direction in which the learning rates moved: 1 up, -1 down, 0 unchanged."""
    before, after = _geometric_mean(old), _geometric_mean(new)
    return (after > before) - (after < before)


def _differs(old: list[float], new: list[float]) -> bool:
    """Whether any group's learning rate, or their number, has changed by more than a little."""
    if len(old) != len(new):
        return True
    pairs = [(min(pair), max(pair)) for pair in zip(old, new, strict=True)]
    return any(high > SAME_LR * low for low, high in pairs)
