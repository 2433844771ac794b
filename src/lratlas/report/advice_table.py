"""The evidence of a search as people read it: a row per segment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lratlas.report.advice_data import part_text
from lratlas.report.rows import lr_text
from lratlas.search.advice import Advice

ABSENT = "–"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell: what is read, and the number or text that it is sorted by."""

    text: str
    key: float | str


def evidence_rows(advice: Advice) -> list[list[Cell]]:
    """The cells of each row of the evidence, in the order of `HEADINGS`."""
    return [[_cell(column, row, advice) for column in HEADINGS] for row in advice.evidence.to_dicts()]


def headings(advice: Advice) -> list[str]:
    """The heading of each column."""
    return [advice.counted if column == "steps" else heading for column, heading in HEADINGS.items()]


def _metric(value: float) -> str:
    return f"{value:.5g}"


# Each column's heading, and how its values are read.
HEADINGS: Mapping[str, str] = {
    "lr": "LR",
    "seed": "seed",
    "steps": "steps",
    "part": "share",
    "annealed": "LR at the end",
    "averaged": "averaged weights",
    "value": "last weights",
    "regime": "regime",
    "seconds": "seconds",
    "failure": "failure",
}

_FORMS: Mapping[str, Callable[[Any], str]] = {
    "lr": lr_text,
    "steps": "{:,}".format,
    "averaged": _metric,
    "value": _metric,
    "seconds": "{:,.1f}".format,
}


def schedule_text(advice: Advice) -> str:
    """The schedule of the LR in words, such as ``cosine schedule``."""
    return advice.schedule if advice.schedule == "constant" else f"{advice.schedule} schedule"


def _cell(column: str, row: Mapping[str, Any], advice: Advice) -> Cell:
    if column == "part":
        share = row["steps"] / advice.steps
        return Cell(text=f"{share:.2g}" if row["annealed"] else part_text(row["steps"], of=advice.steps), key=share)
    value = row[column]
    if column == "annealed":
        return Cell(text="annealed" if value else schedule_text(advice), key=value)
    if value is None:
        return Cell(text=ABSENT, key="")
    return Cell(text=_FORMS.get(column, str)(value), key=value if isinstance(value, float | int) else str(value))
