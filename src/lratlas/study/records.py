"""Records that a study stores besides its results: sessions and failed jobs."""

import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from lratlas.errors import DamagedFile, StudyError
from lratlas.files import KEY, open_json, seal_json
from lratlas.study.store import Store


class Note(BaseModel):
    """The content of a record; all records of a kind are in one folder of the study."""

    folder: ClassVar[str]
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


N = TypeVar("N", bound=Note)


def write_note(store: Store, note: Note) -> None:
    """Write a note; a write error is ignored so that it does not mask another error."""
    with suppress(StudyError):
        store.write_text(f"{note.folder}/{uuid.uuid4().hex}.json", seal_json(note.model_dump()))


def read_note(store: Store, path: str, kind: type[N]) -> N:
    """Read a note.

    Raises:
        DamagedFile: The note was cut short or altered.
        StudyError: The note is missing or cannot be read.
    """
    text = store.read_text(path)
    try:
        content = json.loads(text)
        # Notes of studies before format 3 have no checksum.
        return kind.model_validate(open_json(text) if KEY in content else content)
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedFile(f"{path} in {store.url} was cut short or altered.", path) from error


def read_notes(store: Store, kind: type[N]) -> Iterator[N]:
    """All notes of a kind; damaged ones are skipped."""
    for name in store.files(kind.folder):
        with suppress(StudyError):
            yield read_note(store, f"{kind.folder}/{name}", kind)


class Session(Note):
    """One session of work on a study.

    Attributes:
        seconds: Its duration, by a monotonic clock.
        workers: Number of processes; None for as many as a cluster had room for.
    """

    folder = "sittings"
    seconds: float
    workers: int | None


@dataclass(frozen=True, kw_only=True)
class WallTime:
    """Total duration of all sessions that ended, in seconds, and the number of sessions."""

    seconds: float
    sessions: int


def wall_time(store: Store) -> WallTime:
    """The total duration of all sessions; killed sessions and damaged files are not counted."""
    seconds = [each.seconds for each in read_notes(store, Session)]
    return WallTime(seconds=sum(seconds, 0.0), sessions=len(seconds))


class Failure(Note):
    """A job that failed.

    Attributes:
        job: The job's id.
        attempt: Number of the attempt in the session, from 1.
        reason: The cause, in one sentence.
        given_up: Whether it was the last attempt.
    """

    folder = "failures"
    job: str
    attempt: int
    reason: str
    given_up: bool


def read_failures(store: Store) -> list[Failure]:
    """All recorded failures, by job and attempt; damaged files are skipped."""
    return sorted(read_notes(store, Failure), key=lambda each: (each.job, each.attempt))
