"""Messages about a job, as plain data: its progress, its outcome, and notices for the user."""

import logging
import math
import os
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

from lratlas.errors import FolderGone, LRAtlasError, MeasurementError, StudyError
from lratlas.notices import LOG

Message: TypeAlias = dict[str, Any]
"""A ``work``, ``notice``, ``done``, ``error``, ``ready`` or ``ended`` entry with its details; JSON-compatible."""

Say: TypeAlias = Callable[[Message], None]

BETWEEN_REPORTS = 1.0
"""Seconds between two progress reports of a job: a driver may listen to a thousand workers."""

_OF_CODE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RuntimeError,  # includes NotImplementedError
    TypeError,
    ValueError,
)
"""Built-in errors that the same code would raise again."""


class Worked:
    """Sums the work on a job and reports it at intervals.

    Args:
        say: Receives each report.
        every: Minimum number of seconds between two reports, except the first and the last.
    """

    def __init__(self, say: Say, *, every: float = BETWEEN_REPORTS) -> None:
        self._say, self._every, self._work, self._said = say, every, 0, -math.inf

    def __call__(self, work: int) -> None:
        """Add completed work; a negative number subtracts."""
        self._work += work
        # The first report is immediate: it contains the work of an earlier attempt.
        if time.monotonic() - self._said >= self._every or self._said == -math.inf:
            self._report()

    def rest(self) -> None:
        """Report the work that is not reported yet."""
        if self._work:
            self._report()

    def _report(self) -> None:
        self._say({"work": self._work})
        self._work, self._said = 0, time.monotonic()


class _Notices(logging.Handler):
    def __init__(self, say: Say) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say({"notice": record.getMessage()})


@contextmanager
def forward_notices(say: Say) -> Generator[None]:
    """Forward the package's log warnings as notices inside the block."""
    handler = _Notices(say)
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)


def failure(error: Exception, *, ends: bool = False) -> Message:
    """An error as a message; if ``LRATLAS_DEBUG`` is set in the environment, also print the traceback.

    Args:
        error: The error.
        ends: Whether the process ends because of it.

    Returns:
        ``error``, a sentence; ``final``, whether the whole study ends; ``again``, whether another attempt may succeed;
        and ``ends``.
    """
    if os.environ.get("LRATLAS_DEBUG"):
        traceback.print_exception(error)
    known = isinstance(error, LRAtlasError)
    # A full disk or a damaged file may be fixed by the next attempt; a wrong task stays wrong.
    final = isinstance(error, FolderGone) or (known and not isinstance(error, StudyError))
    retried = isinstance(error, StudyError) and not isinstance(error, MeasurementError)
    again = ends or (retried if known else not _would_recur(error))
    return {"error": sentence(error), "final": final, "again": again, "ends": ends}


def sentence(error: BaseException) -> str:
    """An error in one line: an error for people unchanged, any other with its type and its first line."""
    if isinstance(error, LRAtlasError):
        return str(error)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": .") + "."


def _would_recur(error: Exception) -> bool:
    """Whether the same code would raise the error again: its type is one that wrong code raises in Python or PyTorch.

    Any other error may go away: errors of disks, networks, memory, and clients of object stores, which define their own
    classes.
    """
    from lratlas.training.memory import is_out_of_memory

    if isinstance(error, RuntimeError) and is_out_of_memory(error):
        return False
    package = type(error).__module__.partition(".")[0]
    return package == "torch" or (package == "builtins" and isinstance(error, _OF_CODE))
