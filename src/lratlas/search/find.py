"""find: the initial LR to use."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lratlas.data.parts import count, leaves
from lratlas.errors import SearchError, SpecError, TaskError
from lratlas.files import write_file
from lratlas.notices import forward_warnings
from lratlas.paths import expand_home
from lratlas.search.advice import Advice
from lratlas.search.driven.find import find_by_function
from lratlas.search.finder import Finder, states_to_drop
from lratlas.search.journal import raise_budget, search_folder
from lratlas.search.progress import SearchProgress, shown
from lratlas.search.segment_trainer import SegmentTrainer, TrainedSegment, groups, train_segments, write_checkpoint
from lratlas.search.segments import Segment
from lratlas.search.states import forget_all_states, forget_states, lost_states
from lratlas.study.preflight import check_statistics, device_name
from lratlas.task import Task
from lratlas.text import to_python
from lratlas.training.fingerprint import combine_parts, describe_changes, fingerprint_parts
from lratlas.training.objective import counted_labels
from lratlas.training.prepared import Prepared, split_validation, task_on

TASK = "task.json"
_LIGHTNING = "use lratlas.integrations.lightning.find with a function that makes a LightningModule"
_WAYS = {
    "transformers Trainer": "use lratlas.integrations.transformers.find",
    "lightning Trainer": _LIGHTNING,
    "lightning LightningModule": _LIGHTNING,
    "pytorch_lightning Trainer": _LIGHTNING,
    "pytorch_lightning LightningModule": _LIGHTNING,
    "builtins str": "run lratlas find for specs and scripts",
    "pathlib Path": "run lratlas find for specs and scripts",
}
"""Advice for objects that `find` does not accept, by package and class."""
_WAY = "create a task, lratlas.Task(model=make_model, train=data), where make_model returns a new model"


def find(
    task: Task | Prepared | Callable[..., object],
    *,
    value: str | Callable[..., Any] | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    folder: str | Path | None = None,
    lrs: Iterable[float] | None = None,
    budget: float = 1.5,
    tolerance: float = 0.01,
    schedule: Literal["constant", "linear", "cosine"] | Callable[[float], float] = "constant",
    warmup: int = 0,
    validation: float = 0.1,
    metric: str | None = None,
    direction: Literal["minimize", "maximize"] | None = None,
    chance: float | None = None,
    limit: float | None = None,
    samples: int | None = None,
    seed: int = 0,
    device: str = "auto",
    compiled: bool = False,
    progress: Callable[[SearchProgress], None] | bool | None = True,
) -> Advice:
    """Find the initial LR for a task, or for a function that trains (see docs/method.md).

    LRs are compared by the validation accuracy of averaged weights, or by the validation loss if there are no labels.
    Results in the folder are not trained again: the same call resumes a search.

    Args:
        task: The task, or a task prepared with `lratlas.training.prepare`; its test set is never read. Or a function
            that trains: it is called with the LR, and with ``seed``, ``steps`` and ``epochs`` if it has these
            arguments. It is suspended in its loop and needs no changes (see docs/script.md).
        value: The validation metric of a function that trains: an expression over its variables, such as
            ``"accuracy(model, held_out)"``, or a function whose arguments have their names. If None, the metric that
            the function prints or returns; if there is none, its training loss.
        steps: Optimizer steps of a full training. If None, one training counts the steps of a function.
        epochs: Epochs of a full training. A task needs either ``steps`` or ``epochs``; a function must have this
            argument.
        folder: The search folder; a new temporary one if None.
        lrs: Initial grid of LRs; if None, 1e-5 to 1, four per decade.
        budget: Limit of the cost, in full trainings. Above 1.5, the rest goes to further seeds of the best LRs. A
            larger budget than before continues the search in the folder.
        tolerance: Metrics that differ by less than this share of the best one count as equally good.
        schedule: The LR schedule of the full training: ``constant``, ``linear`` or ``cosine`` (to zero), or a function
            that maps the finished share of the training to a factor of the LR. LRs are then compared under this
            schedule, shrunk to shorter trainings.
        warmup: Steps of the full training over which the LR grows linearly to its value.
        validation: Share of the training set to hold out for choices, if the task has no validation set.
        metric: For a task, ``accuracy`` or ``loss``; if None, the accuracy if there are labels. For a function, the
            name of the metric in the output of ``value``, or in what the function returns or prints.
        direction: For a function, whether a lower or a higher metric is better; if None, inferred from the name of the
            metric, with ``minimize`` as the fallback. A task needs no direction.
        chance: For a function, the metric of a model that has learned nothing.
        limit: For a function, the best possible value of the metric.
        samples: For a function, the number of validation samples behind an accuracy.
        seed: The first seed of weights and batch order.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        compiled: Whether to compile the step; pays off if a full training takes more than a few minutes.
        progress: Called after each stretch of training. True shows a progress bar in a terminal or a notebook;
            elsewhere the logger ``lratlas`` writes a line a minute at level INFO. False shows nothing.

    Returns:
        The advice. ``advice.checkpoint`` is the model's state after ``advice.segment``, for ``load_state_dict``. The
        full training can continue from there.

    Raises:
        SpecError: An argument is wrong.
        TaskError: The validation share leaves no samples, or the averaged weights cannot get batch-norm statistics.
        SearchError: The folder cannot be used or written, or no LR could be trained.
    """
    settings: dict[str, Any] = {"lrs": lrs, "budget": budget, "tolerance": tolerance, "schedule": schedule}
    settings |= {"warmup": warmup, "seed": seed}
    own: dict[str, Any] = {"direction": direction, "chance": chance, "limit": limit, "samples": samples}
    own = {name: given for name, given in own.items() if given is not None}
    steps, epochs = to_python(steps), to_python(epochs)
    if not isinstance(task, Task | Prepared):
        _check_function(task, device=device, compiled=compiled)
        own |= {"value": value, "metric": metric, "steps": steps, "epochs": epochs}
        with shown(progress) as report, forward_warnings(None):
            return find_by_function(task, folder=folder, progress=report, **settings, **own)
    if value is not None or own:
        raise SpecError(
            f"{next(iter(own), 'value')} applies only to a function that trains; a task takes it from its data and"
            " loss."
        )
    if schedule == "own":  # pyright: ignore[reportUnnecessaryComparison] - callers may not be typed
        raise SpecError(
            "schedule is 'own', but a task has no schedule; choose constant, linear or cosine, or pass a function."
        )
    if (steps is None) == (epochs is None):
        raise SpecError("Set steps or epochs, the length of a full training, but not both.")
    made = _with_validation(task if isinstance(task, Prepared) else task.prepared, to_python(validation))
    total = steps if steps is not None else _steps_of(epochs, made)
    check_statistics(made, averaged=schedule == "constant")
    if folder:
        raise_budget(expand_home(folder), budget)
    finder = Finder(search_folder(folder), steps=total, **settings, **metric_of(made, metric))
    on = torch.device(device_name(device, field="device"))
    trainer = SegmentTrainer(
        task=task_on(made, on, torch.float32),
        root=finder.folder,
        device=on,
        steps=total,
        by_loss=metric == "loss",
        compiled=compiled,
    )
    try:
        _same_task(finder.folder, made)
        with shown(progress) as report, forward_warnings(None), trainer.one_pace():
            _search(finder, trainer, report)
        return _with_checkpoint(finder, trainer)
    except OSError as error:
        raise SearchError(
            f"The search in {finder.folder} cannot continue: {error}. All results so far are saved."
        ) from error


def _check_function(train: object, **given: object) -> None:
    """Check that an object that is not a task is a function that trains.

    Raises:
        TaskError: It is not; the message shows the alternative.
        SpecError: An argument only applies to tasks.
    """
    of = train if isinstance(train, type) else type(train)
    if issubclass(of, nn.Module) or not callable(train):
        kinds = {f"{each.__module__.partition('.')[0]} {each.__name__}" for each in of.__mro__}
        hint = next((way for kind, way in _WAYS.items() if kind in kinds), _WAY)
        raise TaskError(f"find takes a Task or a function of the LR that trains, not a {of.__name__}: {hint}.")
    usual = {"device": "auto", "compiled": False}
    if unfit := [name for name, value in given.items() if value != usual[name]]:
        raise SpecError(f"{unfit[0]} applies only to a task; a function that trains decides it itself.")


def _steps_of(epochs: object, made: Prepared) -> int:
    """Steps of that many epochs of a task."""
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise SpecError(f"epochs is {epochs}; it must be a whole number of at least 1.")
    return epochs * made.steps_per_epoch


def _with_validation(made: Prepared, share: float) -> Prepared:
    """Return the task with a validation set: the task's set, or a share of the training set."""
    if made.validation is None:
        held, rest = split_validation(made.train, share)
        size = {"samples_per_step": len(leaves(rest)[0])} if made.full_batch else {}
        made = replace(made, train=rest, validation=held, **size)
    if made.steps_per_epoch == 0:
        raise TaskError(
            f"batch_size is {made.samples_per_step}, but only {made.samples} samples are left for training"
            " without the validation set; use a smaller batch_size."
        )
    return made


