"""One sentence for what is wrong with a spec, from everything pydantic found."""

import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lratlas.errors import meant

_LONGEST = 60
_UNKNOWN = "extra_forbidden"
_NO_DEFAULT = "default_factory_not_called"  # since a field that it follows from is wrong
_SHOULD = re.compile(r"\w+ should (?P<what>.*)")


def sentence(error: ValidationError, model: type[BaseModel], *, also: Sequence[str] = ()) -> str:
    """The first fault that ``error`` holds, in one sentence, and how many more there are.

    A field that does not exist comes before all other faults, since a misspelt name explains what is missing.

    Args:
        error: What pydantic raised for ``model``.
        model: The outermost model, whose field names and descriptions are used.
        also: Other names that are allowed where the sections are, such as arguments of a function.

    Returns:
        A sentence that names the field, its value and what is allowed.
    """
    found = [fault for fault in error.errors(include_url=False) if fault["type"] != _NO_DEFAULT]
    faults = sorted(found, key=lambda fault: fault["type"] != _UNKNOWN)
    if faults[0]["type"] == _UNKNOWN:
        faults = [fault for fault in faults if not _follows(fault, faults[0])]
    more = len(faults) - 1
    ending = "" if more == 0 else f" (and {more} more {'field is' if more == 1 else 'fields are'} wrong)"
    return f"{_fault(faults[0], model, also)}{ending}."


def _follows(fault: ErrorDetails, unknown: ErrorDetails) -> bool:
    """Whether a missing field is what an unknown one next to it was meant to be."""
    (*section, name), (*others, misspelt) = fault["loc"], unknown["loc"]
    return fault["type"] == "missing" and section == others and bool(meant(str(misspelt), [str(name)]))


def _fault(fault: ErrorDetails, model: type[BaseModel], also: Sequence[str]) -> str:
    location = [part for part in fault["loc"] if isinstance(part, str)]
    if fault["type"] == _UNKNOWN:
        return _unknown(location, model, also, is_table=isinstance(fault["input"], Mapping))
    if fault["type"] == "missing":
        owner = _model_at(location[:-1], model)
        return f"`{_dotted(location)}` is missing: {owner.model_fields[location[-1]].description}"
    place = f"`{_dotted(location)}`" if location else "The spec"
    if fault["type"] == "value_error":
        return f"{place} {fault['ctx']['error']}" if "ctx" in fault else f"{place} {fault['msg']}"
    if fault["type"] in {"model_type", "dict_type"}:
        return f"{place} is {shown(fault['input'])}, but must be a table"
    match = _SHOULD.fullmatch(fault["msg"])
    allowed = f"should {match['what']}" if match else fault["msg"]
    return f"{place} is {shown(fault['input'])}, but {allowed.replace('should ', 'must ', 1)}"


def _dotted(location: Sequence[str]) -> str:
    """The name of a field as TOML has it: a key may hold anything, between quotation marks."""
    return ".".join(name if name and name.isprintable() else json.dumps(name) for name in location)


def _unknown(location: Sequence[str], model: type[BaseModel], also: Sequence[str], *, is_table: bool) -> str:
    *section, name = location
    allowed = list(_model_at(section, model).model_fields)
    known = allowed if section else [*allowed, *also]
    hint, choice = meant(name, known, quote="`"), ", ".join(known)
    if section:
        return f"`{_dotted(location)}` is not a field{hint}; allowed in [{_dotted(section)}] are {choice}"
    if is_table:
        return f"There is no section `{_dotted(location)}`{hint}; allowed are {choice}"
    return f"`{_dotted(location)}` is not {'an argument' if also else 'a field'}{hint}; allowed are {choice}"


def _model_at(path: Sequence[str], model: type[BaseModel]) -> type[BaseModel]:
    for name in path:
        model = _model_in(model.model_fields[name].annotation)
    return model


def _model_in(annotation: object) -> type[BaseModel]:
    """The model itself, or the one in ``Model | None``."""
    if typing.get_origin(annotation) is types.UnionType:
        annotation = next(each for each in typing.get_args(annotation) if each is not type(None))
    return cast("type[BaseModel]", annotation)


def shown(value: object) -> str:
    """A value of a spec for a message: as TOML writes it, and never more than a glance."""
    if value is None:
        return "not given"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
