"""What went wrong with the jobs of a study and was tried again: one small file for each time."""

from lratlas.study.store.notes import Note, notes, write_note
from lratlas.study.store.store import Store

FOLDER = "failures"


class Failure(Note):
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
    write_note(store, FOLDER, failure)


def read_failures(store: Store) -> list[Failure]:
    """All failures that were written down, by job and attempt; damaged files are passed over."""
    return sorted(notes(store, FOLDER, Failure), key=lambda each: (each.job, each.attempt))
