"""`watch` as a callback of Hugging Face's Trainer, and `find` for one."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from lratlas.errors import LRAtlasError, extra
from lratlas.integrations.tracking import numbers_of
from lratlas.monitor.follow import Watch
from lratlas.monitor.learning_rates import Schedule
from lratlas.monitor.tracker import Look
from lratlas.monitor.watch import watch

with extra("transformers"):
    import accelerate  # noqa: F401  # pyright: ignore[reportUnusedImport] - a Trainer needs it, but only once it is made
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    from lratlas.integrations.transformers_find import find

__all__ = ["WatchCallback", "find"]

_STATE = "lratlas.watch"  # where the watch is kept in a checkpoint's trainer_state.json


class WatchCallback(TrainerCallback):
    """Watches the training of a Hugging Face Trainer, which stays what it is, bit for bit.

    Events of the Trainer carry no losses, and what it logs are means from which ``logging_nan_inf_filter`` has left out
    all that is not finite. So this callback takes each loss from the trainer's ``training_step``, the one that went
    into ``backward``, however it was computed (by the model, ``compute_loss_func``, label smoothing, a subclass). The
    Trainer scales those of the accumulated mini-batches so that their sum is the loss of the step.

    Each look is logged by the trainer, to wherever it reports: ``watch/regime`` (0 undecided, 1 converging,
    2 equilibrium, 3 diverging), ``watch/loss`` and what else it found.

    Example:
        >>> callback = WatchCallback(trainer)  # doctest: +SKIP
        >>> trainer.add_callback(callback)  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
        >>> print(callback.report())  # doctest: +SKIP

    Args:
        trainer: The trainer that the callback is added to.
        schedule: As for `lratlas.watch`, as are ``loss_is_progress``, ``chance_loss`` and ``false_alarm``. By default
            the Trainer itself has a linear schedule.
        loss_is_progress: Whether a lower loss is a better model; False for games of two players and reinforcement
            learning.
        chance_loss: Loss of the best constant prediction.
        false_alarm: Highest probability that a loss that does not fall is ever called converging.
        on_change: Called with the look at which the regime changed.

    Attributes:
        watch: None before the training begins.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        schedule: Schedule = False,
        loss_is_progress: bool = True,
        chance_loss: float | None = None,
        false_alarm: float = 0.05,
        on_change: Callable[[Look], object] | None = None,
    ) -> None:
        self.watch: Watch | None = None
        self._trainer, self._on_change = trainer, on_change
        self._rules: dict[str, Any] = {
            "schedule": schedule,
            "loss_is_progress": loss_is_progress,
            "chance_loss": chance_loss,
            "false_alarm": false_alarm,
        }
        self._losses: list[torch.Tensor] = []  # of the step's mini-batches so far
        self._logged = 0
        self._release: Callable[[], None] = _nothing

    def report(self) -> str:
        """What `Watch.report` says.

        Raises:
            LRAtlasError: If the training has not begun.
        """
        return self._current_watch().report()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to watch the optimizer, from where a checkpoint left off."""
        self._close()  # a training that broke off left no event
        self._losses = []
        self.watch = watch(kwargs["optimizer"], on_change=self._on_change, **self._rules)
        kept: Any = state.stateful_callbacks
        if _STATE in kept:
            self.watch.load_state_dict(kept[_STATE])
        self._logged = len(self.watch.log)
        self._release = _tap_losses(self._trainer, self._losses.append)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Hand the step's loss to the watch."""
        if self._losses:
            self._current_watch()(torch.stack(self._losses).sum())
            self._losses.clear()
        self._log(control)
        if control.should_save:
            self._keep(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the watch into the checkpoint that may follow."""
        if control.should_save:
            self._keep(state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the watch into the checkpoint that a better evaluation may be worth."""
        if self.watch is not None:
            self._keep(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the last look."""
        self._close()
        self._log(control)

    def _current_watch(self) -> Watch:
        if self.watch is None:
            raise LRAtlasError("WatchCallback has seen no training; add it with trainer.add_callback(callback)")
        return self.watch

    def _close(self) -> None:
        self._release()
        self._release = _nothing
        if self.watch is not None:
            self.watch.close()

    def _keep(self, state: TrainerState) -> None:
        kept: Any = state.stateful_callbacks
        kept[_STATE] = self._current_watch().state_dict()

    def _log(self, control: TrainerControl) -> None:
        """Have the trainer log the looks that are new."""
        log = self._current_watch().log
        due = control.should_log  # logging clears it, but the trainer's own log is still to come
        for look in log[self._logged :]:
            self._trainer.log(numbers_of(look))
        control.should_log = due
        self._logged = len(log)


def _tap_losses(trainer: Trainer, take: Callable[[torch.Tensor], object]) -> Callable[[], None]:
    """Let ``take`` see every loss that the trainer's ``training_step`` returns, until the result is called."""
    step = trainer.training_step
    own = vars(trainer).get("training_step")

    @wraps(step)
    def training_step(*args: Any, **kwargs: Any) -> torch.Tensor:
        loss = step(*args, **kwargs)
        take(loss.detach())
        return loss

    def release() -> None:
        del vars(trainer)["training_step"]
        if own is not None:
            vars(trainer)["training_step"] = own

    vars(trainer)["training_step"] = training_step
    return release


def _nothing() -> None:
    """Nothing to undo."""
