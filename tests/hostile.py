"""Processes that inherit the worst: signals ignored and blocked, closed input, no terminal, ASCII, another home."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
UMASK = 0o077
# Its first word names the standard streams to close.
_LAUNCH = f"""
import os, signal, sys
for name in ("SIGCHLD", "SIGHUP", "SIGINT", "SIGPIPE", "SIGTERM"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.umask({UMASK})
for number in sys.argv[1]:
    os.close(int(number))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
_GONE = ("LANG", "LANGUAGE", "LRATLAS_CACHE", "PYTEST_ADDOPTS", "TERM")


def environment(scratch: Path) -> Mapping[str, str]:
    """Variables of another machine; temporary files go to a folder of ``scratch`` that has a space in its name."""
    temporary = scratch / "temporary files"
    temporary.mkdir(exist_ok=True)
    return {name: value for name, value in os.environ.items() if name not in _GONE} | {
        "COLUMNS": "20",
        "HOME": "/dev/null/home",  # no folder can be made there
        "LC_ALL": "C",
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONHASHSEED": "1",
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
        "PYTHONUTF8": "0",
        "TMPDIR": str(temporary),
        "TZ": "Pacific/Chatham",
        "XDG_CACHE_HOME": "/dev/null/cache",
        "XDG_DATA_HOME": "/dev/null/data",
    }


def hostile_start(*words: object, scratch: Path, closed: str = "0") -> "subprocess.Popen[str]":
    """Start Python with some words in such a process.

    Args:
        words: What the interpreter gets.
        scratch: Where the process works and has its temporary files.
        closed: The numbers of the standard streams that are closed.
    """
    return subprocess.Popen(
        [sys.executable, "-c", _LAUNCH, closed, *map(str, words)],
        cwd=scratch,
        env=environment(scratch),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def dispositions(pid: int) -> dict[str, set[signal.Signals]]:
    """The signals that a process blocks, ignores and catches, as Linux says."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    numbers = {"blocked": "SigBlk", "ignored": "SigIgn", "caught": "SigCgt"}
    return {
        name: {number for number in signal.Signals if int(lines[line], 16) >> (number - 1) & 1}
        for name, line in numbers.items()
    }
