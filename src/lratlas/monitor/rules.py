"""Derive the course of the loss, and from it the regime of a running training, from the tests of one look."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lratlas.errors import SpecError
from lratlas.monitor.history import NOTICED_FALL, Trend
from lratlas.text import is_finite, number, to_python
from lratlas.thresholds import DEFAULTS, Thresholds

Floats = NDArray[np.float64]
Regime = Literal["undecided", "converging", "equilibrium", "diverging"]
Course = Literal["falling", "stationary", "rising", "unclear"]
Standing = Literal["below", "at", "above"]

FIRST_LOOK = 256  # steps
LOOK_GROWTH = 1.25
LOOKS = 62  # from 256 steps to 256 million
SAME_LR = 1.25  # an LR that changes by a smaller factor counts as constant

_FALLEN_LR = 1.05  # factor between the mean LRs of two halves above which the falling LR may lower the loss
_ROUNDING = 1e-9  # share of a loss
_SURELY_ABOVE = 3.0  # spreads
_ERRORS = 3.0  # standard errors; about the 1% quantile of Student's t with 7 degrees of freedom

_Accuracy = Literal["above chance", "at chance", "unclear", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The numbers behind the regime of a running training.

    Attributes:
        chance_loss: Loss of the best constant prediction, that of an untrained model. If it is positive, zero is the
            floor of the loss until a loss is below zero. None: the median of the first eight losses is the reference,
            and neither the zero nor the unit of the loss matters, with one exception: a loss that was never negative
            is near its floor below a hundredth of that median.
        chance_accuracy: Accuracy of the best constant prediction, as a share from 0 to 1; required to use accuracies.
        false_alarm: Highest probability that a loss that does not fall is ever called falling, over all looks
            from 256 steps to 256 million; divided evenly among the 62 looks.
        settled_level: Level, at each look, of the test that a settled loss does not fall by 15% of its height or more.
        above: A loss is above chance if every block mean exceeds a positive chance loss by this factor.
        loss_is_progress: Whether a lower loss is a better model. If not, the only regime in reports is ``diverging``,
            for losses that are not finite.
        scheduled: Whether the learning rate follows a schedule. The regime is then that of the training under its
            schedule.
        thresholds: The thresholds that also judge finished studies: the least fall that matters, the p value below
            which a loss is not called settled, the losses and accuracies that count as fitted, the margin above chance.
    """

    chance_loss: float | None = None
    chance_accuracy: float | None = None
    false_alarm: float = 0.05
    settled_level: float = 0.05
    above: float = 1.1
    loss_is_progress: bool = True
    scheduled: bool = False
    thresholds: Thresholds = DEFAULTS

    @property
    def trend_level(self) -> float:
        """Level of the test for a trend at each look."""
        return self.false_alarm / LOOKS

    def __post_init__(self) -> None:
        if self.chance_loss is not None:
            self._set_field("chance_loss", must_be="a finite number")
        if self.chance_accuracy is not None:
            value = self._set_field("chance_accuracy", must_be="a share from 0 up to, but not including, 1")
            if not 0 <= value < 1:
                percent = f"; if it is a percentage, divide it by 100 ({value / 100:.6g})" if 1 < value < 100 else ""
                raise SpecError(f"chance_accuracy is {value:.6g}; it must be between 0 and 1{percent}")
        for name in ("false_alarm", "settled_level"):
            if not 0 < (value := self._set_field(name, must_be="a number between 0 and 1")) < 1:
                raise SpecError(f"{name} is {value:.6g}; it must be between 0 and 1")
        if (value := self._set_field("above", must_be="a number of at least 1")) < 1:
            raise SpecError(f"above is {value:.6g}; it must be at least 1")
        for name in ("loss_is_progress", "scheduled"):
            if not isinstance(getattr(self, name), bool):
                raise SpecError(f"{name} is {getattr(self, name)!r}; it must be True or False")

    def _set_field(self, name: str, *, must_be: str) -> float:
        """Store a field as a Python float.

        Raises:
            SpecError: If the field is not a finite number.
        """
        value = getattr(self, name)
        found = None if isinstance(to_python(value), str) else number(value)
        if found is None or not is_finite(found):
            raise SpecError(f"{name} is {value!r}; it must be {must_be}")
        object.__setattr__(self, name, found)
        return found


