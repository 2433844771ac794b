"""Small files about how a study was worked on, which its results do not need: one object of JSON each."""

import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from lratlas.errors import DamagedFile, StudyError
from lratlas.study.store.checksum import KEY, opened_json, sealed_json
from lratlas.study.store.store import Store


class Note(BaseModel):
    """What stands in such a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


N = TypeVar("N", bound=Note)


def write_note(store: Store, folder: str, note: Note) -> None:
    """Write a note into a folder of the study; that it cannot be written hides no other error."""
    with suppress(StudyError):
        store.write_text(f"{folder}/{uuid.uuid4().hex}.json", sealed_json(note.model_dump()))


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
        return kind.model_validate(opened_json(text) if KEY in content else content)
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedFile(f"{path} in {store.url} was cut short or altered.", path) from error


def notes(store: Store, folder: str, kind: type[N]) -> Iterator[N]:
    """All notes of a folder; damaged ones are passed over."""
    for name in store.files(folder):
        with suppress(StudyError):
            yield read_note(store, f"{folder}/{name}", kind)
