"""How long a study took those who waited for it: a small file for each time that it was worked on."""

import json
import uuid
from contextlib import suppress
from dataclasses import dataclass

from lratlas.errors import StudyError
from lratlas.study.store import Store

_FOLDER = "sittings"


@dataclass(frozen=True, kw_only=True)
class WallTime:
    """Seconds from beginning to end, summed over all sittings that came to an end, and how many there were."""

    seconds: float
    sittings: int


def record_sitting(store: Store, *, seconds: float, workers: int | None) -> None:
    """Write down a sitting; that it cannot be written hides no other error.

    Args:
        store: The study.
        seconds: How long it took, by a clock that never jumps.
        workers: Number of processes; None for as many as a cluster had room for.
    """
    with suppress(StudyError):
        text = json.dumps({"seconds": round(seconds, 3), "workers": workers})
        store.write_text(f"{_FOLDER}/{uuid.uuid4().hex}.json", text)


def wall_time(store: Store) -> WallTime:
    """The time of all sittings; one that was killed outright has left no trace, nor has one with a damaged file."""
    total, count = 0.0, 0
    for name in store.files(_FOLDER):
        with suppress(StudyError, ValueError, KeyError, TypeError):
            total += float(json.loads(store.read_text(f"{_FOLDER}/{name}"))["seconds"])
            count += 1
    return WallTime(seconds=total, sittings=count)
