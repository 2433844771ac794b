"""Paths as people write them."""

from pathlib import Path

from lratlas.errors import PathError


def home_expanded(path: str | Path) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that home folder; nothing else in it is special.

    Raises:
        PathError: There is no such user, or no home folder, or it is no path.
    """
    try:
        return Path(path).expanduser()
    except TypeError as error:
        raise PathError(f"{path!r} is no path; give a text or a pathlib.Path.") from error
    except RuntimeError as error:
        raise PathError(f"{path} begins with a home folder that is not known here.") from error
