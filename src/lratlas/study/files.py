"""Files written whole or not at all, with a checksum each."""

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

TEMPORARY = ".lratlas-"
"""How the names of unfinished files begin; one may be left behind by a process that was killed."""


def write_file(path: Path, data: bytes) -> None:
    """Write a file under another name, wait until it is on the disk, then give it its name.

    Args:
        path: The file; folders above it are made, an earlier file is replaced.
        data: Its content.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{uuid4().hex}"
    try:
        temporary.touch(exist_ok=False)
        with _lock_file(temporary):
            with temporary.open("r+b") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


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
            with suppress(OSError), _lock_file(path) as alone:  # another process may have been faster
                if alone:
                    path.unlink()


@contextmanager
def _lock_file(path: Path) -> Generator[bool]:
    """Lock a file inside, and say whether that went well: not where another process holds it, or nobody can."""
    if os.name != "posix":
        yield False
        return
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        alone = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


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
