"""What the processes of the tests inherit from whoever started them, set to what the tests count on."""

import os
import signal
import sys

_OF_TERMINALS = (
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLUMNS",
    "FORCE_COLOR",
    "LINES",
    "NO_COLOR",
    "TERM",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
)


def reset_inherited() -> None:
    """Reset signals, the variables of terminals, and whether modules are stored compiled, here and in child processes.

    A module that is not stored is compiled again by each of the many processes that the tests start.
    """
    for name in (*_OF_TERMINALS, "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    sys.dont_write_bytecode = False
    if os.name != "posix":
        return
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # A signal that is ignored is ignored by child processes too; one with a handler is not. This process continues as
    # before: a command in the background has no Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _stay)


def _stay(_signal: int, _frame: object) -> None:
    """Do nothing."""
