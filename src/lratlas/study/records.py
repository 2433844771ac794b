"""What a study records of itself besides its results: its sessions and its failed jobs."""

import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from lratlas.errors import DamagedFile, StudyError
from lratlas.study.files import KEY, open_json, seal_json
from lratlas.study.store import Store


class Note(BaseModel):
    """What stands in such a file; all of a kind are in one folder of the study."""

    folder: ClassVar[str]
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


N = TypeVar("N", bound=Note)


def write_note(store: Store, note: Note) -> None:
    """Write a note down; that it cannot be written hides no other error."""
    with suppress(StudyError):
        store.write_text(f"{note.folder}/{uuid.uuid4().hex}.json", seal_json(note.model_dump()))


def read_note(store: Store, path: str, kind: type[N]) -> N:
    """One note.

    Raises:
        DamagedFile: It was cut short or altered.
        StudyError: It is not there, or cannot be read.
    """
    text = store.read_text(path)
    try:
        content = json.loads(text)
        # Those of studies before format 3 have no checksum.
        return kind.model_validate(open_json(text) if KEY in content else content)
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedFile(f"{path} in {store.url} was cut short or altered.", path) from error


def read_notes(store: Store, kind: type[N]) -> Iterator[N]:
    """All notes of a kind; damaged ones are passed over."""
    for name in store.files(kind.folder):
        with suppress(StudyError):
            yield read_note(store, f"{kind.folder}/{name}", kind)


class Session(Note):
    """One time that a study was worked on.

    Attributes:
        seconds: How long it took, by a clock that never jumps.
        workers: Number of processes; None for as many as a cluster had room for.
    """

    folder = "sittings"
    seconds: float
    workers: int | None


@dataclass(frozen=True, kw_only=True)
class WallTime:
    """Seconds from beginning to end, summed over all sessions that came to an end, and how many there were."""

    seconds: float
    sessions: int


def wall_time(store: Store) -> WallTime:
    """The time of all sessions; one that was killed outright has left no trace, nor has one with a damaged file."""
    seconds = [each.seconds for each in read_notes(store, Session)]
    return WallTime(seconds=sum(seconds, 0.0), sessions=len(seconds))


class Failure(Note):
    """A job that did not come to its end.

    Attributes:
        job: Its id.
        attempt: Which attempt of the session, from 1.
        reason: What happened, in one sentence.
        given_up: Whether it was the last attempt.
    """

    folder = "failures"
    job: str
    attempt: int
    reason: str
    given_up: bool


def read_failures(store: Store) -> list[Failure]:
    """All failures that were written down, by job and attempt; damaged files are passed over."""
    return sorted(read_notes(store, Failure), key=lambda each: (each.job, each.attempt))
