"""Files that are made from a study's tables and can be made again: its report and figures.

They have no room for a checksum of their own, so those of all are in one small file, which is written last.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from lratlas.errors import DamagedFile, StudyError
from lratlas.study.files import digest, open_json, seal_json
from lratlas.study.store import Store

CHECKSUMS = "checksums.json"
REPORT = "report.html"
FIGURES = "figures"
ALTERED, MISSING = "was cut short or altered", "is missing"

Write = Callable[[str, bytes], None]


@contextmanager
def making(store: Store) -> Generator[Write]:
    """A function that writes such files by name; afterwards the checksums are those of what was written.

    Those of earlier files that are still there are kept. An interruption leaves files without checksums.

    Raises:
        StudyError: A file cannot be written.
    """
    try:
        known = checksums(store)
    except DamagedFile:
        known = dict[str, str]()
    store.remove(CHECKSUMS)
    written = dict[str, str]()

    def write(name: str, data: bytes) -> None:
        store.write_bytes(name, data)
        written[name] = digest(data)

    yield write
    there = set(list_artifacts(store))
    kept = {name: sum_ for name, sum_ in (known | written).items() if name in there}
    store.write_text(CHECKSUMS, seal_json(kept))


def checksums(store: Store) -> dict[str, str]:
    """The SHA-256 of each such file as it was written, by name; empty where none are known.

    Raises:
        DamagedFile: The file of checksums was cut short or altered.
    """
    if not store.exists(CHECKSUMS):
        return {}
    try:
        return {name: str(known) for name, known in open_json(store.read_text(CHECKSUMS)).items()}
    except (ValueError, StudyError) as error:
        raise DamagedFile(f"{CHECKSUMS} in {store.url} was cut short or altered.", CHECKSUMS) from error


def find_altered(store: Store) -> dict[str, str]:
    """What is wrong with such files, by name: those that are missing, and those that are not as they were written.

    Raises:
        DamagedFile: The file of checksums was cut short or altered.
        StudyError: The study cannot be read.
    """
    there, found = set(list_artifacts(store)), dict[str, str]()
    for name, wanted in checksums(store).items():
        if name not in there:
            found[name] = MISSING
        elif digest(store.read_bytes(name)) != wanted:
            found[name] = ALTERED
    return found


def is_whole(store: Store) -> bool:
    """Whether the report and the figures are there, as they were written; not where writing them was interrupted.

    Raises:
        StudyError: The study cannot be read.
    """
    try:
        return store.exists(REPORT) and store.exists(CHECKSUMS) and not find_altered(store)
    except DamagedFile:
        return False


def is_made(name: str) -> bool:
    """Whether a file is such a file, or the one of their checksums."""
    return name in {REPORT, CHECKSUMS} or name.startswith(f"{FIGURES}/")


def list_artifacts(store: Store) -> list[str]:
    """The names of such files that are there."""
    report = [REPORT] if store.exists(REPORT) else []
    return [*report, *(f"{FIGURES}/{name}" for name in store.files(FIGURES))]
