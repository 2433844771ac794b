"""From one look's tests to the regime of a running training."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lratlas.errors import SpecError
from lratlas.numbers import is_finite
from lratlas.thresholds import DEFAULTS, Thresholds
from lratlas.watching.stationarity import NOTICED_FALL, Trend

Floats = NDArray[np.float64]
Regime = Literal["undecided", "converging", "equilibrium", "diverging"]

FIRST_LOOK = 256  # steps
LOOK_GROWTH = 1.25
LOOKS = 62  # from 256 steps to 256 million

_Standing = Literal["above chance", "at chance", "unclear", "unknown"]
_ERRORS = 3.0  # standard errors; about the 1 % quantile of Student's t with 7 degrees of freedom


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The numbers behind the regime of a running training.

    Attributes:
        chance_loss: Loss of the best constant prediction. None: the first loss takes its place.
        chance_accuracy: Accuracy of the best constant prediction; needed where accuracies are given.
        false_alarm: Highest probability that a loss that does not fall is ever called converging, over all looks
            between 256 steps and 256 million; divided evenly among the 62 looks.
        settled_level: Level of the test, at each look, that a settled loss does not fall by 15 % or more.
        above: A loss is above chance where every block mean exceeds the chance loss by this factor.
        thresholds: What a finished study is judged by: the least fall that matters, the p value below which it keeps
            a loss from being called settled, the losses and accuracies that count as fitted, the margin above chance.
    """

    chance_loss: float | None = None
    chance_accuracy: float | None = None
    false_alarm: float = 0.05
    settled_level: float = 0.05
    above: float = 1.1
    thresholds: Thresholds = DEFAULTS

    def __post_init__(self) -> None:
        if self.chance_loss is not None and not (is_finite(self.chance_loss) and self.chance_loss > 0):
            raise SpecError(f"chance_loss is {self.chance_loss}; it must be a positive number")
        if self.chance_accuracy is not None and not 0 <= self.chance_accuracy < 1:
            raise SpecError(f"chance_accuracy is {self.chance_accuracy}; it must lie between 0 and 1")
        for name in ("false_alarm", "settled_level"):
            value: float = getattr(self, name)
            if not 0 < value < 1:
                raise SpecError(f"{name} is {value}; it must lie between 0 and 1")


def decide(
    found: Trend, accuracies: Floats, *, reference: float, peak: float, previous: Regime, rules: Rules
) -> Regime:
    """The regime that one look's tests speak for.

    At chance level a training may have diverged, or hardly have begun because its learning rate is too low. It has
    diverged if the loss is above that level, or once was; it has begun if the loss falls, by however little.

    Args:
        found: The tests of the loss.
        accuracies: Block means of the accuracy, shape (blocks,); NaN where it is not known.
        reference: Loss at chance level, or at the start.
        peak: Highest loss of the phase, over a few steps.
        previous: What the last look said: an equilibrium lasts until something speaks against it.
        rules: The numbers that decide.
    """
    limits, level = rules.thresholds, rules.false_alarm / LOOKS
    standing = _standing(accuracies, rules=rules)
    above = standing == "unknown" and found.lowest > rules.above * reference
    if found.level < limits.small_loss * reference or float(accuracies.mean()) >= limits.fitted_accuracy:
        return "converging"
    matters = found.fall > (limits.fall if found.level < reference / rules.above else 0.0)
    if matters and found.falling_p is not None and found.falling_p < level:
        return "undecided" if above else "converging"
    if above or standing == "at chance":
        blown = above or max(peak, found.level) > rules.above * reference
        return "diverging" if blown and found.fall <= limits.fall else "undecided"
    if found.falling_p is None or found.settled_p is None:
        return _lasting(found, previous)
    rising = found.fall < -limits.fall and 1 - found.falling_p < level
    doubtful = matters and found.falling_p < limits.trend_level
    unclear = standing == "unclear" or (standing == "unknown" and found.level > reference)
    if rising or doubtful or unclear:
        return "undecided"
    return "equilibrium" if found.settled_p < rules.settled_level else _lasting(found, previous)


def _lasting(found: Trend, previous: Regime) -> Regime:
    """An equilibrium lasts while nothing speaks against it; other regimes need evidence at every look."""
    return "equilibrium" if previous == "equilibrium" and abs(found.fall) < NOTICED_FALL else "undecided"


def _standing(accuracies: Floats, *, rules: Rules) -> _Standing:
    """Where the accuracy of the second half of the blocks stands to chance, with the blocks' own error."""
    mean = float(accuracies[-(len(accuracies) // 2) :].mean())
    if np.isnan(mean) or rules.chance_accuracy is None:
        return "unknown"
    excess = mean - rules.chance_accuracy
    error = _ERRORS * float(accuracies.std(ddof=1)) / np.sqrt(len(accuracies) // 2)
    if excess + error < rules.thresholds.chance_margin:
        return "at chance"
    # Blocks at chance are all above it with a probability of 2^-8 at most, however much they vary
    surely = max(excess - error, float(accuracies.min()) - rules.chance_accuracy)
    return "above chance" if surely > rules.thresholds.chance_trace else "unclear"
