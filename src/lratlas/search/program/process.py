"""Processes of a command: on which GPU they run, and how they end."""

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
from itertools import pairwise
from pathlib import Path

GRACE = 6.0  # seconds between the request to end and the end
_NOT_STARTED = 127  # what the supervisor ends with where a program cannot be started
PAUSE = 0.1  # seconds between two looks
ON_POSIX = os.name == "posix"
LAST_MOMENT = 4.0  # seconds for the supervisor to kill what ignores SIGTERM
_SUPERVISOR = (sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py")))


@dataclass(frozen=True, kw_only=True)
class Stop:
    """How another thread asks a program to be ended.

    Attributes:
        asked: Set: end it.
        at_once: Set: end it without grace.
    """

    asked: threading.Event = field(default_factory=threading.Event)
    at_once: threading.Event = field(default_factory=threading.Event)


class Stopped(Exception):  # noqa: N818 - it names what happened
    """The program was ended because that was asked for."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a program ended.

    Attributes:
        code: Its exit code; negative: the signal that ended it.
        cut: Why it was ended from here; None if it ended by itself.
    """

    code: int
    cut: str | None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a program may take.

    Attributes:
        timeout: Seconds in all; None: no limit.
        stall: Seconds without any output; None: no limit.
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
    """Run a program in the current folder until it ends, a limit is reached, or somebody asks for its end.

    It has no standard input. It is ended with all processes that it has started: a request, and ten seconds later the
    end; also when this process is killed. What it leaves running when it ends is ended too.

    Args:
        words: Program and arguments; no shell reads them.
        environment: All of its environment.
        stdout: File for what it prints.
        stderr: File for what it prints to standard error.
        watched: Further files that it may append to, which count as output.
        look: Called every tenth of a second; what it returns, if not None, is a reason to end the program.
        limits: How long it may take.
        stop: Tells when to end it.

    Raises:
        Stopped: Its end was asked for.
        OSError: It cannot be started.
    """
    ours, theirs = socket.socketpair()
    for path in (stdout, stderr):
        path.write_bytes(b"")
    # At the end, wherever that is: the files may be shortened meanwhile.
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
            return f"it was not done after {seconds_in_words(limits.timeout)} (--timeout)"
        if limits.stall is not None and now - changed > limits.stall:
            return f"it printed nothing for {seconds_in_words(limits.stall)} (--stall)"


def _end(process: "subprocess.Popen[bytes]", stop: Stop, supervisor: socket.socket) -> None:
    """End a program and all that it started; nothing happens to one that has ended and left none running."""
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
    with suppress(OSError):  # there is nobody any more
        if ON_POSIX:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def seconds_in_words(seconds: float) -> str:
    """A time to be read: ``90 s``, ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


VARIABLE = "CUDA_VISIBLE_DEVICES"
_PATIENCE = 20.0  # seconds for nvidia-smi, whose first call may start the driver


def visible_gpus() -> tuple[str, ...]:
    """The CUDA devices that programs started here would see, by the names that ``CUDA_VISIBLE_DEVICES`` knows."""
    given = os.environ.get(VARIABLE)
    if given is None:
        return tuple(map(str, range(_count_listed_gpus() or _count_gpus())))
    names = [name.strip() for name in given.split(",")]
    # As CUDA does: what follows a name that is none is ignored.
    end = next((place for place, name in enumerate(names) if name in {"", "-1", "NoDevFiles"}), len(names))
    return tuple(names[:end])


def divide_gpus(gpus: Sequence[str], workers: int) -> list[dict[str, str]]:
    """What the environment of each worker's programs says of GPUs: equal parts of them, or one in turn.

    Args:
        gpus: Their names.
        workers: Programs at once.

    Returns:
        ``CUDA_VISIBLE_DEVICES`` for each worker; nothing where there are no GPUs.

    Example:
        >>> divide_gpus(["0", "1"], 3)
        [{'CUDA_VISIBLE_DEVICES': '0'}, {'CUDA_VISIBLE_DEVICES': '1'}, {'CUDA_VISIBLE_DEVICES': '0'}]
    """
    if not gpus:
        return [{} for _ in range(workers)]
    count = len(gpus)
    if workers > count:
        return [{VARIABLE: gpus[place % count]} for place in range(workers)]
    ends = [count * place // workers for place in range(workers + 1)]
    return [{VARIABLE: ",".join(gpus[start:end])} for start, end in pairwise(ends)]


def _count_listed_gpus() -> int:
    """How many GPUs the driver lists; 0 where there is none."""
    try:
        found = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, encoding="utf-8", timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in found.stdout.splitlines())


def _count_gpus() -> int:
    """How many GPUs PyTorch sees, also such as no NVIDIA driver lists."""
    from torch.cuda import device_count

    return device_count()
