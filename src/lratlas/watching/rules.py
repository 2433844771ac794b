"""From one look's tests to what the loss does, and from there to the regime of a running training."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lratlas.errors import SpecError
from lratlas.numbers import is_finite
from lratlas.thresholds import DEFAULTS, Thresholds
from lratlas.watching.stationarity import NOTICED_FALL, Trend

Floats = NDArray[np.float64]
Regime = Literal["undecided", "converging", "equilibrium", "diverging"]
Course = Literal["falling", "stationary", "rising", "unclear"]
Standing = Literal["below", "at", "above"]

FIRST_LOOK = 256  # steps
LOOK_GROWTH = 1.25
LOOKS = 62  # from 256 steps to 256 million
SAME_LR = 1.25  # an LR that changes by a smaller factor counts as constant

_FALLEN_LR = 1.05  # factor between the mean LRs of two halves from which on a fall of the LR may lower the loss
_ROUNDING = 1e-9  # share of a loss
_SURELY_ABOVE = 3.0  # spreads
_ERRORS = 3.0  # standard errors; about the 1 % quantile of Student's t with 7 degrees of freedom

_Accuracy = Literal["above chance", "at chance", "unclear", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The numbers behind the regime of a running training.

    Attributes:
        chance_loss: Loss of the best constant prediction. Where it is positive, zero is the floor of the loss until a
            loss is below zero. None: the median of the first eight losses is the reference, and neither the zero nor
            the unit of the loss matters, except that a loss that was never negative is near its floor below a
            hundredth of that median.
        chance_accuracy: Accuracy of the best constant prediction; needed where accuracies are given.
        false_alarm: Highest probability that a loss that does not fall is ever called falling, over all looks
            between 256 steps and 256 million; divided evenly among the 62 looks.
        settled_level: Level of the test, at each look, that a settled loss does not fall by 15 % of its height or
            more.
        above: A loss is above chance where every block mean exceeds a positive chance loss by this factor.
        loss_is_progress: Whether a lower loss is a better model. If not, no regime is named except for losses that
            are not finite.
        scheduled: Whether the learning rate follows a schedule: the regime then is that of the training under its
            schedule.
        thresholds: The same numbers as for a finished study: the least fall that matters, the p value below which a
            loss is not called settled, the losses and accuracies that count as fitted, the margin above chance.
    """

    chance_loss: float | None = None
    chance_accuracy: float | None = None
    false_alarm: float = 0.05
    settled_level: float = 0.05
    above: float = 1.1
    loss_is_progress: bool = True
    scheduled: bool = False
    thresholds: Thresholds = DEFAULTS

    def __post_init__(self) -> None:
        if self.chance_loss is not None and not is_finite(self.chance_loss):
            raise SpecError(f"chance_loss is {self.chance_loss}; it must be a finite number")
        if self.chance_accuracy is not None and not 0 <= self.chance_accuracy < 1:
            raise SpecError(f"chance_accuracy is {self.chance_accuracy}; it must lie between 0 and 1")
        for name in ("false_alarm", "settled_level"):
            value: float = getattr(self, name)
            if not 0 < value < 1:
                raise SpecError(f"{name} is {value}; it must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Start:
    """The first losses of a training, robust to a few that are far off.

    The first loss is of the model before training, but of one mini-batch only; a learning rate that is far too high
    makes the next ones worse. The level at the start lies between this loss and the median.

    Attributes:
        median: Their median.
        low: The lower one of the first loss and the median.
        high: The higher one.
        spread: Their standard deviation, estimated from the median absolute deviation.
    """

    median: float
    low: float
    high: float
    spread: float

    @classmethod
    def of(cls, losses: list[float]) -> Self:
        """The start that these losses make; NaN without any."""
        if not losses:
            return cls(median=np.nan, low=np.nan, high=np.nan, spread=np.nan)
        median = float(np.median(losses))
        spread = 1.4826 * float(np.median(np.abs(np.array(losses) - median)))
        return cls(median=median, low=min(losses[0], median), high=max(losses[0], median), spread=spread)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Levels of the loss that a look compares with.

    Attributes:
        above: Losses beyond it are above the reference: the chance loss, or the loss at the start.
        blown: A loss that was ever beyond it has been moved by the training, not for the better.
        left: A stationary loss must be below it to have left the reference.
        below: Losses under it are well below the reference.
        near_zero: Losses under it are near a floor of zero; minus infinity where zero is not known to be the floor.
        drift: A fall up to it is none: wider where the height of the loss is only estimated.
    """

    above: float
    blown: float
    left: float
    below: float
    near_zero: float
    drift: float

    @classmethod
    def of(cls, found: Trend, *, start: Start, lowest: float, rules: Rules) -> Self:
        """The scale for one look, where ``lowest`` is the lowest loss ever."""
        chance = rules.chance_loss
        low, high = (start.low, start.high) if chance is None else (chance, chance)
        near_zero = rules.thresholds.small_loss * low if lowest >= 0 else -np.inf
        if floor_is_zero(lowest, rules):
            above, below = rules.above * high, low / rules.above
            drift = rules.thresholds.fall * found.height
            return cls(above=above, blown=above, left=low, below=below, near_zero=near_zero, drift=drift)
        # A loss that never changes has no spread, and means of it are rounded.
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
    """The learning rate within the stretch that a look judges.

    Attributes:
        low: The lowest.
        high: The highest.
        fell: Whether it became lower, so that the loss may have fallen because of that.
        pace: How far the training gets within the stretch, relative to a constant learning rate; at most 1. Its
            measure is the fall of a descent like the inverse square root of the sum of the learning rates.
    """

    low: float
    high: float
    fell: bool
    pace: float

    @property
    def moves(self) -> bool:
        """Whether it changes by more than a factor 1.25."""
        return self.high > SAME_LR * self.low

    @classmethod
    def of(cls, lrs: Floats, *, judged: int) -> Self | None:
        """Those of the last ``judged`` cells, where ``lrs`` are those of the whole phase; None where not known."""
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
    """Whether zero is the floor of the loss: a positive chance loss says so, until a loss is below zero."""
    return rules.chance_loss is not None and rules.chance_loss > 0 and lowest >= 0


def course(found: Trend, scale: Scale, *, previous: Course, rules: Rules) -> Course:
    """What the loss does: the outcome of one look's tests.

    A stationary loss counts as stationary until something speaks against it; the others need evidence at every look.
    """
    limits, level = rules.thresholds, rules.false_alarm / LOOKS
    # Near the reference any fall matters: learning has begun
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
    """The regime that one look's evidence speaks for.

    At chance level a training may have diverged, or hardly have begun because its learning rate is too low. It has
    diverged if the loss is above that level, or once was; it has begun if the loss falls, by however little.

    Where the learning rate moves without being declared as a schedule, the loss cannot say which regime any one
    learning rate is in: it may fall because the learning rate does, or rest because the learning rate is tiny.

    Args:
        found: The tests of the loss.
        does: What they say of the loss.
        accuracies: Block means of the accuracy, shape (blocks,); NaN where it is not known.
        scale: The levels to compare with.
        lrs: The learning rate meanwhile; None where it is not known, which counts as constant.
        blown: Whether the loss of this phase, over a few steps, was ever above the reference.
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
    """Where the loss stands compared with the reference."""
    if found.lowest > scale.above:
        return "above"
    return "below" if found.level < scale.below else "at"


def _accuracy(accuracies: Floats, *, rules: Rules) -> _Accuracy:
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
