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
    """The templates; they escape all text, and never interpret it as HTML."""
    return Environment(
        loader=PackageLoader("lratlas.report"),
        autoescape=True,
        undefined=StrictUndefined,
        # Only content of the package is marked as safe, and it has checksums.
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: object) -> object:
    return harmless(value) if type(value) is str else value


@cache
def part(name: str) -> str:
    """The style or a script of a page, a file next to the templates."""
    return files("lratlas.report").joinpath("templates", name).read_text(encoding="utf-8")


def policy(scripts: Sequence[str], *, live: bool = False) -> str:
    """The content policy: the browser may only run the given scripts, in which Vega compiles formulas.

    Args:
        scripts: The text of each script of the page.
        live: The page may contact its server.
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
    """A chart's spec, packed for the script of the pages."""
    return compress(json.dumps(spec_of(chart), allow_nan=False, separators=(",", ":")).encode())


def text_of(name: str, chart: Drawing) -> Text:
    """The words of a chart; without words, its name is the heading."""
    told = cast("Any", chart).usermeta
    alt = chart.description if isinstance(chart.description, str) else name
    if not isinstance(told, dict):
        return Text(heading=heading(name), caption="", alt=alt)
    return Text(heading=told["heading"], caption=told["caption"], alt=alt)


def heading(name: str) -> str:
    """The default heading of a chart, also for one that cannot be drawn."""
    return name.replace("_", " ").replace("-", " ").capitalize()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


# Significant digits: six are more than seeds reproduce, at half the bytes of full precision.
DIGITS = 6
# Bytes of compressed text for all tables; with the scripts and the charts a page stays under 15 MB.
BUDGET = 12_000_000
# A table with more cells than this never fits, so it is not compressed, which would take minutes.
_MOST_CELLS = 20_000_000
_LEVEL = 6


@dataclass(frozen=True, kw_only=True)
class Download:
    """One table for download from the page.

    Attributes:
        table: Its name.
        rows: Its number of rows.
        content: The CSV file, packed (see `compress`); None if it is too large for the page.
    """

    table: str
    rows: int
    content: str | None


def downloads(tables: Tables, *, budget: int = BUDGET) -> list[Download]:
    """The tables that have rows, each as CSV with floats of six significant digits.

    The smallest go in first, so that one huge table only excludes itself.

    Args:
        tables: The study's tables.
        budget: Characters of packed text for all tables together.

    Returns:
        One entry per table with rows, in the order of `lratlas.tables.SCHEMAS`, then tables of custom measurements.
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
    """Bytes compressed by gzip and encoded in base64; equal bytes always give equal text.

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
    """The names of the smallest entries whose total size is within the budget."""
    inside, used = set[str](), 0
    for name in sorted(sizes, key=lambda name: sizes[name]):
        used += sizes[name]
        if used > budget:
            break
        inside.add(name)
    return inside


def versions_text() -> str:
    """The versions of the libraries that write a page."""
    return ", ".join(f"{name} {version(name)}" for name in ("lratlas", "polars", "altair"))
