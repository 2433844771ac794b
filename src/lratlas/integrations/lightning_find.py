"""`find` for a LightningModule and its data."""

import logging
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule, LightningModule

from lratlas.errors import LRAtlasError, SpecError, TaskError, first_line
from lratlas.integrations.lightning_data import Loaders
from lratlas.integrations.lightning_segment import OWN_OPTIONS, LightningTraining, train_segment
from lratlas.numbers import first_not_finite
from lratlas.search.advice import Advice
from lratlas.search.finder import Finder
from lratlas.search.segments import Segment
from lratlas.streams import seeded

_CHECKPOINTS = "checkpoints"
_TAKEN = {*OWN_OPTIONS, "max_steps", "min_steps", "min_epochs", "max_time", "default_root_dir", "fast_dev_run"}


def find(
    make_module: Callable[[], LightningModule],
    *,
    folder: str | Path,
    steps: int,
    train_dataloaders: Loaders = None,
    val_dataloaders: Loaders = None,
    datamodule: LightningDataModule | None = None,
    monitor: str = "val_loss",
    direction: Literal["minimize", "maximize"] = "minimize",
    lrs: Iterable[float] | None = None,
    budget: float = 1.5,
    tolerance: float = 0.01,
    warmup: int = 0,
    trainer_options: Mapping[str, Any] | None = None,
) -> Advice:
    """Search for the initial LR of a LightningModule.

    Every segment of the search is a ``Trainer.fit`` from the checkpoint of the one before, on one device. All parameter
    groups of all optimizers are scaled by one factor; the LR that is searched is that of the first group of the first
    optimizer. Modules are made anew; loaders, data module, callbacks and the global random generators are afterwards
    what they were.

    Args:
        make_module: Makes a new module each time; its initial weights follow from PyTorch's generator.
        folder: Where the search is kept. The same call with the same folder goes on with it.
        steps: Optimizer steps of a full training, as ``max_steps`` of a ``Trainer``.
        train_dataloaders: What ``Trainer.fit`` takes; None where there is a data module or the module has them.
        val_dataloaders: The same for validation.
        datamodule: Instead of loaders.
        monitor: Name of a metric that validation logs.
        direction: Whether a lower or a higher one is better.
        lrs: The LRs to begin with; None: 1e-5 to 1.
        budget: What may be trained, in full trainings.
        tolerance: Metrics that differ by less than this share of the best one count as equally good.
        warmup: Optimizer steps over which the LR rises linearly to that of the trial. The module's own LR schedulers
            are not used.
        trainer_options: Further arguments of ``Trainer``, such as ``accelerator``, ``precision``,
            ``accumulate_grad_batches``, ``gradient_clip_val`` or ``callbacks``.

    Raises:
        SpecError: If an argument is out of range, or validation logs no such metric.
        TaskError: If the module cannot be searched for.
        SearchError: If the folder holds another search, or no LR could be trained.
    """
    finder = Finder(
        folder, steps=steps, lrs=lrs, budget=budget, direction=direction, tolerance=tolerance, resumable=True
    )
    training = LightningTraining(
        make_module=make_module,
        train=train_dataloaders,
        val=val_dataloaders,
        datamodule=datamodule,
        monitor=monitor,
        options=dict(trainer_options or {}),
        warmup=warmup,
        folder=finder.folder / _CHECKPOINTS,
    )
    with _quiet():
        _check(training)
        training.folder.mkdir(exist_ok=True)
        while part := finder.ask():
            _train(finder, training, part)
            _clean_up(finder, training)
    return finder.advice()


def _check(training: LightningTraining) -> None:
    """Find what cannot be trained at any LR before anything is trained."""
    if taken := sorted(_TAKEN & training.options.keys()):
        raise SpecError(f"trainer_options sets {', '.join(taken)}; find sets it itself")
    if training.options.get("devices", 1) not in {1, "1"}:
        raise SpecError(f"trainer_options has devices = {training.options['devices']}; a search trains on one")
    if training.warmup < 0:
        raise SpecError(f"warmup is {training.warmup}; it must be a number of steps")
    with seeded(0):
        one, other = training.make_module(), training.make_module()
    if not isinstance(one, LightningModule):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may not be typed
        raise TaskError(f"make_module returned a {type(one).__name__}; it must return a LightningModule")
    if one is other:
        raise TaskError("make_module returned the same module twice; it must make a new one each time")
    try:
        training.trainer()
    except Exception as error:
        raise SpecError(f"Trainer does not take trainer_options: {first_line(error)}") from error


def _train(finder: Finder, training: LightningTraining, part: Segment) -> None:
    """Train a segment and tell what came of it; whatever the training raises is told as well."""
    try:
        found = train_segment(training, part)
    except LRAtlasError:
        raise
    except Exception as error:  # anything may go wrong at some LR
        finder.fail(part, f"{type(error).__name__}: {first_line(error)}")
        return
    if found.value is None and first_not_finite(found.losses) is None:
        finder.fail(part, f"the training ended after {found.steps} of {part.stop} steps")
        return
    finder.tell(part, value=found.value, averaged=found.averaged, losses=found.losses)


def _clean_up(finder: Finder, training: LightningTraining) -> None:
    """Delete the states that nobody will train on."""
    needed = finder.needed()
    for result in finder.results:
        if result.segment.name not in needed:
            training.checkpoint(result.segment.name).unlink(missing_ok=True)


@contextmanager
def _quiet() -> Generator[None]:
    """Lightning reports its hardware and repeats its advice for each of the many trainers."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
