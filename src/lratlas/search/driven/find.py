"""`find` for a function or a script that trains."""

import asyncio
import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lratlas.errors import SpecError
from lratlas.paths import home_expanded
from lratlas.search.advice import Advice
from lratlas.search.driven.drive import Driven, count_steps, drive
from lratlas.search.driven.script import asks_for, script_training
from lratlas.search.driven.validation import Validation, make_validation
from lratlas.search.finder import Finder
from lratlas.search.journal import SETTINGS
from lratlas.search.segments import Segment

_LR_NAMES = ("lr", "learning_rate", "base_lr", "max_lr", "peak_lr", "init_lr", "initial_lr", "lr0", "eta", "rate")
_UNNAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
_MORE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_COUNTED_AT = 1e-3  # the LR of the training whose steps are counted; the length does not depend on it


def find_by_function(
    train: Callable[..., object],
    *,
    value: str | Callable[..., Any] | None,
    metric: str | None = None,
    pattern: str | None = None,
    folder: str | Path | None = None,
    steps: int | None = None,
    progress: Callable[[Finder], None] = lambda _: None,
    **settings: Any,
) -> Advice:
    """Find the initial LR for a function that trains, as it is.

    Args:
        train: Called with the LR; also with ``seed`` and ``steps`` where it has arguments of these names. Where it has
            no argument for the LR, the LRs of its optimizers are scaled.
        value: The validation metric, as `make_validation` takes it; None for the training loss.
        metric: The name of the metric, in a dictionary or in what is printed.
        pattern: Finds the metric in what is printed.
        folder: The search folder; a new temporary one if None.
        steps: Optimizer steps of a full training; counted in one training if None.
        progress: Called after each segment.
        settings: Further ones of a `Finder`.

    Raises:
        SpecError: An argument is wrong.
        SearchError: The training fails, or the folder cannot be used.
    """
    parameters = _parameters(train)
    name = _lr_name(parameters)

    def start(segment: Segment) -> object:
        own = {"seed": segment.seed, "steps": segment.stop}
        own = {each: own[each] for each in own if each in parameters}
        if name is None:
            return _ended(train(**own))
        if name in parameters and parameters[name].kind in _UNNAMED:
            return _ended(train(segment.lr, **own))
        return _ended(train(**{name: segment.lr}, **own))

    driven = Driven(
        start=start,
        imposed=name is None,
        validation=_validation(value, metric, pattern),
        shrinks="steps" in parameters,
    )
    return _found(driven, folder, steps, progress, settings)


def find_by_script(
    script: str | Path,
    words: Sequence[str],
    *,
    value: str | None,
    metric: str | None = None,
    pattern: str | None = None,
    folder: str | Path | None = None,
    steps: int | None = None,
    progress: Callable[[Finder], None] = lambda _: None,
    **settings: Any,
) -> Advice:
    """Find the initial LR for a script that trains, as it is.

    Args:
        script: The file; it is run as Python runs it, in this process.
        words: Its arguments, in which ``{lr}``, ``{seed}`` and ``{steps}`` are replaced. Without ``{lr}``, the LRs of
            its optimizers are scaled.
        value: As for `find_by_function`, and so are all others.
        metric: The name of the metric.
        pattern: Finds the metric in what is printed.
        folder: The search folder.
        steps: Optimizer steps of a full training.
        progress: Called after each segment.
        settings: Further ones of a `Finder`.

    Raises:
        SpecError: An argument is wrong.
        SearchError: The script fails, or the folder cannot be used.
    """
    path = home_expanded(script)
    driven = Driven(
        start=script_training(path, words),
        imposed=not asks_for(words, "lr"),
        validation=_validation(value, metric, pattern),
        roots=(path.resolve().parent,),
        shrinks=asks_for(words, "steps"),
    )
    return _found(driven, folder, steps, progress, settings)


def _found(
    driven: Driven,
    folder: str | Path | None,
    steps: int | None,
    progress: Callable[[Finder], None],
    settings: Mapping[str, Any],
) -> Advice:
    root = home_expanded(folder or tempfile.mkdtemp(prefix="lratlas-find-"))
    if steps is None and not (root / SETTINGS).exists():
        if driven.shrinks:
            raise SpecError("The training is told its length: steps says how long a full one is.")
        steps = count_steps(driven, root, lr=_COUNTED_AT)
    if driven.shrinks:
        if settings.get("schedule", "constant") != "constant" or settings.get("warmup"):
            raise SpecError(
                "The training is told its length, so it has its own schedule: leave out schedule and warmup."
            )
        settings = {**settings, "schedule": "own"}
    finder = Finder(root, steps=steps, anneal=False, **settings)
    return drive(driven, finder, progress=progress)


def _validation(value: str | Callable[..., Any] | None, metric: str | None, pattern: str | None) -> Validation | None:
    if value is None and (metric or pattern):
        raise SpecError("A metric or a pattern is for what the value returns or prints: give the value too.")
    return None if value is None else make_validation(value, metric=metric, pattern=pattern)


def _parameters(train: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(train).parameters
    except (TypeError, ValueError) as error:
        raise SpecError(f"{train!r} cannot be called with an LR: {error}.") from error


def _lr_name(parameters: Mapping[str, inspect.Parameter]) -> str | None:
    """The argument for the LR: one with a usual name, else the one that is needed; None where there is none.

    Raises:
        SpecError: Others are needed too.
    """
    others = {name: each for name, each in parameters.items() if name not in {"seed", "steps"}}
    needed = [name for name, each in others.items() if each.default is each.empty and each.kind not in _MORE]
    usual = [name for name in _LR_NAMES if name in others]
    name = next(iter([*[each for each in usual if each in needed], *usual, *needed]), None)
    if name is None and any(each.kind in _MORE for each in others.values()):
        first = next(name for name, each in others.items() if each.kind in _MORE)
        name = first if others[first].kind in _UNNAMED else "lr"
    if more := [each for each in needed if each != name]:
        raise SpecError(
            f"The function also needs {more[0]}: give one that needs the LR only, such as lambda lr: train(lr, …)."
        )
    return name


def _ended(returned: object) -> object:
    """What the training returned; where it is a generator or a coroutine, once that has ended."""
    if inspect.isgenerator(returned):
        for _ in returned:
            pass
    elif inspect.iscoroutine(returned):
        return asyncio.run(returned)
    return returned
