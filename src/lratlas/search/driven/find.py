"""`find` for a function or a script that trains."""

import asyncio
import hashlib
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any, Literal

from scipy.stats import spearmanr

from lratlas.errors import SearchError, SpecError
from lratlas.paths import expand_home
from lratlas.search.advice import Advice
from lratlas.search.driven.drive import Driven, drive
from lratlas.search.driven.printed import better
from lratlas.search.driven.scout import settle
from lratlas.search.driven.script import fill_arguments, measure_losses_alone, placeholders_in, script_body
from lratlas.search.driven.trial import ENDLESS
from lratlas.search.driven.validation import VARIADIC, Validation
from lratlas.search.finder import Finder
from lratlas.search.journal import search_folder
from lratlas.search.segments import Segment, mean_of_last_fifth
from lratlas.search.settings import make_search

_LR_NAMES = ("lr", "learning_rate", "base_lr", "max_lr", "peak_lr", "init_lr", "initial_lr", "lr0", "eta", "rate")
_UNNAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
_FEWEST_PAIRS, _AGAINST = 6, 0.5  # segments, and their rank correlation of loss and metric, that show a wrong direction


def find_by_function(train: Callable[..., object], *, epochs: int | None = None, **settings: Any) -> Advice:
    """Find the initial LR for an unmodified function that trains.

    Args:
        train: Called with the LR; also with ``seed``, ``steps`` and ``epochs`` if it has arguments of these names
            (``epochs`` only if given). If it has no argument for the LR, the LRs of its optimizers are scaled.
        epochs: Epochs of a full training, if the function receives them.
        settings: As for `find_driven`.

    Raises:
        SpecError: An argument is wrong.
        SearchError: The training fails, or the folder cannot be used.
    """
    parameters = _parameters(train)
    passed = {"seed", "steps"} | ({"epochs"} if epochs is not None else set())
    passed &= parameters.keys()
    call = bind_lr(train, passed)

    def start(segment: Segment, epochs: int) -> object:
        own = {"seed": segment.seed, "steps": segment.stop, "epochs": epochs}
        own = {each: own[each] for each in passed}
        return _exhaust(call(segment.lr, **own) if call else train(**own))

    code = getattr(inspect.unwrap(train), "__code__", None)
    driven = Driven(
        start=start,
        imposed=call is None,
        shrinks=_shrinks(passed),
        digest=_digest(repr(_code_identity(code)).encode()) if code else "",
    )
    return find_driven(driven, epochs=epochs, **settings)


def find_by_script(script: str | Path, words: Sequence[str], **settings: Any) -> Advice:
    """Find the initial LR for an unmodified script that trains.

    Args:
        script: The file; it runs in this process, in the same way as Python runs it.
        words: Arguments in which ``{lr}``, ``{seed}``, ``{steps}`` and ``{epochs}`` are replaced. Without ``{lr}``, the
            LRs of its optimizers are scaled.
        settings: As for `find_driven`.

    Raises:
        SpecError: An argument is wrong.
        SearchError: The script fails, or the folder cannot be used.
    """
    path = expand_home(script)
    run, passed = script_body(path), placeholders_in(words)
    imposed = "lr" not in passed

    def start(segment: Segment, epochs: int) -> object:
        return run(fill_arguments(words, segment, epochs))

    def alone(segment: Segment, epochs: int, seconds: float, output: Path) -> list[float]:
        lr = segment.lr if imposed else None
        own, shares = fill_arguments(words, segment, epochs), [segment.share_at(step) for step in range(segment.stop)]
        return measure_losses_alone(path, own, seed=segment.seed, lr=lr, shares=shares, seconds=seconds, output=output)

    roots = (path.resolve().parent,)
    driven = Driven(
        start=start,
        imposed=imposed,
        roots=roots,
        shrinks=_shrinks(passed),
        alone=alone,
        origin=" ".join([str(path), *words]),
        digest=_digest(path.read_bytes()),
    )
    return find_driven(driven, **settings)


def bind_lr(function: Callable[..., Any], passed: Collection[str] = ()) -> Callable[..., Any] | None:
    """Wrap a function as a function of the LR; None if it has no argument for an LR.

    Args:
        function: The function.
        passed: Names of other arguments that it receives.

    Raises:
        SpecError: The function needs further arguments.
    """
    parameters = _parameters(function)
    name = _lr_name(parameters, passed)
    if name is None:
        return None
    unnamed = name in parameters and parameters[name].kind in _UNNAMED

    def call(lr: float, **own: Any) -> Any:
        return function(lr, **own) if unnamed else function(**{name: lr}, **own)

    return call


