"""Paths as users write them."""

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
