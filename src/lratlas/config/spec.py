"""Read specs from TOML, check them, write them, and compare them for an extension of a study."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import tomli_w
from pydantic import ValidationError

from lratlas.config.sections import Spec
from lratlas.config.values import Section, format_value, sentence
from lratlas.errors import SpecError
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.paths import check_regular, expand_home

LARGEST = 2**20
"""The largest file of a spec, in bytes."""

_OPTIONS = {f"measure.{name}": each for kind in MEASUREMENTS for name, each in kind.needs.options.items()}
_MAY_GAIN = {"pretrain.lrs", "second.plrs", "second.lrs", "finetune.lrs", "measure.extra"} | {
    name for name, each in _OPTIONS.items() if each.kind not in {bool, int}
}
_MAY_GROW = {"pretrain.repeats"}
_MAY_START = {name for name, each in _OPTIONS.items() if isinstance(each.default, bool)}
_MAY_CHANGE = {
    "refine.boundary",
    "refine.ratio",
    "training.device",
    *(name for name, each in _OPTIONS.items() if each.free),
}


def read_spec(path: str | Path) -> Spec:
    """Read a spec from a TOML file.

    Args:
        path: The file.

    Returns:
        The spec, checked.

    Raises:
        SpecError: The file is missing, a folder, empty, not text or not TOML, or its spec is invalid.
    """
    text = _file_text(expand_home(path))
    if not text.strip():
        raise SpecError(f"The spec {path} is empty; it needs at least [task] and [pretrain].")
    try:
        values = tomllib.loads(text)
    # ValueError also covers numbers with too many digits, RecursionError lists nested too deep.
    except (ValueError, RecursionError) as error:
        raise SpecError(f"The spec {path} is not valid TOML: {str(error).splitlines()[0]}.") from error
    try:
        return spec_from(values)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def spec_from(values: Mapping[str, object], *, also: Sequence[str] = ()) -> Spec:
    """Check the fields of a spec.

    Args:
        values: The fields, nested as in TOML.
        also: Other names allowed next to the sections, for suggestions in the message.

    Returns:
        The spec; learning rates as sorted tuples.

    Raises:
        SpecError: A field is unknown, missing or out of range; the message names the first such field, its
            value, the allowed values, and the number of further faults.
    """
    try:
        return Spec.model_validate(dict(values))
    except ValidationError as error:
        raise SpecError(sentence(error, Spec, also=also)) from error


def spec_text(spec: Spec) -> str:
    """The spec as TOML with all defaults, so that it reads back equal even if defaults change."""
    return tomli_w.dumps(spec.model_dump(exclude_none=True))


def extends(old: Spec, new: Spec) -> str | None:
    """The reason why ``new`` does not extend ``old``.

    An extension may add learning rates, repetitions, fine-tuning, a second PLR, bisection and measurements, and may
    change the device and the numbers of regimes and bisection, nothing else. Averages and epochs to convergence cannot
    be added, since they are recorded during training.

    Args:
        old: The spec of an existing study.
        new: The requested spec.

    Returns:
        None if ``new`` extends ``old``, else a sentence that names the first differing field.
    """
    if old.name != new.name:
        return _describe_change("name", old.name, new.name)
    for section in type(old).model_fields:
        before, after = getattr(old, section), getattr(new, section)
        if section == "measure" and before.convergence != after.convergence:
            return "`measure.convergence` cannot change, because it is measured during training; use another folder."
        if section == "average" and before is None and after is not None:
            return "[average] cannot be added, because averages are taken during training; use another folder."
        if isinstance(before, Section):
            if not isinstance(after, Section):
                return f"The study has [{section}], but the new spec does not; a study can only grow."
            for field in type(before).model_fields:
                reason = _difference(section, field, getattr(before, field), getattr(after, field))
                if reason is not None:
                    return reason
    return None


def _difference(section: str, field: str, before: object, after: object) -> str | None:
    place = f"{section}.{field}"
    if before == after or place in _MAY_CHANGE or (place in _MAY_START and after is True):
        return None
    if place in _MAY_START and before is False:
        return None
    if place in _MAY_GAIN and isinstance(before, tuple) and isinstance(after, tuple):
        lost = sorted(set(cast("tuple[float, ...]", before)) - set(cast("tuple[float, ...]", after)))
        if not lost:
            return None
        return f"`{place}` holds {lost[0]!r} in the study, but not in the new spec; values can only be added."
    if place in _MAY_GROW and cast("int", after) > cast("int", before):
        return None
    return _describe_change(place, before, after)


def _file_text(path: Path) -> str:
    if path.is_dir():
        raise SpecError(f"The spec {path} is a folder, but must be a TOML file.")
    try:
        if check_regular(path).st_size > LARGEST:
            raise SpecError(f"The spec {path} has more than {LARGEST:,} bytes, the largest size allowed.")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise SpecError(f"There is no spec {path}; it must be the path of a TOML file.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError(f"The spec {path} cannot be read: {reason}.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"The spec {path} is not UTF-8 text; it must be a TOML file.") from error
    if "\0" in text:
        raise SpecError(f"The spec {path} is a binary file, but must be a TOML file.")
    return text


def _describe_change(place: str, before: object, after: object) -> str:
    held, wanted = format_value(before), format_value(after)
    return (
        f"`{place}` is {held} in the study, but {wanted} in the new spec; only LRs, repeats and measurements can be"
        " added."
    )
