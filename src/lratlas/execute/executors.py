"""Executors of jobs: worker processes on this machine, any object with ``submit``, or the calling process."""

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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, cast

from lratlas.devices import worker_environment
from lratlas.errors import StudyError
from lratlas.execute.messages import Message, sentence
from lratlas.rng import preserve_generators

if TYPE_CHECKING:
    from lratlas.execute.context import WorkerContext
    from lratlas.execute.run_job import StudySource

WORKER = "lratlas.execute.worker"
"""The module that a worker process runs."""

ENVIRONMENT: Mapping[str, str] = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
"""Environment variables that a worker has in addition to the driver's: one thread each."""

GRACE = 8.0
"""Seconds that workers get to save their state when a study has to end."""


class Executor(Protocol):
    """Runs functions elsewhere: a `concurrent.futures.Executor`, a Dask ``Client``, or an executor of submitit."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Schedule ``fn(*args, **kwargs)``; return a future with at least ``done()`` and ``result()``."""
        ...


class Workers(ABC):
    """Workers that communicate by messages, which are JSON objects; the context manager ends all of them.

    Attributes:
        workers: Number of workers; they are numbered from 0.
        meanwhile: Receives messages, with the worker's number, that arrive while `listen` itself executes a job.
    """

    workers: int
    meanwhile: Callable[[int, Message], None] | None = None

    def __enter__(self) -> Self:
        for worker in range(self.workers):
            self.renew(worker)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if isinstance(error, SystemExit):  # asked to end, but with time to save
                self.let_save()
        finally:
            self.end()

    def let_save(self) -> None:
        """Ask all workers to save their state, and wait a few seconds at most."""
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
        """Send a message to a worker; does nothing if the worker has ended."""

    @abstractmethod
    def listen(self, timeout: float | None) -> tuple[int, Message] | None:
        """The next message of any worker, with its number; None after ``timeout`` seconds.

        The last message of a worker is ``{"ended": how}``.
        """

    @abstractmethod
    def renew(self, worker: int) -> None:
        """Start a worker, or restart one that has ended."""

    @abstractmethod
    def end(self) -> None:
        """End all workers at once, and everything that was started for them."""


@dataclass(kw_only=True)
class SerialWorker(Workers):
    """The calling thread as the only worker: it executes a job inside `listen`.

    The exception of a failed job is in its message, as ``exception``.

    Attributes:
        context: The study.
    """

    context: "WorkerContext"
    workers: int = field(default=1, init=False)
    _jobs: deque[str] = field(default_factory=deque[str], init=False)
    _heard: deque[Message] = field(default_factory=deque[Message], init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)

    def let_save(self) -> None:
        """Nothing to do: a signal is deferred until the job is saved."""

    def tell(self, worker: int, message: Mapping[str, object]) -> None:  # noqa: ARG002 - there is one
        """Queue the job in a message."""
        self._jobs.append(str(message["job"]))

    def listen(self, timeout: float | None) -> tuple[int, Message] | None:
        """The next message, after executing its job; None after ``timeout`` seconds if there is no job."""
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
        """Report that the worker is ready for a job."""
        self._heard.append({"ready": True})

    def end(self) -> None:
        """Nothing to end."""


