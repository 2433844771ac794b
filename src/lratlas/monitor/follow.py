"""Follow a running training: its losses, LRs and averages."""

import json
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lratlas.errors import LRAtlasError, SpecError, first_line
from lratlas.monitor.learning_rates import LearningRates, Schedule
from lratlas.monitor.losses import GatheredLosses, StepMeans, one_number
from lratlas.monitor.rules import Regime, Rules
from lratlas.monitor.tracker import Look, RegimeTracker
from lratlas.monitor.wording import describe_no_steps, report, suggestion
from lratlas.paths import expand_home
from lratlas.text import is_finite

GATHERED = 32  # losses between two fetches from the device
NORM_EVERY = 32  # steps between two gradient norms
AVERAGE_EVERY = 32  # steps between two weights that are averaged

_STATE = ("tracker", "steps", "losses", "gathered", "norms", "phase", "rates", "log", "average")


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """The results of an evaluation with the weights and with their running average.

    Attributes:
        current: The result with the weights as they are.
        averaged: The result with the average.
    """

    current: float
    averaged: float

    @property
    def difference(self) -> float:
        """Averaged minus current."""
        return self.averaged - self.current


class Watch:
    """Follows a training through its optimizer and its losses; `watch` creates it.

    Call it with the loss of every mini-batch. It counts the optimizer's steps: with gradient accumulation the
    losses of one step are averaged, and steps that mixed precision skips do not count. It reads weights and gradients
    and writes them only inside `averaged`, does not change the optimizer's state, modes or random generators, and
    `close` removes it. A copy or a pickle of the optimizer is not watched, since PyTorch leaves hooks out of them; the
    same optimizer with a state loaded into it still is.

    Attributes:
        log: The result of each look, oldest first.
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
        self._norms: Tensor | float | None = None  # their sum since the last look, on the device of the gradients
        self._norm_count, self._norm = 0, float("nan")
        self._rates, self._phase = LearningRates(optimizer, schedule), 0
        self._average = RunningAverage(self._parameters()) if average else None
        self._hook = optimizer.register_step_post_hook(self._after_step)

    def __call__(self, loss: float | Tensor, *, accuracy: float | Tensor | None = None) -> None:
        """Add the loss of a mini-batch, before or after the optimizer's step.

        Tensors on an accelerator are fetched in blocks, so that no step waits for one.

        Args:
            loss: Mean loss of the mini-batch, a number or a tensor with one element. NaN and infinities are allowed:
                they indicate divergence.
            accuracy: Accuracy on the mini-batch as a share from 0 to 1, not a percentage; NaN if it is not known. It
                separates an equilibrium above the chance loss from divergence.

        Raises:
            SpecError: If the loss is not one real number, the accuracy is not a share from 0 to 1, or there is an
                accuracy but no ``chance_accuracy``. An accuracy on an accelerator is checked when it is fetched.
        """
        if accuracy is not None and self._tracker.rules.chance_accuracy is None:
            raise SpecError(
                "watch received an accuracy, but has no chance_accuracy; create it with watch(optimizer,"
                " chance_accuracy=...)"
            )
        loss = one_number(loss, "loss")  # before the learning rates are followed: a refused loss changes nothing
        accuracy = None if accuracy is None else one_number(accuracy, "accuracy")
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
        """A few sentences: the regime, the evidence for it, and what it suggests or why nothing is decided."""
        if self._losses and not self._steps:
            return describe_no_steps(self._losses)
        self._judge()
        return report(self._tracker, self.log[-1] if self.log else None)

    def suggestion(self) -> str:
        """Suggestion of the last look for the learning rate, with the evidence; empty while nothing is decided."""
        return suggestion(self._tracker, self.log[-1] if self.log else None)

    def close(self) -> None:
        """Stop watching: judge the remaining losses and remove the hook. Further calls do nothing."""
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
        expand_home(path).write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    @contextmanager
    def averaged(self) -> Generator[None]:
        """Give the model the running average of its weights in the block; restore its weights afterwards, bit for bit.

        The running statistics of batch norms belong to the weights: recompute them inside
        (``torch.optim.swa_utils.update_bn``). Those of the ``model`` given to `watch` are restored too.

        Raises:
            LRAtlasError: If the watch has no average, there is none yet, or the optimizer takes a step inside.
        """
        if self._average is None:
            raise LRAtlasError("this watch has no weight average; create it with watch(optimizer, average=True)")
        buffers = [] if self._model is None else [(value, value.clone()) for value in self._model.buffers()]
        guard = self._optimizer.register_step_pre_hook(_no_step)
        try:
            with self._average.swap_in():
                yield
        finally:
            guard.remove()
            for value, saved in buffers:
                value.copy_(saved)

    def ahead(self, evaluate: Callable[[], float]) -> Ahead:
        """Compare averaged with current weights: call ``evaluate`` on the current weights, then on their average.

        Args:
            evaluate: Returns a metric of the model in its current state, such as the validation accuracy.

        Raises:
            LRAtlasError: As in `averaged`, or if the metric is not one number.
        """
        current = float(one_number(evaluate(), "metric"))
        with self.averaged():
            return Ahead(current=current, averaged=float(one_number(evaluate(), "metric")))

    def state_dict(self) -> dict[str, Any]:
        """State to resume from in another process: plain values, and tensors if weights are averaged.

        A watch that resumes from it gives the same answers as one that was never interrupted.
        """
        return {
            "tracker": self._tracker.state_dict(),
            "steps": self._steps,
            "losses": self._losses,
            "gathered": self._gathered.state_dict(),
            "norms": {
                "sum": None if self._norms is None else float(self._norms),
                "count": self._norm_count,
                "last": self._norm,
            },
            "phase": self._phase,
            "rates": self._rates.state_dict(),
            "log": [asdict(look) for look in self.log],
            "average": None if self._average is None else self._average.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`.

        Raises:
            SpecError: If the state is of another object, another version of LR Atlas, or other weights.
        """
        if not isinstance(cast("object", state), Mapping) or set(state) != set(_STATE):
            found = sorted(map(str, state)) if isinstance(cast("object", state), Mapping) else type(state).__name__
            raise SpecError(
                f"the state has the entries {found}; it must come from Watch.state_dict(), with {sorted(_STATE)}."
                " States of earlier versions of LR Atlas cannot be resumed"
            )
        try:
            gathered, log = GatheredLosses.from_state(state["gathered"]), [Look(**entry) for entry in state["log"]]
            norms, count, norm = (state["norms"][name] for name in ("sum", "count", "last"))
            tracker = RegimeTracker(rules=self._tracker.rules)
            tracker.load_state_dict(state["tracker"])
            if self._average is not None and state["average"] is not None:
                self._average.load_state_dict(state["average"])
            self._rates.load_state_dict(state["rates"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpecError(f"the state is damaged or of another version of LR Atlas: {first_line(error)}") from error
        self._tracker, self._gathered, self.log = tracker, gathered, log
        self._norms, self._norm_count, self._norm = norms, count, norm
        self._steps, self._losses, self._phase = state["steps"], state["losses"], state["phase"]

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
            norm = nn.utils.get_total_norm(gradients).detach().float()
            norm = norm if scale is None else norm / scale
            self._norms = norm if self._norms is None else self._norms + norm
            self._norm_count += 1

    def _judge(self, *, to_the_end: bool = False) -> None:
        """Pass the gathered losses to the tracker, phase by phase."""
        for means in self._gathered.drain(to_the_end=to_the_end):
            self._begin_phase(means)
            look = self._tracker.add(steps=means.steps, loss=means.loss, accuracy=means.accuracy, lr=means.lr)
            if look is not None:
                self._record(look)
        if (means := self._gathered.open_means) is not None:
            self._begin_phase(means)
        self._rates.fetch()

    def _begin_phase(self, means: StepMeans) -> None:
        """Start the tests again if the learning rate has jumped before these means."""
        if means.phase == self._phase:
            return
        self._phase, before = means.phase, self._tracker.regime
        self._tracker.restart()
        if before != "undecided":
            lr = means.lr if is_finite(means.lr) else None
            self._record(Look(step=self._tracker.step, phase_step=0, regime="undecided", lr=lr))

    def _record(self, look: Look) -> None:
        """Add a look to the log, with the gradient norm, and call ``on_change`` if the regime has changed."""
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
    raise LRAtlasError("the optimizer cannot step inside averaged(); call step() outside")


RECENCY = 3
"""The weight of the t-th weights grows like t to this power: their mean age is a fifth of the time averaged over."""


class RunningAverage:
    """The average of weights seen so far, the t-th with a weight that grows like t³.

    Polynomial-decay averaging (Shamir & Zhang, *Stochastic Gradient Descent for Non-smooth Optimization*, 2013):
    the early weights fade out without a window that would have to be stored or restarted. Weights narrower than 32
    bits are averaged in float32.

    Args:
        parameters: The weights to average.

    Attributes:
        count: Number of averaged weights.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = list(parameters)
        self._means: list[Tensor] = []
        self.count = 0

    @torch.no_grad()
    def add(self) -> None:
        """Add the current weights to the average; the first call copies them."""
        self.count += 1
        if self.count == 1:
            self._means = [
                value.detach().to(torch.promote_types(value.dtype, torch.float32), copy=True)
                for value in self._parameters
            ]
            return
        share = (RECENCY + 1) / (self.count + RECENCY)
        for mean, value in zip(self._means, self._parameters, strict=True):
            mean.lerp_(value.detach().to(mean.dtype), share)

    def restart(self, parameters: Iterable[Tensor]) -> None:
        """Discard the average and start a new one over these parameters."""
        self._parameters, self._means, self.count = list(parameters), [], 0

    @contextmanager
    def swap_in(self) -> Generator[None]:
        """Give the parameters the averages in the block; restore their storage afterwards. Nothing is copied.

        Raises:
            LRAtlasError: If nothing was averaged yet.
        """
        if not self.count:
            raise LRAtlasError(
                "there is no weight average yet; averaging begins after the first steps at a learning rate"
            )
        present = [value.data for value in self._parameters]
        for value, mean in zip(self._parameters, self._means, strict=True):
            value.data = mean.to(value.dtype)
        try:
            yield
        finally:
            for value, data in zip(self._parameters, present, strict=True):
                value.data = data

    def state_dict(self) -> dict[str, Any]:
        """The averages and their count."""
        return {"count": self.count, "means": [mean.clone() for mean in self._means]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`.

        Raises:
            SpecError: If the state is of other weights.
        """
        means, count = state["means"], state["count"]
        shapes = [tuple(value.shape) for value in self._parameters]
        if means and [tuple(mean.shape) for mean in means] != shapes:
            raise SpecError("the weight average in the state has other shapes than the optimizer's weights")
        self._means = [
            mean.to(value.device, copy=True) for mean, value in zip(means, self._parameters, strict=bool(means))
        ]
        self.count = count
