"""The fits of a search for the LR of a LightningModule, and what is done with one that is suspended."""

import copy
import importlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset
from torchmetrics import Metric

from lratlas.errors import SpecError, TaskError, first_line
from lratlas.search.driven.untouched import preserve_attributes

_PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
_OFF = {
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "profiler": None,
}
_SILENT = ("Checkpoint", "EarlyStopping", "Timer", "LearningRateFinder", "BatchSizeFinder", "ProgressBar")
"""Callbacks that write, end a training, or change what is searched."""


@dataclass(kw_only=True)
class Fits:
    """What is trained: each fit has a new module and Trainer, and copies of all else but the data sets.

    Attributes:
        make: Makes a module for an LR.
        datamodule: The search's own data module; None for loaders.
        train: Training loaders; None where the data module or the module itself has them.
        val: The same for validation.
        options: Arguments of the Trainer.
        folder: For what modules and callbacks may write.
    """

    make: Callable[[float], Any]
    datamodule: Any
    train: Any
    val: Any
    options: Mapping[str, Any]
    folder: Path
    _ready: bool = False

    def __post_init__(self) -> None:
        if self.datamodule is not None:
            self.datamodule = _copy_data(self.datamodule, tree_leaves(vars(self.datamodule)))

    def keep(self, datamodule: Any) -> None:
        """Give all later fits this data module, as it is now: set up."""
        if datamodule is not None:
            self.datamodule, self._ready = copy.copy(datamodule), True
            self.datamodule.trainer = None

    def fit(self, lr: float, **hooks: Callable[..., None]) -> None:
        """Train a new module to its own end.

        Args:
            lr: For `make`.
            hooks: Called as those of a Lightning callback with these names.

        Raises:
            TaskError: It is no LightningModule, or needs more than one process.
            SpecError: The Trainer does not take the options.
        """
        module = self.make(lr)
        package = package_of(module)
        if package is None:
            raise TaskError(f"The function returned a {type(module).__name__}; it must return a LightningModule.")
        silent = tuple(getattr(package.callbacks, name) for name in _SILENT)

        def heard(callbacks: list[Any]) -> list[Any]:
            return [each for each in callbacks if not isinstance(each, silent)]

        def setup(trainer: Any, *_: Any, **__: Any) -> None:
            trainer.callbacks = heard(trainer.callbacks)  # without those that the module itself has brought

        options = copy.deepcopy({name: each for name, each in self.options.items() if name != "logger"})
        given: Any = options.pop("callbacks", None) or []
        callbacks = heard(given if isinstance(given, list) else [given])
        callbacks.append(package.callbacks.LambdaCallback(setup=setup, **hooks))
        own = {**_OFF, "callbacks": callbacks, "logger": _logger(package, self.folder)}
        try:
            trainer: Any = package.Trainer(**{"devices": 1, **options, **own, "default_root_dir": self.folder})
        except Exception as error:
            raise SpecError(f"The Trainer does not take the trainer_options: {first_line(error)}") from error
        if trainer.world_size > 1 or trainer.strategy.launcher is not None:
            raise TaskError("The trainer_options ask for several devices or processes; a search trains on one device.")
        loaders = {
            "train_dataloaders": _copy_data(self.train, _sets(self.train)),
            "val_dataloaders": _copy_data(self.val, _sets(self.val)),
        }
        trainer.fit(module, datamodule=self._data(), **loaders)

    def _data(self) -> Any:
        """A copy of the data module, which is not set up again: all fits have the same split of the data."""
        if self.datamodule is None or not self._ready:
            return self.datamodule
        data = _copy_data(self.datamodule, tree_leaves(vars(self.datamodule)))
        vars(data).update(prepare_data=_skip_setup, setup=_skip_setup)
        return data


def _skip_setup(stage: str | None = None) -> None:
    """In the place of what sets data up."""


