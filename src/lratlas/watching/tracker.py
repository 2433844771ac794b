"""Which regime a running training is in: tests on its losses so far, at growing step counts."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import ceil, inf, nan
from typing import Any

from lratlas.errors import SpecError
from lratlas.numbers import is_finite
from lratlas.watching.history import History
from lratlas.watching.rules import FIRST_LOOK, LOOK_GROWTH, Regime, Rules, decide
from lratlas.watching.stationarity import FEWEST_BLOCKS, block_means, trend

PEAK_STEPS = 8  # a single mini-batch may be far off


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look at the losses found.

    Attributes:
        step: Steps so far, all learning rates together.
        phase_step: Steps since the learning rate last changed.
        regime: ``converging`` (regime 1), ``equilibrium`` (2), ``diverging`` (3) or ``undecided``.
        loss: Mean over the last quarter of the phase; None where not finite or too short.
        accuracy: The same of the accuracy.
        fall: Relative fall of the loss from the third to the last quarter.
        falling_p: p value of the test for a falling loss.
        settled_p: p value of the test for a loss that falls by less than 15 %.
        blocks: How many block means were compared; 0 where there was nothing to test.
        lr: The first parameter group's learning rate; None where it is not known.
        gradient_norm: Mean over steps since the last look, or the last one known; None where there is none.
    """

    step: int
    phase_step: int
    regime: Regime
    loss: float | None = None
    accuracy: float | None = None
    fall: float | None = None
    falling_p: float | None = None
    settled_p: float | None = None
    blocks: int = 0
    lr: float | None = None
    gradient_norm: float | None = None


@dataclass(kw_only=True)
class RegimeTracker:
    """Follows a training whose losses come as means over some steps.

    The regime is about the present learning rate: `restart` begins a new phase. Looks are taken at 256 steps and
    then whenever a phase has grown by a quarter, so that their number grows with the logarithm of the steps. Each
    tests the last half of the phase.

    Attributes:
        rules: The numbers that decide.
        step: Steps so far.
        phase_step: Steps of the present phase.
        regime: What the last look said.
        since: The step from which on it has said so.
        spent: Steps of the present phase in each regime.
        peak: Highest loss of the phase over eight steps or more, as of the last look.
    """

    rules: Rules = field(default_factory=Rules)
    step: int = 0
    phase_step: int = 0
    regime: Regime = "undecided"
    since: int = 0
    spent: dict[Regime, int] = field(default_factory=dict[Regime, int])
    peak: float = -inf
    _history: History = field(default_factory=History)
    _next_look: int = FIRST_LOOK
    _first_loss: float | None = None
    _broken_steps: int = 0

    def add(self, *, steps: int, loss: float, accuracy: float | None = None) -> Look | None:
        """Add the mean loss, and accuracy, over some steps; the look that was due, if one was.

        A loss that is not finite over two steps in a row is divergence at once. One single such step, as mixed
        precision meets them, is left out. Accuracies count where the rules have a ``chance_accuracy``.
        """
        self.step += steps
        self.phase_step += steps
        self.spent[self.regime] = self.spent.get(self.regime, 0) + steps
        if not is_finite(loss):
            self._broken_steps += steps
            if self._broken_steps < 2:
                return None
            return self._named("diverging") if self.regime != "diverging" else None
        if self._broken_steps >= 2:
            self.restart()  # someone has put finite weights back
        self._broken_steps = 0
        if self._first_loss is None:
            self._first_loss = loss
        self._history.add(steps=steps, loss=loss, accuracy=nan if accuracy is None else accuracy)
        return self.look() if self.phase_step >= self._next_look else None

    def restart(self) -> None:
        """Begin a new phase: the learning rate has changed."""
        self.phase_step, self.regime, self.since, self.spent = 0, "undecided", self.step, {}
        self._history, self._next_look, self.peak = History(), FIRST_LOOK, -inf

    def look(self) -> Look:
        """Judge the losses now. Looks beyond those that are due add to the probability of a false alarm."""
        if self._broken_steps >= 2:
            return self._named("diverging")
        self._next_look = max(ceil(self.phase_step * LOOK_GROWTH), FIRST_LOOK)
        losses, accuracies = self._history.last_half(FEWEST_BLOCKS)
        if len(losses) < FEWEST_BLOCKS:
            return self._named(self.regime)
        found = trend(losses)
        seen = block_means(accuracies, found.length)
        self.peak = max(self.peak, self._history.highest(PEAK_STEPS))
        regime = decide(found, seen, reference=self.reference, peak=self.peak, previous=self.regime, rules=self.rules)
        accuracy = float(seen[-(len(seen) // 2) :].mean())
        return replace(
            self._named(regime),
            loss=found.level,
            accuracy=accuracy if is_finite(accuracy) else None,
            fall=found.fall,
            falling_p=found.falling_p,
            settled_p=found.settled_p,
            blocks=found.blocks,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, as numbers, strings, lists and dictionaries; without the rules."""
        state = asdict(self)
        del state["rules"]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            SpecError: If it is of something else.
        """
        if set(state) != set(self.state_dict()):
            raise SpecError(f"the tracker's state has the entries {sorted(state)}; it must be one of state_dict()")
        state = copy.deepcopy(dict(state))
        vars(self).update(state | {"_history": History(**state["_history"])})

    @property
    def reference(self) -> float:
        """Loss at chance level, or the first one; NaN before there is one."""
        reference = self.rules.chance_loss if self.rules.chance_loss is not None else self._first_loss
        return reference if reference is not None else nan

    def _named(self, regime: Regime) -> Look:
        if regime != self.regime:
            self.regime, self.since = regime, self.step
        return Look(step=self.step, phase_step=self.phase_step, regime=regime)
