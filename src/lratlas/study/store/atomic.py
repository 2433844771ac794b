"""Files and folders on a disk that appear whole or not at all.

An unfinished file is locked as long as it is written. The system frees the lock with the process, however it ends, so
that an unlocked one was left behind: no clock tells the two apart, and nobody's work is removed.
"""

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
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
        with _held(temporary):
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
            with suppress(OSError), _held(path) as alone:  # another process may have been faster
                if alone:
                    path.unlink()


@contextmanager
def _held(path: Path) -> Generator[bool]:
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
