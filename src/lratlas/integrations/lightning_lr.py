"""Learning rates of a LightningModule's optimizers, set from outside."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lratlas.errors import TaskError


class SegmentRates(Callback):
    """Sets the LR of every parameter group before each optimizer step, all scaled by one factor.

    The ratios are those that ``configure_optimizers`` gives. The first group of the first optimizer has the LR that is
    asked for.

    Args:
        lr_at: The LR of that group in a step, the steps being Lightning's ``global_step``.
    """

    def __init__(self, *, lr_at: Callable[[int], float]) -> None:
        self._lr_at = lr_at
        self._ratios: list[list[float]] = []

    def take_over(self, module: LightningModule) -> None:
        """Learn the ratios as soon as the optimizers are made, and leave out the module's LR schedulers.

        Under manual optimization the schedulers stay, since the module steps them itself; they have no effect.
        """
        configure = module.configure_optimizers

        def configure_optimizers() -> Any:
            configured = configure()
            optimizers = _optimizers(configured)
            if not optimizers:
                raise TaskError("configure_optimizers returned no optimizer; there is no learning rate to find")
            # A scheduler has already changed the LRs, but kept the first ones
            rates = [[group.get("initial_lr", group["lr"]) for group in one.param_groups] for one in optimizers]
            first = float(rates[0][0])
            if first <= 0:
                raise TaskError("the first parameter group has no positive LR; the others are scaled by its factor")
            self._ratios = [[float(rate) / first for rate in of_one] for of_one in rates]
            return optimizers if module.automatic_optimization else configured

        vars(module)["configure_optimizers"] = configure_optimizers

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the LRs before each step from now on."""
        for optimizer, ratios in zip(trainer.optimizers, self._ratios, strict=True):
            optimizer.register_step_pre_hook(self._setter(trainer, ratios))

    def _setter(self, trainer: Trainer, ratios: list[float]) -> Callable[[Optimizer, Any, Any], None]:
        def set_rates(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
            lr = self._lr_at(trainer.global_step)
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(lr * ratio)
                else:
                    group["lr"] = lr * ratio

        return set_rates


def _optimizers(configured: Any) -> list[Optimizer]:
    """The optimizers among what ``configure_optimizers`` may return."""
    if configured is None:
        return []
    if isinstance(configured, Optimizer):
        return [configured]
    if isinstance(configured, dict):
        return _optimizers(configured["optimizer"])
    first = configured[0] if configured else None
    if isinstance(first, (list, tuple)):  # optimizers, then schedulers
        return _optimizers(first)
    return [optimizer for each in configured for optimizer in _optimizers(each)]