def package_of(module: object) -> ModuleType | None:
    """The package whose LightningModule it is: that of ``lightning``, or ``pytorch_lightning``; None for others."""
    for kind in type(getattr(module, "_orig_mod", module)).__mro__:  # of a compiled one, what was compiled
        root = kind.__module__.partition(".")[0]
        if kind.__name__ == "LightningModule" and root in _PACKAGES:
            return importlib.import_module(_PACKAGES[root])
    return None


def validate_now(trainer: Any) -> dict[str, Any]:
    """The metrics that validation logs now, in the middle of a fit, which continues as if there had been none.

    Lightning's own loop validates, as it does for ``val_check_interval``.

    Args:
        trainer: The one that fits; its module's state must be kept by `undo_changes`.
    """
    loop, connector = trainer.fit_loop.epoch_loop.val_loop, trainer._logger_connector
    with preserve_attributes([trainer, loop, connector, *trainer.callbacks]):
        loop.batch_progress = copy.deepcopy(loop.batch_progress)
        before = dict(connector._callback_metrics)
        for each in trainer.lightning_module.modules():
            if isinstance(each, Metric):
                each.reset()  # one may serve training as well
        trainer.validating = True
        try:
            loop.run()
            return {name: each for name, each in trainer.callback_metrics.items() if each is not before.get(name)}
        finally:
            trainer.training = True


def schedules(trainer: Any) -> list[Any]:
    """Lightning's settings of the LR schedulers, but for ``ReduceLROnPlateau``, which follows a metric."""
    return [each for each in trainer.lr_scheduler_configs if not isinstance(each.scheduler, ReduceLROnPlateau)]


def shrink_schedules(trainer: Any, ratio: float) -> None:
    """Let the LR schedulers of a fit that begins run through faster, so that they end with a shorter training.

    Those that Lightning steps after each epoch change at shares of the steps instead, since a shorter training has
    fewer epochs.

    Args:
        trainer: The one that fits.
        ratio: Steps of the full training for each step of the shorter one.
    """
    each_step = trainer.accumulate_grad_batches
    epoch = (
        math.inf if math.isinf(trainer.num_training_batches) else math.ceil(trainer.num_training_batches / each_step)
    )
    for config in schedules(trainer):
        period = 1.0  # steps of the full training, or calls, after which the scheduler takes a step
        if trainer.lightning_module.automatic_optimization and (config.interval == "step" or math.isfinite(epoch)):
            period = config.frequency * epoch if config.interval == "epoch" else config.frequency / each_step
            config.interval, config.frequency = "step", 1
        config.scheduler.step = _faster(config.scheduler.step, ratio / max(1.0, period))


def _faster(step: Callable[..., None], rate: float) -> Callable[..., None]:
    """A function that calls another one so many times per call, also less than once."""
    calls = done = 0

    def call(*args: Any, **named: Any) -> None:
        nonlocal calls, done
        calls += 1
        while done < math.floor(calls * rate + 1e-9):
            step(*args, **named)
            done += 1

    return call


def _logger(package: ModuleType, folder: Path) -> Any:
    """A logger that accepts whatever a module logs, and writes nothing."""
    dummy = importlib.import_module(f"{package.__name__}.loggers.logger").DummyLogger
    return type("Silent", (dummy,), {"save_dir": str(folder), "log_dir": str(folder)})()


def _sets(loaders: Any) -> list[Any]:
    """The data sets of loaders."""
    flat = getattr(loaders, "flattened", None) or tree_leaves(loaders)
    return [each.dataset for each in flat if hasattr(each, "dataset")]


def _copy_data(given: Any, parts: Iterable[Any]) -> Any:
    """A copy of loaders or of a data module, with generators of its own, of the same data sets and tensors."""
    shared = [each for each in parts if isinstance(each, Dataset | Tensor)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of how Lightning combines loaders
        try:
            return copy.deepcopy(given, {id(each): each for each in shared})
        except Exception:  # such as a generator that has begun
            return copy.copy(given)
