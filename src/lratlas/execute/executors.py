"""What does jobs: worker processes on this machine, any executor with ``submit``, or the calling process itself."""

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
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, cast

from lratlas.errors import StudyError
from lratlas.execute.messages import Message, sentence
from lratlas.rng import preserve_generators

if TYPE_CHECKING:
    from lratlas.execute.context import WorkerContext
    from lratlas.execute.run_job import StudySource

WORKER = "lratlas.execute.worker"
"""The module that a worker process runs."""

ENVIRONMENT: Mapping[str, str] = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
"""What a worker's environment has besides the driver's own: one thread each."""

GRACE = 8.0
"""Seconds that workers get to come to the end of what they can save, when a study has to end."""


class Executor(Protocol):
    """Whatever runs functions elsewhere: a `concurrent.futures.Executor`, a Dask ``Client``, submitit's executors."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Have ``fn(*args, **kwargs)`` called; returns a future, which has at least ``done()`` and ``result()``."""
        ...


class Workers(ABC):
    """Workers that talk in messages, JSON objects; all of them end with the context.

    Attributes:
        workers: How many there are; they are numbered from 0.
        meanwhile: Called with messages that come while `listen` itself is busy with a job, and their worker's number.
    """

    workers: int
    meanwhile: Callable[[int, Message], None] | None = None

    def __enter__(self) -> Self:
        for worker in range(self.workers):
            self.renew(worker)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if isinstance(error, SystemExit):  # asked to end, but not at once
                self.let_save()
        finally:
            self.end()

    def let_save(self) -> None:
        """Have all workers keep what they are at, and wait for that a few seconds at most."""
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
    def listen(self, timeout: float | None) -> tuple[int, Message] | None:
        """The next message of any worker, with its number; None after ``timeout`` seconds.

        The last message of a worker is ``{"ended": how}``.
        """

    @abstractmethod
    def renew(self, worker: int) -> None:
        """Start a worker, or start one again that has ended."""

    @abstractmethod
    def end(self) -> None:
        """End all workers at once, and whatever else was begun for them."""


@dataclass(kw_only=True)
class SerialWorker(Workers):
    """The calling thread as the only worker: it does a job while it listens.

    An error of a job goes with its message, as ``exception``.

    Attributes:
        context: The study.
    """

    context: "WorkerContext"
    workers: int = field(default=1, init=False)
    _jobs: deque[str] = field(default_factory=deque[str], init=False)
    _heard: deque[Message] = field(default_factory=deque[Message], init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)

    def let_save(self) -> None:
        """A signal has waited until the job was kept."""

    def tell(self, worker: int, message: Mapping[str, object]) -> None:  # noqa: ARG002 - there is one
        """Send a worker a message."""
        self._jobs.append(str(message["job"]))

    def listen(self, timeout: float | None) -> tuple[int, Message] | None:
        """The next message, after the job that it is about; None after ``timeout`` seconds where there is no job."""
        if not self._heard and self._jobs:
            self._do(self._jobs.popleft())
        if not self._heard:
            time.sleep(timeout or 0.0)
            return None
        return 0, self._heard.popleft()

    def _do(self, name: str) -> None:
        from lratlas.execute.messages import forward_notices
        from lratlas.execute.run_job import do_job_here, own_state

        with own_state(), forward_notices(self._say):
            error = do_job_here(self.context, name, self._say, stop=self._stop)
        if error is not None:
            self._heard[-1]["exception"] = error

    def _say(self, message: Message) -> None:
        if self.meanwhile and message.keys() & {"work", "notice"}:
            with preserve_generators():  # the job draws from them
                self.meanwhile(0, message)
        else:
            self._heard.append(message)

    def renew(self, worker: int) -> None:  # noqa: ARG002 - there is one
        """The worker takes a job."""
        self._heard.append({"ready": True})

    def end(self) -> None:
        """Nothing was begun."""


