"""What is wrong with the files of a search, and what is set aside so that the search trains it again."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from lratlas.paths import check_regular
from lratlas.search.journal import (
    CHECKPOINT,
    SETTINGS,
    STATES,
    UNREADABLE,
    local_folder,
    mend_journal,
    read_object,
    read_settings,
    sort_lines,
    stated_paths,
)
from lratlas.study.expected import BLOCKED, MISSING, Fault
from lratlas.study.files import ALTERED, KEY
from lratlas.study.folder import JOURNAL
from lratlas.study.store import open_weights, weights_metadata

TO_MEND = "`lratlas verify --repair` sets that aside, and `lratlas find` makes it again"
MENDED = "set aside; `lratlas find` makes it again"
_RESULT = "advice.json"  # written as soon as there are results
_OTHER = "was altered, or is another search's"


def faults(folder: Path) -> list[Fault]:
    """Everything that is wrong with a search's files; reads all of them.

    The settings, every line of the journal, the states and the checkpoint hold a checksum of themselves, lines also
    the id of their search, and states and the checkpoint their own path in it. Pages and advice follow from the
    journal and are not checked.

    Args:
        folder: The folder of the search.

    Raises:
        OSError: It cannot be read.
        SearchError: Its settings are of another version.
    """
    found = list[Fault]()
    try:
        check_regular(folder / SETTINGS)
        read_object((folder / SETTINGS).read_bytes())
        read_settings(folder)  # whole, it may be of a later version
    except FileNotFoundError:
        found.append(Fault(path=SETTINGS, what=MISSING))
    except UNREADABLE:
        found.append(Fault(path=SETTINGS, what=ALTERED))
    else:  # without settings it is not known whose lines they are
        found += [Fault(path=JOURNAL, what=f"line {line} {_OTHER}") for line in sort_lines(folder)[1]]
    if (folder / JOURNAL).is_symlink() or local_folder(folder).is_blocked(JOURNAL):
        found.append(Fault(path=JOURNAL, what=BLOCKED))
    elif (folder / _RESULT).exists() and not (folder / JOURNAL).exists():
        found.append(Fault(path=JOURNAL, what=MISSING))
    return [*found, *_of_weights(folder)]


def count_open(_: Path) -> int:
    """How many jobs are not done: a search has none that are planned."""
    return 0


def set_aside(folder: Path, found: Iterable[Fault]) -> None:
    """Move damaged files, and of the journal its damaged lines, into ``damaged/``.

    Raises:
        SearchError: The folder cannot be written.
        StudyError: The same.
    """
    at = local_folder(folder)
    for path in sorted({each.path for each in found}):
        if path == JOURNAL and not at.is_blocked(path):
            mend_journal(folder)
        elif at.exists(path) or at.is_blocked(path):
            at.set_aside(path)


def find_unchecked(folder: Path) -> list[str]:
    """The files that have no checksum, since an earlier version wrote them."""
    path = folder / CHECKPOINT
    return [CHECKPOINT] if path.is_file() and _lacks_checksum(path.read_bytes()) else []


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
    """Whether a file of weights has no checksum, and is one."""
    try:
        return KEY not in weights_metadata(data)
    except (ValueError, AttributeError):
        return False
