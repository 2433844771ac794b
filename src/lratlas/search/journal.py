"""The folder of a search: its settings, and a journal to which each result is added as one line.

A line may also withdraw results, so that their segments are trained again.

Several processes may share it. A segment is claimed by holding a lock on a file, which the system frees when its
process ends, however it ends; no clock is involved.
"""

import hashlib
import json
import math
import os
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from fsspec.implementations.local import LocalFileSystem
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open

from lratlas.errors import SearchError, SpecError, StudyError
from lratlas.paths import check_regular, expand_home
from lratlas.search.segments import Segment, SegmentResult
from lratlas.search.settings import Search, make_search
from lratlas.study.files import KEY, linked_folder, open_json, open_unlinked, seal_json, sweep, write_file
from lratlas.study.folder import JOURNAL, SEARCH, Folder
from lratlas.study.lock import Lock
from lratlas.text import replace_nonfinite

SETTINGS = SEARCH
CLAIMS = "claims"
STATES = "states"
"""The folder of final states, within that of the search."""
CHECKPOINT = "checkpoint.safetensors"
"""The state of the model that a full training can continue from, where the search writes it."""
UNREADABLE = (OSError, ValueError, TypeError, KeyError, RecursionError)
"""What reading a file of a search, or a line of its journal, raises that is not as it was written."""
_WITHDRAWN, _ID = "withdrawn", "search"
_TAIL = 4096  # bytes: a line of the journal is rarely longer
_RESULT = TypeAdapter(SegmentResult)


def search_folder(folder: str | Path | None) -> Path:
    """The folder of a search as a person gives it; a new temporary one if there is none.

    Raises:
        PathError: It begins with a home folder that is not known here.
    """
    return expand_home(folder or tempfile.mkdtemp(prefix="lratlas-find-"))


def open_folder(folder: Path, settings: Mapping[str, object]) -> Search:
    """Create the folder of a search, or reopen it.

    Args:
        folder: The folder.
        settings: Those of a new search; of one that is reopened any of them, in agreement with what the folder has.

    Returns:
        The settings of the search.

    Raises:
        SpecError: A setting is out of range, or a new search has no ``steps``.
        SearchError: The folder holds a search with other settings, or cannot be written.
    """
    if (link := linked_folder(folder)) is not None:
        raise SearchError(f"{link} is a link to a folder, which a search cannot have: nothing is written through it.")
    if not (folder / SETTINGS).exists():
        _create(folder, settings)
    with suppress(OSError):
        sweep(folder.iterdir())
    stored = read_settings(folder)
    asked = make_search(**{**stored.model_dump(), **settings})
    changed = [name for name in Search.model_fields if getattr(stored, name) != getattr(asked, name)]
    if changed:
        found = "; ".join(
            f"{name} = {getattr(stored, name)}, and now {getattr(asked, name)} is asked for" for name in changed
        )
        raise SearchError(f"The search in {folder} has {found}; give the same, or another folder.")
    return stored


def raise_budget(folder: Path, budget: object) -> None:
    """Let the search in a folder, if there is one, have a larger budget than it has.

    Args:
        folder: The folder.
        budget: In full trainings; nothing changes unless it is larger.

    Raises:
        SpecError: The budget is out of range.
        SearchError: The folder's settings are damaged, or cannot be written.
    """
    if not (folder / SETTINGS).exists():
        return
    stored = read_settings(folder)
    larger = make_search(**{**stored.model_dump(), "budget": budget})
    if larger.budget > stored.budget:
        with _writing(f"The search folder {folder}"), _lock_of(folder, SETTINGS):
            _write(folder, larger)


@contextmanager
def _writing(what: str) -> Generator[None]:
    """In the block, what the system refuses is said in a sentence that begins with ``what``."""
    try:
        yield
    except OSError as error:
        raise SearchError(f"{what} cannot be written: {error.strerror or error}.") from error


def _write(folder: Path, search: Search) -> None:
    of = _id_of(folder) or _id_in_journal(folder) or uuid4().hex
    write_file(folder / SETTINGS, seal_json({_ID: of, **search.model_dump(mode="json")}).encode())


def _create(folder: Path, settings: Mapping[str, object]) -> None:
    """Create the folder of a new search, unless another process does so at the same time."""
    if "steps" not in settings:
        raise SpecError(
            f"There is no search in {folder}; a new one needs steps, the optimizer steps of a full training."
        )
    search = make_search(**settings)
    with _writing(f"The search folder {folder}"):
        (folder / CLAIMS).mkdir(parents=True, exist_ok=True)
        with _lock_of(folder, SETTINGS):
            if not (folder / SETTINGS).exists():
                _write(folder, search)


