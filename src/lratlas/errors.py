"""Errors that are meant for people: one sentence, naming the thing and what is allowed."""

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
    """Data files that are missing, damaged or of another format, or a choice of data that cannot be made."""


class PathError(LRAtlasError):
    """A path that begins with a home folder that does not exist here."""


class SpecError(LRAtlasError):
    """A spec that cannot be read or whose fields are out of range."""


class SearchError(LRAtlasError):
    """A search folder that is damaged or another search's, or an answer that does not fit what was asked."""


class StudyError(LRAtlasError):
    """A study folder that is missing, not a study, another study, unwritable or damaged."""


class FolderGone(StudyError):  # noqa: N818 - it names what happened
    """A study folder that was removed while it was worked on."""


class JobsFailed(StudyError):  # noqa: N818 - it names what happened
    """Jobs of a study that failed again and again, while the rest was done."""


class MeasurementError(StudyError):
    """A custom measurement that failed, or returned something else than a value for each of its columns."""


class DamagedFile(StudyError):  # noqa: N818 - it names what was found
    """A file of a study that was cut short or altered.

    Attributes:
        path: The file, relative to the study's folder.
        what: What is wrong with it, as the rest of a sentence.
    """

    def __init__(self, message: str, path: str, what: str = "was cut short or altered") -> None:
        super().__init__(message)
        self.path, self.what = path, what

    def __reduce__(self) -> tuple[type["DamagedFile"], tuple[str, str, str]]:
        # Worker processes send their errors to the driver.
        return DamagedFile, (str(self), self.path, self.what)


class MissingLibrary(LRAtlasError, ImportError):  # noqa: N818 - it names what is wrong
    """A library that an extra of this package would have installed."""


@contextmanager
def extra(name: str) -> Generator[None]:
    """Around the imports of libraries that an extra of this package installs: says which one where they are not there.

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
    """`` (did you mean …?)`` with the names that one looks like, to stand behind it; empty where it is like none.

    Args:
        name: What was given.
        known: What is allowed.
        quote: What stands around each name.
    """
    close = difflib.get_close_matches(name, list(known), n=2)
    return f" (did you mean {' or '.join(f'{quote}{each}{quote}' for each in close)}?)" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
