"""Paths as people write them."""

from pathlib import Path

from lratlas.errors import PathError


def home_expanded(path: str | Path) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that home folder; nothing else in it is special.

    Raises:
        PathError: There is no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise PathError(f"{path} begins with a home folder that is not known here.") from error
