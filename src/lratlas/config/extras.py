"""Resolve custom measurements from the section ``[measure]`` of a spec, or from Python."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from lratlas.config.code import import_object
from lratlas.config.sections import MeasureSpec
from lratlas.errors import SpecError
from lratlas.measure.base import Measurement
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.tables import SCHEMAS

Extras: TypeAlias = tuple[Measurement, ...]

_FIELD = "`measure.extra`"
CHARTS = (
    "accuracy",
    "accuracy_at_loss",
    "last_tenth",
    "loss",
    "traces",
    "convergence",
    "two_stages",
    "ticks",
    "band_picture",
    *(figure.name for measurement in MEASUREMENTS for figure in measurement.needs.figures),
)
"""The names of a study's charts, which custom measurements cannot have."""
_TAKEN = {*SCHEMAS, *CHARTS, *(measurement.name for measurement in MEASUREMENTS)}


def extras_of(section: MeasureSpec) -> Extras:
    """The custom measurements that a spec names.

    Raises:
        SpecError: One of them cannot be imported or is not a measurement, or two tables have equal names.
    """
    return check_extras([_measurement(name) for name in section.extra])


def split_extras(measure: object) -> tuple[object, Extras]:
    """Split the argument ``measure`` of `lratlas.explore` into the section of a spec, and the measurements.

    Args:
        measure: The fields of the section, in which ``extra`` may contain measurements; or the value of ``extra``.

    Raises:
        SpecError: As for `extras_of`.
    """
    if isinstance(measure, Measurement | list | tuple):
        measure = {"extra": measure}
    if not isinstance(measure, Mapping) or "extra" not in measure:
        return measure, ()
    section = cast("Mapping[str, Any]", measure)
    given = section["extra"]
    if not isinstance(given, list | tuple):
        given = [given]
    found = check_extras([_measurement(each) for each in cast("Sequence[object]", given)])
    return {**section, "extra": [each.name for each in found]}, found


def check_extras(measurements: Iterable[Measurement]) -> Extras:
    """The measurements sorted by name, after a check that names of tables and charts are unique.

    Raises:
        SpecError: A name is taken.
    """
    found, names = tuple(sorted(measurements, key=lambda each: each.name)), set[str]()
    for each in found:
        if each.name in _TAKEN:
            raise SpecError(
                f"{_FIELD}: the name {each.name!r} is taken by a table, chart or measurement of the package;"
                " choose another name."
            )
        if each.name in names:
            raise SpecError(f"{_FIELD}: two measurements have the name {each.name!r}; names must differ.")
        names.add(each.name)
    return found


def _measurement(given: object) -> Measurement:
    found = import_object(given, _FIELD) if isinstance(given, str) and ":" in given else given
    if isinstance(found, Measurement):
        return found
    if isinstance(given, str) and ":" in given:
        module, _, attribute = given.partition(":")
        raise SpecError(f"{_FIELD}: module {module} has no lratlas.Measurement {attribute!r}.")
    if isinstance(given, str) and given in MeasureSpec.model_fields:
        raise SpecError(f'{_FIELD} holds {given!r}, which is part of the package; write measure={{"{given}": True}}.')
    raise SpecError(f'{_FIELD} holds {given!r}; it must be a lratlas.Measurement or "module:name".')