@dataclass(frozen=True, kw_only=True)
class Start:
    """The level of the first losses of a training, robust to a few outliers.

    The first loss is that of the untrained model, but on a single mini-batch. A learning rate that is far too high
    makes the next losses worse. The level at the start is between the first loss and the median.

    Attributes:
        median: Median of the first losses.
        low: The lower of the first loss and the median.
        high: The higher of the first loss and the median.
        spread: Standard deviation of the first losses, estimated from the median absolute deviation.
    """

    median: float
    low: float
    high: float
    spread: float

    @classmethod
    def of(cls, losses: list[float]) -> Self:
        """The level of these losses; NaN if there are none."""
        if not losses:
            return cls(median=np.nan, low=np.nan, high=np.nan, spread=np.nan)
        median = float(np.median(losses))
        spread = 1.4826 * float(np.median(np.abs(np.array(losses) - median)))
        return cls(median=median, low=min(losses[0], median), high=max(losses[0], median), spread=spread)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The levels with which a look compares the loss.

    Attributes:
        above: Losses above this level are above the reference: the chance loss, or the loss at the start.
        blown: If the loss was ever above this level, the training has made it worse.
        left: A stationary loss must be below this level to count as below the reference.
        below: Losses below this level are well below the reference.
        near_zero: Losses below this level are near a floor of zero; minus infinity if zero is not known to be the
            floor.
        drift: Smaller falls do not count. It is larger if the height of the loss is only estimated.
    """

    above: float
    blown: float
    left: float
    below: float
    near_zero: float
    drift: float

    @classmethod
    def of(cls, found: Trend, *, start: Start, lowest: float, rules: Rules) -> Self:
        """The scale for one look; ``lowest`` is the lowest loss so far."""
        chance = rules.chance_loss
        low, high = (start.low, start.high) if chance is None else (chance, chance)
        near_zero = rules.thresholds.small_loss * low if lowest >= 0 else -np.inf
        if floor_is_zero(lowest, rules):
            above, below = rules.above * high, low / rules.above
            drift = rules.thresholds.fall * found.height
            return cls(above=above, blown=above, left=low, below=below, near_zero=near_zero, drift=drift)
        # A loss that never changes has no spread, and its means have rounding errors.
        spread = max(found.spread, _ROUNDING * abs(high))
        surely = _SURELY_ABOVE * max(spread, start.spread if chance is None else 0.0)
        return cls(
            # A loss that varies too slowly for a test may be above its start by chance
            above=high + surely if found.blocks else np.inf,
            blown=low + _SURELY_ABOVE * spread,
            left=low - spread,
            below=low - spread,
            near_zero=near_zero,
            drift=NOTICED_FALL * found.height,
        )


class LRs(NamedTuple):
    """The learning rates within the stretch that a look judges.

    Attributes:
        low: The lowest learning rate.
        high: The highest learning rate.
        fell: Whether the learning rate fell, so that the loss may have fallen for this reason.
        pace: Progress of the training within the stretch, relative to a constant learning rate; at most 1. It is
            measured by the fall of a descent like the inverse square root of the sum of the learning rates.
    """

    low: float
    high: float
    fell: bool
    pace: float

    @property
    def moves(self) -> bool:
        """Whether the learning rate changes by more than a factor of 1.25."""
        return self.high > SAME_LR * self.low

    @classmethod
    def of(cls, lrs: Floats, *, judged: int) -> Self | None:
        """The learning rates of the last ``judged`` cells, from ``lrs`` of the whole phase; None if not known."""
        if np.isnan(lrs).any():
            return None
        last, half = lrs[-judged:], judged // 2
        lower = min(float(last[-half:].mean()), float(last[-1]))
        pace = min(_descent(lrs, judged) / _descent(np.ones(len(lrs)), judged), 1.0)
        return cls(float(last.min()), float(last.max()), _FALLEN_LR * lower < float(last[:half].mean()), pace)


def _descent(lrs: Floats, judged: int) -> float:
    """Relative fall, between the halves of the last cells, of a descent like (sum of learning rates)^(-1/2)."""
    time, half = np.cumsum(lrs)[-judged:], judged // 2
    end = float(time[-half:].mean())
    return 1.0 - float(np.sqrt(time[:half].mean() / end)) if end else 0.0


def floor_is_zero(lowest: float, rules: Rules) -> bool:
    """Whether zero is the floor of the loss: true for a positive chance loss, until a loss is below zero."""
    return rules.chance_loss is not None and rules.chance_loss > 0 and lowest >= 0


def course(found: Trend, scale: Scale, *, previous: Course, rules: Rules) -> Course:
    """The course of the loss, from the tests of one look.

    A stationary loss counts as stationary until there is evidence against it. A rise or a fall needs evidence at every
    look.
    """
    limits, level = rules.thresholds, rules.trend_level
    # Near the reference, any fall matters: it shows that learning has begun
    matters = found.fall > (limits.fall * found.height if found.level < scale.below else 0.0)
    lasting = previous == "stationary" and abs(found.fall) < NOTICED_FALL * found.height
    if found.falling_p is None or found.settled_p is None:
        return "stationary" if lasting else "unclear"
    if matters and found.falling_p < level:
        return "falling"
    if found.fall < -limits.fall * found.height and 1 - found.falling_p < level:
        return "rising"
    if matters and found.falling_p < limits.trend_level:
        return "unclear"
    return "stationary" if found.settled_p < rules.settled_level or lasting else "unclear"


def decide(
    found: Trend, does: Course, accuracies: Floats, scale: Scale, *, lrs: LRs | None, blown: bool, rules: Rules
) -> Regime:
    """The regime, from the evidence of one look.

    At chance level, a training may have diverged, or its learning rate may be too low for any progress. It has diverged
    if the loss is or was above that level. It makes progress if the loss falls, however little.

    If the learning rate moves and no schedule is declared, the loss does not show the regime of any single learning
    rate: the loss may fall because the learning rate falls, or be stationary because the learning rate is tiny.

    Args:
        found: The tests of the loss.
        does: The course of the loss.
        accuracies: Block means of the accuracy, shape (blocks,); NaN if it is not known.
        scale: The levels to compare with.
        lrs: The learning rates of the stretch; None if they are not known, which counts as constant.
        blown: Whether the mean loss over a few steps was ever above the reference in this phase.
        rules: The numbers that decide.
    """
    limits = rules.thresholds
    if not rules.loss_is_progress:
        return "undecided"
    if found.level < scale.near_zero or float(accuracies.mean()) >= limits.fitted_accuracy:
        return "converging"
    moves = lrs is not None and lrs.moves and not rules.scheduled
    accuracy = _accuracy(accuracies, rules=rules)
    above = accuracy == "unknown" and found.lowest > scale.above
    if does == "falling":
        return "undecided" if above or (moves and lrs is not None and lrs.fell) else "converging"
    if above or accuracy == "at chance":
        return "diverging" if (above or blown) and found.fall <= scale.drift else "undecided"
    unclear = accuracy == "unclear" or (accuracy == "unknown" and found.level >= scale.left)
    return "equilibrium" if does == "stationary" and not unclear and not moves else "undecided"


def standing(found: Trend, scale: Scale) -> Standing:
    """Whether the mean loss is above, at or below the reference."""
    if found.level > scale.above:
        return "above"
    return "below" if found.level < scale.below else "at"


def _accuracy(accuracies: Floats, *, rules: Rules) -> _Accuracy:
    """Whether the mean accuracy of the second half of the blocks is above chance, given its standard error."""
    mean = float(accuracies[-(len(accuracies) // 2) :].mean())
    if np.isnan(mean) or rules.chance_accuracy is None:
        return "unknown"
    excess = mean - rules.chance_accuracy
    error = _ERRORS * float(accuracies.std(ddof=1)) / np.sqrt(len(accuracies) // 2)
    if excess + error < rules.thresholds.chance_margin:
        return "at chance"
    # Blocks at chance are all above it with a probability of at most 2^-8, whatever their variance
    surely = max(excess - error, float(accuracies.min()) - rules.chance_accuracy)
    return "above chance" if surely > rules.thresholds.chance_trace else "unclear"
