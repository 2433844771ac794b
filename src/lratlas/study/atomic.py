"""Files and folders on a disk that appear whole or not at all."""

import os
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
        with temporary.open("xb") as file:
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


def _sync(folder: Path) -> None:
    """Wait until a folder's entries are on the disk: a new name is safe only then."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
