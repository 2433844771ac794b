"""Folder of a search: its settings, and a journal with one line per result.

A line may also withdraw results, so that their segments are trained again. Each line contains the digest of the line
before it, and a small file the digest of the last line.

Several processes may share the folder. A process claims a segment with a lock on a file. The system frees the lock
whenever the process ends; no clock is involved.
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
from lratlas.files import KEY, digest, linked_folder, open_json, open_unlinked, seal_json, sweep, write_file
from lratlas.paths import check_regular, expand_home
from lratlas.search.chain import AFTER, chain_lines, find_breaks, restore_order
from lratlas.search.segments import Segment, SegmentResult
from lratlas.search.settings import Search, make_search
from lratlas.study.folder import JOURNAL, SEARCH, Folder
from lratlas.study.lock import Lock
from lratlas.text import replace_nonfinite

SETTINGS = SEARCH
CLAIMS = "claims"
STATES = "states"
"""Folder of final states, within the search folder."""
CHECKPOINT = "checkpoint.safetensors"
"""Model state that a full training can continue from, if the search writes one."""
END = "journal-end.json"
"""The digest of the journal's last line, or of an earlier line if only the first of the two writes succeeded."""
UNREADABLE = (OSError, ValueError, TypeError, KeyError, RecursionError)
"""Errors from reading a damaged file of a search, or a damaged line of its journal."""
ALTERED_LINE, MOVED_LINE = "was altered, or belongs to another search", "does not follow the line before it"
_WITHDRAWN, _ID, _LAST = "withdrawn", "search", "last"
_TAIL = 4096  # bytes; lines of the journal are rarely longer
_RESULT = TypeAdapter(SegmentResult)


def search_folder(folder: str | Path | None) -> Path:
    """Expand the search folder that a user gives; make a temporary one if it is None.

    Raises:
        PathError: The path begins with an unknown home folder.
    """
    return expand_home(folder or tempfile.mkdtemp(prefix="lratlas-find-"))


def open_folder(folder: Path, settings: Mapping[str, object]) -> Search:
    """Create the folder of a search, or reopen it.

    Args:
        folder: The folder.
        settings: All settings of a new search; for an existing search any of them, equal to the stored ones.

    Returns:
        The settings of the search.

    Raises:
        SpecError: A setting is out of range, or a new search has no ``steps``.
        SearchError: The folder contains a search with other settings, or cannot be written.
    """
    if (link := linked_folder(folder)) is not None:
        raise SearchError(
            f"{link} is a link to a folder, but a search folder must not contain such links: nothing is written"
            " through it."
        )
    if not (folder / SETTINGS).exists():
        _create(folder, settings)
    with suppress(OSError):
        sweep(folder.iterdir())
    stored = read_settings(folder)
    asked = make_search(**{**stored.model_dump(), **settings})
    changed = [name for name in Search.model_fields if getattr(stored, name) != getattr(asked, name)]
    if changed:
        found = "; ".join(
            f"{name} = {getattr(stored, name)}, but {getattr(asked, name)} was requested" for name in changed
        )
        raise SearchError(f"The search in {folder} has {found}; use the stored values, or another folder.")
    return stored


