"""Create tasks from the task section of a spec: the built-in tasks and a user's functions."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from pydantic import ConfigDict, ValidationError, validate_call

from lratlas.config.code import import_object
from lratlas.config.imaging import image_task
from lratlas.config.sections import TaskSpec
from lratlas.config.values import format_value
from lratlas.data.collect import Pair
from lratlas.data.handwritten import handwritten_digits
from lratlas.data.images import subset
from lratlas.data.ticks import dirichlet_weights, ticks
from lratlas.errors import SpecError, TaskError, meant
from lratlas.models.mlp import MLP
from lratlas.task import Task
from lratlas.training.prepared import Prepared

KEPT_TASKS = 32
"""The largest number of generated tasks in memory; others are regenerated when needed."""

_NOT_OPTIONS = {"seed", "batch_size", "rule", "loss"}  # arguments of a preset that are fields of the task section


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """The tasks of a study's independent repetitions: repetition r uses seed 1 + r for all its draws.

    Attributes:
        make: A function from a data seed to a task, ready for training.
        generated: Whether data depend on the data seed; if not, one task serves all repetitions.
        made: Tasks in memory by data seed.
    """

    make: Callable[[int], Prepared]
    generated: bool
    made: dict[int | None, Prepared] = field(default_factory=dict[int | None, Prepared], repr=False)

    def of(self, repetition: int) -> Prepared:
        """The task of a repetition."""
        key = self.data_seed(repetition)
        if key not in self.made:
            if len(self.made) >= KEPT_TASKS:
                del self.made[next(iter(self.made))]
            self.made[key] = self.make(key or 0)
        return self.made[key]

    def data_seed(self, repetition: int) -> int | None:
        """Data seed of a repetition; None if data are not generated."""
        return training_seed(repetition) if self.generated else None


def training_seed(repetition: int) -> int:
    """Training seed of a repetition; it determines the initial weights, a frozen head and the order of batches."""
    return 1 + repetition


def tasks_from(section: TaskSpec) -> Tasks:
    """The tasks of a spec's task section.

    Raises:
        SpecError: Unknown preset, option, module or function.
        TaskError: The task's parts do not fit together.
    """
    if section.preset is not None:
        if section.preset not in BUILT_IN:
            hint = meant(section.preset, BUILT_IN)
            raise SpecError(f"There is no task preset {section.preset!r}{hint}; choose one of {', '.join(BUILT_IN)}.")
        make, generated = BUILT_IN[section.preset]
        _check_options(make, section.options, f"task preset {section.preset}")
        return Tasks(make=lambda seed: _make_preset_task(section, make, seed).prepared, generated=generated)
    model, data = _function(section.model or "", "task.model"), _function(section.data or "", "task.data")
    return Tasks(make=lambda _seed: _own_task(section, model, data).prepared, generated=False)


def own_code(section: TaskSpec) -> list[str]:
    """The functions that a spec names as ``module:function``, the only code that a spec can import and call."""
    named = (section.model, section.data, section.loss, section.metric, section.rule.name if section.rule else None)
    return [name for name in named if name and ":" in name]


def tasks_of(task: Task | Callable[[int], Task]) -> Tasks:
    """The tasks of a study of one task, or of a function from data seed to task.

    Raises:
        TaskError: The argument is neither.
    """
    if isinstance(task, Task):
        # Workers receive the prepared task, not the user's arguments, such as a loader.
        made = task.prepared
        return Tasks(make=lambda _seed: made, generated=False)
    if not callable(task):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass anything
        raise TaskError(f"{type(task).__name__} cannot be explored; pass a Task, a function that makes one, or a spec.")
    return Tasks(make=partial(_generate_data, task), generated=True)


def _generate_data(make: Callable[[int], object], seed: int) -> Prepared:
    made = make(seed)
    if not isinstance(made, Task):
        raise TaskError(f"The function of the data seed returned {type(made).__name__}; it must return a Task.")
    return made.prepared


def ticks_task(
    seed: int,
    *,
    batch_size: int = 16,
    rule: Any = "sphere_sgd",
    loss: Any = None,
    dirichlet: float | None = None,
    **options: Any,
) -> Task:
    """The paper's synthetic example: 16 tick features, the scale-invariant MLP 32-32-32-1, batch 16.

    Args:
        seed: Data seed.
        batch_size: Samples per step.
        rule: Update rule.
        loss: Loss, binary cross-entropy unless given.
        dirichlet: Redraw the singular values of the initial weight matrices with this concentration; a small one gives
            low rank.
        options: Passed to `lratlas.data.ticks.ticks`.
    """
    drawn = ticks(seed=seed, **options)
    inputs = drawn.train[0].shape[1]
    return Task(
        name="ticks",
        model=lambda: _ticks_model(inputs, dirichlet),
        train=drawn.train,
        test=drawn.test,
        singles=drawn.singles,
        loss=loss or "binary_cross_entropy",
        batch_size=batch_size,
        rule=rule,
    )


def digits_task(
    _seed: int,
    *,
    batch_size: int = 32,
    rule: Any = "sphere_sgd",
    loss: Any = None,
    test_share: float = 0.3,
    images: int | None = None,
    corruption: float = 0.0,
) -> Task:
    """1,797 handwritten digits, 8x8 pixels, stratified split, and the scale-invariant MLP 64-64-64-10.

    Args:
        batch_size: Samples per step.
        rule: Update rule.
        loss: Loss, cross-entropy unless given.
        test_share: Share of the images held out for testing.
        images: Size of a stratified subset of the training images; all of them if None.
        corruption: Share of the training labels replaced by another class.

    Raises:
        ValueError: The share for testing leaves a part with fewer images than classes.
        DataError: There are fewer images than requested, or the share of corrupted labels is not in [0, 1].
    """
    train, test = _digits(test_share, images, corruption)
    return Task(
        name="digits",
        model=lambda: MLP(64, (64, 64), 10, scale_invariant=True),
        train=train,
        test=test,
        loss=loss or "cross_entropy",
        batch_size=batch_size,
        rule=rule,
    )


def _ticks_model(inputs: int, dirichlet: float | None) -> MLP:
    model = MLP(inputs, (32, 32), 1, scale_invariant=True)
    if dirichlet is not None:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = dirichlet_weights(parameter.data, alpha=dirichlet, generator=generator)
    return model


BUILT_IN: Mapping[str, tuple[Callable[..., Task], bool]] = {
    "ticks": (ticks_task, True),
    "digits": (digits_task, False),
    "images": (image_task, False),
}


def _digits(test_share: float, images: int | None, corruption: float) -> tuple[Pair, Pair]:
    data = subset(handwritten_digits(test_share), images=images, corruption=corruption)
    # In float64, since rounding to the training's number format comes after normalisation.
    train_x, test_x = (images.flatten(1).double() for images, _ in (data.train, data.test))
    mean, deviation = train_x.mean(), train_x.std()
    return ((train_x - mean) / deviation, data.train[1]), ((test_x - mean) / deviation, data.test[1])


def _make_preset_task(section: TaskSpec, make: Callable[..., Task], seed: int) -> Task:
    checked = validate_call(config=ConfigDict(strict=True, arbitrary_types_allowed=True))(make)
    try:
        return checked(seed, **_overrides(section), **section.options)
    except ValidationError as error:
        raise SpecError(f"task.options: {_fault(error, section.preset or '')}") from error
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise SpecError(f"task.options: task preset {section.preset} cannot be created: {reason}") from error


def _fault(error: ValidationError, preset: str) -> str:
    """The first invalid option, in a sentence."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"].startswith("missing"):
        return f"task preset {preset} needs the option `{name}`."
    return f"`{name}` is {format_value(first['input'])}; {first['msg'].replace('Input should', 'it should')}."


