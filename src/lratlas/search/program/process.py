"""Processes of a command: their GPUs and how they end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

GRACE = 6.0  # seconds between the request to end and the kill
_NOT_STARTED = 127  # exit code of the supervisor if a program cannot be started
PAUSE = 0.1  # seconds between two checks
ON_POSIX = os.name == "posix"
LAST_MOMENT = 4.0  # seconds for the supervisor to kill processes that ignore SIGTERM
# On Linux it imports modules of Python only; elsewhere also psutil, which is an installed package.
_ALONE = ("-I", "-S") if sys.platform == "linux" else ("-I",)
_SUPERVISOR = (sys.executable, *_ALONE, str(Path(__file__).with_name("supervisor.py")))


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Request from another thread to end a program.

    Attributes:
        asked: Set to end the program.
        at_once: Set to end it without grace.
    """

    asked: threading.Event = field(default_factory=threading.Event)
    at_once: threading.Event = field(default_factory=threading.Event)


class Stopped(Exception):  # noqa: N818 - it names what happened
    """The program was ended on request."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The end of a program.

    Attributes:
        code: Exit code; if negative, the signal that ended the program.
        cut: Reason why this process ended it; None if it ended by itself.
    """

    code: int
    cut: str | None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Time limits of a program.

    Attributes:
        timeout: Seconds in total; None for no limit.
        stall: Seconds without any output; None for no limit.
    """

    timeout: float | None
    stall: float | None


def run_program(
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    watched: Sequence[Path] = (),
    look: Callable[[], str | None],
    limits: Limits,
    stop: Stop,
) -> Ended:
    """Run a program in the current folder until it ends, reaches a limit, or is asked to end.

    The program has no standard input. It is ended together with all processes that it started: first a request, ten
    seconds later a kill, also if this process is killed. Processes left running after its end are ended too.

    Args:
        words: Program and arguments, without a shell.
        environment: The complete environment.
        stdout: File for standard output.
        stderr: File for standard error.
        watched: Other files to which it may append; they count as output.
        look: Called every tenth of a second; a result other than None is a reason to end the program.
        limits: Time limits.
        stop: Request to end.

    Raises:
        Stopped: The program was asked to end.
        OSError: The program cannot be started.
    """
    ours, theirs = socket.socketpair()
    for path in (stdout, stderr):
        path.write_bytes(b"")
    # Append mode: the files may be shortened at any time.
    with ours, stdout.open("ab") as out, stderr.open("ab") as errors:
        with theirs:
            process = subprocess.Popen(
                [*_SUPERVISOR, *words] if ON_POSIX else words,
                stdin=theirs.fileno() if ON_POSIX else subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        try:
            cut = _watch(process, (stdout, stderr, *watched), look, limits, stop)
        finally:
            _end(process, stop, ours)
        number = b""
        if process.returncode == _NOT_STARTED:
            with suppress(ConnectionError):  # it was killed before it read the request to end
                number = ours.recv(16)
        if number:
            raise OSError(int(number), os.strerror(int(number)), words[0])
    return Ended(code=process.returncode, cut=cut)


def _watch(
    process: "subprocess.Popen[bytes]",
    files: Sequence[Path],
    look: Callable[[], str | None],
    limits: Limits,
    stop: Stop,
) -> str | None:
    """Wait for the end of a program, or for a reason to end it."""
    began = changed = time.monotonic()
    size = 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(PAUSE)
            return None
        if stop.asked.is_set():
            raise Stopped
        if reason := look():
            return reason
        now = time.monotonic()
        if (grown := sum(path.stat().st_size for path in files if path.exists())) != size:
            size, changed = grown, now
        if limits.timeout is not None and now - began > limits.timeout:
            return f"it was not finished after {seconds_in_words(limits.timeout)} (--timeout)"
        if limits.stall is not None and now - changed > limits.stall:
            return f"it printed nothing for {seconds_in_words(limits.stall)} (--stall)"


def _end(process: "subprocess.Popen[bytes]", stop: Stop, supervisor: socket.socket) -> None:
    """End a program and all processes that it started; does nothing if none is running."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while process.poll() is None and time.monotonic() < deadline and not stop.at_once.is_set():
            with suppress(subprocess.TimeoutExpired):
                process.wait(PAUSE)
    with suppress(OSError, subprocess.TimeoutExpired):
        supervisor.send(b"!")
        process.wait(LAST_MOMENT)
    _signal(process, signal.SIGKILL if ON_POSIX else signal.SIGTERM)
    process.wait()


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(OSError):  # no process is left
        if ON_POSIX:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def seconds_in_words(seconds: float) -> str:
    """Duration in words: ``90 s``, ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