def find_driven(
    driven: Driven,
    *,
    value: str | Callable[..., Any] | None = None,
    metric: str | None = None,
    pattern: str | None = None,
    folder: str | Path | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    direction: Literal["minimize", "maximize"] | None = None,
    retry_failed: bool = False,
    progress: Callable[[Finder], None] = lambda _: None,
    **settings: Any,
) -> Advice:
    """Find the initial LR for a training that can be suspended.

    Args:
        driven: The training.
        value: Validation metric, as in `make_validation`. If None, the metric that the training prints or returns; if
            there is none, its loss.
        metric: Name of the metric, in the output of ``value``, or in what the training returns or prints.
        pattern: Finds the metric in printed text.
        folder: The search folder; a new temporary one if None.
        steps: Optimizer steps of a full training; if None, one training counts them.
        epochs: Epochs of a full training, if the training receives them.
        direction: Whether a lower or a higher metric is better; if None, inferred from its name, with ``minimize`` as
            the fallback.
        retry_failed: Whether to train failed segments again, except those that diverged.
        progress: Called after each segment.
        settings: Other arguments of a `Finder`.

    Raises:
        SpecError: An argument is wrong.
        SearchError: The training fails, or the folder cannot be used.
    """
    root = search_folder(folder)
    # Report mistakes before anything is trained.
    settings = {name: tuple(each) if isinstance(each, Iterator) else each for name, each in settings.items()}
    make_search(**{"steps": steps or ENDLESS, **{name: each for name, each in settings.items() if each is not None}})
    found = settle(driven, root, value=value, metric=metric, pattern=pattern, steps=steps, epochs=epochs)
    if driven.shrinks:
        if settings.get("schedule", "constant") != "constant" or settings.get("warmup"):
            raise SpecError(
                "The training takes its length, so it has its own schedule: leave out schedule and warmup"
                " (--schedule, --warmup)."
            )
        settings = {**settings, "schedule": "own"}
    name = found.driven.validation and found.driven.validation.name
    plain = not isinstance(found.driven.validation, Validation) or found.driven.validation.is_plain
    own = direction or (better(name) if name and plain else None)
    finder = Finder(root, steps=found.steps, unit=found.unit, direction=own, anneal=False, **settings)
    if retry_failed:
        finder.retry_failed()
    advice = drive(found.driven, finder, progress=progress)
    notes = list(found.notes)
    if driven.imposed and driven.origin:
        notes.append("{lr} is not in the arguments: the LRs that the script passes to its optimizers were scaled.")
    if name and not direction:
        notes += _direction_notes(finder, name, by_name=own)
    return replace(advice, warnings=(*advice.warnings, *notes))


def _digest(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()


def _code_identity(code: CodeType) -> tuple[object, ...]:
    """Identity of a function's source code, including nested functions; equal in every process."""
    constants = [
        _code_identity(each)
        if isinstance(each, CodeType)
        else sorted(map(repr, each))
        if isinstance(each, frozenset)
        else each
        for each in code.co_consts
    ]
    return code.co_code, code.co_names, code.co_freevars, constants


def _shrinks(passed: Collection[str]) -> Literal["steps", "epochs"] | None:
    """Whether a training receives its length in steps or in epochs; None for neither."""
    return "steps" if "steps" in passed else "epochs" if "epochs" in passed else None


def _direction_notes(finder: Finder, name: str, *, by_name: str | None) -> list[str]:
    """Yield a warning about an inferred direction.

    Raises:
        SearchError: The training losses contradict the direction, and the name does not show it.
    """
    higher = finder.search.direction == "maximize"
    better, other = ("higher", "lower") if higher else ("lower", "higher")
    known = [(mean_of_last_fifth(each.losses), each.quality) for each in finder.results if each.losses]
    pairs = [(loss, value) for loss, value in known if value is not None and math.isfinite(loss + value)]
    differ = len(pairs) >= _FEWEST_PAIRS and all(len(set(each)) > 1 for each in zip(*pairs, strict=True))
    rank_correlation: Any = spearmanr(pairs)[0] if differ else 0.0
    against = rank_correlation * (-1 if higher else 1) < -_AGAINST
    if by_name:
        but = f", although they are {other} where the training loss is lower: set the direction if this is wrong"
        return [f"Judging by the name, {better} values of {name} are better{but if against else ''}."]
    if against:
        own, opposite = ("maximize", "minimize") if higher else ("minimize", "maximize")
        raise SearchError(
            f"Are {better} values of {name} better? No direction was set, and they are {other} where the"
            f' training loss is lower. Set the direction "{own}" to get the advice of this search, or'
            f' "{opposite}" and another folder.'
        )
    return []


def _parameters(train: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(train).parameters
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"{train!r} cannot be called with an LR: {error}. Pass a function of the LR, such as lambda lr: train(lr)."
        ) from error


def _lr_name(parameters: Mapping[str, inspect.Parameter], passed: Collection[str]) -> str | None:
    """Name of the argument for the LR: one of the usual names, else the only required argument; None if there is none.

    Raises:
        SpecError: Other arguments are required too.
    """
    others = {name: each for name, each in parameters.items() if name not in passed}
    needed = [name for name, each in others.items() if each.default is each.empty and each.kind not in VARIADIC]
    usual = [name for name in _LR_NAMES if name in others]
    name = next(iter([*[each for each in usual if each in needed], *usual, *needed]), None)
    if name is None and any(each.kind in VARIADIC for each in others.values()):
        first = next(name for name, each in others.items() if each.kind in VARIADIC)
        name = first if others[first].kind in _UNNAMED else "lr"
    if more := [each for each in needed if each != name]:
        raise SpecError(
            f"The function also needs {more[0]}: pass one that needs only the LR, such as lambda lr: train(lr, …)."
        )
    return name


def _exhaust(returned: object) -> object:
    """Return value of the training; runs a generator or a coroutine to its end."""
    if inspect.isgenerator(returned):
        for _ in returned:
            pass
    elif inspect.iscoroutine(returned):
        return asyncio.run(returned)
    return returned
