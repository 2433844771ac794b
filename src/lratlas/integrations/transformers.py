"""`watch` as a callback of Hugging Face's Trainer, and `find` for a Trainer."""

import copy
import inspect
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sized
from functools import wraps
from pathlib import Path
from typing import Any, Literal, cast

import torch

from lratlas.errors import LRAtlasError, TaskError, extra
from lratlas.integrations.tracking import numbers_of
from lratlas.monitor.follow import Watch
from lratlas.monitor.learning_rates import Schedule
from lratlas.monitor.tracker import Look
from lratlas.monitor.watch import watch
from lratlas.rng import preserve_generators
from lratlas.search.advice import Advice
from lratlas.search.driven.drive import Driven, drive
from lratlas.search.driven.find import bind_lr
from lratlas.search.driven.printed import known_direction
from lratlas.search.driven.scout import same_metric
from lratlas.search.driven.untouched import preserve_attributes
from lratlas.search.driven.validation import make_validation
from lratlas.search.finder import Finder
from lratlas.search.journal import search_folder
from lratlas.search.segments import Segment

with extra("transformers"):
    import accelerate  # noqa: F401  # pyright: ignore[reportUnusedImport] - a Trainer needs it, but only once it is made
    from transformers import (
        EarlyStoppingCallback,
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
        set_seed,
    )
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

__all__ = ["WatchCallback", "find"]

_STATE = "lratlas.watch"  # key of the watch in a checkpoint's trainer_state.json


