"""Commands that work on a study, in separate processes or in this one, and what can be seen of them."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from lratlas.cli.app import main
from lratlas.study.expected import file_faults
from lratlas.study.store import Store


def ticks_spec(pretrain: str, *, points: int = 10, stack: int = 1, segment_steps: int, more: str = "") -> str:
    """The spec of a study of tiny ticks, uncompiled: what stands in its section on pre-training, and in other ones."""
    return f"""
[task]
preset = "ticks"
options = {{ train = 64, test = 64, single = 8 }}
[pretrain]
{pretrain}
[trace]
points = {points}
[training]
compile = false
strategy = "stack"
stack = {stack}
segment_steps = {segment_steps}
{more}
"""


def damaged(store: Store) -> list[str]:
    """The damaged parts, weights and descriptions of a study, as paths in its folder."""
    return [fault.path for fault in file_faults(store, None)]


LONG = ticks_spec("lrs = [1e-3, 1e-2]\nsteps = 90000", points=1000, segment_steps=540)


def lratlas(*words: object) -> list[str]:
    return [sys.executable, "-m", "lratlas", *map(str, words)]


def ran_here(*words: object) -> tuple[object, str, str]:
    """The exit code of a command in this process, and what it printed to standard output and to standard error."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    out, errors = io.StringIO(), io.StringIO()
    argv = patch("sys.argv", ["lratlas", *map(str, words)])
    with argv, redirect_stdout(out), redirect_stderr(errors), pytest.raises(SystemExit) as end:
        main()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return end.value.code, out.getvalue(), errors.getvalue()


def printed_by(*words: object) -> str:
    """What a command prints in this process, without an error."""
    code, out, errors = ran_here(*words)
    assert code == 0, errors
    return out


@contextmanager
def started(*words: object) -> "Generator[subprocess.Popen[str]]":
    """A command in its own process group, which is killed on the way out, whatever happens."""
    process = subprocess.Popen(lratlas(*words), encoding="utf-8", stderr=subprocess.PIPE, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def group(leader: int) -> set[int]:
    """The living processes of a process group."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            state, _, number = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(number) == leader and state != "Z":
                found.add(int(entry.name))
    return found


def wait_until(true: Callable[[], object], *, within: float) -> None:
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, f"nothing happened within {within} s"
        time.sleep(0.005)


def files(folder: Path) -> set[str]:
    """The finished files of a study."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    return {name for name in names if not Path(name).name.startswith(".")}


def under_way(folder: Path, *, workers: int) -> None:
    """Wait until each worker has ended a segment of a stack of ``LONG``, and is in the middle of the next."""
    wait_until(lambda: sum(name.endswith("-540.parquet") for name in files(folder)) == workers, within=120)
    time.sleep(0.2)


def kept_part_way(folder: Path) -> list[str]:
    """The checkpoints of stacks that were left in the middle of a segment."""
    return [name for name in files(folder) if name.endswith("-part.safetensors")]
