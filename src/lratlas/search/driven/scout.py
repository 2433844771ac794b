"""Preparation of a search: the length of the training, and the metric to compare LRs by."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lratlas.errors import LRAtlasError, SearchError, SpecError, meant
from lratlas.files import seal_json, write_file
from lratlas.search.driven.drive import NOT_SEEN, OUTPUT, SCHEDULE, Driven, begin_trial
from lratlas.search.driven.outputs import Outputs
from lratlas.search.driven.printed import (
    RETURNED,
    Heard,
    Printed,
    comma_pattern,
    compile_pattern,
    join_values,
    make_printed,
    most_telling,
    of_training,
)
from lratlas.search.driven.steps import follow_steps
from lratlas.search.driven.trial import ENDLESS, Reached, Trial
from lratlas.search.driven.validation import make_validation
from lratlas.search.driven.world import several_trainings
from lratlas.search.journal import SETTINGS, UNREADABLE, read_object, read_results, read_settings
from lratlas.search.segments import make_segment

_FILE = "training.json"
_BEFORE = Path(OUTPUT) / "before.txt"
_LR = 1e-3  # LR of the trial run; its length and its output do not depend on it
_PART = 16  # the trial run lasts this part of the training, if the training receives its length
_FEWEST = 4  # outputs of a metric in a training that are needed to compare LRs on the way
_TWICE = 2
_NOTHING: Mapping[str, Any] = {"name": None, "every": None, "late": 0, "seldom": None}
_OTHERWISE = (
    "set value (--value), or let the training take {steps} or {epochs} as an argument, so that each comparison is"
    " a complete training"
)
_NOT_FOUND = "No validation metric was given, and none was found in what the training prints or returns"
_BY_LOSS = "LRs were compared by the training loss, which favours LRs that overfit; set value (--value)."


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Setup of a search for a training.

    Attributes:
        driven: The training with its metric.
        steps: Optimizer steps of a full training; None if the search folder has them.
        unit: Segments end at multiples of this number of steps.
        notes: Warnings about the metric.
    """

    driven: Driven
    steps: int | None
    unit: int = 1
    notes: tuple[str, ...] = ()


def settle(
    driven: Driven,
    root: Path,
    *,
    value: Any,
    metric: str | None,
    pattern: str | None,
    steps: int | None,
    epochs: int | None,
) -> Settled:
    """Determine the missing settings: the length of the training, and the metric that it prints or returns.

    Args:
        driven: The training.
        root: The search folder; the setup is stored there.
        value: Validation metric, as in `make_validation`. If None, the metric that the training prints or returns; if
            there is none, its loss.
        metric: Name of the metric.
        pattern: Finds the metric in printed text.
        steps: Optimizer steps of a full training; if None, one training counts them.
        epochs: Epochs of a full training, if the training receives them.

    Raises:
        SpecError: An argument is wrong.
        SearchError: The training fails, the metric cannot be used, or the search was started with another metric.
    """
    shrinks = driven.shrinks
    given = make_validation(value, metric=metric, pattern=pattern) if value is not None else None
    sought = None if given else make_printed(metric, None if pattern is None else compile_pattern(pattern))
    asked = {"training": driven.origin, "value": given and given.text, "metric": metric, "pattern": pattern}
    if (shrinks == "epochs") != (epochs is not None):
        raise SpecError(
            "The training takes a number of epochs: set epochs (--epochs) to those of a full training."
            if epochs is None
            else "epochs needs a training that takes a number of epochs, but this one has no {epochs} argument, or"
            " also takes steps."
        )
    if epochs is not None and steps is not None:
        raise SpecError("Set either steps or epochs, not both: steps follow from epochs.")
    record = read_settled(root, asked)
    if record is None or "name" not in record:
        before = None if shrinks else _read_count(root, driven)
        if steps is None and (root / SETTINGS).exists():
            steps = read_settings(root).steps
        if shrinks == "steps" and steps is None:
            raise SpecError("The training takes a number of steps: set steps (--steps) to those of a full training.")
        heard = Heard(sought=sought)
        counted = steps is None and epochs is None
        seen, in_parts = steps, False
        if counted and before is not None:
            steps, in_parts = before["steps"], before["in_parts"]
            seen = steps
        if given is None or steps is None:
            seen, parts = look(driven, root, heard, steps=steps)
            in_parts = in_parts or parts
        assert seen is not None
        if epochs is not None:
            steps = seen * epochs
        steps = steps or seen
        record = {
            "in_parts": in_parts,
            "counted": counted,
            "unit": seen if epochs else None,
            "steps": steps,
            "digest": driven.digest,
        }
        keep(root, asked, record)  # the length need not be counted again if no metric is found
        record |= _find_metric(heard, sought, steps, root, shrinks=bool(shrinks))
        record["several"] = _several(heard, record["name"])
        keep(root, asked, record)
    elif steps is None:
        steps = record["unit"] * epochs if epochs and record["unit"] else record["steps"]
    name: Any = record["name"]
    every: Any = record["every"]
    unit: Any = record["unit"]
    printed = None
    if not given and name:
        printed = replace(sought or Printed(name=name), every=every, late=record["late"])
    return Settled(
        driven=replace(driven, validation=given or printed, unit=unit),
        steps=steps,
        unit=unit or (printed and every) or 1,
        notes=tuple(
            _notes(
                record,
                digest=driven.digest,
                by_loss=not given and printed is None,
                found=name if printed and not sought else None,
            )
        ),
    )


