"""Follow a running training through its optimizer and its losses."""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from lratlas.errors import LRAtlasError, SpecError
from lratlas.numbers import is_finite
from lratlas.paths import home_expanded
from lratlas.watching.learning_rates import LearningRates, Schedule
from lratlas.watching.losses import GatheredLosses
from lratlas.watching.rules import Regime, Rules
from lratlas.watching.running_average import RunningAverage
from lratlas.watching.tracker import Look, RegimeTracker
from lratlas.watching.wording import not_stepped, report, suggestion

GATHERED = 32  # losses between two fetches from the device
NORM_EVERY = 32  # steps between two gradient norms
AVERAGE_EVERY = 32  # steps between two weights that are averaged

_STATE = ("tracker", "steps", "losses", "rates", "log", "average")


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """What an evaluation says of the weights and of their running average.

    Attributes:
        current: Of the weights as they are.
        averaged: Of the average.
    """

    current: float
    averaged: float

    @property
    def difference(self) -> float:
        """Averaged minus current."""
        return self.averaged - self.current


class Watch:
    """Follows a training through its optimizer and its losses; made by `watch`.

    Call it with the loss of every mini-batch. It counts the optimizer's own steps: with gradient accumulation the
    losses of one step are averaged, and steps that mixed precision skips do not count. It reads weights and gradients
    and never writes them (but inside `averaged`), leaves the optimizer's state, modes and random generators alone, and
    `close` removes it. A copy or a pickle of the optimizer is not watched, since PyTorch leaves hooks out of them; the
    same optimizer with a state loaded into it still is.

    Attributes:
        log: What each look found, oldest first.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        rules: Rules,
        schedule: Schedule,
        model: nn.Module | None,
        average: bool,
        on_change: Callable[[Look], object] | None,
    ) -> None:
        self.log: list[Look] = []
        self._optimizer, self._model, self._on_change = optimizer, model, on_change
        self._tracker = RegimeTracker(rules=rules)
        self._gathered, self._steps, self._losses = GatheredLosses(), 0, 0
        self._norms: Tensor | None = None  # their sum since the last look, where the gradients are
        self._norm_count, self._norm = 0, float("nan")
        self._rates, self._phase = LearningRates(optimizer, schedule), 0
        self._average = RunningAverage(self._parameters()) if average else None
        self._hook = optimizer.register_step_post_hook(self._after_step)

    def __call__(self, loss: float | Tensor, *, accuracy: float | Tensor | None = None) -> None:
        """Add the loss of a mini-batch, before or after the optimizer's step.

        Tensors on an accelerator are fetched in blocks, so that no step waits for one.

        Args:
            loss: Mean loss of the mini-batch, a number or a tensor with one element.
            accuracy: Its accuracy in [0, 1]; separates an equilibrium above the chance loss from divergence.

        Raises:
            SpecError: If a tensor has more than one element, or there is an accuracy but no ``chance_accuracy``.
        """
        if accuracy is not None and self._tracker.rules.chance_accuracy is None:
            raise SpecError("watch was given an accuracy; make it with watch(optimizer, chance_accuracy=...) then")
        if self._rates.follow(self._steps) and self._average is not None:
            self._average.restart(self._parameters())
        self._gathered.add(loss, accuracy, step=self._steps, lr=self._rates.mean, phase=self._rates.phase)
        self._losses += 1
        if len(self._gathered) >= GATHERED:
            self._judge()

    @property
    def regime(self) -> Regime:
        """``converging``, ``equilibrium``, ``diverging`` or ``undecided``, as of the last look; costs nothing."""
        return self._tracker.regime

    @property
    def steps(self) -> int:
        """Steps that the optimizer has taken."""
        return self._steps

    def report(self) -> str:
        """A sentence or two: the regime, its numbers, and what they suggest, or why nothing is decided."""
        if self._losses and not self._steps:
            return not_stepped(self._losses)
        self._judge()
        return report(self._tracker, self.log[-1] if self.log else None)

    def suggestion(self) -> str:
        """What the last look suggests about the learning rate, with its evidence; empty while nothing is decided."""
        return suggestion(self._tracker, self.log[-1] if self.log else None)

    def close(self) -> None:
        """Stop watching: judge what is left and remove the hook; may be called twice."""
        if self._hook is None:
            return
        self._hook.remove()
        self._hook = None
        self._judge(to_the_end=self._steps > 0)
        if self._tracker.phase_step:
            self._record(self._tracker.look())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write_log(self, path: str | Path) -> None:
        """Write the log as JSON lines, one look each."""
        lines = [json.dumps(asdict(look), allow_nan=False) for look in self.log]
        home_expanded(path).write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    @contextmanager
    def averaged(self) -> Generator[None]:
        """The model holds the running average of its weights meanwhile; afterwards, bit for bit, its own again.

        Batch norms' running statistics belong to the weights: recompute them inside
        (``torch.optim.swa_utils.update_bn``). Those of the ``model`` given to `watch` come back afterwards too.

        Raises:
            LRAtlasError: If averages are not kept, there are none yet, or the optimizer takes a step inside.
        """
        if self._average is None:
            raise LRAtlasError("this watch keeps no weight average; make it with watch(optimizer, average=True)")
        buffers = [] if self._model is None else [(value, value.clone()) for value in self._model.buffers()]
        guard = self._optimizer.register_step_pre_hook(_no_step)
        try:
            with self._average.swapped_in():
                yield
        finally:
            guard.remove()
            for value, kept in buffers:
                value.copy_(kept)

    def ahead(self, evaluate: Callable[[], float]) -> Ahead:
        """How far the averaged weights are ahead: ``evaluate`` on the present weights, then on their average.

        Args:
            evaluate: Returns what counts, such as the validation accuracy, of the model as it is.

        Raises:
            LRAtlasError: As `averaged`.
        """
        current = float(evaluate())
        with self.averaged():
            return Ahead(current=current, averaged=float(evaluate()))

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to resume in another process: plain values, and tensors where averages are kept."""
        self._judge()
        return {
            "tracker": self._tracker.state_dict(),
            "steps": self._steps,
            "losses": self._losses,
            "rates": self._rates.state_dict(),
            "log": [asdict(look) for look in self.log],
            "average": None if self._average is None else self._average.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from what `state_dict` gave.

        Raises:
            SpecError: If it is of something else, of an earlier version of LR Atlas, or of other weights.
        """
        if set(state) != set(_STATE):
            raise SpecError(
                f"the state has the entries {sorted(state)}; it must be one of Watch.state_dict(), with "
                f"{sorted(_STATE)}. States of earlier versions of LR Atlas cannot be resumed"
            )
        self._tracker.load_state_dict(state["tracker"])
        self._rates.load_state_dict(state["rates"])
        self.log = [Look(**entry) for entry in state["log"]]
        self._steps, self._losses, self._gathered = state["steps"], state["losses"], GatheredLosses()
        self._phase = self._rates.phase
        if self._average is not None and state["average"] is not None:
            self._average.load_state_dict(state["average"])

    def _after_step(self, *_: object) -> None:
        self._steps += 1
        if self._steps % NORM_EVERY == 0:
            self._measure_gradients()
        if self._average is not None and self._steps % AVERAGE_EVERY == 0:
            self._average.add()

    def _measure_gradients(self) -> None:
        gradients = [value.grad for value in self._parameters() if value.grad is not None]
        # Fused optimizers get scaled gradients from a GradScaler, with the scale
        scale = getattr(self._optimizer, "grad_scale", None)
        if gradients and not any(gradient.is_sparse for gradient in gradients):
            norm = nn.utils.get_total_norm(gradients).detach()
            norm = norm if scale is None else norm / scale
            self._norms = norm if self._norms is None else self._norms + norm
            self._norm_count += 1

    def _judge(self, *, to_the_end: bool = False) -> None:
        """Hand what was gathered to the tracker, phase by phase."""
        for means in self._gathered.drain(to_the_end=to_the_end):
            self._begin_phase(means.phase)
            look = self._tracker.add(steps=means.steps, loss=means.loss, accuracy=means.accuracy, lr=means.lr)
            if look is not None:
                self._record(look)
        self._begin_phase(self._rates.phase)
        self._rates.fetch()

    def _begin_phase(self, phase: int) -> None:
        """Start the tests again if the learning rate has jumped."""
        if phase == self._phase:
            return
        self._phase, before = phase, self._tracker.regime
        self._tracker.restart()
        if before != "undecided":
            self._record(Look(step=self._tracker.step, phase_step=0, regime="undecided", lr=self._rates.mean))

    def _record(self, look: Look) -> None:
        """Add a look to the log, with what only the optimizer knows, and say so where the regime is another."""
        if self._norms is not None:
            self._norm = float(self._norms) / self._norm_count
            self._norms, self._norm_count = None, 0
        norm = self._norm if is_finite(self._norm) else None
        before = self.log[-1].regime if self.log else "undecided"
        self.log.append(replace(look, gradient_norm=norm))
        if look.regime != before and self._on_change is not None:
            self._on_change(self.log[-1])

    def _parameters(self) -> list[Tensor]:
        return [value for group in self._optimizer.param_groups for value in group["params"]]


def _no_step(*_: object) -> None:
    raise LRAtlasError("the optimizer was to take a step inside averaged(); it may only take them outside")
