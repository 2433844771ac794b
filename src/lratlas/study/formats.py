"""The formats of studies: which one a study has, and how what an earlier version wrote is read.

A plan and every part of a table state their format. A migration goes from one format to the next and is a pure
function; what is read passes through all that it lacks, and nothing on disk is changed by reading.
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
    """Format 2: a second PLR, convergence, norms and sharpness. The first plans of format 1 name no device."""
    added: Content = {"device": "cpu", "compiled": False, "bands": [], "norms": [], "sharpness": [], "pre_norm": []}
    return {"task": "", **added, **content}


def _third_plan(content: Content) -> Content:
    """Format 3: the spec's checksum, and the versions that made the study, of which only lratlas's is known."""
    return {**content, "spec": "", "made_with": [{"lratlas": "0.1.0"}], "needs": NEEDS}


def _fourth_plan(content: Content) -> Content:
    """Format 4: fingerprints are of a task's behaviour; earlier ones cannot be compared with them."""
    return {"task_parts": {}, **content}


def _fifth_plan(content: Content) -> Content:
    """Format 5: tables alone have changed."""
    return content


def _sixth_plan(content: Content) -> Content:
    """Format 6: repetitions share no seed, and models are those of the paper's reference code."""
    return content


_KINDS = ("features", "bands", "geometry", "norms", "sharpness")
_OPTIONS = {"bands": "bands", "great_circle": "great_circle", "samples": "sharpness_samples"}


def _seventh_plan(content: Content) -> Content:
    """Format 7: one list of measurements, each with its name and options, in place of one list for each kind."""
    rest = {key: value for key, value in content.items() if key not in _KINDS}
    return {**rest, "measurements": [_measuring(kind, job) for kind in _KINDS for job in content.get(kind, ())]}


def _eighth_plan(content: Content) -> Content:
    """Format 8: the text of ``spec.toml`` in place of its checksum alone; parts state where they belong."""
    return {**content, "spec": "", "spec_digest": content["spec"]}


def _measuring(kind: str, job: Content) -> Content:
    options = {_OPTIONS[key]: value for key, value in job.items() if key in _OPTIONS}
    return {"measurement": kind, "options": options} | {key: job[key] for key in job.keys() - _OPTIONS}


def _second_part(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Format 2: barriers along the great circle."""
    return _with_columns(frame, "train_barrier_arc", "test_barrier_arc") if table == "pairs" else frame


def _third_part(_table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Format 3: parts state their format."""
    return frame


def _fourth_part(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Format 4: the loss before training, and the reason why a regime is undecided."""
    if table == "runs":
        return _with_columns(frame, "start_loss")
    return _with_columns(frame, "reason", kind=pl.String()) if table == "regimes" else frame


def _fifth_part(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Format 5: how far apart the solutions of a PLR are in quality."""
    return _with_columns(frame, "spread") if table == "regimes" else frame


def _sixth_part(_table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Format 6: plans alone have changed."""
    return frame


def _seventh_part(_table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Format 7: plans alone have changed."""
    return frame


def _eighth_part(_table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Format 8: parts state where they belong."""
    return frame


def _with_columns(frame: pl.DataFrame, *names: str, kind: pl.DataType | None = None) -> pl.DataFrame:
    """The rows with these columns, null where they were not there; floats unless another type is given."""
    gained = [name for name in names if name not in frame.columns]
    return frame.with_columns(pl.lit(None, kind or pl.Float64()).alias(name) for name in gained)


# The n-th leads from format n to n + 1.
_PLANS: Sequence[Callable[[Content], Content]] = (
    _second_plan,
    _third_plan,
    _fourth_plan,
    _fifth_plan,
    _sixth_plan,
    _seventh_plan,
    _eighth_plan,
)
_PARTS: Sequence[Callable[[str, pl.DataFrame], pl.DataFrame]] = (
    _second_part,
    _third_part,
    _fourth_part,
    _fifth_part,
    _sixth_part,
    _seventh_part,
    _eighth_part,
)


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
    for step in _PLANS[found - 1 :]:
        content = step(content)
    return {**content, "format": found}


def migrate_part(table: str, frame: pl.DataFrame, stated: str | None) -> pl.DataFrame:
    """A part of a table of this or an earlier format, with the columns that the table has today.

    Args:
        table: Which table.
        frame: The rows as they were read.
        stated: The part's format as its metadata state it; None where they do not, as before format 3.
    """
    for step in _PARTS[int(stated or 1) - 1 :]:
        frame = step(table, frame)
    names = SCHEMAS[table].names()
    return frame.select(names) if set(names) == set(frame.columns) else frame


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
