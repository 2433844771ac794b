"""Reset the state that a process inherits from its parent to the one that commands and workers rely on."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

PATIENCE = 9.5
"""Seconds that a process has to shut down cleanly."""


@contextmanager
def enforce_deadline(number: int, end: Callable[[], object]) -> Generator[None]:
    """After a signal inside the block, call ``end`` in a thread some seconds later, if the process still runs.

    Python runs a signal handler between two steps of the main thread, which may be in a long computation.

    Args:
        number: The signal, which must have a handler.
        end: Ends the process.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def watch() -> None:
        while came := os.read(reading, 64):
            if number in came:
                time.sleep(PATIENCE)
                end()
        os.close(reading)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before, warn_on_full_buffer=False)
        os.close(writing)


def reset_process() -> None:
    """Unblock signals, preserve the exit codes of child processes, and open closed standard streams.

    An ignored SIGINT or SIGHUP stays ignored: shells start background commands this way, as does ``nohup``.
    """
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # If SIGCHLD is ignored, every child process seems to end with exit code 0.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            _open_null(number)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _open_null(number: int) -> None:
    """Open the null device under the number of a closed file, also for child processes."""
    opened = os.open(os.devnull, os.O_RDWR)
    os.dup2(opened, number)
    if opened == number:
        os.set_inheritable(number, True)
    else:
        os.close(opened)
