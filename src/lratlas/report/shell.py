"""The frame of every page, and its downloads."""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any, cast

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from lratlas.report.theme import Drawing, Text, spec_of
from lratlas.tables import SCHEMAS, Tables, csv_text
from lratlas.text import harmless


@cache
def environment() -> Environment:
    """The templates; text put into them is shown as it is, never read as HTML."""
    return Environment(
        loader=PackageLoader("lratlas.report"),
        autoescape=True,
        undefined=StrictUndefined,
        # What is marked as safe comes with the package, and has checksums.
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: object) -> object:
    return harmless(value) if type(value) is str else value


@cache
def part(name: str) -> str:
    """The style or a script of a page, a file beside the templates."""
    return files("lratlas.report").joinpath("templates", name).read_text(encoding="utf-8")


def policy(scripts: Sequence[str], *, live: bool = False) -> str:
    """What the browser may load and run: nothing but the given scripts, which Vega compiles formulas in.

    Args:
        scripts: The text of each script of the page.
        live: The page may ask the server that it came from.
    """
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    rules = [
        "default-src 'none'",
        f"script-src 'unsafe-eval' {hashes}",
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        *(["connect-src 'self'"] if live else []),
    ]
    return "; ".join(rules)


def pack_spec(chart: Drawing) -> str:
    """A chart's spec as the pages' script unpacks it."""
    return compress(json.dumps(spec_of(chart), allow_nan=False, separators=(",", ":")).encode())


def text_of(name: str, chart: Drawing) -> Text:
    """The words that a chart carries; one that carries none is headed by its name."""
    told = cast("Any", chart).usermeta
    alt = chart.description if isinstance(chart.description, str) else name
    if not isinstance(told, dict):
        return Text(heading=heading(name), caption="", alt=alt)
    return Text(heading=told["heading"], caption=told["caption"], alt=alt)


def heading(name: str) -> str:
    """The heading of a chart that carries none, and of one that cannot be drawn."""
    return name.replace("_", " ").replace("-", " ").capitalize()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


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
        One entry per table with rows, in the order of `lratlas.tables.SCHEMAS`, then those of custom measurements.
    """
    order = [*(name for name in SCHEMAS if name in tables), *(name for name in tables if name not in SCHEMAS)]
    filled = {name: tables[name] for name in order if tables[name].height}
    texts = {name: compress(_csv(frame)) for name, frame in filled.items() if _cells(frame) <= _MOST_CELLS}
    inside = _fitting({name: len(text) for name, text in texts.items()}, budget)
    return [
        Download(table=name, rows=frame.height, content=texts[name] if name in inside else None)
        for name, frame in filled.items()
    ]


def compress(data: bytes) -> str:
    """Bytes compressed by gzip and written in base64; the same bytes always give the same text.

    Example:
        >>> gzip.decompress(base64.b64decode(compress(b"plr,seed")))
        b'plr,seed'
    """
    return base64.b64encode(gzip.compress(data, _LEVEL, mtime=0)).decode()


def _csv(frame: pl.DataFrame) -> bytes:
    return csv_text(frame.with_columns(pl.selectors.float().round_sig_figs(DIGITS).fill_nan(None))).encode()


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


def versions_text() -> str:
    """The versions that a page is written with."""
    return ", ".join(f"{name} {version(name)}" for name in ("lratlas", "polars", "altair"))
