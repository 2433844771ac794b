"""Check the files of a search, and set damaged ones aside so that the search trains them again."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from lratlas.files import ALTERED, KEY, digest
from lratlas.paths import check_regular
from lratlas.search.chain import AFTER
from lratlas.search.journal import (
    CHECKPOINT,
    CLAIMS,
    END,
    SETTINGS,
    STATES,
    UNREADABLE,
    find_wrong_lines,
    local_folder,
    mend_journal,
    read_end,
    read_lines,
    read_object,
    read_settings,
    stated_paths,
)
from lratlas.study.expected import BLOCKED, MISSING, NO_FOLDER, Fault
from lratlas.study.folder import ASIDE, JOURNAL, is_name
from lratlas.study.store import open_weights, weights_metadata

TO_MEND = "fix with `lratlas verify --repair`, then rerun `lratlas find`"
MENDED = "set aside; rerun `lratlas find` to regenerate them"
_RESULT = "advice.json"  # written as soon as there are results
_WRITTEN = (_RESULT, *(f"advice.{ending}" for ending in ("html", "pdf", "svg")))
_SHORTENED = "has lost its last lines"


def faults(folder: Path) -> list[Fault]:
    """Find every fault in the files of a search; reads all of them.

    The settings, every line of the journal, the states and the checkpoint contain their checksums. Lines also contain
    the id of their search and the digest of the line before them; states and the checkpoint contain their path within
    the search. Pages and advice follow from the journal and are not checked.

    Args:
        folder: The folder of the search.

    Raises:
        OSError: The folder cannot be read.
        SearchError: The settings are of another version.
    """
    found = list[Fault]()
    try:
        check_regular(folder / SETTINGS)
        read_object((folder / SETTINGS).read_bytes())
        read_settings(folder)  # intact settings may be of a later version
    except FileNotFoundError:
        found.append(Fault(path=SETTINGS, what=MISSING))
    except UNREADABLE:
        found.append(Fault(path=SETTINGS, what=ALTERED))
    else:  # without settings the owner of the lines is unknown
        found += [Fault(path=JOURNAL, what=f"line {line} {what}") for line, what in find_wrong_lines(folder).items()]
    if (folder / JOURNAL).is_symlink() or local_folder(folder).is_blocked(JOURNAL):
        found.append(Fault(path=JOURNAL, what=BLOCKED))
    elif not (folder / JOURNAL).exists():
        if any((folder / name).exists() for name in (_RESULT, END)):
            found.append(Fault(path=JOURNAL, what=MISSING))
    elif not found:
        found += _of_end(folder)
    return [*found, *_of_places(folder), *_of_weights(folder)]


def count_open(_: Path) -> int:
    """Number of open jobs: always 0, because a search plans none ahead."""
    return 0


def set_aside(folder: Path, found: Iterable[Fault]) -> None:
    """Move damaged files and damaged lines of the journal into ``damaged/``.

    Raises:
        SearchError: The folder cannot be written.
        StudyError: The folder cannot be written.
    """
    at = local_folder(folder)
    for path in sorted({each.path for each in found}):
        if path == END and (at.exists(END) or at.is_blocked(END)):
            at.set_aside(END)
        if path in {JOURNAL, END} and not at.is_blocked(JOURNAL):
            mend_journal(folder)
        elif at.exists(path) or at.is_blocked(path) or at.is_link(path):
            at.set_aside(path)


def find_unchecked(folder: Path) -> list[str]:
    """The files without a checksum, from an earlier version."""
    path = folder / CHECKPOINT
    return [CHECKPOINT] if path.is_file() and _lacks_checksum(path.read_bytes()) else []


def _of_end(folder: Path) -> Iterator[Fault]:
    """Faults of the journal's end; journals of earlier versions have no digests and no file of their end."""
    lines = read_lines(folder)  # before the file of the end, which is older than the first line with a digest
    try:
        last = read_end(folder)
    except FileNotFoundError:
        if any(AFTER in read_object(line) for line in lines):
            yield Fault(path=END, what=MISSING)
    except UNREADABLE:
        yield Fault(path=END, what=ALTERED)
    else:
        if last not in map(digest, (b"", *read_lines(folder))):  # again: a search may have added lines
            yield Fault(path=JOURNAL, what=_SHORTENED)


def _of_places(folder: Path) -> Iterator[Fault]:
    """Files in the places of folders, folders and the like in the places of files, and links in the places of locks."""
    at = local_folder(folder)
    for name in (CLAIMS, STATES, ASIDE):
        if at.is_no_folder(name):
            yield Fault(path=name, what=NO_FOLDER)
    claims = sorted(each.name for each in (folder / CLAIMS).glob("*.lock")) if (folder / CLAIMS).is_dir() else ()
    locks = [f"{SETTINGS}.lock", f"{JOURNAL}.lock", *(f"{CLAIMS}/{name}" for name in claims if is_name(name))]
    for name in (CHECKPOINT, *_WRITTEN, *locks):
        if at.is_blocked(name) or (name in locks and at.is_link(name)):
            yield Fault(path=name, what=BLOCKED)


def _of_weights(folder: Path) -> Iterator[Fault]:
    states = (path for ending in ("safetensors", "part") for path in sorted((folder / STATES).glob(f"*.{ending}")))
    for path in (*states, folder / CHECKPOINT):
        name = path.relative_to(folder).as_posix()
        data = path.read_bytes() if path.is_file() else None
        if data is None or (path.name == CHECKPOINT and _lacks_checksum(data)):
            continue
        try:
            open_weights(data, stated_paths(path))
        except ValueError as error:
            yield Fault(path=name, what=str(error))


def _lacks_checksum(data: bytes) -> bool:
    """Whether the data is a file of weights without a checksum."""
    try:
        return KEY not in weights_metadata(data)
    except (ValueError, AttributeError):
        return False