def read_settings(folder: Path) -> Search:
    """The settings of the search in a folder.

    Raises:
        SearchError: There is none, or its file is damaged.
    """
    try:
        check_regular(folder / SETTINGS)
        settings = read_object((folder / SETTINGS).read_bytes())
        return make_search(**{name: value for name, value in settings.items() if name != _ID})
    except FileNotFoundError as error:
        raise SearchError(f"There is no search in {folder}: it has no {SETTINGS}.") from error
    except (*UNREADABLE, SpecError) as error:
        raise SearchError(f"{folder / SETTINGS} is damaged: {error}") from error


def version(folder: Path) -> str:
    """A short text that changes when the search in a folder gets results, loses some, or has other settings.

    Raises:
        SearchError: The search cannot be read.
    """
    digest = hashlib.sha256()
    for name in (SETTINGS, JOURNAL):
        try:
            check_regular(folder / name)
            digest.update((folder / name).read_bytes())
        except FileNotFoundError:
            pass  # a search without results has no journal
        except OSError as error:
            raise SearchError(f"{folder / name} cannot be read: {error.strerror or error}.") from error
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def read_results(folder: Path) -> list[SegmentResult]:
    """All results so far, in order, without those that were withdrawn.

    Raises:
        SearchError: A line is damaged.
    """
    return list(Journal(folder).read().values())


class Journal:
    """The journal of a search, of which only the lines are read that were added since it was read before.

    Attributes:
        withdrawals: How many lines withdrew results.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._inode = folder, 0
        self._lock = threading.Lock()  # one thread may ask and another tell
        self._begin()

    def _begin(self) -> None:
        self._of, self._results = _id_of(self._folder), dict[str, SegmentResult]()
        self._lines = self._end = self.withdrawals = 0

    def read(self) -> Mapping[str, SegmentResult]:
        """All results so far, in order, by the names of their segments, without those that were withdrawn.

        A last line that a killed process left unfinished does not count.

        Raises:
            SearchError: A line is damaged.
        """
        with self._lock:
            self._read_added()
            return dict(self._results)

    def _read_added(self) -> None:
        path = self._folder / JOURNAL
        try:
            check_regular(path)
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_size < self._end or found.st_ino != self._inode:  # a journal only grows
                    self._begin()
                    self._inode = found.st_ino
                file.seek(self._end)
                added = file.read()
        except FileNotFoundError:
            self._begin()
            return
        except OSError as error:
            raise SearchError(f"{path} cannot be read: {error.strerror or error}.") from error
        for line in added.split(b"\n")[:-1]:
            self._take(line)
            self._lines, self._end = self._lines + 1, self._end + len(line) + 1

    def _take(self, line: bytes) -> None:
        try:
            read = read_line(line, self._of)
        except UNREADABLE as error:
            reason = " ".join(str(error).split())  # a damaged name may hold a line break
            raise SearchError(
                f"Line {self._lines + 1} of {self._folder / JOURNAL} is damaged: {reason}; `lratlas verify --repair`"
                " takes such lines out of it."
            ) from error
        if isinstance(read, SegmentResult):
            self._results.setdefault(read.segment.name, read)
            return
        for name in read:
            self._results.pop(name, None)
        self.withdrawals += 1


def read_line(line: bytes, of: str | None) -> SegmentResult | list[str]:
    """A line of the journal: a result, or the names of the segments whose results it withdraws.

    Args:
        line: The line.
        of: The id of the search; None where an earlier version began it.

    Raises:
        ValueError: It is no such line, was altered, or is another search's.
        TypeError: The same.
        KeyError: The same.
    """
    record = read_object(line)
    if record.pop(_ID, of) not in {of, None}:
        raise ValueError("it is another search's")
    return [*record[_WITHDRAWN]] if _WITHDRAWN in record else _result(record)


def mend_journal(folder: Path) -> None:
    """Take lines that cannot be read out of the journal, of which a copy is kept in ``damaged/``.

    Raises:
        SearchError: The folder cannot be written.
    """
    at = local_folder(folder)
    try:
        with _lock_of(folder, JOURNAL):
            good, bad = sort_lines(folder)
            if bad or (folder / JOURNAL).is_symlink():
                at.write_bytes(f"damaged/{uuid4().hex}-{JOURNAL}", at.read_bytes(JOURNAL))
                at.write_bytes(JOURNAL, b"".join(line + b"\n" for line in good))
    except (OSError, StudyError) as error:
        raise SearchError(f"{folder / JOURNAL} cannot be written: {error}") from error


def sort_lines(folder: Path) -> tuple[list[bytes], list[int]]:
    """The lines of the journal of a search that can be read, and the numbers of those that cannot."""
    good, bad, of = list[bytes](), list[int](), _id_of(folder)
    lines = (folder / JOURNAL).read_bytes().split(b"\n")[:-1] if (folder / JOURNAL).is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            read_line(line, of)
        except UNREADABLE:
            bad.append(number)
        else:
            good.append(line)
    return good, bad


def add_results(folder: Path, results: Sequence[SegmentResult]) -> None:
    """Add results to the journal in one write, and wait until they are on the disk.

    Raises:
        SearchError: The folder cannot be written; none of the results is in the journal.
    """
    _append(folder, [_record(result) for result in results])


def withdraw_results(folder: Path, names: Sequence[str]) -> None:
    """Let the results of segments count no more; what is added afterwards does.

    Raises:
        SearchError: The folder cannot be written.
    """
    _append(folder, [{_WITHDRAWN: list(names)}])


def _append(folder: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Add lines to the journal, all of them or none."""
    of = _id_of(folder)
    stated = {_ID: of} if of else {}
    lines = b"".join(seal_json({**stated, **record}).encode() for record in records)
    with (
        _writing(str(folder / JOURNAL)),
        _lock_of(folder, JOURNAL),
        open_unlinked(folder / JOURNAL, "ab+") as file,
    ):
        _drop_torn_line(file)
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def checkpoint_of(folder: Path, segment: str | None) -> Path | None:
    """The file of the model's state after a segment; None where the folder has none, or that of another segment."""
    path = folder / CHECKPOINT
    try:
        with safe_open(path, framework="np") as file:
            about: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    return path if segment is not None and about.get("segment") == segment else None


