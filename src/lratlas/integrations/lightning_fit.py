"""The fits of a search for the LR of a LightningModule, and operations on a suspended fit."""

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
"""Callbacks that write, end a training, or change its LR or batch size."""


@dataclass(kw_only=True)
class Fits:
    """The trainings of a search: each fit has a new module and Trainer, and copies of everything except the data sets.

    Attributes:
        make: Makes a module for an LR.
        datamodule: The search's copy of the data module; None for loaders.
        train: Training loaders; None if the data module or the module itself has them.
        val: Validation loaders; None if the data module or the module itself has them.
        options: Arguments of the Trainer.
        folder: Folder for files of modules and callbacks.
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
        """Use this data module, which is set up, in all later fits."""
        if datamodule is not None:
            self.datamodule, self._ready = copy.copy(datamodule), True
            self.datamodule.trainer = None

    def fit(self, lr: float, **hooks: Callable[..., None]) -> None:
        """Train a new module until the fit ends by itself.

        Args:
            lr: Argument of `make`.
            hooks: Functions that are called as the hooks of a Lightning callback with these names.

        Raises:
            TaskError: The object is not a LightningModule, or needs more than one process.
            SpecError: The Trainer does not accept the options.
        """
        module = self.make(lr)
        package = package_of(module)
        if package is None:
            raise TaskError(f"The function returned a {type(module).__name__}; it must return a LightningModule.")
        silent = tuple(getattr(package.callbacks, name) for name in _SILENT)

        def heard(callbacks: list[Any]) -> list[Any]:
            return [each for each in callbacks if not isinstance(each, silent)]

        def setup(trainer: Any, *_: Any, **__: Any) -> None:
            trainer.callbacks = heard(trainer.callbacks)  # also callbacks that the module itself added

        options = copy.deepcopy({name: each for name, each in self.options.items() if name != "logger"})
        given: Any = options.pop("callbacks", None) or []
        callbacks = heard(given if isinstance(given, list) else [given])
        callbacks.append(package.callbacks.LambdaCallback(setup=setup, **hooks))
        own = {**_OFF, "callbacks": callbacks, "logger": _logger(package, self.folder)}
        try:
            trainer: Any = package.Trainer(**{"devices": 1, **options, **own, "default_root_dir": self.folder})
        except Exception as error:
            raise SpecError(f"The Trainer does not accept the trainer_options: {first_line(error)}") from error
        if trainer.world_size > 1 or trainer.strategy.launcher is not None:
            raise TaskError("The trainer_options ask for several devices or processes; a search trains on one device.")
        loaders = {
            "train_dataloaders": _copy_data(self.train, _sets(self.train)),
            "val_dataloaders": _copy_data(self.val, _sets(self.val)),
        }
        trainer.fit(module, datamodule=self._data(), **loaders)

    def _data(self) -> Any:
        """Copy the data module without setting it up again: all fits share one split of the data."""
        if self.datamodule is None or not self._ready:
            return self.datamodule
        data = _copy_data(self.datamodule, tree_leaves(vars(self.datamodule)))
        vars(data).update(prepare_data=_skip_setup, setup=_skip_setup)
        return data


def _skip_setup(stage: str | None = None) -> None:
    """Replaces ``setup`` and ``prepare_data`` of a data module that is set up."""


def package_of(module: object) -> ModuleType | None:
    """Package of an object's LightningModule, ``lightning`` or ``pytorch_lightning``; None for other objects."""
    for kind in type(getattr(module, "_orig_mod", module)).__mro__:  # for a compiled module, the original one
        root = kind.__module__.partition(".")[0]
        if kind.__name__ == "LightningModule" and root in _PACKAGES:
            return importlib.import_module(_PACKAGES[root])
    return None


def validate_now(trainer: Any) -> dict[str, Any]:
    """Run validation in the middle of a fit and return the logged metrics; the fit then continues unchanged.

    Lightning's loop runs the validation, as it does for ``val_check_interval``.

    Args:
        trainer: Trainer of the fit; `undo_changes` must preserve the state of its module.
    """
    loop, connector = trainer.fit_loop.epoch_loop.val_loop, trainer._logger_connector
    with preserve_attributes([trainer, loop, connector, *trainer.callbacks]):
        loop.batch_progress = copy.deepcopy(loop.batch_progress)
        before = dict(connector._callback_metrics)
        for each in trainer.lightning_module.modules():
            if isinstance(each, Metric):
                each.reset()  # training may use it as well
        trainer.validating = True
        try:
            loop.run()
            return {name: each for name, each in trainer.callback_metrics.items() if each is not before.get(name)}
        finally:
            trainer.training = True


def schedules(trainer: Any) -> list[Any]:
    """Lightning's settings of the LR schedulers, without ``ReduceLROnPlateau``, which follows a metric."""
    return [each for each in trainer.lr_scheduler_configs if not isinstance(each.scheduler, ReduceLROnPlateau)]


def shrink_schedules(trainer: Any, ratio: float) -> None:
    """Speed up the LR schedulers of a fit at its beginning, so that they end with a shorter training.

    Schedulers that Lightning steps after each epoch change at shares of the steps instead, because a shorter training
    has fewer epochs.

    Args:
        trainer: Trainer of the fit.
        ratio: Steps of the full training per step of the shorter one.
    """
    each_step = trainer.accumulate_grad_batches
    epoch = (
        math.inf if math.isinf(trainer.num_training_batches) else math.ceil(trainer.num_training_batches / each_step)
    )
    for config in schedules(trainer):
        period = 1.0  # steps of the full training, or calls, between two scheduler steps
        if trainer.lightning_module.automatic_optimization and (config.interval == "step" or math.isfinite(epoch)):
            period = config.frequency * epoch if config.interval == "epoch" else config.frequency / each_step
            config.interval, config.frequency = "step", 1
        config.scheduler.step = _faster(config.scheduler.step, ratio / max(1.0, period))


def _faster(step: Callable[..., None], rate: float) -> Callable[..., None]:
    """Wrap a function to run ``rate`` times per call on average, which may be less than one."""
    calls = done = 0

    def call(*args: Any, **named: Any) -> None:
        nonlocal calls, done
        calls += 1
        while done < math.floor(calls * rate + 1e-9):
            step(*args, **named)
            done += 1

    return call


def _logger(package: ModuleType, folder: Path) -> Any:
    """A logger that accepts everything a module logs, and writes nothing."""
    dummy = importlib.import_module(f"{package.__name__}.loggers.logger").DummyLogger
    return type("Silent", (dummy,), {"save_dir": str(folder), "log_dir": str(folder)})()


def _sets(loaders: Any) -> list[Any]:
    """Data sets of loaders."""
    flat = getattr(loaders, "flattened", None) or tree_leaves(loaders)
    return [each.dataset for each in flat if hasattr(each, "dataset")]


def _copy_data(given: Any, parts: Iterable[Any]) -> Any:
    """Copy loaders or a data module with separate generators, but share data sets and tensors."""
    shared = [each for each in parts if isinstance(each, Dataset | Tensor)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from PyTorch, on how Lightning combines loaders
        try:
            return copy.deepcopy(given, {id(each): each for each in shared})
        except Exception:  # such as a generator that has started
            return copy.copy(given)
