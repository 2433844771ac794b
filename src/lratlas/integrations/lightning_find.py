"""`find` for a LightningModule: each training is one ordinary fit, suspended where a segment ends."""

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

_TRIED_AT = 1e-3  # the LR of the training that is looked at first
_BATCHES = 32  # from which the steps of a module with manual optimization are estimated
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
    """Search for the initial LR of a LightningModule's training, as it is.

    Each training is one ``Trainer(**trainer_options).fit(module)``, suspended where a segment ends. Its own LR
    schedulers are in force: where it has any but ``ReduceLROnPlateau``, each comparison is a whole training, with its
    schedule shrunk to its length. Only what writes to the disk or to a service is switched off: loggers, checkpoints,
    profilers, and what else would end a training or change its LR: early stopping, timers, LR finders.

    Args:
        module: Makes a new module for an LR, such as ``lambda lr: Module(lr)``. Or makes one without being given an LR,
            or is a module, which is left as it is: each training has a copy. Then the LRs of all parameter groups of
            all optimizers are scaled by one factor, so that the first is that of the search.
        datamodule: As for ``Trainer.fit``. It is left as it is; a copy is set up once for the whole search.
        train_dataloaders: As for ``Trainer.fit``; None where the data module or the module itself has them.
        val_dataloaders: The same for validation.
        monitor: The name of a metric that validation logs.
        steps: The length of a full training, as ``max_steps`` of a Trainer. None where ``trainer_options`` have
            ``max_steps`` or ``max_epochs``.
        trainer_options: Arguments of the Trainer; one device is used unless they say otherwise.
        direction: Whether a lower or a higher metric is better; None where its name says it, such as a loss or an
            accuracy.
        folder: The search folder; a new temporary one if None. The same call with the same folder resumes the search.
        lrs: The LRs to begin with; 1e-5 to 1, four per decade, if None.
        budget: What may be trained, in full trainings.
        tolerance: Metrics that differ by less than this share of the best one count as equally good.
        chance: The metric of a model that has learned nothing.
        limit: The best value that the metric can have.
        samples: Validation samples behind the metric, where it is an accuracy; those of the validation data if None.
        seed: The seed of the first repetition; others follow.
        progress: Called after each segment.

    Raises:
        TaskError: It is no LightningModule, has no optimizer or validation data, or needs several devices.
        SpecError: An argument is out of range, or validation logs no such metric.
        SearchError: The folder holds another search, or the trainings fail.
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
    """A function of the LR that makes a module; and whether the LR has to be imposed on it.

    Raises:
        TaskError: It makes no modules.
        SpecError: It needs other arguments than the LR.
    """
    if package_of(module) is not None:
        try:
            first = copy.deepcopy(module)
        except Exception as error:
            raise TaskError(
                f"The {type(module).__name__} cannot be copied: {first_line(error)}. Give a function that makes one."
            ) from error
        return lambda _: copy.deepcopy(first), True
    if isinstance(module, nn.Module) or not callable(module):
        raise TaskError(
            f"The module is a {type(module).__name__}; give a LightningModule, or a function that makes one."
        )
    call = bind_lr(module)
    return call or (lambda _: module()), call is None


def _options(given: Mapping[str, Any], steps: int | None) -> dict[str, Any]:
    """The arguments of the Trainer.

    Raises:
        SpecError: They say no length, or several, or one that is not in steps or epochs.
    """
    if wrong := [name for name in ("fast_dev_run", "max_time", "barebones") if given.get(name)]:
        raise SpecError(f"trainer_options sets {wrong[0]}, under which there is no search.")
    options = dict(given)
    if steps is not None:
        if given.get("max_steps", steps) != steps:
            raise SpecError(f"steps is {steps}, but trainer_options has max_steps = {given['max_steps']}: give one.")
        options["max_steps"] = steps
    if options.get("max_steps") in {None, -1} and options.get("max_epochs") in {None, -1}:
        raise SpecError("How long is a full training? Give max_epochs or max_steps in trainer_options, or steps.")
    return options


@dataclass(kw_only=True)
class _Seen:
    """What the beginning of a training shows.

    Attributes:
        steps: Optimizer steps of a full training; None where they have to be counted.
        shrinks: Whether it has a schedule.
        samples: Validation samples behind an accuracy; None for other metrics.
    """

    steps: int | None = None
    shrinks: bool = False
    samples: int | None = None


class _EnoughError(Exception):
    """Ends the training that is looked at."""


def _inspect_training(fits: Fits, monitor: str, root: Path) -> _Seen:
    """Look at the first steps of a training; its data module is then set up for all others.

    The steps of a module with manual optimization are estimated from those of its first mini-batches.
    """
    seen, batches, full = _Seen(), 0, math.inf  # mini-batches so far, and in a full training where they are needed

    def begin(trainer: Any, module: Any) -> None:
        fits.keep(trainer.datamodule)
        _check(trainer, monitor)
        seen.shrinks = bool(schedules(trainer))
        seen.samples = _samples(trainer) if "acc" in monitor else None
        if module.automatic_optimization:
            with suppress(Exception):  # Lightning cannot say it, such as for accumulation that changes
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
    """Run a training to its end, at its own LR; returns its steps."""
    return look(Driven(start=start, imposed=False), root, Heard(), steps=None)[0]


def _known_steps(steps: float) -> int | None:
    """A number of steps; None where it is unknown."""
    return int(steps) if 0 < steps < math.inf else None


def _check(trainer: Any, monitor: str) -> None:
    """Find what cannot be searched at any LR.

    Raises:
        TaskError: There is no optimizer, or no validation.
        SpecError: Validation does not log the metric.
    """
    if not any(each.param_groups for each in trainer.optimizers):
        raise TaskError("configure_optimizers returns no optimizer; there is no LR to find.")
    if not trainer.enable_validation:
        raise TaskError("There is no validation on which LRs could be compared: no loader, or no validation_step.")
    if monitor not in (logged := validate_now(trainer)):
        names = ", ".join(sorted(logged)) or "nothing"
        raise SpecError(f"Validation logs no {monitor}, but {names}: give one of them as monitor.")


def _samples(trainer: Any) -> int | None:
    """The samples of the validation data, as far as they have a length and all are used."""
    held = [getattr(each, "dataset", None) for each in tree_leaves(trainer.val_dataloaders)]
    sizes = [len(each) for each in held if isinstance(each, Sized)]
    return sum(sizes) or None if len(sizes) == len(held) and trainer.limit_val_batches == 1.0 else None


@contextmanager
def _quiet() -> Generator[None]:
    """Lightning reports its hardware and repeats its advice for each of the many trainers."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