@dataclass(kw_only=True)
class SubmittingWorkers(Workers):
    """Workers on a user's executor: each worker is a slot for one submitted job.

    The executor keeps running afterwards.

    Attributes:
        executor: The executor to submit jobs to.
        workers: Maximum number of jobs submitted at once.
        source: The study.
    """

    executor: Executor
    workers: int
    source: "StudySource"
    _futures: dict[int, Any] = field(default_factory=dict[int, Any], init=False)
    _polled: set[int] = field(default_factory=set[int], init=False)  # slots whose futures have no callbacks
    _done: "queue.SimpleQueue[int]" = field(default_factory=queue.SimpleQueue, init=False)
    _heard: deque[tuple[int, Message]] = field(default_factory=deque[tuple[int, Message]], init=False)
    _submissions: "count[int]" = field(default_factory=count, init=False)

    def let_save(self) -> None:
        """Nothing to do: `end` stops jobs in this process, which save their state; other jobs cannot be reached."""

    def tell(self, worker: int, message: Mapping[str, object]) -> None:
        """Submit the job in a message.

        Raises:
            StudyError: The executor rejects the job.
        """
        from lratlas.execute.run_job import run_job

        try:
            future = self.executor.submit(run_job, self.source, message["job"], next(self._submissions))
        except Exception as error:
            raise StudyError(
                f"The executor accepts no job: {sentence(error)} All results so far are saved: continue with"
                " another executor."
            ) from error
        if not (hasattr(future, "done") and hasattr(future, "result")):
            raise StudyError(
                f"executor.submit() returned a {type(future).__name__}, which is not a future: it has no done()"
                " and result()."
            )
        self._futures[worker] = future
        if hasattr(future, "add_done_callback"):

            def ended(_: object) -> None:
                self._done.put(worker)

            future.add_done_callback(ended)
        else:
            self._polled.add(worker)

    def listen(self, timeout: float | None) -> tuple[int, Message] | None:
        """The next message of any job, with its slot; None after ``timeout`` seconds."""
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
        """Read the result of a job that has ended or was lost."""
        self._polled.discard(worker)
        try:
            messages: list[Message] = self._futures.pop(worker).result()
        except (Exception, CancelledError) as error:
            messages = [{"ended": f"with {sentence(error).rstrip('.')}"}]
        self._heard.extend((worker, message) for message in messages)

    def renew(self, worker: int) -> None:
        """Report that the slot is ready for a job."""
        self._heard.append((worker, {"ready": True}))

    def end(self) -> None:
        """Cancel jobs that have not started, and stop jobs in this process."""
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
    """Start a worker process on this machine and send it the first message.

    Args:
        first: The first message: the study, and how to make its tasks.
        module: The module that the process runs.
        environment: Variables to add to this process's environment.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module],  # -P: no module in the current folder shadows a library
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, **ENVIRONMENT, **(environment or {})},
    )
    tell_worker(process, first)
    return process


def tell_worker(process: _Process, message: Mapping[str, object]) -> None:
    """Send a message; does nothing if the process has ended, which is reported separately."""
    stdin = cast("IO[str]", process.stdin)
    with suppress(OSError, ValueError):
        stdin.write(json.dumps(message) + "\n")
        stdin.flush()


def ending(process: _Process) -> str:
    """How a process ended, after its last message."""
    code = process.wait()
    if code < 0:
        return f"by {signal.Signals(-code).name}" + (" (out of memory, perhaps)" if code == -signal.SIGKILL else "")
    return f"with exit code {code}"


@dataclass(kw_only=True)
class LocalWorkers(Workers):
    """Worker processes on this machine, with one thread each; several GPUs are shared out among them.

    Attributes:
        workers: Number of workers.
        gpus: The names of the GPUs that workers share.
        first: The first message to each worker.
        module: The module that the processes run.
    """

    workers: int
    first: Mapping[str, object]
    gpus: Sequence[str] = ()
    module: str = WORKER
    _processes: dict[int, _Process] = field(default_factory=dict[int, _Process], init=False)
    _listeners: list[threading.Thread] = field(default_factory=list[threading.Thread], init=False)
    _heard: "queue.SimpleQueue[tuple[int, Message]]" = field(default_factory=queue.SimpleQueue, init=False)

    def tell(self, worker: int, message: Mapping[str, object]) -> None:
        """Send a message to a worker; does nothing if the worker has ended."""
        tell_worker(self._processes[worker], message)

    def listen(self, timeout: float | None) -> tuple[int, Message] | None:
        """The next message of any worker, with its number; None after ``timeout`` seconds."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        # Many short waits: a signal handled in another thread does not interrupt a long wait.
        while True:
            left = max(0.0, end - time.monotonic())
            with suppress(queue.Empty):
                return self._heard.get(timeout=min(left, _WAIT))
            if not left:
                return None

    def renew(self, worker: int) -> None:
        """Start a worker, or restart one that has ended."""
        if worker in self._processes:
            _forget(self._processes[worker])
        process = self._processes[worker] = start_worker(
            self.first, module=self.module, environment=worker_environment(self.gpus, worker)
        )
        listener = threading.Thread(target=self._follow, args=(worker, process), daemon=True)
        self._listeners.append(listener)
        listener.start()

    def _follow(self, worker: int, process: _Process) -> None:
        with cast("IO[str]", process.stdout) as lines:
            for line in lines:
                if line.endswith("\n"):  # the last line of a killed worker may be cut short
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
    """Close the pipes of a process that has ended, or is about to end."""
    process.wait()
    with suppress(OSError):  # unread input
        cast("IO[str]", process.stdin).close()