def raise_budget(folder: Path, budget: object) -> None:
    """Raise the budget of the search in a folder, if there is one.

    Args:
        folder: The folder.
        budget: New budget in full trainings; ignored unless it is larger.

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
    """Turn system errors in the block into a sentence that begins with ``what``."""
    try:
        yield
    except OSError as error:
        raise SearchError(f"{what} cannot be written: {error.strerror or error}.") from error


def _write(folder: Path, search: Search) -> None:
    of = _id_of(folder) or _id_in_journal(folder) or uuid4().hex
    write_file(folder / SETTINGS, seal_json({_ID: of, **search.model_dump(mode="json")}).encode())


def _create(folder: Path, settings: Mapping[str, object]) -> None:
    """Create the folder of a new search; safe against another process that creates it at the same time."""
    if "steps" not in settings:
        raise SpecError(
            f"There is no search in {folder}; a new search needs steps, the optimizer steps of a full training."
        )
    search = make_search(**settings)
    with _writing(f"The search folder {folder}"):
        (folder / CLAIMS).mkdir(parents=True, exist_ok=True)
        with _lock_of(folder, SETTINGS):
            if not (folder / SETTINGS).exists():
                _write(folder, search)


def read_settings(folder: Path) -> Search:
    """Read the settings of the search in a folder.

    Raises:
        SearchError: There is no search, or its file is damaged.
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
    """Short text that changes when the search in a folder gets or loses results, or gets other settings.

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
    """Read all results so far, in order, without withdrawn ones.

    Raises:
        SearchError: A line is damaged.
    """
    return list(Journal(folder).read().values())


class Journal:
    """Journal of a search; each read only takes the lines added since the last one.

    Attributes:
        withdrawals: Number of lines that withdrew results.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._inode = folder, 0
        self._lock = threading.Lock()  # one thread may call ask() while another calls tell()
        self._begin()

    def _begin(self) -> None:
        self._of, self._results = _id_of(self._folder), dict[str, SegmentResult]()
        self._lines = self._end = self.withdrawals = 0

    def read(self) -> Mapping[str, SegmentResult]:
        """All results so far, in order, by segment name, without withdrawn ones.

        An unfinished last line of a killed process is ignored.

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
            reason = " ".join(str(error).split())  # a damaged name may contain a line break
            raise SearchError(
                f"Line {self._lines + 1} of {self._folder / JOURNAL} is damaged: {reason}; `lratlas verify"
                " --repair` removes such lines."
            ) from error
        if isinstance(read, SegmentResult):
            self._results.setdefault(read.segment.name, read)
            return
        for name in read:
            self._results.pop(name, None)
        self.withdrawals += 1


def read_line(line: bytes, of: str | None) -> SegmentResult | list[str]:
    """Parse a line of the journal: a result, or the names of the segments whose results it withdraws.

    Args:
        line: The line.
        of: Id of the search; None if an earlier version created it.

    Raises:
        ValueError: The line is invalid, was altered, or is another search's.
        TypeError: The line is invalid.
        KeyError: The line is invalid.
    """
    record = read_object(line)
    record.pop(AFTER, None)
    if record.pop(_ID, of) not in {of, None}:
        raise ValueError("it belongs to another search")
    return [*record[_WITHDRAWN]] if _WITHDRAWN in record else _result(record)


def mend_journal(folder: Path) -> None:
    """Remove unreadable and repeated lines from the journal and restore their order; saves a copy in ``damaged/``.

    Raises:
        SearchError: The folder cannot be written.
    """
    at = local_folder(folder)
    try:
        with _lock_of(folder, JOURNAL):
            lines, wrong = read_lines(folder), find_wrong_lines(folder)
            if wrong or (folder / JOURNAL).is_symlink():
                at.set_aside(JOURNAL, copy=True)  # a process that is killed here loses no results
                unreadable = {number for number, what in wrong.items() if what == ALTERED_LINE}
                good = [line for number, line in enumerate(lines, start=1) if number not in unreadable]
                lines = chain_lines([read_object(line) for line in restore_order(good)])
                at.write_bytes(JOURNAL, b"".join(line + b"\n" for line in lines))
            _write_end(folder, lines[-1] if lines else b"")
    except (OSError, StudyError) as error:
        raise SearchError(f"{folder / JOURNAL} cannot be written: {error}") from error


def read_lines(folder: Path) -> list[bytes]:
    """The complete lines of a search's journal, without line breaks; none without a journal."""
    return (folder / JOURNAL).read_bytes().split(b"\n")[:-1] if (folder / JOURNAL).is_file() else []


def find_wrong_lines(folder: Path) -> dict[int, str]:
    """The numbers of the wrong lines of a search's journal, from 1, each with `ALTERED_LINE` or `MOVED_LINE`."""
    of, readable = _id_of(folder), list[bytes | None]()
    for line in read_lines(folder):
        try:
            read_line(line, of)
        except UNREADABLE:
            readable.append(None)
        else:
            readable.append(line)
    unreadable = {number: ALTERED_LINE for number, line in enumerate(readable, start=1) if line is None}
    return dict(sorted((unreadable | dict.fromkeys(find_breaks(readable), MOVED_LINE)).items()))


def read_end(folder: Path) -> str:
    """The digest of the journal's last line, from the file that stores it.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: The file was altered.
        TypeError: The file was altered.
        KeyError: The file was altered.
    """
    check_regular(folder / END)
    return open_json((folder / END).read_bytes())[_LAST]


def _write_end(folder: Path, line: bytes) -> None:
    write_file(folder / END, seal_json({_LAST: digest(line)}).encode())


def add_results(folder: Path, results: Sequence[SegmentResult]) -> None:
    """Add results to the journal in one write, and wait until they are on disk.

    Raises:
        SearchError: The folder cannot be written; none of the results is in the journal.
    """
    _append(folder, [_record(result) for result in results])


