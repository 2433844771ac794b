"""Executors: what runs jobs, and the one that runs them in processes of this machine."""

import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any, Self, cast

WORKER = "lratlas.execute.worker"
"""The module that a worker process runs."""

ENVIRONMENT: Mapping[str, str] = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
"""What a worker's environment has besides the driver's own: one thread each."""

GRACE = 8.0
"""Seconds that workers get to come to the end of what they can save, when a study is told to end."""


class Workers(AbstractContextManager["Workers"], ABC):
    """Workers that talk in messages, JSON objects; all of them end with the crew.

    Attributes:
        workers: How many there are; they are numbered from 0.
    """

    workers: int

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if isinstance(error, SystemExit):  # asked to end, but not at once
                self._let_save()
        finally:
            self.end()

    def _let_save(self) -> None:
        left = set(range(self.workers))
        for worker in left:
            self.tell(worker, {"stop": True})
        deadline = time.monotonic() + GRACE
        while left and (remaining := deadline - time.monotonic()) > 0:
            heard = self.listen(remaining)
            if heard and "ended" in heard[1]:
                left.discard(heard[0])

    @abstractmethod
    def tell(self, worker: int, message: Mapping[str, object]) -> None:
        """Send a worker a message; nothing happens if it has ended."""

    @abstractmethod
    def listen(self, timeout: float | None) -> tuple[int, dict[str, Any]] | None:
        """The next message of any worker, with its number; None after ``timeout`` seconds.

        The last message of a worker is ``{"ended": how}``.
        """

    @abstractmethod
    def renew(self, worker: int) -> None:
        """Start a worker, or start one anew that has ended."""

    @abstractmethod
    def end(self) -> None:
        """End all workers at once, and whatever else was begun for them."""


_Process = subprocess.Popen[str]
_WAIT = 0.5  # seconds


def start_worker(
    first: Mapping[str, object], *, module: str = WORKER, environment: Mapping[str, str] | None = None
) -> _Process:
    """Start a worker process on this machine and tell it what to work on.

    Args:
        first: The first message: which study, and how to make its tasks.
        module: What the process runs.
        environment: Variables beside those of this process.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, **ENVIRONMENT, **(environment or {})},
    )
    tell_worker(process, first)
    return process


def tell_worker(process: _Process, message: Mapping[str, object]) -> None:
    """Send a message; nothing happens if the process has ended, which is told otherwise."""
    stdin = cast("IO[str]", process.stdin)
    with suppress(OSError, ValueError):
        stdin.write(json.dumps(message) + "\n")
        stdin.flush()


def ending(process: _Process) -> str:
    """How a process ended that has said its last."""
    code = process.wait()
    if code < 0:
        return f"by {signal.Signals(-code).name}" + (" (out of memory, perhaps)" if code == -signal.SIGKILL else "")
    return f"with exit code {code}"


@dataclass(kw_only=True)
class LocalWorkers(Workers):
    """Worker processes on this machine, each with one thread.

    Attributes:
        workers: How many.
        first: What each is told first.
        module: What they run.
    """

    workers: int
    first: Mapping[str, object]
    module: str = WORKER
    _processes: dict[int, _Process] = field(default_factory=dict[int, _Process], init=False)
    _listeners: list[threading.Thread] = field(default_factory=list[threading.Thread], init=False)
    _heard: "queue.SimpleQueue[tuple[int, dict[str, Any]]]" = field(default_factory=queue.SimpleQueue, init=False)

    def __enter__(self) -> Self:
        for worker in range(self.workers):
            self.renew(worker)
        return self

    def tell(self, worker: int, message: Mapping[str, object]) -> None:
        """Send a worker a message; nothing happens if it has ended."""
        tell_worker(self._processes[worker], message)

    def listen(self, timeout: float | None) -> tuple[int, dict[str, Any]] | None:
        """The next message of any worker, with its number; None after ``timeout`` seconds."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        # Many short waits: a signal that another thread receives does not end a long one.
        while True:
            left = max(0.0, end - time.monotonic())
            with suppress(queue.Empty):
                return self._heard.get(timeout=min(left, _WAIT))
            if not left:
                return None

    def renew(self, worker: int) -> None:
        """Start a worker, or start one anew that has ended."""
        if worker in self._processes:
            _forget(self._processes[worker])
        process = self._processes[worker] = start_worker(self.first, module=self.module)
        listener = threading.Thread(target=self._follow, args=(worker, process), daemon=True)
        self._listeners.append(listener)
        listener.start()

    def _follow(self, worker: int, process: _Process) -> None:
        with cast("IO[str]", process.stdout) as lines:
            for line in lines:
                if line.endswith("\n"):  # the last words of a worker that was killed may be cut short
                    self._heard.put((worker, json.loads(line)))
        self._heard.put((worker, {"ended": ending(process)}))

    def end(self) -> None:
        """End all workers at once."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            _forget(process)
        for listener in self._listeners:
            listener.join()


def _forget(process: _Process) -> None:
    """Let go of a process that has ended, or is about to."""
    process.wait()
    with suppress(OSError):  # what it did not read any more
        cast("IO[str]", process.stdin).close()
