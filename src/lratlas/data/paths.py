"""Paths as users write them, and where files are kept for the next time."""

import os
from pathlib import Path

from lratlas.errors import DataError


def home_expanded(path: str | Path) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that home folder.

    Raises:
        DataError: There is no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path} begins with a home folder that is not known here.") from error


def cache_folder() -> Path:
    """Where decoded images and the like go: ``LRATLAS_CACHE``, or ``lratlas`` in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    given = os.environ.get("LRATLAS_CACHE")
    if given:
        return home_expanded(given)
    return home_expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lratlas"
