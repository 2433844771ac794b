"""Processes of one thread each that take turns at measuring, alone or several at once."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

Process = subprocess.Popen[str]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a process can be asked to do, after it has warmed up."""

    first: float  # seconds that the warming up took
    actions: Mapping[str, Callable[[], float | None]]


def options(description: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a benchmark: ``json``, ``quick``, and in its own processes ``measure``, what to measure."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print data instead of a table")
    parser.add_argument("--quick", action="store_true", help="a few uncompiled steps: does the script work?")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


@contextmanager
def started(script: str, setup: Mapping[str, object]) -> Generator[Process]:
    """A process that runs ``script --measure SETUP``, where the script hands over to `serve`."""
    with subprocess.Popen(
        [sys.executable, script, "--measure", json.dumps(setup)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def serve(prepare: Callable[[], Prepared]) -> None:
    """A process's part: warm up, then do what each line of standard input names, until it closes."""
    # Whatever the compiler prints goes to standard error; the original standard output carries the answers.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(1)
    prepared = prepare()
    print(prepared.first, file=out)
    for line in sys.stdin:
        print(prepared.actions[line.strip()]() or 0.0, file=out)


def at_once(processes: Sequence[Process], action: str) -> tuple[float, float]:
    """Seconds until all processes have done an action, and the sum of what they answer."""
    began = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(action + "\n")
        process.stdin.flush()
    total = sum(receive(process) for process in processes)
    return time.perf_counter() - began, total


def receive(process: Process) -> float:
    """The next number that a process answers."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"A measuring process ended with exit code {process.wait()}.")
    return float(line)


def processor() -> str:
    """The processor's name, as far as the system tells."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