def claim(folder: Path, name: str) -> Lock | None:
    """The lock on a segment, held until it is released or the process ends; None where someone else holds it.

    Raises:
        SearchError: The folder cannot be written.
    """
    lock = _lock_of(folder, name, within=CLAIMS)
    with _writing(str(folder / CLAIMS)):
        (folder / CLAIMS).mkdir(exist_ok=True)
        return lock if lock.take() else None


def _lock_of(folder: Path, name: str, *, within: str = ".") -> Lock:
    """The lock that goes with a file of the search, or with a segment."""
    return Lock(local_folder(folder / within), f"{name}.lock")


def local_folder(folder: Path) -> Folder:
    """The folder of a search as a study's is worked with: its files appear whole or not at all."""
    return Folder(LocalFileSystem(), str(folder.absolute()))


def _id_of(folder: Path) -> str | None:
    """The id of a search, which its settings and each line of its journal state; None before it has settings."""
    path = folder / SETTINGS
    with suppress(OSError):
        found = path.stat()
        return _stored_id(path, found.st_ino, found.st_size, found.st_mtime_ns)
    return None


@lru_cache(maxsize=64)
def _stored_id(path: Path, *_: int) -> str | None:
    """The id in the settings, which may hold thousands of LRs; read again only where they are another file."""
    with suppress(*UNREADABLE):
        return read_object(path.read_bytes()).get(_ID)
    return None


def stated_paths(path: Path) -> tuple[str, ...]:
    """What a file of weights may state as its place: within its search, and, as earlier, in a folder of any search.

    Args:
        path: The file, in the folder of a search or in its ``states``.
    """
    folder = path.parent if path.name == CHECKPOINT else path.parent.parent
    within = path.relative_to(folder).as_posix()
    of = _id_of(folder)
    return (f"{of}/{within}", within) if of else (within,)


def _id_in_journal(folder: Path) -> str | None:
    """The id that the first line of the journal states, for settings that were lost."""
    with suppress(*UNREADABLE):
        return read_object((folder / JOURNAL).read_bytes().partition(b"\n")[0]).get(_ID)
    return None


def _drop_torn_line(file: Any) -> None:
    """Cut off what a killed process left of a line, so that the next one begins on its own."""
    end = begin = file.seek(0, os.SEEK_END)
    held = b""
    while begin and b"\n" not in held:
        begin = max(0, begin - _TAIL)
        file.seek(begin)
        held = file.read(end - begin)
    if held and not held.endswith(b"\n"):
        file.truncate(begin + held.rfind(b"\n") + 1)


def read_object(text: bytes) -> dict[str, Any]:
    """The object in a small file of a search, or in a line of its journal, held against its checksum.

    Raises:
        ValueError: It is not JSON, or was altered. What earlier versions wrote has no checksum.
        TypeError: It is no object.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise TypeError("it must hold one object")
    return open_json(text) if KEY in content else cast("dict[str, Any]", content)


def _record(result: SegmentResult) -> dict[str, object]:
    record: dict[str, object] = asdict(result)
    return record | {"losses": replace_nonfinite(result.losses)}


def _result(record: dict[str, Any]) -> SegmentResult:
    losses: list[float | None] = record.pop("losses")
    of: dict[str, Any] = record.pop("segment")
    made = SegmentResult(
        segment=Segment(**of), losses=tuple(math.nan if loss is None else loss for loss in losses), **record
    )
    # The classes refuse fields, this the types of their values.
    return _RESULT.validate_python(vars(made) | {"segment": vars(made.segment)})
