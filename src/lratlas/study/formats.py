"""The formats of studies: how to detect the format of a study and read files of earlier versions.

Each plan and each part of a table states its format. Content of an earlier format passes through all later changes,
each a pure function from one format to the next. Reading changes nothing on disk.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import polars as pl

from lratlas.errors import StudyError
from lratlas.tables import SCHEMAS

FORMAT = 9
"""The format that this version writes."""

NEEDS = "0.1.0"
"""The first version of lratlas that reads this format."""

KEY = "format"
"""Metadata key of the format in parts of tables; parts of formats 1 and 2 lack it."""

Content = dict[str, Any]


def _second_plan(content: Content) -> Content:
    """Add second PLRs, convergence, norms and sharpness. The first plans of format 1 name no device."""
    added: Content = {"device": "cpu", "compiled": False, "bands": [], "norms": [], "sharpness": [], "pre_norm": []}
    return {"task": "", **added, **content}


def _third_plan(content: Content) -> Content:
    """Add the spec's checksum and the versions that made the study; only lratlas's version is known."""
    return {**content, "spec": "", "made_with": [{"lratlas": "0.1.0"}], "needs": NEEDS}


def _fourth_plan(content: Content) -> Content:
    """Add empty task parts: fingerprints now describe a task's behaviour and earlier ones cannot be compared."""
    return {"task_parts": {}, **content}


_KINDS = ("features", "bands", "geometry", "norms", "sharpness")
_OPTIONS = {"bands": "bands", "great_circle": "great_circle", "samples": "sharpness_samples"}


def _seventh_plan(content: Content) -> Content:
    """One list of measurements, each with its name and options, replaces one list per kind."""
    rest = {key: value for key, value in content.items() if key not in _KINDS}
    return {**rest, "measurements": [_measuring(kind, job) for kind in _KINDS for job in content.get(kind, ())]}


def _eighth_plan(content: Content) -> Content:
    """The text of ``spec.toml`` replaces its checksum."""
    return {**content, "spec": "", "spec_digest": content["spec"]}


def _measuring(kind: str, job: Content) -> Content:
    options = {_OPTIONS[key]: value for key, value in job.items() if key in _OPTIONS}
    return {"measurement": kind, "options": options} | {key: job[key] for key in job.keys() - _OPTIONS}


# Keyed by the format that each function produces. Formats 5 and 6 did not change plans: since 6, repetitions share no
# seed and models are those of the paper's reference code. Format 9 adds the earlier devices and TF32, with defaults.
_PLANS: Mapping[int, Callable[[Content], Content]] = {
    2: _second_plan,
    3: _third_plan,
    4: _fourth_plan,
    7: _seventh_plan,
    8: _eighth_plan,
}

# Columns added to tables, by format. In addition, parts state their format since 3 and their path since 8.
_GAINED: Mapping[int, Mapping[str, Sequence[str]]] = {
    2: {"pairs": ("train_barrier_arc", "test_barrier_arc")},
    4: {"runs": ("start_loss",), "regimes": ("reason",)},
    5: {"regimes": ("spread",)},
}


def format_of(content: Mapping[str, Any]) -> int:
    """The format of a plan. Plans of format 2 state 1, like the plans before them, but have norms.

    Raises:
        ValueError: The plan states no format.
    """
    said = content.get("format")
    if not isinstance(said, int) or said < 1:
        raise ValueError(f"the format is {said!r}")
    return 2 if said == 1 and "norms" in content else said


def migrate_plan(content: Content) -> Content:
    """Convert the content of a plan of this or an earlier format to this format; ``format`` keeps the old value.

    Raises:
        ValueError: The plan states no format.
    """
    found = format_of(content)
    for number, step in _PLANS.items():
        content = step(content) if number > found else content
    return {**content, "format": found}


def migrate_part(table: str, frame: pl.DataFrame, stated: str | None) -> pl.DataFrame:
    """Add the columns that a part of a table of an earlier format lacks.

    Args:
        table: The name of the table.
        frame: The rows as read.
        stated: The format in the part's metadata; None if absent, as before format 3.
    """
    found, schema = int(stated or 1), SCHEMAS[table]
    gained = [name for number, tables in _GAINED.items() if number > found for name in tables.get(table, ())]
    frame = frame.with_columns(pl.lit(None, schema[name]).alias(name) for name in gained if name not in frame.columns)
    return frame.select(schema.names()) if set(schema.names()) == set(frame.columns) else frame


def check_format(found: int, where: str, needs: object = None) -> None:
    """Refuse the format of a later version.

    Args:
        found: The format to check.
        where: The file or table that has the format, for the message.
        needs: The first version of lratlas that reads the format, if known.

    Raises:
        StudyError: The format is of a later version.
    """
    if found > FORMAT:
        wanted = f"lratlas {needs} or later" if isinstance(needs, str) else "a later lratlas"
        raise StudyError(
            f"{where} has format {found}, which needs {wanted}; lratlas {version('lratlas')} reads formats up to"
            f" {FORMAT}."
        )


def versions() -> dict[str, str]:
    """The versions that can change a study's results: of lratlas, torch, polars and Python."""
    return {name: version(name) for name in ("lratlas", "torch", "polars")} | {"python": platform.python_version()}
