"""Tables of many parts, read together and remembered: thousands of small files take minutes one by one.

What was read is stored in the user's cache folder, never in the study. A part is immutable: as long as it is the same
file, of the same size and time, it is not read again.
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from lratlas.paths import cache_folder
from lratlas.study.files import write_file

MANY = 256
"""Unread parts from which on a merged table is remembered."""

_LASTS = 30 * 86_400.0  # seconds for which a table that nobody reads is remembered
_KEY = "parts"

State = list[int]


def read_remembered(
    folder: Path, ending: str, names: Sequence[str], version: str, read: Callable[[Sequence[str]], pl.DataFrame]
) -> pl.DataFrame:
    """The rows of the parts of a table, in any order.

    Args:
        folder: Where the parts are.
        ending: How the names of their files end.
        names: The parts that count, without that ending.
        version: Changes with what rows are made of a part.
        read: Reads parts of these names; what it raises is raised.
    """
    states = {name: _state(folder / f"{name}{ending}") for name in names}
    place = cache_folder() / "tables" / f"{hashlib.sha256(f'{folder} {version}'.encode()).hexdigest()[:32]}.parquet"
    known, rows = _remembered(place)
    if not known.items() <= states.items():
        known, rows = {}, []
    fresh = [name for name in names if name not in known]
    merged = pl.concat([*rows, read(fresh)]) if fresh or not rows else rows[0]
    if len(fresh) >= MANY:
        with suppress(OSError, PolarsError):  # it is read in full the next time
            _remember(place, states, merged)
    return merged


def _state(path: Path) -> State:
    """Inode, size and times of a file; empty for a missing one, which no remembered file has."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _remembered(place: Path) -> tuple[Mapping[str, State], list[pl.DataFrame]]:
    try:
        data = place.read_bytes()  # once: another process may replace it
        known: Mapping[str, State] = json.loads(pl.read_parquet_metadata(io.BytesIO(data))[_KEY])
        rows = [pl.read_parquet(io.BytesIO(data))]
        os.utime(place)
    except (OSError, PolarsError, KeyError, ValueError):
        return {}, []
    return known, rows


def _remember(place: Path, states: Mapping[str, State], rows: pl.DataFrame) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    for other in place.parent.iterdir():
        if other.stat().st_mtime < time.time() - _LASTS:
            other.unlink(missing_ok=True)
    buffer = io.BytesIO()
    rows.write_parquet(buffer, metadata={_KEY: json.dumps(states)})
    write_file(place, buffer.getvalue())
