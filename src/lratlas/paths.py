"""Paths as people write them."""

import errno
import os
import stat
from pathlib import Path

from lratlas.errors import PathError


def expand_home(path: str | Path) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that home folder; nothing else is expanded.

    Raises:
        PathError: The user or the home folder does not exist, or the text is not a path.
    """
    try:
        return Path(path).expanduser()
    except TypeError as error:
        raise PathError(f"{path!r} is not a path; give a string or a pathlib.Path.") from error
    except RuntimeError as error:
        raise PathError(f"{path} begins with an unknown home folder.") from error


def cache_folder() -> Path:
    """The cache folder for decoded images: ``LRATLAS_CACHE``, or ``lratlas`` in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    given = os.environ.get("LRATLAS_CACHE")
    if given:
        return expand_home(given)
    return expand_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lratlas"


def check_regular(path: Path) -> os.stat_result:
    """The stat of a regular file; devices and pipes are rejected, since reading them may never end.

    Raises:
        OSError: The path is missing or not a regular file.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return found