def _own_task(section: TaskSpec, model: Callable[..., Any], data: Callable[..., Any]) -> Task:
    try:
        loaded = data()
    except Exception as error:
        raise TaskError(f"task.data: {section.data} failed: {type(error).__name__}: {error}") from error
    if not isinstance(loaded, tuple) or len(loaded) != 2:
        raise TaskError(f"task.data: {section.data} must return a pair (train, test), each a pair (inputs, targets).")
    options = section.options
    _check_options(model, options, f"task.model {section.model}")
    settings = _overrides(section)
    return Task(name=section.model or "", model=lambda: model(**options), train=loaded[0], test=loaded[1], **settings)


def _overrides(section: TaskSpec) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if section.batch_size is not None:
        given["batch_size"] = section.batch_size
    if section.rule is not None:
        own = ":" in section.rule.name
        given["rule"] = (
            _function(section.rule.name, "task.rule") if own else {"name": section.rule.name, **section.rule.settings}
        )
    if section.loss is not None:
        given["loss"] = _function(section.loss, "task.loss") if ":" in section.loss else section.loss
    if section.metric is not None:
        given["metric"] = _function(section.metric, "task.metric")
    return given


def _function(name: str, where: str) -> Callable[..., Any]:
    """The function of a user at ``module:function``."""
    found = import_object(name, where)
    if not callable(found):
        module, _, attribute = name.partition(":")
        raise SpecError(f"{where}: module {module} has no function {attribute!r}.")
    return found


def _check_options(make: Callable[..., Any], options: Mapping[str, Any], where: str) -> None:
    allowed = {name for name in inspect.signature(make).parameters if not name.startswith("_")}
    if make is ticks_task:
        allowed = {"dirichlet", *inspect.signature(ticks).parameters} - {"seed"}
    if any(make is built_in for built_in, _ in BUILT_IN.values()):
        allowed -= _NOT_OPTIONS
    unknown = [name for name in options if name not in allowed]
    if unknown:
        hint = meant(unknown[0], allowed)
        raise SpecError(
            f"task.options: {where} has no option {unknown[0]!r}{hint}; it has {', '.join(sorted(allowed)) or 'none'}."
        )