def _notes(record: Mapping[str, Any], *, digest: str, by_loss: bool, found: str | None) -> Iterator[str]:
    """Yield warnings from the trial run of a training.

    Args:
        record: The stored setup of the search.
        digest: Digest of the current code.
        by_loss: Whether LRs are compared by the training loss.
        found: Metric found in the output; None if the user named it.
    """
    if by_loss:
        yield f"{record.get('seldom') or _NOT_FOUND}: {_BY_LOSS}"
    if record.get("several"):
        yield (
            f"The training printed several values of {record['name']} between two steps, {record['several']}, and"
            " only one of them counts: select it with --metric-pattern, or set value (--value)."
        )
    if found:
        yield f"LRs were compared by {found}, found in what the training prints or returns."
    if record.get("in_parts"):
        yield (
            "The training trains its parts one after the other, each with its own optimizer, and LRs were"
            " compared before all parts were trained: the advice is for the first parts. Search each part"
            " separately."
        )
    if record.get("counted"):
        yield (
            f"A full training has {record['steps']:,} steps, measured at LR {_LR:g}: if that training stopped"
            " early, set steps (--steps)."
        )
    if record["digest"] != digest:
        yield (
            "The code has changed since the search began, and earlier results still count: use another folder"
            " to search the new code."
        )


