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
from lratlas.study.files import write_file
from lratlas.study.preflight import check_statistics, device_name
from lratlas.task import Task
from lratlas.text import to_python
from lratlas.training.fingerprint import combine_parts, describe_changes, fingerprint_parts
from lratlas.training.objective import counted_labels
from lratlas.training.prepared import Prepared, split_validation, task_on

TASK = "task.json"
_LIGHTNING = "lratlas.integrations.lightning.find is for a function that makes a LightningModule"
_WAYS = {
    "transformers Trainer": "lratlas.integrations.transformers.find is for it",
    "lightning Trainer": _LIGHTNING,
    "lightning LightningModule": _LIGHTNING,
    "pytorch_lightning Trainer": _LIGHTNING,
    "pytorch_lightning LightningModule": _LIGHTNING,
    "builtins str": "the command lratlas find is for specs and scripts",
    "pathlib Path": "the command lratlas find is for specs and scripts",
}
"""What to do with what `find` does not take, by package and class."""
_WAY = "make one, as in lratlas.Task(model=make_model, train=data), where make_model makes a fresh model"


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

    LRs are compared by the validation accuracy of averaged weights; by the validation loss where there are no labels.
    What the folder already has is not trained again: the same call resumes a search.

    Args:
        task: The task, or one made ready by `lratlas.training.prepare`; its test set is not looked at. Or a function
            that trains, called with the LR, and with ``seed``, ``steps`` and ``epochs`` where it has these arguments:
            it is suspended in its loop, and nothing of it has to be changed (see docs/script.md).
        value: Of a function that trains, the validation metric: an expression over its variables, such as
            ``"accuracy(model, held_out)"``, or a function whose arguments have their names. None for one that it prints
            or returns, and for its training loss where there is none.
        steps: Optimizer steps of a full training. Those of a function are counted, by one training, if None.
        epochs: The same in epochs; a task needs one of both. Of a function, where it has this argument.
        folder: The search folder; a new temporary one if None.
        lrs: The LRs to begin with; 1e-5 to 1, four per decade, if None.
        budget: What may be trained, in full trainings. Above 1.5 it goes to further seeds of the best LRs. A larger one
            than before continues the search in the folder.
        tolerance: Metrics that differ by less than this share of the best one count as equally good.
        schedule: The LR's schedule in the full training: ``constant``, ``linear`` or ``cosine`` (to zero), or a
            function from the share of the training that is done to what the LR is multiplied by. LRs are then compared
            under it, shrunk to shorter trainings.
        warmup: Steps of the full training over which the LR grows linearly to its value.
        validation: Share of the training set to hold out for choices, if the task has no validation set.
        metric: Of a task ``accuracy`` or ``loss``; None for the accuracy where there are labels. Of a function the name
            of the metric, in what ``value`` or the function itself returns or prints.
        direction: Of a function, whether a lower or a higher metric is better; None: by its name, lower where that does
            not tell. A task knows.
        chance: Of a function, the metric of a model that has learned nothing.
        limit: Of a function, the best value that the metric can have.
        samples: Of a function, the validation samples behind an accuracy.
        seed: The first seed of weights and batch order.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        compiled: Whether to compile the step: worth its while where a full training takes more than some minutes.
        progress: Called after each stretch of training. True shows a progress bar in a terminal or a notebook;
            elsewhere the logger ``lratlas`` has a line a minute at level INFO. False shows nothing.

    Returns:
        The advice. ``advice.checkpoint`` is the state of the model, as ``load_state_dict`` takes it, after
        ``advice.segment``: the full training can continue from there.

    Raises:
        SpecError: An argument is wrong.
        TaskError: The share for validation leaves nothing, or the model's averages can have no batch-norm statistics.
        SearchError: The folder cannot be used or written to, or no LR could be trained.
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
        raise SpecError(f"{next(iter(own), 'value')} is for a function that trains; a task has it from data and loss.")
    if schedule == "own":  # pyright: ignore[reportUnnecessaryComparison] - callers may not be typed
        raise SpecError(
            "schedule is 'own', but a task has none; choose constant, linear or cosine, or give a function."
        )
    if (steps is None) == (epochs is None):
        raise SpecError("steps or epochs says how long a full training is: give one of them.")
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
        raise SearchError(f"The search in {finder.folder} cannot continue: {error}. What it has is kept.") from error


