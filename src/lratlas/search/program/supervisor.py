"""Run one program, and end all processes that it started when it ends or when the search does.

The supervisor is a separate process, started by its path. On Linux it only imports modules of Python itself, and
becomes the parent of processes that a program leaves behind, also of those in a separate session. Elsewhere it notes
the descendants of the program every few hundredths of a second: it misses a process in a separate session only if the
parent of that process ends sooner.

Standard input is a socket to the search. The supervisor writes to it why a program cannot be started. A byte from the
search requests an immediate end; a closed socket, when the search is gone, an end within two seconds.
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

_INHERITS = sys.platform == "linux"
# On Linux the supervisor starts without installed packages.
psutil: Any = None if _INHERITS else import_module("psutil")
_noted, _lock = set[Any](), threading.Lock()

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux
_PAUSE = 0.03  # seconds between two looks at the descendants
_PATIENCE = 2.0  # seconds between the request to end and the kill, and to wait for processes that cannot be killed


def main(words: Sequence[str]) -> NoReturn:
    """Run a program, and exit with its exit code."""
    if _INHERITS:
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    else:
        threading.Thread(target=_keep_noting, daemon=True).start()
    # The request to end reaches the whole group, and this process must end last. A handler, because programs inherit an
    # ignored signal.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        program = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    except OSError as error:
        os.write(0, str(error.errno).encode())
        os._exit(127)
    threading.Thread(target=_listen, daemon=True).start()
    code = program.wait()
    _end_children()
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError):  # a signal that cannot be handled
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def _listen() -> None:
    asked = os.read(0, 1)
    if not asked:
        os.killpg(0, signal.SIGTERM)
        time.sleep(_PATIENCE)
    while True:
        _kill_children()
        time.sleep(0.02)


def _end_children() -> None:
    """End all children, and their children, which this process inherits when their parents end."""
    deadline = time.monotonic() + _PATIENCE
    while _kill_children() and time.monotonic() < deadline:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.005)


def _kill_children() -> bool:
    """Kill the current children or descendants; return whether there were any."""
    return _kill_inherited() if _INHERITS else _kill_noted()


def _kill_inherited() -> bool:
    children = " ".join(each.read_text() for each in Path("/proc/self/task").glob("*/children")).split()
    for child in children:
        with suppress(OSError):
            os.kill(int(child), signal.SIGKILL)
    return bool(children)


def _keep_noting() -> None:
    while True:
        _note_descendants()
        time.sleep(_PAUSE)


def _note_descendants() -> set[Any]:
    """The living descendants, including those whose parents have ended."""
    with _lock:
        for each in (psutil.Process(), *_noted):
            with suppress(psutil.Error):
                _noted.update(each.children(recursive=True))
        _noted.difference_update([each for each in _noted if not _lives(each)])
        return set(_noted)


def _lives(process: Any) -> bool:
    with suppress(psutil.Error):  # compares the time of its start: its number may belong to another process by now
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _kill_noted() -> bool:
    found = _note_descendants()
    for each in found:
        with suppress(psutil.Error):
            each.kill()
    return bool(found)


if __name__ == "__main__":
    main(sys.argv[1:])
