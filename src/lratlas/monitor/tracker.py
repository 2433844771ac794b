"""Detect the regime of a running training: tests on its losses so far, at growing step counts."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import ceil, inf, nan
from typing import Any, cast

from lratlas.errors import SpecError
from lratlas.monitor.history import FEWEST_BLOCKS, NOTICED_FALL, Cell, History, block_means, trend
from lratlas.monitor.rules import (
    FIRST_LOOK,
    LOOK_GROWTH,
    SAME_LR,
    Course,
    LRs,
    Regime,
    Rules,
    Scale,
    Standing,
    Start,
    course,
    decide,
    floor_is_zero,
    standing,
)
from lratlas.text import is_finite

PEAK_STEPS = 8  # a single mini-batch may be far off
START_LOSSES = 8  # their median is the level at the start
_LARGEST = 1e150  # larger losses have no finite square


@dataclass(frozen=True, kw_only=True)
class Look:
    """The result of one look at the losses: the tests on all losses so far.

    Attributes:
        step: Steps so far, over all learning rates.
        phase_step: Steps since the learning rate last jumped.
        regime: ``converging`` (regime 1), ``equilibrium`` (2), ``diverging`` (3) or ``undecided``.
        course: The course of the loss: ``falling``, ``stationary``, ``rising`` or ``unclear``.
        standing: Whether the loss is ``below``, ``at`` or ``above`` the chance loss, or, without a chance loss, the
            loss at the start; None if there are too few losses.
        loss: Mean loss over the last quarter of the phase; None if it is not finite or there are too few losses.
        accuracy: Mean accuracy over the last quarter of the phase, from 0 to 1; None if it is not known.
        fall: Fall of the loss from the third to the last quarter of the phase, in units of the loss.
        falling_p: p value of the test for a falling loss.
        settled_p: p value of the test for a loss that falls by less than ``least_fall``.
        least_fall: The fall that this test rules out, in units of the loss: 15% of the height of the loss.
        blocks: Number of block means compared; 0 if there was nothing to test.
        lr: Learning rate at this step: the geometric mean over the parameter groups; None if it is not known.
        lr_low: The lowest learning rate in the stretch that was judged, the last half of the phase.
        lr_high: The highest learning rate in this stretch.
        gradient_norm: Mean gradient norm since the last look, or the last norm known; None if there is none.
    """

    step: int
    phase_step: int
    regime: Regime
    course: Course = "unclear"
    standing: Standing | None = None
    loss: float | None = None
    accuracy: float | None = None
    fall: float | None = None
    falling_p: float | None = None
    settled_p: float | None = None
    least_fall: float | None = None
    blocks: int = 0
    lr: float | None = None
    lr_low: float | None = None
    lr_high: float | None = None
    gradient_norm: float | None = None

    @property
    def lr_moves(self) -> bool:
        """Whether the learning rate changed by more than a factor 1.25 within the stretch that was judged."""
        return self.lr_low is not None and self.lr_high is not None and self.lr_high > SAME_LR * self.lr_low


@dataclass(kw_only=True)
class RegimeTracker:
    """Follows a training from its mean losses over successive steps.

    `restart` begins a new phase when the learning rate has jumped; a gradual change does not begin one. Looks are taken
    at 256 steps and then whenever a phase has grown by a quarter, so that their number grows with the logarithm of the
    steps. Each look tests the last half of the phase.

    Attributes:
        rules: The numbers that decide.
        step: Steps so far.
        phase_step: Steps of the current phase.
        regime: The regime at the last look.
        course: The course of the loss at the last look.
        since: Step at which the regime last changed.
        course_since: Step at which the course last changed.
        spent: Steps of the current phase in each regime.
        peak: Highest loss of the phase over eight steps or more, as of the last look.
        blown: Whether the peak is above the reference: the training has made the loss worse.
        lowest: Lowest loss so far.
        first_losses: The first eight losses.
    """

    rules: Rules = field(default_factory=Rules)
    step: int = 0
    phase_step: int = 0
    regime: Regime = "undecided"
    course: Course = "unclear"
    since: int = 0
    course_since: int = 0
    spent: dict[Regime, int] = field(default_factory=dict[Regime, int])
    peak: float = -inf
    blown: bool = False
    lowest: float = inf
    first_losses: list[float] = field(default_factory=list[float])
    _history: History = field(default_factory=History)
    _next_look: int = FIRST_LOOK
    _lr: float = nan
    _broken_steps: int = 0

    def add(self, *, steps: int, loss: float, accuracy: float | None = None, lr: float | None = None) -> Look | None:
        """Add the mean loss, accuracy and learning rate over some steps; return the look that is due, if any.

        A look is also taken when losses stop being finite, and when they are finite again.

        A loss that is not finite over two steps in a row is divergence at once. A single such step, which is normal in
        mixed precision, is left out. Accuracies count if the rules have a ``chance_accuracy``.
        """
        self.step += steps
        self.phase_step += steps
        self.spent[self.regime] = self.spent.get(self.regime, 0) + steps
        self._lr = nan if lr is None else lr
        if not abs(loss) <= _LARGEST:  # NaN too
            self._broken_steps += steps
            if self._broken_steps < 2:
                return None
            return self._name_regime("diverging", "unclear") if self.regime != "diverging" else None
        recovered = self._broken_steps >= 2
        if recovered:
            self.restart()  # the user has restored finite weights
        self._broken_steps = 0
        self.lowest = min(self.lowest, loss)
        if len(self.first_losses) < START_LOSSES:
            self.first_losses.append(loss)
        self._history.add(Cell(loss, nan if accuracy is None else accuracy, self._lr), steps=steps)
        if self.phase_step >= self._next_look:
            return self.look()
        return self._name_regime("undecided", "unclear") if recovered else None

    def restart(self) -> None:
        """Begin a new phase: the learning rate has jumped."""
        self.phase_step, self.spent, self.peak, self.blown = 0, {}, -inf, False
        self.regime, self.since, self.course, self.course_since = "undecided", self.step, "unclear", self.step
        self._history, self._next_look = History(), FIRST_LOOK

    def look(self) -> Look:
        """Judge the losses now. Looks that are not due add to the probability of a false alarm."""
        if self._broken_steps >= 2:
            return self._name_regime("diverging", "unclear")
        self._next_look = max(ceil(self.phase_step * LOOK_GROWTH), FIRST_LOOK)
        seen = self._history.last_half(FEWEST_BLOCKS)
        if len(seen.losses) < FEWEST_BLOCKS:
            return self._name_regime(self.regime, self.course)
        start, lrs = self.start, LRs.of(self._history.lrs, judged=len(seen.losses))
        floored, pace = floor_is_zero(self.lowest, self.rules), lrs.pace if lrs is not None and lrs.moves else 1.0
        found = trend(seen.losses, variances=seen.variances, start=None if floored else start.median, pace=pace)
        scale = Scale.of(found, start=start, lowest=self.lowest, rules=self.rules)
        accuracies = block_means(seen.accuracies, found.length)
        self.peak = max(self.peak, self._history.highest(PEAK_STEPS))
        self.blown = max(self.peak, found.level) > scale.blown
        does = course(found, scale, previous=self.course, rules=self.rules)
        regime = decide(found, does, accuracies, scale, lrs=lrs, blown=self.blown, rules=self.rules)
        accuracy = float(accuracies[-(len(accuracies) // 2) :].mean())
        return replace(
            self._name_regime(regime, does),
            standing=standing(found, scale),
            loss=found.level,
            accuracy=accuracy if is_finite(accuracy) else None,
            fall=found.fall,
            falling_p=found.falling_p,
            settled_p=found.settled_p,
            least_fall=NOTICED_FALL * found.height,
            blocks=found.blocks,
            lr_low=None if lrs is None else lrs.low,
            lr_high=None if lrs is None else lrs.high,
        )

    def state_dict(self) -> dict[str, Any]:
        """State to resume from, as numbers, strings, lists and dictionaries; without the rules."""
        state = asdict(self)
        del state["rules"]
        return state | {"_history": self._history.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`.

        Raises:
            SpecError: If it is not a state of a tracker of this version of LR Atlas.
        """
        if not isinstance(cast("object", state), Mapping) or set(state) != set(self.state_dict()):
            found = sorted(map(str, state)) if isinstance(cast("object", state), Mapping) else type(state).__name__
            raise SpecError(
                f"the tracker's state has the entries {found}; it must come from state_dict() of this version"
            )
        state = copy.deepcopy(dict(state))
        vars(self).update(state | {"_history": History.from_state(state["_history"])})

    @property
    def start(self) -> Start:
        """The level of the first losses."""
        return Start.of(self.first_losses)

    @property
    def finite(self) -> bool:
        """False while the last two losses or more are not finite."""
        return self._broken_steps < 2

    def _name_regime(self, regime: Regime, does: Course) -> Look:
        if regime != self.regime:
            self.regime, self.since = regime, self.step
        if does != self.course:
            self.course, self.course_since = does, self.step
        lr = self._lr if is_finite(self._lr) else None
        return Look(step=self.step, phase_step=self.phase_step, regime=regime, course=does, lr=lr)