def _check_function(train: object, **given: object) -> None:
    """Whether something that is no task can be trained.

    Raises:
        TaskError: It cannot; the message says what can.
        SpecError: An argument is for tasks.
    """
    of = train if isinstance(train, type) else type(train)
    if issubclass(of, nn.Module) or not callable(train):
        kinds = {f"{each.__module__.partition('.')[0]} {each.__name__}" for each in of.__mro__}
        hint = next((way for kind, way in _WAYS.items() if kind in kinds), _WAY)
        raise TaskError(
            f"find takes a Task, or a function that trains at the LR it is given, and not a {of.__name__}: {hint}."
        )
    usual = {"device": "auto", "compiled": False}
    if unfit := [name for name, value in given.items() if value != usual[name]]:
        raise SpecError(f"{unfit[0]} is for a task; a function that trains says so itself.")


def _steps_of(epochs: object, made: Prepared) -> int:
    """The steps of so many epochs of a task."""
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise SpecError(f"epochs is {epochs}; it must be a whole number of at least 1.")
    return epochs * made.steps_per_epoch


def _with_validation(made: Prepared, share: float) -> Prepared:
    """The task with a validation set: its own, or a share of the training set."""
    if made.validation is None:
        held, rest = split_validation(made.train, share)
        size = {"samples_per_step": len(leaves(rest)[0])} if made.full_batch else {}
        made = replace(made, train=rest, validation=held, **size)
    if made.steps_per_epoch == 0:
        raise TaskError(
            f"batch_size is {made.samples_per_step}, but {made.samples} samples are left for training besides the"
            " validation set; use a smaller one."
        )
    return made


def _search(finder: Finder, trainer: SegmentTrainer, report: Callable[[Finder], None]) -> None:
    """Train what the finder asks for, until it asks for nothing more."""
    while segments := finder.ask_all():
        for group in groups(trainer, segments):
            began = time.monotonic()
            results = _train_group(finder, trainer, group)
            each_took = (time.monotonic() - began) / len(group)
            # Together: were only some of a stack recorded, the others would be trained as another stack after a kill.
            measured = [asdict(result) | {"seconds": each_took} for result in results]
            finder.tell_all(list(zip(group, measured, strict=True)))
            report(finder)
        forget_states(trainer.states, states_to_drop(finder))


def _train_group(finder: Finder, trainer: SegmentTrainer, group: Sequence[Segment]) -> list[TrainedSegment]:
    """The results of a group; where states that it continues from were lost, their segments are trained again."""
    lost = lost_states(trainer.states, [each.parent for each in group if each.parent])
    for again in groups(trainer, [each.segment for each in finder.results if each.segment.name in lost]):
        _train_group(finder, trainer, again)
    return train_segments(trainer, group)


def _with_checkpoint(finder: Finder, trainer: SegmentTrainer) -> Advice:
    """The advice, with the state that a full training can continue from; the states of segments are removed."""
    advice = finder.advice()
    if advice.segment is not None and advice.checkpoint is None:
        longest = next(each.segment for each in finder.results if each.segment.name == advice.segment)
        with suppress(SearchError):  # a state that is damaged or was deleted costs no more than the head start
            write_checkpoint(trainer, longest)
    forget_all_states(trainer.states)
    return finder.advice()


def _same_task(folder: Path, task: Prepared) -> None:
    """Store the fingerprints of the task's parts in the folder, or compare with those that are there."""
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
            f"The search in {folder} is of an earlier version, or its {TASK} is damaged; use another folder."
        )
    if combine_parts(stored) != combine_parts(parts):
        raise SearchError(
            f"The search in {folder} is of another task: {describe_changes(stored, parts)} changed. Use another folder,"
            " or undo the change."
        )


def metric_of(task: Prepared, metric: str | None) -> dict[str, Any]:
    """The metric of a task with a validation set: its accuracy or the user's metric where there is one, else its loss.

    Returns:
        The settings that follow from it, as a `Finder` takes them.

    Raises:
        SpecError: The metric is another word, or an accuracy is asked for where there is none.
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
    """The validation accuracy of the constant prediction that is best on the training set."""
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
    """The mean squared error on the validation set of the mean of the training targets."""
    (learn,), (held,) = leaves(task.train[1]), leaves((task.validation or task.train)[1])
    return float((held.double() - learn.double().mean(0)).square().mean())
