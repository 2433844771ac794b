"""Types of the values in a spec, and messages about invalid values."""

import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails

from lratlas.errors import SpecError, meant
from lratlas.text import is_finite, to_python
from lratlas.thresholds import Thresholds

OWN = "own"
"""The tag of user-defined values in a union."""

LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "model")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_NAMED = re.compile(rf"({_FUNCTION.pattern}|[a-z][a-z0-9_]*)")  # a measurement from Python only has a name
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")
_DEEPEST = 20
MOST_CHECKPOINTS = 10_000
MOST_WORKERS = 1024
MOST_SAMPLES = 10**9  # in a batch


def _function(value: str) -> str:
    if not _FUNCTION.fullmatch(value):
        raise ValueError(f'is {format_value(value)}, but must be written "module:function"')
    return value


def _loss(value: str) -> str:
    if value not in LOSSES and not _FUNCTION.fullmatch(value):
        raise ValueError(f'is {format_value(value)}, but must be {", ".join(LOSSES)} or "module:function"')
    return value


def _batch_size(value: object) -> object:
    if value != "full" and not (type(value) is int and 1 <= value <= MOST_SAMPLES):
        most = f" and at most {MOST_SAMPLES:,}" if isinstance(value, int) and value > 1 else ""
        raise ValueError(f'is {format_value(value)}, but must be a whole number of at least 1{most} or "full"')
    return value


def _bands(value: object) -> object:
    if isinstance(value, bool):
        return value
    bands = [_list(each) for each in _list(value)]
    whole = all(len(band) == 2 and all(type(end) is int for end in band) for band in bands)
    if not bands or not whole or not all(0 <= low <= high for low, high in cast("list[list[int]]", bands)):
        raise ValueError(
            f"is {format_value(value)}, but must be true, false or a list of bands [low, high] of whole numbers with"
            " 0 <= low <= high"
        )
    return tuple(sorted({(low, high) for low, high in cast("list[list[int]]", bands)}))


def _names(value: object) -> tuple[str, ...]:
    names = _list(value)
    if (names or value) and not (names and all(isinstance(each, str) and _NAMED.fullmatch(each) for each in names)):
        raise ValueError(f'is {format_value(value)}, but must be a list of measurements, each written "module:name"')
    return tuple(sorted(set(cast("list[str]", names))))


def _device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError(f"is {format_value(value)}, but must be auto, cpu, cuda, cuda:N or mps")
    return value


def _counts(value: object) -> tuple[int, ...]:
    counts = _list(value)
    if not counts or not all(type(each) is int and each >= 1 for each in counts) or len({*counts}) < len(counts):
        raise ValueError(f"is {format_value(value)}, but must be a list of different whole numbers of at least 1")
    found = sorted(cast("list[int]", counts))
    if found[-1] > MOST_CHECKPOINTS:
        raise ValueError(f"holds {found[-1]}, but at most {MOST_CHECKPOINTS:,} checkpoints can be averaged")
    return tuple(found)


def _betas(value: object) -> tuple[float, float]:
    betas = _list(value)
    if len(betas) != 2 or not all(type(each) in {int, float} and 0 <= cast("float", each) < 1 for each in betas):
        raise ValueError(f"is {format_value(value)}, but must be a list of two numbers of at least 0 and below 1")
    first, second = cast("list[float]", betas)
    return float(first), float(second)


def _list(value: object) -> list[object]:
    return list(cast("Sequence[object]", value)) if isinstance(value, (list, tuple)) else []


def _numbers(value: dict[str, float]) -> dict[str, float]:
    names = [field.name for field in fields(Thresholds)]
    unknown = [name for name in value if name not in names]
    if unknown:
        hint = meant(unknown[0], names)
        raise ValueError(f"has {unknown[0]!r}{hint}, but the thresholds are {', '.join(names)}")
    try:
        Thresholds(**value)
    except SpecError as error:
        raise ValueError(f"has an invalid number: {str(error).removesuffix('.')}") from error
    return value


def _plain(value: object, depth: int = 0) -> object:
    """The value as a TOML value; other kinds of values, and missing ones, are rejected."""
    if depth > _DEEPEST:
        raise ValueError(f"is nested more than {_DEEPEST} levels deep")
    if isinstance(value, (list, tuple)):
        return [_plain(each, depth + 1) for each in cast("list[object]", value)]
    if isinstance(value, dict):
        table = cast("dict[object, object]", value)
        return {_plain_text(key): _plain(each, depth + 1) for key, each in table.items()}
    if isinstance(value, bool | int) or (isinstance(value, float) and is_finite(value)):
        return value
    return _plain_text(value)


def _plain_text(value: object) -> str:
    # A file can hold any text without lone surrogates.
    if isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value):
        return value
    raise ValueError(f"holds {format_value(value)}, but can hold only text, finite numbers, booleans, lists and tables")


def _options(value: dict[str, object]) -> dict[str, object]:
    return cast("dict[str, object]", _plain(value))


class Section(BaseModel):
    """A part of a spec: frozen, strict about types, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=False)

    @model_validator(mode="before")
    @classmethod
    def _own_numbers(cls, values: object) -> object:
        return to_python(values)


Function = Annotated[str, AfterValidator(_function)]
"""A function by its place, ``module:function``."""

Loss = Annotated[str, AfterValidator(_loss)]
"""A loss by its name or its place."""

BatchSize = Annotated[int | Literal["full"], BeforeValidator(_batch_size)]
"""Samples in a batch, or all of them."""

Bands = Annotated[bool | tuple[tuple[int, int], ...], BeforeValidator(_bands)]
"""Whether to measure the default Fourier bands, or a list of bands."""

Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""Custom measurements by place, or by name if passed from Python."""