def withdraw_results(folder: Path, names: Sequence[str]) -> None:
    """Withdraw the results of segments; results added later count again.

    Raises:
        SearchError: The folder cannot be written.
    """
    _append(folder, [{_WITHDRAWN: list(names)}])


def _append(folder: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Add lines to the journal, all or none."""
    of = _id_of(folder)
    stated = {_ID: of} if of else {}
    with (
        _writing(str(folder / JOURNAL)),
        _lock_of(folder, JOURNAL),
        open_unlinked(folder / JOURNAL, "ab+") as file,
    ):
        last = _drop_torn_line(file)
        lines = chain_lines([{**stated, **record} for record in records], last)
        if not (folder / END).exists():  # so that a journal with chained lines always has it
            _write_end(folder, last)
        file.write(b"".join(line + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
        with suppress(OSError):  # the results are stored, and the digest of an earlier line does as well
            _write_end(folder, lines[-1])


def checkpoint_of(folder: Path, segment: str | None) -> Path | None:
    """File of the model's state after a segment; None if the folder has none, or the state of another segment."""
    path = folder / CHECKPOINT
    try:
        check_regular(path)  # opening a pipe would block
        with safe_open(path, framework="np") as file:
            about: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    return path if segment is not None and about.get("segment") == segment else None


def claim(folder: Path, name: str) -> Lock | None:
    """Lock a segment until it is released or the process ends; None if another process has the lock.

    Raises:
        SearchError: The folder cannot be written.
    """
    lock = _lock_of(folder, name, within=CLAIMS)
    with _writing(str(folder / CLAIMS)):
        (folder / CLAIMS).mkdir(exist_ok=True)
        return lock if lock.take() else None


def _lock_of(folder: Path, name: str, *, within: str = ".") -> Lock:
    """Lock of a file of the search, or of a segment."""
    return Lock(local_folder(folder / within), f"{name}.lock")


def local_folder(folder: Path) -> Folder:
    """The search folder as a `Folder`: files appear whole or not at all."""
    return Folder(LocalFileSystem(), str(folder.absolute()))


def _id_of(folder: Path) -> str | None:
    """Id of a search, which is in its settings and in each line of its journal; None if it has no settings."""
    path = folder / SETTINGS
    with suppress(OSError):
        found = path.stat()
        return _stored_id(path, found.st_ino, found.st_size, found.st_mtime_ns)
    return None


@lru_cache(maxsize=64)
def _stored_id(path: Path, *_: int) -> str | None:
    """Id in the settings, which may contain thousands of LRs; cached until the file changes."""
    with suppress(*UNREADABLE):
        return read_object(path.read_bytes()).get(_ID)
    return None


def stated_paths(path: Path) -> tuple[str, ...]:
    """Valid paths inside a file of weights: with the id of its search, and the older form without it.

    Args:
        path: The file, in the search folder or in its ``states``.
    """
    folder = path.parent if path.name == CHECKPOINT else path.parent.parent
    within = path.relative_to(folder).as_posix()
    of = _id_of(folder)
    return (f"{of}/{within}", within) if of else (within,)


def _id_in_journal(folder: Path) -> str | None:
    """Id in the first line of the journal, in case the settings are lost."""
    with suppress(*UNREADABLE):
        return read_object((folder / JOURNAL).read_bytes().partition(b"\n")[0]).get(_ID)
    return None


def _drop_torn_line(file: Any) -> bytes:
    """Cut off the unfinished line of a killed process, and return the line before it; empty if there is none."""
    end = begin = file.seek(0, os.SEEK_END)
    held = b""
    while begin and held.count(b"\n") < 2:
        begin = max(0, begin - _TAIL)
        file.seek(begin)
        held = file.read(end - begin)
    *whole, torn = held.split(b"\n")
    if torn:
        file.truncate(end - len(torn))
    return whole[-1] if whole else b""


def read_object(text: bytes) -> dict[str, Any]:
    """Parse the object in a small file of a search or in a line of its journal, and check its checksum.

    Raises:
        ValueError: The text is not JSON, or was altered. Files of earlier versions have no checksum.
        TypeError: The text is not an object.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise TypeError("it must contain one object")
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
    # The classes reject unknown fields; the adapter checks the types of the values.
    return _RESULT.validate_python(vars(made) | {"segment": vars(made.segment)})
