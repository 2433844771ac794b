"""What went wrong with the jobs of a study and was tried again: one small file for each time."""

import json
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass

from lratlas.errors import StudyError
from lratlas.study.store import Store

_FOLDER = "failures"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A job that did not come to its end.

    Attributes:
        job: Its id.
        attempt: Which attempt of the sitting, from 1.
        reason: What happened, in one sentence.
        given_up: Whether it was the last attempt.
    """

    job: str
    attempt: int
    reason: str
    given_up: bool


def record_failure(store: Store, failure: Failure) -> None:
    """Write down a failure; that it cannot be written hides no other error."""
    with suppress(StudyError):
        store.write_text(f"{_FOLDER}/{uuid.uuid4().hex}.json", json.dumps(asdict(failure)))


def read_failures(store: Store) -> list[Failure]:
    """All failures that were written down, by job and attempt; damaged files are passed over."""
    found = list[Failure]()
    for name in store.files(_FOLDER):
        with suppress(StudyError, ValueError, TypeError):
            found.append(Failure(**json.loads(store.read_text(f"{_FOLDER}/{name}"))))
    return sorted(found, key=lambda each: (each.job, each.attempt))