Device = Annotated[str, AfterValidator(_device)]
"""The training device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""

Counts = Annotated[tuple[int, ...], BeforeValidator(_counts)]
"""Distinct integers of at least 1, ascending."""

Betas = Annotated[tuple[float, float], BeforeValidator(_betas)]
"""Two decay rates."""

Numbers = Annotated[dict[str, float], AfterValidator(_numbers)]
"""Numbers of `lratlas.thresholds.Thresholds`, by name."""

Options = Annotated[dict[str, object], AfterValidator(_options)]
"""Keyword arguments with TOML values."""


_LONGEST = 60
_UNKNOWN = "extra_forbidden"
_NO_DEFAULT = "default_factory_not_called"  # since a field that determines it is invalid
_NO_KIND = {"union_tag_invalid", "union_tag_not_found"}
_SHOULD = re.compile(r"\w+ should (?P<what>.*)")


def sentence(error: ValidationError, model: type[BaseModel], *, also: Sequence[str] = ()) -> str:
    """The first fault in ``error`` as one sentence, with the number of further faults.

    An unknown field precedes all other faults, since a misspelt name explains a missing field.

    Args:
        error: The error that pydantic raised for ``model``.
        model: The outermost model, whose field names and descriptions are used.
        also: Other names allowed next to the sections, such as arguments of a function.

    Returns:
        A sentence that names the field, its value and the allowed values.
    """
    found = [fault for fault in error.errors(include_url=False) if fault["type"] != _NO_DEFAULT]
    faults = sorted(found, key=lambda fault: fault["type"] != _UNKNOWN)
    if faults[0]["type"] == _UNKNOWN:
        faults = [fault for fault in faults if not _follows(fault, faults[0])]
    more = len(faults) - 1
    ending = "" if more == 0 else f" (and {more} more {'field is' if more == 1 else 'fields are'} invalid)"
    return f"{_fault(faults[0], model, also)}{ending}."


def _follows(fault: ErrorDetails, unknown: ErrorDetails) -> bool:
    """Whether a missing field is the likely meaning of an unknown field next to it."""
    (*section, name), (*others, misspelt) = fault["loc"], unknown["loc"]
    return fault["type"] == "missing" and section == others and bool(meant(str(misspelt), [str(name)]))


def _fault(fault: ErrorDetails, model: type[BaseModel], also: Sequence[str]) -> str:
    location, owner = _place_of([part for part in fault["loc"] if isinstance(part, str)], model)
    if fault["type"] == _UNKNOWN:
        return _describe_unknown(location, owner, also, is_table=isinstance(fault["input"], Mapping))
    if fault["type"] == "missing":
        return f"`{_dotted_name(location)}` is missing: {owner.model_fields[location[-1]].description}"
    place = f"`{_dotted_name(location)}`" if location else "The spec"
    if fault["type"] == "value_error":
        return f"{place} {fault['ctx']['error']}" if "ctx" in fault else f"{place} {fault['msg']}"
    table = fault["input"] if isinstance(fault["input"], Mapping) else None
    if fault["type"] in {"model_type", "dict_type"} or (fault["type"] in _NO_KIND and table is None):
        return f"{place} is {format_value(fault['input'])}, but must be a table"
    if fault["type"] in _NO_KIND and table is not None:
        kinds = _kinds_in(owner.model_fields[location[-1]].annotation)
        allowed = f'{", ".join(kind for kind in kinds if kind != OWN)} or "module:function"'
        return f"`{_dotted_name([*location, 'name'])}` is {format_value(table.get('name'))}, but must be {allowed}"
    match = _SHOULD.fullmatch(fault["msg"])
    allowed = f"should {match['what']}" if match else fault["msg"]
    return f"{place} is {format_value(fault['input'])}, but {allowed.replace('should ', 'must ', 1)}"


def _dotted_name(location: Sequence[str]) -> str:
    """The name of a field in TOML; unusual keys are quoted."""
    return ".".join(name if name and name.isprintable() else json.dumps(name) for name in location)


def _describe_unknown(location: Sequence[str], owner: type[BaseModel], also: Sequence[str], *, is_table: bool) -> str:
    *section, name = location
    allowed = list(owner.model_fields)
    known = allowed if section else [*allowed, *also]
    hint, choice = meant(name, known, quote="`"), ", ".join(known)
    if section:
        return f"`{_dotted_name(location)}` is not a field{hint}; allowed in [{_dotted_name(section)}] are {choice}"
    if is_table:
        return f"There is no section `{_dotted_name(location)}`{hint}; allowed are {choice}"
    return f"`{_dotted_name(location)}` is not {'an argument' if also else 'a field'}{hint}; allowed are {choice}"


def _place_of(location: Sequence[str], model: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """The field names down to a fault, without tags of unions, and the model of the last field."""
    names, owner, parts = list[str](), model, iter(location)
    for name in parts:
        names.append(name)
        owner = model
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        if kinds := _kinds_in(annotation):
            model = kinds.get(next(parts, ""), model)
        elif nested := _model_in(annotation):
            model = nested
    return names, owner


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model in an annotation ``Model`` or ``Model | None``."""
    for each in (annotation, *typing.get_args(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _kinds_in(annotation: object) -> dict[str, type[BaseModel]]:
    """The models of a tagged union, by tag."""
    found: dict[str, type[BaseModel]] = {}
    for each in typing.get_args(annotation):
        tag = next((part.tag for part in getattr(each, "__metadata__", ()) if isinstance(part, Tag)), None)
        found |= _kinds_in(each) if tag is None else {tag: typing.get_args(each)[0]}
    return found


def format_value(value: object) -> str:
    """A value of a spec for a message: in TOML syntax, shortened."""
    if value is None:
        return "not given"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