def _search(finder: Finder, trainer: SegmentTrainer, report: Callable[[Finder], None]) -> None:
    """Train the segments that the finder asks for until it asks for no more."""
    while segments := finder.ask_all():
        for group in groups(trainer, segments):
            began = time.monotonic()
            results = _train_group(finder, trainer, group)
            each_took = (time.monotonic() - began) / len(group)
            # One write: if only part of a stack were recorded, a restart would train the others as a different stack.
            measured = [asdict(result) | {"seconds": each_took} for result in results]
            finder.tell_all(list(zip(group, measured, strict=True)))
            report(finder)
        forget_states(trainer.states, states_to_drop(finder))


def _train_group(finder: Finder, trainer: SegmentTrainer, group: Sequence[Segment]) -> list[TrainedSegment]:
    """Train a group and return its results; segments whose states were lost are trained again first."""
    lost = lost_states(trainer.states, [each.parent for each in group if each.parent])
    for again in groups(trainer, [each.segment for each in finder.results if each.segment.name in lost]):
        _train_group(finder, trainer, again)
    return train_segments(trainer, group)


def _with_checkpoint(finder: Finder, trainer: SegmentTrainer) -> Advice:
    """Return the advice with the checkpoint for a full training; remove the states of segments."""
    advice = finder.advice()
    if advice.segment is not None and advice.checkpoint is None:
        longest = next(each.segment for each in finder.results if each.segment.name == advice.segment)
        with suppress(SearchError):  # a damaged or deleted state only costs the head start
            write_checkpoint(trainer, longest)
    forget_all_states(trainer.states)
    return finder.advice()


