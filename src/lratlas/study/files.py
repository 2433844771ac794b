"""Files written whole or not at all, with a checksum each."""

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
"""How the names of unfinished files begin; one may be left behind by a process that was killed."""


def write_file(path: Path, data: bytes, *, new: bool = False) -> None:
    """Write a file under another name, wait until it is on the disk, then give it its name.

    Where a link has that name, the link is replaced, and what it leads to stays as it is.

    Args:
        path: The file; folders above it are made, an earlier file is replaced.
        data: Its content.
        new: There must be no earlier file: of several who write it at once, one succeeds.

    Raises:
        FileExistsError: There is one.
        OSError: It cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{uuid4().hex}"
    try:
        with open_unlinked(temporary, "xb") as file:
            _lock(file.fileno(), wait=True)
            if not os.fstat(file.fileno()).st_nlink:  # swept by another process before it was locked
                return write_file(path, data, new=new)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if new:
                _name_new(temporary, path)
            else:
                temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return _sync(path.parent)


def _name_new(temporary: Path, path: Path) -> None:
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # not every file system has hard links
        open_unlinked(path, "xb").close()  # of several, one succeeds
        temporary.replace(path)


def linked_folder(folder: Path) -> Path | None:
    """A link to another folder among what a folder holds, if there is one."""
    with suppress(OSError, ValueError):  # the system may be told to know ASCII alone
        return next((each for each in sorted(folder.iterdir()) if each.is_symlink() and each.is_dir()), None)
    return None


def open_unlinked(path: Path, mode: str, *, encoding: str | None = None, errors: str | None = None) -> IO[Any]:
    """Open a file as Python does, but not through a link in its place, which a stranger may have made.

    Raises:
        OSError: It is a link, or cannot be opened.
    """

    def opener(name: str, flags: int) -> int:
        if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        # A pipe in its place would be waited for.
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)

    return open(path, mode, encoding=encoding, errors=errors, opener=opener)


def make_folder(folder: Path, name: str, data: bytes) -> None:
    """Make a folder that holds a file from the moment it can be seen.

    Args:
        folder: The new folder; if another process makes the same one meanwhile, the first one stays.
        name: The file's name.
        data: The file's content.

    Raises:
        OSError: It cannot be made; nothing is left behind.
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
    """Remove the unfinished files among some that were left behind by processes that were killed.

    Args:
        paths: Any; those whose names do not begin with ``TEMPORARY`` are left alone.
    """
    for path in paths:
        if path.name.startswith(TEMPORARY) and path.is_file() and not path.is_symlink():
            # Another process may have been faster.
            with suppress(OSError), path.open("rb") as file:
                if _lock(file.fileno(), wait=False):
                    path.unlink()


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file, and say whether that went well: not where another process holds it, or nobody can."""
    if os.name != "posix":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync(folder: Path) -> None:
    """Wait until a folder's entries are on the disk: a new name is safe only then."""
    if os.name != "posix":
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
ALTERED = "was cut short or altered"  # what is said of a file that is not intact


def seal(data: bytes) -> bytes:
    """The file with its checksum in the place of ``PLACEHOLDER``.

    Args:
        data: A file that holds ``PLACEHOLDER`` once, uncompressed, as a value of its metadata.

    Returns:
        The same file, of the same length, sealed.

    Raises:
        ValueError: The placeholder is missing or stands more than once.
    """
    if data.count(_MARK) != 1:
        raise ValueError(f"the text {_MARK.decode()} must stand in the metadata alone")
    start = data.index(_MARK) + len(_MARK)
    return data[:start] + _digest(data, start) + data[start + _DIGITS :]


def is_intact(data: bytes) -> bool:
    """Whether the file is, to the last byte, the one that was sealed."""
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
    """An object as one line of JSON, with a checksum of its fields as the first one.

    Raises:
        ValueError: A number in it is not finite.
    """
    sealed = {KEY: _digest_of_fields(content), **content}
    return json.dumps(sealed, separators=(",", ":"), allow_nan=False) + "\n"


def open_json(text: str | bytes) -> dict[str, Any]:
    """The object that `seal_json` wrote.

    Raises:
        ValueError: It is not JSON, holds no object, lacks the checksum, or was altered.
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
    """SHA-256 of a file that holds no checksum of itself."""
    return hashlib.sha256(data).hexdigest()


def _digest_of_fields(content: Mapping[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True).encode())
