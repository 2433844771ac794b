"""How long a study took those who waited for it: a small file for each time that it was worked on."""

from dataclasses import dataclass

from lratlas.study.store.notes import Note, notes, write_note
from lratlas.study.store.store import Store

FOLDER = "sittings"


class Sitting(Note):
    """One time that a study was worked on.

    Attributes:
        seconds: How long it took, by a clock that never jumps.
        workers: Number of processes; None for as many as a cluster had room for.
    """

    seconds: float
    workers: int | None


@dataclass(frozen=True, kw_only=True)
class WallTime:
    """Seconds from beginning to end, summed over all sittings that came to an end, and how many there were."""

    seconds: float
    sittings: int


def record_sitting(store: Store, sitting: Sitting) -> None:
    """Write down a sitting; that it cannot be written hides no other error."""
    write_note(store, FOLDER, sitting)


def wall_time(store: Store) -> WallTime:
    """The time of all sittings; one that was killed outright has left no trace, nor has one with a damaged file."""
    seconds = [each.seconds for each in notes(store, FOLDER, Sitting)]
    return WallTime(seconds=sum(seconds, 0.0), sittings=len(seconds))
