"""The tables of a study as CSV files that the page carries within itself."""

import base64
import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from lratlas.tables import SCHEMAS, Tables

# Six significant digits: more than any seed repeats, and half the bytes of full precision.
DIGITS = 6
# Of compressed text, all tables together; with the scripts and the charts a page stays under 15 MB.
BUDGET = 12_000_000
# No table with more cells than this fits, so it is not even compressed: that would take minutes.
_MOST_CELLS = 20_000_000
_LEVEL = 6


@dataclass(frozen=True, kw_only=True)
class Download:
    """One table as the page offers it.

    Attributes:
        table: Its name.
        rows: How many rows it has.
        content: The CSV file, packed (see `packed`); None where it is too large for the page.
    """

    table: str
    rows: int
    content: str | None


def downloads(tables: Tables, *, budget: int = BUDGET) -> list[Download]:
    """The tables that have rows, each as CSV with floats of six significant digits.

    The smallest go in first, so that one huge table leaves out itself alone.

    Args:
        tables: The study's tables.
        budget: Characters of packed text that all of them may take together.

    Returns:
        One entry per table with rows, in the order of `lratlas.tables.SCHEMAS`.
    """
    filled = {name: tables[name] for name in SCHEMAS if name in tables and tables[name].height}
    texts = {name: packed(_csv(frame)) for name, frame in filled.items() if _cells(frame) <= _MOST_CELLS}
    inside = _fitting({name: len(text) for name, text in texts.items()}, budget)
    return [
        Download(table=name, rows=frame.height, content=texts[name] if name in inside else None)
        for name, frame in filled.items()
    ]


def packed(data: bytes) -> str:
    """Bytes compressed by gzip and written in base64; the same bytes always give the same text.

    Example:
        >>> gzip.decompress(base64.b64decode(packed(b"plr,seed")))
        b'plr,seed'
    """
    return base64.b64encode(gzip.compress(data, _LEVEL, mtime=0)).decode()


def _csv(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.with_columns(pl.selectors.float().round_sig_figs(DIGITS).fill_nan(None)).write_csv(buffer)
    return buffer.getvalue()


def _cells(frame: pl.DataFrame) -> int:
    return frame.height * frame.width


def _fitting(sizes: Mapping[str, int], budget: int) -> set[str]:
    """The names whose sizes, from the smallest on, add up to the budget at most."""
    inside, used = set[str](), 0
    for name in sorted(sizes, key=lambda name: sizes[name]):
        used += sizes[name]
        if used > budget:
            break
        inside.add(name)
    return inside
