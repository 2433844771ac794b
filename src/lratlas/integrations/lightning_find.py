"""`find` for a LightningModule: each training is an ordinary fit, suspended at the end of a segment."""

import copy
import logging
import math
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from torch.utils._pytree import tree_leaves

from lratlas.errors import SpecError, TaskError, first_line
from lratlas.integrations.lightning_fit import Fits, package_of, schedules, shrink_schedules, validate_now
from lratlas.search.advice import Advice
from lratlas.search.driven.drive import Driven, drive
from lratlas.search.driven.find import bind_lr
from lratlas.search.driven.printed import Heard, known_direction
from lratlas.search.driven.scout import look, same_metric
from lratlas.search.driven.validation import Validation
from lratlas.search.finder import Finder
from lratlas.search.journal import SETTINGS, search_folder
from lratlas.search.segments import Segment

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule

_TRIED_AT = 1e-3  # LR of the trial run
_BATCHES = 32  # mini-batches from which the steps of a module with manual optimization are estimated
_LOGGERS = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")


def find(
    module: "LightningModule | Callable[..., LightningModule]",
    *,
    datamodule: "LightningDataModule | None" = None,
    train_dataloaders: Any = None,
    val_dataloaders: Any = None,
    monitor: str = "val_loss",
    steps: int | None = None,
    trainer_options: Mapping[str, Any] | None = None,
    direction: Literal["minimize", "maximize"] | None = None,
    folder: str | Path | None = None,
    lrs: Iterable[float] | None = None,
    budget: float = 1.5,
    tolerance: float = 0.01,
    chance: float | None = None,
    limit: float | None = None,
    samples: int | None = None,
    seed: int = 0,
    progress: Callable[[Finder], None] = lambda _: None,
) -> Advice:
    """Search for the initial LR of a LightningModule's unmodified training.

    Each training is one ``Trainer(**trainer_options).fit(module)``, suspended at the end of a segment. Its LR
    schedulers are active: if it has any except ``ReduceLROnPlateau``, each comparison is a whole training, with its
    schedule shrunk to its length. Only two kinds of features are disabled: those that write to disk or to a service
    (loggers, checkpoints, profilers), and those that end a training or change its LR (early stopping, timers, LR
    finders).

    Args:
        module: Makes a new module for an LR, such as ``lambda lr: Module(lr)``. Or makes one without an LR argument, or
            is a module, which is not modified: each training uses a copy. In these two cases, the LRs of all parameter
            groups of all optimizers are scaled by one factor, so that the first is that of the search.
        datamodule: As in ``Trainer.fit``. It is not modified; a copy is set up once for the whole search.
        train_dataloaders: As in ``Trainer.fit``; None if the data module or the module itself has them.
        val_dataloaders: As in ``Trainer.fit``; None if the data module or the module itself has them.
        monitor: Name of a metric that validation logs.
        steps: Length of a full training, as ``max_steps`` of a Trainer. None if ``trainer_options`` contain
            ``max_steps`` or ``max_epochs``.
        trainer_options: Arguments of the Trainer; the default is one device.
        direction: Whether a lower or a higher metric is better; None if its name shows it, such as a loss or an
            accuracy.
        folder: The search folder; a new temporary one if None. The same call with the same folder resumes the search.
        lrs: Initial grid of LRs; if None, 1e-5 to 1, four per decade.
        budget: Limit of the cost, in full trainings.
        tolerance: Metrics that differ by less than this share of the best one count as equally good.
        chance: Metric of a model that has learned nothing.
        limit: Best possible value of the metric.
        samples: Number of validation samples behind an accuracy; if None, that of the validation data.
        seed: Seed of the first repetition; further seeds follow it.
        progress: Called after each segment.

    Raises:
        TaskError: There is no LightningModule, optimizer or validation data, or several devices are required.
        SpecError: An argument is out of range, or validation does not log the metric.
        SearchError: The folder contains another search, or the trainings fail.
    """
    make, imposed = _module_factory(module)
    direction = known_direction(monitor, direction)
    root = search_folder(folder)
    same_metric(root, monitor)
    fits = Fits(
        make=make,
        datamodule=datamodule,
        train=train_dataloaders,
        val=val_dataloaders,
        options=_options(trainer_options or {}, steps),
        folder=root / "lightning",
    )
    own = threading.local()  # each training has a thread

    def start(segment: Segment, _: int) -> None:
        def begin(trainer: Any, _: Any) -> None:
            own.trainer = trainer
            if seen.shrinks:
                shrink_schedules(trainer, finder.search.steps / segment.stop)

        fits.fit(segment.lr, on_train_start=begin)

    with _quiet():
        seen = _inspect_training(fits, monitor, root)
        if seen.steps is None and not (root / SETTINGS).exists():
            seen.steps = _run(lambda segment, _: fits.fit(segment.lr), root)
        finder = Finder(
            root,
            steps=seen.steps,
            lrs=lrs,
            budget=budget,
            tolerance=tolerance,
            direction=direction,
            schedule="own" if seen.shrinks else "constant",
            anneal=False,
            seed=seed,
            chance=chance,
            limit=limit,
            samples=samples or seen.samples,
        )
        validation = Validation(text="validation", function=lambda: validate_now(own.trainer), metric=monitor)
        driven = Driven(
            start=start,
            imposed=imposed,
            validation=validation,
            shrinks="steps" if seen.shrinks else None,
            modules=lambda: [own.trainer.lightning_module],
        )
        return drive(driven, finder, progress=progress)