def _same_task(folder: Path, task: Prepared) -> None:
    """Store the fingerprints of the task's parts in the folder, or compare them with the stored ones."""
    path, parts = folder / TASK, fingerprint_parts(task)
    if not path.exists():
        write_file(path, json.dumps(parts, indent=1).encode())
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise SearchError(
            f"The search in {folder} was made by an earlier version, or its {TASK} is damaged; use another folder."
        )
    if combine_parts(stored) != combine_parts(parts):
        raise SearchError(
            f"The search in {folder} has a different task: {describe_changes(stored, parts)} changed. Use"
            " another folder, or undo the change."
        )


def metric_of(task: Prepared, metric: str | None) -> dict[str, Any]:
    """Metric of a task with a validation set: its accuracy or the user's metric if it has one, else its loss.

    Returns:
        The settings that follow from the metric, as arguments of a `Finder`.

    Raises:
        SpecError: The metric has an unknown name, or it is ``accuracy`` and the task has none.
    """
    objective, (_, held) = task.objective, task.validation or task.train
    if metric not in {None, "accuracy", "loss"}:
        raise SpecError(f"metric is {metric!r}; choose accuracy or loss.")
    if metric == "accuracy" and not objective.has_accuracy:
        raise SpecError("metric is 'accuracy', but the task has no labels; choose 'loss'.")
    if metric != "loss" and objective.labels in {"classes", "binary"}:
        share = _chance_accuracy(task)
        return {"direction": "maximize", "limit": 1.0, "chance": share, "samples": count(held)}
    if metric != "loss" and objective.has_accuracy:
        return {"direction": "maximize"}
    return {"direction": "minimize", "chance": _constant_error(task) if objective.name == "mse" else None}


def _chance_accuracy(task: Prepared) -> float | None:
    """Validation accuracy of the constant prediction that is best on the training set."""
    learn, held = (leaves(pair[1]) for pair in (task.train, task.validation or task.train))
    if len(learn) != 1:
        return None
    if task.objective.labels == "binary":
        likely = (learn[0] > 0.5).double().mean(0) > 0.5
        return float(((held[0] > 0.5) == likely).double().mean())
    labels, others = (part[counted_labels(part, task.objective.ignored)].long() for part in (learn[0], held[0]))
    if not len(labels) or not len(others):
        return None
    return float((others == torch.bincount(labels.flatten()).argmax()).double().mean())


def _constant_error(task: Prepared) -> float:
    """Validation mean squared error of the mean of the training targets."""
    (learn,), (held,) = leaves(task.train[1]), leaves((task.validation or task.train)[1])
    return float((held.double() - learn.double().mean(0)).square().mean())
