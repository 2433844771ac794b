"""LR Atlas for Lightning: `watch` as a callback, and `find` for a LightningModule."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from lratlas.errors import SpecError, extra
from lratlas.integrations.tracking import numbers_of
from lratlas.monitor.follow import Watch
from lratlas.monitor.learning_rates import Schedule
from lratlas.monitor.losses import one_number
from lratlas.monitor.tracker import Look
from lratlas.monitor.watch import watch

with extra("lightning"):
    from lightning.pytorch import Callback, LightningModule, Trainer

    from lratlas.integrations.lightning_find import find

__all__ = ["WatchCallback", "find"]

Tensor = torch.Tensor


class WatchCallback(Callback):
    """Watches every optimizer of a LightningModule; training is unchanged, bit for bit.

    Each look is sent to the trainer's loggers: ``watch/regime`` (0 undecided, 1 converging, 2 equilibrium, 3
    diverging), ``watch/loss`` and the other numbers of the look; ``watch/1/regime`` for the second of several
    optimizers. The step is that of the optimizer.

    Losses are read from the return value of ``training_step``. Lightning divides its ``"loss"`` by the number of
    accumulated batches before any callback sees it; the callback reverses this.

    Example:
        >>> callback = WatchCallback()  # doctest: +SKIP
        >>> Trainer(callbacks=[callback]).fit(module)  # doctest: +SKIP
        >>> print(callback.report())  # doctest: +SKIP

    Args:
        losses: Name of the loss in the dictionary that ``training_step`` returns (``"loss"`` if it returns a tensor);
            with several optimizers, one name for all of them or one for each.
        accuracy: Name of the accuracy there; needs ``chance_accuracy``.
        average: Whether to maintain a running average of the weights; checkpoints include it.
        schedule: As in `lratlas.watch`, also ``loss_is_progress``, ``chance_loss``, ``chance_accuracy`` and
            ``false_alarm``.
        loss_is_progress: Whether a lower loss is a better model; False for games of two players and reinforcement
            learning.
        chance_loss: Loss of the best constant prediction.
        chance_accuracy: Accuracy of the best constant prediction.
        false_alarm: Highest probability that a loss that does not fall is ever called converging.
        on_change: Called with the look at which a regime changed.

    Attributes:
        watches: One watch per optimizer, in Lightning's order; empty before training begins.
    """

    def __init__(
        self,
        *,
        losses: str | Sequence[str] = "loss",
        accuracy: str | None = None,
        average: bool = False,
        schedule: Schedule = False,
        loss_is_progress: bool = True,
        chance_loss: float | None = None,
        chance_accuracy: float | None = None,
        false_alarm: float = 0.05,
        on_change: Callable[[Look], object] | None = None,
    ) -> None:
        self.watches: list[Watch] = []
        self._losses, self._accuracy, self._average, self._on_change = losses, accuracy, average, on_change
        self._rules: dict[str, Any] = {
            "schedule": schedule,
            "loss_is_progress": loss_is_progress,
            "chance_loss": chance_loss,
            "chance_accuracy": chance_accuracy,
            "false_alarm": false_alarm,
        }
        self._names: list[str] = []
        self._logged: list[int] = []
        self._loaded: list[dict[str, Any]] | None = None

    def report(self) -> str:
        """`Watch.report` of each optimizer, one line each."""
        lines = [seen.report() for seen in self.watches]
        return lines[0] if len(lines) == 1 else "\n".join(f"optimizer {at}: {line}" for at, line in enumerate(lines))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch the trainer's optimizers; continues from a checkpoint.

        Raises:
            SpecError: If the numbers of ``losses`` and optimizers differ, or the checkpoint had other optimizers.
        """
        self._close()
        optimizers = trainer.optimizers
        self._names = [self._losses] * len(optimizers) if isinstance(self._losses, str) else list(self._losses)
        if len(self._names) != len(optimizers):
            raise SpecError(f"WatchCallback has {len(self._names)} losses, but there are {len(optimizers)} optimizers")
        self.watches = [
            watch(one, model=pl_module, average=self._average, on_change=self._on_change, **self._rules)
            for one in optimizers
        ]
        if self._loaded is not None:
            if len(self._loaded) != len(self.watches):
                raise SpecError(
                    f"the checkpoint has watches for {len(self._loaded)} optimizers, but there are {len(self.watches)}"
                )
            for seen, state in zip(self.watches, self._loaded, strict=True):
                seen.load_state_dict(state)
            self._loaded = None
        self._logged = [len(seen.log) for seen in self.watches]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        """Pass the losses of the mini-batch to the watches.

        Raises:
            SpecError: If ``training_step`` did not return a loss of that name.
        """
        if not outputs:  # a batch that automatic optimization skips
            if not pl_module.automatic_optimization:
                raise SpecError(_missing(self._names[0], {}))
            return
        found: Mapping[str, Any] = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
        accuracy = None if self._accuracy is None else _entry(found, self._accuracy)
        for seen, name in zip(self.watches, self._names, strict=True):
            divided = pl_module.automatic_optimization and name == "loss"
            loss = _entry(found, name) * (trainer.accumulate_grad_batches if divided else 1)
            seen(loss, accuracy=accuracy)
        self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the last look."""
        self._close()
        self._log(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop watching the optimizers if training fails."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """States of the watches, for Lightning's checkpoints."""
        return {"watches": [seen.state_dict() for seen in self.watches]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint when training begins."""
        self._loaded = list(state_dict["watches"])

    def _close(self) -> None:
        for seen in self.watches:
            seen.close()

    def _log(self, trainer: Trainer) -> None:
        """Send new looks to the trainer's loggers."""
        for at, seen in enumerate(self.watches):
            prefix = "watch" if len(self.watches) == 1 else f"watch/{at}"
            for look in seen.log[self._logged[at] :]:
                for logger in trainer.loggers:
                    logger.log_metrics(numbers_of(look, prefix=prefix), step=look.step)
            self._logged[at] = len(seen.log)


def _entry(outputs: Mapping[str, Any], name: str) -> float | Tensor:
    if name not in outputs:
        raise SpecError(_missing(name, outputs))
    return one_number(outputs[name], f"{name!r} of training_step")


def _missing(name: str, outputs: Mapping[str, Any]) -> str:
    returned = ", ".join(sorted(outputs)) or "nothing"
    return f"training_step returned no {name!r} but {returned}; it must return a dictionary with it for WatchCallback"