@dataclass(kw_only=True)
class SubmittingWorkers(Workers):
    """An executor of the user's: a worker is the place of one job among those that are submitted at the same time.

    The executor is left running.

    Attributes:
        executor: What jobs are submitted to.
        workers: How many at once.
        source: The study.
    """

    executor: Executor
    workers: int
    source: "StudySource"
    _futures: dict[int, Any] = field(default_factory=dict[int, Any], init=False)
    _polled: set[int] = field(default_factory=set[int], init=False)  # those whose futures do not call back
    _done: "queue.SimpleQueue[int]" = field(default_factory=queue.SimpleQueue, init=False)
    _heard: deque[tuple[int, Message]] = field(default_factory=deque[tuple[int, Message]], init=False)
    _submissions: "count[int]" = field(default_factory=count, init=False)

    def let_save(self) -> None:
        """Jobs in this process stop and keep what they are at as soon as all ends; others cannot be told."""

    def tell(self, worker: int, message: Mapping[str, object]) -> None:
        """Submit a job.

        Raises:
            StudyError: The executor does not take it.
        """
        from lratlas.execute.run_job import run_job

        try:
            future = self.executor.submit(run_job, self.source, message["job"], next(self._submissions))
        except Exception as error:
            raise StudyError(
                f"The executor takes no job: {sentence(error)} Nothing already computed is lost: continue with another"
                " executor."
            ) from error
        if not (hasattr(future, "done") and hasattr(future, "result")):
            raise StudyError(
                f"executor.submit() returned a {type(future).__name__}, which is no future: it has no done() and"
                " result()."
            )
        self._futures[worker] = future
        if hasattr(future, "add_done_callback"):

            def ended(_: object) -> None:
                self._done.put(worker)

            future.add_done_callback(ended)
        else:
            self._polled.add(worker)

    def listen(self, timeout: float | None) -> tuple[int, Message] | None:
        """The next message on any job, with its place; None after ``timeout`` seconds."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not self._heard:
            left = max(0.0, end - time.monotonic())
            with suppress(queue.Empty):
                self._take(self._done.get(timeout=min(left, _WAIT)))
            for worker in [each for each in self._polled if self._futures[each].done()]:
                self._take(worker)
            if not (left or self._heard):
                return None
        return self._heard.popleft()

    def _take(self, worker: int) -> None:
        """Take in the result of a job that has ended, or that was lost."""
        self._polled.discard(worker)
        try:
            messages: list[Message] = self._futures.pop(worker).result()
        except (Exception, CancelledError) as error:
            messages = [{"ended": f"with {sentence(error).rstrip('.')}"}]
        self._heard.extend((worker, message) for message in messages)

    def renew(self, worker: int) -> None:
        """A job can be submitted in this place."""
        self._heard.append((worker, {"ready": True}))

    def end(self) -> None:
        """Have the executor begin no more jobs, and jobs in this process end."""
        from lratlas.execute.run_job import forget_context

        self.source.stop.set()
        for future in self._futures.values():
            with suppress(Exception):  # not every future can be cancelled
                future.cancel()
        forget_context()


_Process = subprocess.Popen[str]
_WAIT = 0.5  # seconds


def start_worker(
    first: Mapping[str, object], *, module: str = WORKER, environment: Mapping[str, str] | None = None
) -> _Process:
    """Start a worker process on this machine and tell it what to work on.

    Args:
        first: The first message: which study, and how to make its tasks.
        module: What the process runs.
        environment: Variables besides those of this process.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module],  # no module of the current folder stands in for a library
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
    _heard: "queue.SimpleQueue[tuple[int, Message]]" = field(default_factory=queue.SimpleQueue, init=False)

    def tell(self, worker: int, message: Mapping[str, object]) -> None:
        """Send a worker a message; nothing happens if it has ended."""
        tell_worker(self._processes[worker], message)

    def listen(self, timeout: float | None) -> tuple[int, Message] | None:
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
        """Start a worker, or start one again that has ended."""
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
