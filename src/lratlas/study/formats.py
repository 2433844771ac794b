"""The formats of studies: which one a study has, and how what an earlier version wrote is read.

A plan and every part of a table state their format. What is read passes through all changes that it lacks, each a pure
function from one format to the next; nothing on disk is changed by reading.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import polars as pl

from lratlas.errors import StudyError
from lratlas.tables import SCHEMAS

FORMAT = 8
"""What this version writes."""

NEEDS = "0.1.0"
"""The first version of lratlas that reads it."""

KEY = "format"
"""Where the parts of tables state theirs, in their metadata; those of formats 1 and 2 do not."""

Content = dict[str, Any]


def _second_plan(content: Content) -> Content:
    """A second PLR, convergence, norms and sharpness. The first plans of format 1 name no device."""
    added: Content = {"device": "cpu", "compiled": False, "bands": [], "norms": [], "sharpness": [], "pre_norm": []}
    return {"task": "", **added, **content}


def _third_plan(content: Content) -> Content:
    """The spec's checksum, and the versions that made the study, of which only lratlas's is known."""
    return {**content, "spec": "", "made_with": [{"lratlas": "0.1.0"}], "needs": NEEDS}


def _fourth_plan(content: Content) -> Content:
    """Fingerprints are of a task's behaviour; earlier ones cannot be compared with them."""
    return {"task_parts": {}, **content}


_KINDS = ("features", "bands", "geometry", "norms", "sharpness")
_OPTIONS = {"bands": "bands", "great_circle": "great_circle", "samples": "sharpness_samples"}


def _seventh_plan(content: Content) -> Content:
    """One list of measurements, each with its name and options, in place of one list for each kind."""
    rest = {key: value for key, value in content.items() if key not in _KINDS}
    return {**rest, "measurements": [_measuring(kind, job) for kind in _KINDS for job in content.get(kind, ())]}


def _eighth_plan(content: Content) -> Content:
    """The text of ``spec.toml`` in place of its checksum alone."""
    return {**content, "spec": "", "spec_digest": content["spec"]}


def _measuring(kind: str, job: Content) -> Content:
    options = {_OPTIONS[key]: value for key, value in job.items() if key in _OPTIONS}
    return {"measurement": kind, "options": options} | {key: job[key] for key in job.keys() - _OPTIONS}


# By the format that they lead to from the one before. Formats 5 and 6 changed no plan's form: in 6 repetitions share no
# seed, and models are those of the paper's reference code.
_PLANS: Mapping[int, Callable[[Content], Content]] = {
    2: _second_plan,
    3: _third_plan,
    4: _fourth_plan,
    7: _seventh_plan,
    8: _eighth_plan,
}

# The columns that tables gained, by format. Besides them, parts state their format since 3, and where they belong
# since 8.
_GAINED: Mapping[int, Mapping[str, Sequence[str]]] = {
    2: {"pairs": ("train_barrier_arc", "test_barrier_arc")},
    4: {"runs": ("start_loss",), "regimes": ("reason",)},
    5: {"regimes": ("spread",)},
}


def format_of(content: Mapping[str, Any]) -> int:
    """The format of a plan. Plans of format 2 say 1, as those before them did, but have norms.

    Raises:
        ValueError: It states none.
    """
    said = content.get("format")
    if not isinstance(said, int) or said < 1:
        raise ValueError(f"the format is {said!r}")
    return 2 if said == 1 and "norms" in content else said


def migrate_plan(content: Content) -> Content:
    """The content of a plan of this or an earlier format, as a plan of this format has it; ``format`` stays the old.

    Raises:
        ValueError: It states no format.
    """
    found = format_of(content)
    for number, step in _PLANS.items():
        content = step(content) if number > found else content
    return {**content, "format": found}


def migrate_part(table: str, frame: pl.DataFrame, stated: str | None) -> pl.DataFrame:
    """A part of a table of this or an earlier format, with the columns that the table has today.

    Args:
        table: Which table.
        frame: The rows as they were read.
        stated: The part's format as its metadata state it; None where they do not, as before format 3.
    """
    found, schema = int(stated or 1), SCHEMAS[table]
    gained = [name for number, tables in _GAINED.items() if number > found for name in tables.get(table, ())]
    frame = frame.with_columns(pl.lit(None, schema[name]).alias(name) for name in gained if name not in frame.columns)
    return frame.select(schema.names()) if set(schema.names()) == set(frame.columns) else frame


def check_format(found: int, where: str, needs: object = None) -> None:
    """Check that a format is not one of a later version.

    Args:
        found: The format.
        where: What has it.
        needs: The first version of lratlas that reads it, where that is told.

    Raises:
        StudyError: It is.
    """
    if found > FORMAT:
        wanted = f"lratlas {needs} or later" if isinstance(needs, str) else "a later lratlas"
        raise StudyError(
            f"{where} has format {found}, which needs {wanted}; this is lratlas {version('lratlas')}, which reads"
            f" formats up to {FORMAT}."
        )


def versions() -> dict[str, str]:
    """The versions that decide what a study comes to: of lratlas, torch, polars and Python."""
    return {name: version(name) for name in ("lratlas", "torch", "polars")} | {"python": platform.python_version()}