def look(driven: Driven, root: Path, heard: Heard, *, steps: int | None) -> tuple[int, bool]:
    """Run a training at some LR: to its end if its length is unknown, else until it printed its metric twice.

    Args:
        driven: The training.
        root: The search folder.
        heard: Receives the output.
        steps: Optimizer steps of a full training; None if they are unknown.

    Returns:
        The number of steps; if the training receives its length, that of the short trial run. Whether the training
        trains its parts one after the other.

    Raises:
        SearchError: The training fails, or PyTorch trained nothing.
    """
    stop = ENDLESS
    if driven.shrinks:
        stop = 1 if driven.shrinks == "epochs" else max(1, (steps or 1) // _PART)
    whole = steps is None or bool(driven.shrinks)
    alone, outputs = replace(driven, imposed=False, validation=None, unit=1), Outputs()
    segment = make_segment(lr=_LR, seed=0, start=0, stop=stop, parent=None)
    output = root / _BEFORE
    trial = begin_trial(alone, segment, full=stop, outputs=outputs, output=output, heard=heard)
    at = ENDLESS if whole else 1
    with follow_steps(lambda: trial), several_trainings():
        reached = trial.run(replace(segment, stop=at))
        while not trial.over and (whole or (trial.step < (steps or 0) and not _twice(heard))):
            at = at if whole else 2 * at
            reached = trial.run(replace(segment, stop=at))  # it may wait at a loss that is not finite
        in_parts = trial.optimizers.in_parts
        if trial.optimizers.moved or trial.optimizers.has_scheduler:
            (root / SCHEDULE).touch()
        trial.leave()
    if isinstance(trial.error, LRAtlasError):
        raise trial.error
    if trial.error is not None and not (isinstance(trial.error, SystemExit) and trial.step):  # some scripts exit
        raise SearchError(
            f"The first training, at LR {_LR:.3g}, failed: {_reason(trial, reached, output)}. Its output is in"
            f" {output}. Fix it and rerun."
        )
    if trial.step == 0:
        raise SearchError(NOT_SEEN)
    return trial.step, in_parts


def _reason(trial: Trial, reached: Reached, output: Path) -> str:
    """Reason of a failure; if the training only gave an exit status, its last line of output."""
    if isinstance(trial.error, SystemExit):
        with suppress(OSError):
            lines = output.read_text(encoding="utf-8", errors="replace").split("\n")
            if said := [line.strip() for line in lines if line.strip()]:
                return said[-1].rstrip(".")
    return str(reached.error).rstrip(".")


def _twice(heard: Heard) -> bool:
    name = heard.sought.name if heard.sought else most_telling(heard)
    return sum(step > 0 for step in heard.values.get(name or "", {})) >= _TWICE


def _find_metric(heard: Heard, sought: Printed | None, steps: int, root: Path, *, shrinks: bool) -> Mapping[str, Any]:
    """Find the metric that was printed or returned, and the steps between its outputs.

    Raises:
        SearchError: The metric was named but cannot be used.
    """
    if sought and heard.unclear:
        raise SearchError(
            f"The training prints several values of {sought.name} on one line, {join_values(heard.unclear)}:"
            " select one with --metric-pattern, or set value (--value)."
        )
    name = sought.name if sought else most_telling(heard)
    at = sorted(step for step in heard.values.get(name or "", {}) if step > 0)
    if name is None or not at:
        if sought:
            text = ""
            with suppress(OSError):
                text = (root / _BEFORE).read_text(encoding="utf-8", errors="replace")
            raise SearchError(" ".join(_missing(sought, heard, text)))
        return _NOTHING
    if shrinks:
        return {**_NOTHING, "name": name}
    every = max((two - one for one, two in itertools.pairwise([0, *at])), default=steps) if len(at) > 1 else steps
    if _FEWEST * every <= steps:
        # Output after steps 1, 11, … belongs to steps 0, 10, …; output after steps 9, 19, … to steps 10, 20, ….
        late = at[0] % every
        return {**_NOTHING, "name": name, "every": every, "late": late if 2 * late <= every else 0}
    seldom = f"{name} is printed only every {every:,} of {steps:,} steps"
    if sought:
        raise SearchError(f"{seldom}: {_OTHERWISE}.")
    return {**_NOTHING, "seldom": seldom}


def _read_count(root: Path, driven: Driven) -> dict[str, Any] | None:
    """Stored step count of the same training, from a search that did not start because no metric was found."""
    with suppress(*UNREADABLE):
        record = read_object((root / _FILE).read_bytes())
        if record["counted"] and record["digest"] == driven.digest and record["asked"]["training"] == driven.origin:
            return record
    return None


def _missing(sought: Printed, heard: Heard, text: str) -> Iterator[str]:
    """Yield sentences about a missing metric: metrics found instead, unreadable numbers, and remedies."""
    others = Heard()
    others.hear(f"{text}\n", 1)
    names, lines = [*others.values, *sorted(heard.of_return)], text.splitlines()
    close = meant(sought.name.lower(), names) if sought.by_name else ""
    yield f"The training printed and returned no {sought.name}{close}."
    if names:
        yield f"It printed or returned: {', '.join(names)}."
    if sought.pattern and sought.by_name and any(of_training(sought.pattern, line) for line in lines):
        yield (
            f"A {sought.name} after the word train is read as that of the training set: if it is not, select it"
            " with --metric-pattern."
        )
    with_comma = comma_pattern(sought.name) if sought.by_name else sought.pattern
    numbers = [
        found[found.re.groups] or "" for line in lines for found in (with_comma.finditer(line) if with_comma else ())
    ]
    if number := next((each for each in numbers if "," in each), None):
        yield (
            f"A number with a comma, such as {number}, is not read: print it without the comma, or set value (--value)."
        )
    yield f"{'Name one of these' if {*names} - {RETURNED} else 'Use another name'}, {_OTHERWISE}."


def _several(heard: Heard, name: object) -> str | None:
    """Describe different values of a metric between two steps; None unless most steps have them."""
    several = heard.several.get(str(name), {})
    if 2 * len(several) <= len(heard.values.get(str(name), {})):  # such as a summary at the end
        return None
    step = min(several)
    return f"{join_values(several[step])} after step {step:,}"


def same_metric(root: Path, metric: str) -> None:
    """Check that a search continues with the metric that it was started with.

    Raises:
        SearchError: The search was started with another metric.
    """
    asked = {"metric": metric}
    if read_settled(root, asked) is None:
        keep(root, asked, {})


def keep(root: Path, asked: Mapping[str, object], found: Mapping[str, object]) -> None:
    """Store the arguments and the setup of a search in its folder."""
    root.mkdir(parents=True, exist_ok=True)
    write_file(root / _FILE, seal_json({"asked": asked, **found}).encode())


def read_settled(root: Path, asked: Mapping[str, object]) -> dict[str, Any] | None:
    """Read the stored setup of a search; None for a new search, or if nothing was trained with these arguments.

    Args:
        root: The search folder.
        asked: Arguments that the search must have been started with, by name.

    Raises:
        SearchError: The search was started with another metric, or the record is damaged.
    """
    path = root / _FILE
    try:
        record = read_object(path.read_bytes())
        before = record["asked"]
        differing = [name for name in asked if before[name] != asked[name]]
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise SearchError(f"{path} is damaged; use another folder.") from error
    if differing and read_results(root):
        name = differing[0]
        raise SearchError(
            f"The {name} is {asked[name]!r}, but the search in {root} began with {before[name]!r}: use that"
            " value, or another folder."
        )
    return None if differing else record