def _module_factory(module: Any) -> tuple[Callable[[float], Any], bool]:
    """Return a function that makes a module for an LR, and whether the LR must be imposed on it.

    Raises:
        TaskError: The argument does not make modules.
        SpecError: The function has required arguments besides the LR.
    """
    if package_of(module) is not None:
        try:
            first = copy.deepcopy(module)
        except Exception as error:
            raise TaskError(
                f"The {type(module).__name__} cannot be copied: {first_line(error)}. Pass a function that makes one."
            ) from error
        return lambda _: copy.deepcopy(first), True
    if isinstance(module, nn.Module) or not callable(module):
        raise TaskError(
            f"The module is a {type(module).__name__}; pass a LightningModule, or a function that makes one."
        )
    call = bind_lr(module)
    return call or (lambda _: module()), call is None


def _options(given: Mapping[str, Any], steps: int | None) -> dict[str, Any]:
    """Make the arguments of the Trainer.

    Raises:
        SpecError: The length is missing, ambiguous, or not in steps or epochs.
    """
    if wrong := [name for name in ("fast_dev_run", "max_time", "barebones") if given.get(name)]:
        raise SpecError(f"trainer_options sets {wrong[0]}, which a search does not support.")
    options = dict(given)
    if steps is not None:
        if given.get("max_steps", steps) != steps:
            raise SpecError(
                f"steps is {steps}, but trainer_options has max_steps = {given['max_steps']}: set only one of them."
            )
        options["max_steps"] = steps
    if options.get("max_steps") in {None, -1} and options.get("max_epochs") in {None, -1}:
        raise SpecError(
            "The length of a full training is unknown: set max_epochs or max_steps in trainer_options, or steps."
        )
    return options


@dataclass(kw_only=True)
class _Seen:
    """Properties of a training, from its beginning.

    Attributes:
        steps: Optimizer steps of a full training; None if they must be counted.
        shrinks: Whether the training has a schedule.
        samples: Number of validation samples behind an accuracy; None for other metrics.
    """

    steps: int | None = None
    shrinks: bool = False
    samples: int | None = None


class _EnoughError(Exception):
    """Ends the trial run."""


def _inspect_training(fits: Fits, monitor: str, root: Path) -> _Seen:
    """Run the first steps of a training; its data module is then set up for all others.

    For a module with manual optimization, the number of steps is estimated from its first mini-batches.
    """
    seen, batches, full = _Seen(), 0, math.inf  # mini-batches so far, and in a full training if needed

    def begin(trainer: Any, module: Any) -> None:
        fits.keep(trainer.datamodule)
        _check(trainer, monitor)
        seen.shrinks = bool(schedules(trainer))
        seen.samples = _samples(trainer) if "acc" in monitor else None
        if module.automatic_optimization:
            with suppress(Exception):  # Lightning cannot report it, such as for accumulation that changes
                seen.steps = _known_steps(trainer.estimated_stepping_batches)

    def ended(trainer: Any, module: Any, *_: Any) -> None:
        nonlocal batches, full
        batches += 1
        if not trainer.global_step or not (module.automatic_optimization or batches >= _BATCHES):
            return
        if not module.automatic_optimization:
            full = trainer.num_training_batches * trainer.max_epochs if trainer.max_epochs > 0 else math.inf
            full = min(full, trainer.max_steps * batches / trainer.global_step if trainer.max_steps > 0 else math.inf)
        raise _EnoughError

    def fit(_: Segment, __: int) -> None:
        with suppress(_EnoughError):
            fits.fit(_TRIED_AT, on_train_start=begin, on_train_batch_end=ended)

    counted = _run(fit, root)
    if seen.steps is None:
        seen.steps = _known_steps(full * counted / batches)
    return seen


def _run(start: Callable[[Segment, int], None], root: Path) -> int:
    """Run a training to its end at its original LR; return its steps."""
    return look(Driven(start=start, imposed=False), root, Heard(), steps=None)[0]


def _known_steps(steps: float) -> int | None:
    """A number of steps; None if it is unknown."""
    return int(steps) if 0 < steps < math.inf else None


def _check(trainer: Any, monitor: str) -> None:
    """Check for problems that rule out a search at any LR.

    Raises:
        TaskError: There is no optimizer, or no validation.
        SpecError: Validation does not log the metric.
    """
    if not any(each.param_groups for each in trainer.optimizers):
        raise TaskError("configure_optimizers returns no optimizer, so there is no LR to find.")
    if not trainer.enable_validation:
        raise TaskError("There is no validation to compare LRs: the loader or validation_step is missing.")
    if monitor not in (logged := validate_now(trainer)):
        names = ", ".join(sorted(logged)) or "nothing"
        raise SpecError(f"Validation does not log {monitor}, but {names}: set monitor to one of them.")


def _samples(trainer: Any) -> int | None:
    """Number of samples in the validation data; None unless it has a length and all samples are used."""
    held = [getattr(each, "dataset", None) for each in tree_leaves(trainer.val_dataloaders)]
    sizes = [len(each) for each in held if isinstance(each, Sized)]
    return sum(sizes) or None if len(sizes) == len(held) and trainer.limit_val_batches == 1.0 else None


@contextmanager
def _quiet() -> Generator[None]:
    """Suppress Lightning's reports and advice, which each of the many trainers would repeat."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
