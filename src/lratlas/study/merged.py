"""A cache of merged tables: thousands of small part files take minutes to read one by one.

Merged tables are stored in the user's cache folder, never in the study. Parts are immutable: a part is read again only
if its inode, size or times changed.
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

from lratlas.files import write_file
from lratlas.paths import cache_folder

MANY = 256
"""Number of unread parts from which a merged table is cached."""

_LASTS = 30 * 86_400.0  # seconds until an unused merged table is removed
_KEY = "parts"

State = list[int]


def read_remembered(
    folder: Path, ending: str, names: Sequence[str], version: str, read: Callable[[Sequence[str]], pl.DataFrame]
) -> pl.DataFrame:
    """Read the rows of the parts of a table, in any order.

    Args:
        folder: The folder of the parts.
        ending: The suffix of their file names.
        names: The names of the parts to read, without the suffix.
        version: Changes whenever the rows read from a part would change.
        read: Reads the parts of the given names; its exceptions propagate.
    """
    states = {name: _state(f"{folder}/{name}{ending}") for name in names}
    place = cache_folder() / "tables" / f"{hashlib.sha256(f'{folder} {version}'.encode()).hexdigest()[:32]}.parquet"
    known, rows = _remembered(place)
    if not known.items() <= states.items():
        known, rows = {}, []
    fresh = [name for name in names if name not in known]
    merged = pl.concat([*rows, read(fresh)]) if fresh or not rows else rows[0]
    if len(fresh) >= MANY:
        with suppress(OSError, PolarsError):  # the next call reads the parts again
            _remember(place, states, merged)
    return merged


def _state(path: str) -> State:
    """Inode, size and times of a file; empty for a missing file, which matches no cached entry."""
    try:
        found = os.stat(path)  # noqa: PTH116 - called for thousands of files
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
