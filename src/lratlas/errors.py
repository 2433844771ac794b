"""Errors for people: one sentence that names the problem and the allowed values."""

import difflib
from collections.abc import Generator, Iterable
from contextlib import contextmanager

__all__ = [
    "DamagedFile",
    "DataError",
    "JobsFailed",
    "LRAtlasError",
    "MissingLibrary",
    "PathError",
    "SearchError",
    "SpecError",
    "StudyError",
    "TaskError",
]


class LRAtlasError(Exception):
    """Bad input or a damaged study; the command line prints it and exits with code 2."""


class TaskError(LRAtlasError):
    """A task whose model, data, loss or rule do not fit together."""


class DataError(LRAtlasError):
    """Data files that are missing, damaged or in another format, or an impossible choice of data."""


class PathError(LRAtlasError):
    """A path that begins with a home folder that does not exist here."""


class SpecError(LRAtlasError):
    """A spec that cannot be read or whose fields are out of range."""


class SearchError(LRAtlasError):
    """A search folder that is damaged or belongs to another search, or a result that does not match the request."""


class StudyError(LRAtlasError):
    """A study folder that is missing, damaged or unwritable, or that contains another study or none."""


class FolderGone(StudyError):  # noqa: N818 - it names what happened
    """A study folder that was removed while in use."""


class JobsFailed(StudyError):  # noqa: N818 - it names what happened
    """Jobs of a study that failed repeatedly while all other jobs finished."""


class MeasurementError(StudyError):
    """A custom measurement that failed, or did not return one value for each of its columns."""


class DamagedFile(StudyError):  # noqa: N818 - it names what was found
    """A file of a study that is truncated or altered.

    Attributes:
        path: The file, relative to the study's folder.
        what: The fault, worded as the end of a sentence.
    """

    def __init__(self, message: str, path: str, what: str = "was cut short or altered") -> None:
        super().__init__(message)
        self.path, self.what = path, what

    def __reduce__(self) -> tuple[type["DamagedFile"], tuple[str, str, str]]:
        # Worker processes send their errors to the driver.
        return DamagedFile, (str(self), self.path, self.what)


class MissingLibrary(LRAtlasError, ImportError):  # noqa: N818 - it names what is wrong
    """A missing library that an extra of this package installs."""


@contextmanager
def extra(name: str) -> Generator[None]:
    """Wrap imports of the libraries of an extra: if one is missing, the error names the extra to install.

    Args:
        name: The extra.

    Raises:
        MissingLibrary: A library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        raise MissingLibrary(f"{library} is not installed; this installs it: pip install 'lratlas[{name}]'") from error


def meant(name: str, known: Iterable[str], *, quote: str = "") -> str:
    """The suffix `` (did you mean …?)`` with the known names similar to a name; empty if none is similar.

    Args:
        name: The given name.
        known: The allowed names.
        quote: The character put around each name.
    """
    close = difflib.get_close_matches(name, list(known), n=2)
    return f" (did you mean {' or '.join(f'{quote}{each}{quote}' for each in close)}?)" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
