"""What the processes of the tests inherit from whoever started them, set to what the tests count on."""

import os
import signal

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
    """Make signals reach the processes that are started from now on, and their output that of no terminal."""
    for name in _OF_TERMINALS:
        os.environ.pop(name, None)
    if os.name != "posix":
        return
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # A signal that is ignored is ignored by child processes too; one with a handler is not. This process goes on as
    # before: a command in the background has no Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
