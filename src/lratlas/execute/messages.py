"""What is said of a job, as plain data: how far it is, how it ended, and what the user should see."""

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
"""``work``, ``notice``, ``done``, ``error``, ``ready`` or ``ended``, and what belongs to it; it can be JSON."""

Say: TypeAlias = Callable[[Message], None]

BETWEEN_REPORTS = 1.0
"""Seconds between two reports of a job: a driver may have a thousand workers to listen to."""

_OF_CODE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RuntimeError,  # NotImplementedError is one
    TypeError,
    ValueError,
)
"""Built-in errors that the same code raises again."""


class Worked:
    """Adds up the work on a job and reports it now and then.

    Args:
        say: Called with each report.
        every: Seconds between two reports at least; the first and the rest come in any case.
    """

    def __init__(self, say: Say, *, every: float = BETWEEN_REPORTS) -> None:
        self._say, self._every, self._work, self._said = say, every, 0, -math.inf

    def __call__(self, work: int) -> None:
        """Count work that was done; a negative number takes some of it back."""
        self._work += work
        # The first report is made at once: it is what an earlier attempt had trained.
        if time.monotonic() - self._said >= self._every or self._said == -math.inf:
            self._report()

    def rest(self) -> None:
        """Report what has not been reported yet."""
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
    """Say meanwhile what the package logs as warnings."""
    handler = _Notices(say)
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)


def failure(error: Exception, *, ends: bool = False) -> Message:
    """What went wrong, as a message; with ``LRATLAS_DEBUG`` in the environment the traceback is printed too.

    Args:
        error: The error.
        ends: Whether the process ends because of it.

    Returns:
        ``error``, a sentence; ``final``, whether the whole study ends; ``again``, whether another attempt may go well;
        and ``ends``.
    """
    if os.environ.get("LRATLAS_DEBUG"):
        traceback.print_exception(error)
    known = isinstance(error, LRAtlasError)
    # A full disk or a damaged file may be better next time; a task that is wrong stays wrong.
    final = isinstance(error, FolderGone) or (known and not isinstance(error, StudyError))
    retried = isinstance(error, StudyError) and not isinstance(error, MeasurementError)
    again = ends or (retried if known else not _would_recur(error))
    return {"error": sentence(error), "final": final, "again": again, "ends": ends}


def sentence(error: BaseException) -> str:
    """An error in one line: an error for people as it is, of any other its kind and the first of its lines."""
    if isinstance(error, LRAtlasError):
        return str(error)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": .") + "."


def _would_recur(error: Exception) -> bool:
    """Whether the same code raises the error again: it is one of Python's or PyTorch's kinds for wrong code.

    Everything else may go well next time: disks, networks, memory, and the clients of object stores, whose errors are
    classes in their own modules.
    """
    from lratlas.training.memory import is_out_of_memory

    if isinstance(error, RuntimeError) and is_out_of_memory(error):
        return False
    package = type(error).__module__.partition(".")[0]
    return package == "torch" or (package == "builtins" and isinstance(error, _OF_CODE))