class WatchCallback(TrainerCallback):
    """Watches the training of a Hugging Face Trainer; training is unchanged, bit for bit.

    Events of the Trainer contain no losses, and the Trainer logs means from which ``logging_nan_inf_filter`` has
    removed all values that are not finite. This callback therefore reads each loss from the trainer's
    ``training_step``: the one passed to ``backward``, however it was computed (by the model, ``compute_loss_func``,
    label smoothing, a subclass). The Trainer scales the losses of accumulated mini-batches so that their sum is the
    loss of the step.

    The trainer logs each look to its configured trackers: ``watch/regime`` (0 undecided, 1 converging, 2 equilibrium, 3
    diverging), ``watch/loss`` and the other numbers of the look.

    Example:
        >>> callback = WatchCallback(trainer)  # doctest: +SKIP
        >>> trainer.add_callback(callback)  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
        >>> print(callback.report())  # doctest: +SKIP

    Args:
        trainer: The trainer that the callback is added to.
        schedule: As in `lratlas.watch`, also ``loss_is_progress``, ``chance_loss`` and ``false_alarm``. By default the
            Trainer itself has a linear schedule.
        loss_is_progress: Whether a lower loss is a better model; False for games of two players and reinforcement
            learning.
        chance_loss: Loss of the best constant prediction.
        false_alarm: Highest probability that a loss that does not fall is ever called converging.
        on_change: Called with the look at which the regime changed.

    Attributes:
        watch: The watch; None before training begins.
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
        """Text of `Watch.report`.

        Raises:
            LRAtlasError: If training has not begun.
        """
        return self._current_watch().report()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to watch the optimizer; continues from a checkpoint."""
        self._close()  # a failed training sends no event
        self._losses = []
        self.watch = watch(kwargs["optimizer"], on_change=self._on_change, **self._rules)
        kept: Any = state.stateful_callbacks
        if _STATE in kept:
            self.watch.load_state_dict(kept[_STATE])
        self._logged = len(self.watch.log)
        self._release = _tap_losses(self._trainer, self._losses.append)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Pass the loss of the step to the watch."""
        if self._losses:
            self._current_watch()(torch.stack(self._losses).sum())
            self._losses.clear()
        self._log(control)
        if control.should_save:
            self._keep(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Store the watch for a checkpoint that may follow."""
        if control.should_save:
            self._keep(state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Store the watch for a checkpoint that a better evaluation may trigger."""
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
            raise LRAtlasError("WatchCallback has seen no training yet; add it with trainer.add_callback(callback)")
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
        """Make the trainer log new looks."""
        log = self._current_watch().log
        due = control.should_log  # logging clears it, but the trainer must still write its log
        for look in log[self._logged :]:
            self._trainer.log(numbers_of(look))
        control.should_log = due
        self._logged = len(log)


def _tap_losses(trainer: Trainer, take: Callable[[torch.Tensor], object]) -> Callable[[], None]:
    """Pass every loss that the trainer's ``training_step`` returns to ``take``; call the result to stop."""
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


_BY_METRIC = {"reduce_lr_on_plateau", "greedy"}
"""Schedules that need evaluations during training."""
_COPIED = {"compute_loss_func", "compute_metrics", "preprocess_logits_for_metrics", "data_collator"}
_CONTINUED = {"constant", "constant_with_warmup", *_BY_METRIC}
"""Schedules under which a longer training continues a shorter one."""


def find(
    trainer: Trainer | Callable[[float], Trainer],
    *,
    metric: str = "eval_loss",
    direction: Literal["minimize", "maximize"] | None = None,
    folder: str | Path | None = None,
    lrs: Iterable[float] | None = None,
    budget: float = 1.5,
    tolerance: float = 0.01,
    chance: float | None = None,
    limit: float | None = None,
    seed: int = 0,
    progress: Callable[[Finder], None] = lambda _: None,
) -> Advice:
    """Search for the initial LR of a Trainer's unmodified training.

    Length, schedule and warm-up come from its arguments. If the schedule is not constant, each comparison is a whole
    training, with the schedule shrunk to its length. In the trainings of the search, only features that write to disk
    or to a service, or end a training, are disabled: checkpoints, reports, intermediate evaluations, early stopping.

    Args:
        trainer: Makes a new Trainer for an LR, which it must put into the arguments. Or a Trainer, which is not
            modified: each training uses a new one, with a copy of its model in its current state.
        metric: Name of a metric that ``trainer.evaluate()`` returns.
        direction: Whether a lower or a higher metric is better; None if its name shows it, such as a loss or an
            accuracy.
        folder: The search folder; a new temporary one if None. The same call with the same folder resumes the search.
        lrs: Initial grid of LRs; if None, 1e-5 to 1, four per decade.
        budget: Limit of the cost, in full trainings.
        tolerance: Metrics that differ by less than this share of the best one count as equally good.
        chance: Metric of a model that has learned nothing.
        limit: Best possible value of the metric.
        seed: Added to the Trainer's seed for the first repetition; further seeds follow it.
        progress: Called after each segment.

    Raises:
        TaskError: The object is not a Trainer, or has no data to evaluate on.
        SpecError: An argument is out of range, or there is no such metric.
        SearchError: The folder contains another search, or the trainings fail.
    """
    direction = known_direction(metric, direction)
    make = _copies(trainer) if isinstance(trainer, Trainer) else bind_lr(trainer)
    if make is None:
        raise TaskError("The function takes no LR: pass one that makes a Trainer for an LR, lambda lr: Trainer(…).")
    with preserve_generators():
        first = make(1e-3)
    if not isinstance(first, Trainer):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may not be typed
        raise TaskError(f"The function returned a {type(first).__name__}; it must return a Trainer.")
    if first.eval_dataset is None:
        raise TaskError("The Trainer has no eval_dataset, but a search compares LRs on one.")
    steps = _steps(first)
    shrinks = _schedule(first) not in _CONTINUED
    own = threading.local()  # each training has a thread

    def start(segment: Segment, _: int) -> None:
        own.trainer = _for_a_search(make(segment.lr), segment, steps=steps, shrinks=shrinks)
        own.trainer.train()

    def evaluate() -> dict[str, float]:
        return _evaluate_quietly(own.trainer)

    driven = Driven(
        start=start,
        imposed=False,
        validation=make_validation(evaluate, metric=metric),
        shrinks="steps" if shrinks else None,
    )
    root = search_folder(folder)
    same_metric(root, metric)
    finder = Finder(
        root,
        steps=steps,
        lrs=lrs,
        budget=budget,
        tolerance=tolerance,
        direction=direction,
        schedule="own" if shrinks else "constant",
        anneal=False,
        seed=seed,
        chance=chance,
        limit=limit,
        samples=_samples(first, metric),
    )
    del first
    return drive(driven, finder, progress=progress)


def _copies(trainer: Trainer) -> Callable[[float], Trainer]:
    """Return a function that makes a Trainer like this one, with another LR and a copy of its current model.

    Raises:
        TaskError: Its class takes other arguments than a Trainer does, or it cannot be copied.
    """
    kind, names = type(trainer), inspect.signature(type(trainer)).parameters
    if names.keys() - inspect.signature(Trainer).parameters.keys():
        raise TaskError(
            f"{kind.__name__} may need other arguments, so it cannot be copied: pass a function that makes one."
        )
    if trainer.optimizer is not None:
        raise TaskError("The Trainer already has an optimizer: pass a function that makes the Trainer for an LR.")
    held = {"model_init", "compute_loss_func", "compute_metrics", "preprocess_logits_for_metrics", "data_collator"}
    held |= {"train_dataset", "eval_dataset", "processing_class", "optimizer_cls_and_kwargs"}
    given: dict[str, Any] = {name: getattr(trainer, name, None) for name in held & names.keys()}
    model = copy.deepcopy(trainer.model)
    if model is None or any("forward" in vars(each) for each in model.modules()):  # it may call the original
        raise TaskError("The forward of the Trainer's model was replaced: pass a function that makes the Trainer.")

    def make(lr: float) -> Trainer:
        args: TrainingArguments = copy.deepcopy(trainer.args)
        args.learning_rate = lr
        own = {name: _copy_collator(each) if name in _COPIED else each for name, each in given.items()}
        made = kind(model=None if given.get("model_init") else copy.deepcopy(model), args=args, **own)
        made.callback_handler.callbacks = [copy.deepcopy(each) for each in trainer.callback_handler.callbacks]
        return made

    return make


def _copy_collator(given: Any) -> Any:
    """Copy a collator, which may have random state; return the original if it cannot be copied."""
    try:
        return copy.deepcopy(given)
    except Exception:
        return given


def _for_a_search(trainer: Trainer, segment: Segment, *, steps: int, shrinks: bool) -> Trainer:
    """Prepare a Trainer: it writes nothing, and ends with the segment if that is a whole training."""
    args = trainer.args
    args.save_strategy, args.load_best_model_at_end = "no", False
    if _schedule(trainer) not in _BY_METRIC:
        args.eval_strategy = "no"
    args.disable_tqdm, args.push_to_hub = True, False
    if segment.seed:
        args.seed += segment.seed
        args.data_seed = None if args.data_seed is None else args.data_seed + segment.seed
        trainer.create_accelerator_and_postprocess()  # it has the seed of the data
        set_seed(args.seed)
    if shrinks:
        share = segment.stop / steps
        args.warmup_steps = _shrunk(args.warmup_steps, share)
        options = cast("dict[str, Any]", args.lr_scheduler_kwargs or {})
        in_steps = {name: _shrunk(options[name], share) for name in options if name.endswith(("_steps", "timescale"))}
        args.lr_scheduler_kwargs = {**options, **in_steps}
        args.max_steps = segment.stop
    silent: tuple[type[Any], ...] = (EarlyStoppingCallback, *INTEGRATION_TO_CALLBACK.values())
    handler = trainer.callback_handler
    handler.callbacks = [each for each in handler.callbacks if not isinstance(each, silent)]
    return trainer


def _schedule(trainer: Trainer) -> str:
    name: Any = trainer.args.lr_scheduler_type
    return str(getattr(name, "value", name))


def _shrunk(steps: float, share: float) -> float:
    """Steps, such as those of a warm-up, in a shorter training; a share of all steps is unchanged."""
    return steps if steps < 1 else round(steps * share)


def _steps(trainer: Trainer) -> int:
    """Optimizer steps of a full training."""
    args = trainer.args
    if args.max_steps > 0:
        return args.max_steps
    batches = len(trainer.get_train_dataloader())
    each = max(1, math.ceil(batches / args.gradient_accumulation_steps))
    return math.ceil(args.num_train_epochs * each)


def _evaluate_quietly(trainer: Trainer) -> dict[str, float]:
    """Return value of ``trainer.evaluate()``, without calling its callbacks or writing to its log."""
    handler = trainer.callback_handler
    with preserve_attributes((trainer, trainer.state, trainer.control, handler)):
        handler.callbacks = []
        return dict(trainer.evaluate())


def _samples(trainer: Trainer, metric: str) -> int | None:
    """Number of validation samples behind an accuracy; None if a sample has many predictions."""
    held: Any = trainer.eval_dataset
    if isinstance(held, Mapping):
        sets = cast("Mapping[str, Any]", held)
        held = next((each for name, each in sets.items() if metric.startswith(f"eval_{name}_")), None)
    return len(held) if metric.endswith("_accuracy") and "token" not in metric and isinstance(held, Sized) else None
