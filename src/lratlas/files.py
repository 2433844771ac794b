"""Atomic file writes, and a checksum in each file."""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

TEMPORARY = ".lratlas-"
"""Prefix of the names of unfinished files; a killed process may leave one behind."""


_POSIX = os.name == "posix"


def write_file(path: Path, data: bytes, *, new: bool = False) -> None:
    """Write a file atomically: write a temporary file, sync it to disk, then rename it.

    If the name belongs to a link, the link is replaced and its target stays unchanged.

    Args:
        path: The file; parent folders are created, an earlier file is replaced.
        data: Its content.
        new: Fail if the file exists: if several processes write it at once, exactly one succeeds.

    Raises:
        FileExistsError: ``new`` is set and the file exists.
        OSError: The file cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{uuid4().hex}"
    try:
        with open_unlinked(temporary, "xb") as file:
            _lock(file.fileno(), wait=True)
            if not os.fstat(file.fileno()).st_nlink:  # another process swept it before it was locked
                return write_file(path, data, new=new)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if _POSIX:  # while the file is locked: another process cannot sweep it
                _name(temporary, path, new=new)
        if not _POSIX:  # Windows renames no open file
            _name(temporary, path, new=new)
    finally:
        temporary.unlink(missing_ok=True)
    return _sync(path.parent)


def _name(temporary: Path, path: Path, *, new: bool) -> None:
    """Give a finished file its name; if ``new``, fail if the name is taken."""
    if not new:
        temporary.replace(path)
        return
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # not every file system has hard links
        open_unlinked(path, "xb").close()  # if several processes try, one succeeds
        temporary.replace(path)


def linked_folder(folder: Path) -> Path | None:
    """The first link to another folder inside a folder, or None."""
    with suppress(OSError, ValueError):  # the system encoding may be ASCII
        return next((each for each in sorted(folder.iterdir()) if each.is_symlink() and each.is_dir()), None)
    return None


def open_unlinked(path: Path, mode: str, *, encoding: str | None = None, errors: str | None = None) -> IO[Any]:
    """Open a file like the built-in ``open``, but refuse a link in its place: a stranger may have made the link.

    Raises:
        OSError: The path is a link, or cannot be opened.
    """

    def opener(name: str, flags: int) -> int:
        if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        # Opening a pipe would block.
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)

    return open(path, mode, encoding=encoding, errors=errors, opener=opener)


def make_folder(folder: Path, name: str, data: bytes) -> None:
    """Create a folder that contains a file from the moment it becomes visible.

    Args:
        folder: The new folder; if another process creates it first, that one stays.
        name: The file's name.
        data: The file's content.

    Raises:
        OSError: The folder cannot be created; nothing is left behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f"{TEMPORARY}{uuid4().hex}"
    try:
        write_file(temporary / name, data)
        temporary.rename(folder)
    except OSError:
        if not (folder / name).exists():
            raise
    finally:
        (temporary / name).unlink(missing_ok=True)
        if temporary.exists():
            temporary.rmdir()
    _sync(folder.parent)


def sweep(paths: Iterable[Path]) -> None:
    """Remove unfinished files that killed processes left behind.

    Args:
        paths: Any paths; only names that begin with ``TEMPORARY`` are removed.
    """
    for path in paths:
        if path.name.startswith(TEMPORARY) and path.is_file() and not path.is_symlink():
            # Another process may have removed the file first.
            with suppress(OSError), path.open("rb") as file:
                if _lock(file.fileno(), wait=False):
                    path.unlink()


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file; return False if another process has locked it or the file system has no locks."""
    if not _POSIX:
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync(folder: Path) -> None:
    """Sync a folder's entries to disk: a new name is durable only after that."""
    if not _POSIX:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


KEY = "checksum"
_MARK = b"lratlas-sha256:"
_DIGITS = 64
PLACEHOLDER = (_MARK + b"0" * _DIGITS).decode()
ALTERED = "was cut short or altered"  # message for a file whose checksum does not match


def seal(data: bytes) -> bytes:
    """Replace ``PLACEHOLDER`` with the checksum of a file.

    Args:
        data: A file that contains ``PLACEHOLDER`` exactly once, uncompressed, as a metadata value.

    Returns:
        The sealed file, of the same length.

    Raises:
        ValueError: The placeholder is missing or occurs more than once.
    """
    if data.count(_MARK) != 1:
        raise ValueError(f"the text {_MARK.decode()} must be in the metadata only")
    start = data.index(_MARK) + len(_MARK)
    return data[:start] + _digest(data, start) + data[start + _DIGITS :]


def is_intact(data: bytes) -> bool:
    """Whether a file matches its checksum byte for byte."""
    if data.count(_MARK) != 1:
        return False
    start = data.index(_MARK) + len(_MARK)
    return data[start : start + _DIGITS] == _digest(data, start)


def _digest(data: bytes, start: int) -> bytes:
    view = memoryview(data)
    total = hashlib.sha256(view[:start])
    total.update(b"0" * _DIGITS)
    total.update(view[start + _DIGITS :])
    return total.hexdigest().encode()


def seal_json(content: Mapping[str, Any]) -> str:
    """One line of JSON for an object, with a checksum of its fields as the first field.

    Raises:
        ValueError: A number in the object is not finite.
    """
    sealed = {KEY: _digest_of_fields(content), **content}
    return json.dumps(sealed, separators=(",", ":"), allow_nan=False) + "\n"


def open_json(text: str | bytes) -> dict[str, Any]:
    """Read an object that `seal_json` wrote.

    Raises:
        ValueError: The text is not JSON, is not an object, lacks the checksum, or was altered.
    """
    try:
        content = json.loads(text)
        intact = content.pop(KEY) == _digest_of_fields(content)
    except (KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError("it is not an object with a checksum") from error
    if not intact:
        raise ValueError("it does not fit its checksum")
    return content


def digest(data: bytes) -> str:
    """SHA-256 of a file that contains no checksum."""
    return hashlib.sha256(data).hexdigest()


def _digest_of_fields(content: Mapping[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True).encode())
