"""Workers on a Ray cluster: an actor owns each worker process and relays its messages."""

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from lratlas.errors import StudyError, first_line
from lratlas.execute.executors import WORKER, Workers

_LISTENING = 1.0  # minimum seconds of one call to an actor; short enough to notice the death of its node
_CALLS = 250  # calls per second to all actors together while they only report progress
_MOST_WORKERS = 4096
_HANDED_ON = ("LRATLAS_DATA",)  # environment variables that workers inherit from the driver
_REACHED = 10.0  # seconds within which a cluster's address must answer


class Station:
    """The actor on a node: it starts a worker process there and relays messages."""

    def __init__(self, first: Mapping[str, object], module: str, environment: Mapping[str, str]) -> None:
        import queue

        from lratlas.execute.executors import start_worker

        self._process = start_worker(first, module=module, environment=environment)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._follow, daemon=True).start()

    def tell(self, message: Mapping[str, object]) -> None:
        """Send a message to the worker."""
        from lratlas.execute.executors import tell_worker

        tell_worker(self._process, message)

    def heard(self, seconds: float) -> list[dict[str, Any]]:
        """The worker's messages since the last call; waits up to ``seconds`` for one that is not a progress report."""
        import json
        import queue

        from lratlas.execute.executors import ending

        found, deadline, waits = list[dict[str, Any]](), time.monotonic() + seconds, True
        with suppress(queue.Empty):
            while True:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()) if waits else 0.0)
                found.append({"ended": ending(self._process)} if line is None else json.loads(line))
                waits = waits and "work" in found[-1]
        return found

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                self._lines.put(line)
        self._lines.put(None)


@dataclass(kw_only=True)
class RayWorkers(Workers):
    """Worker processes on the nodes of a Ray cluster, each with the resources that it requests.

    Workers that do not fit yet start when the cluster has room; a worker whose node dies restarts on another node.

    Attributes:
        address: ``auto``, or the cluster's address.
        most: Maximum number of workers; None for as many as fit on the cluster.
        first: The first message to each worker.
        gpus: Number of GPUs per worker, or the fraction of one; 0 for none.
        module: The module that the processes run.
    """

    address: str
    most: int | None
    first: Mapping[str, object]
    gpus: float = 0.0
    module: str = WORKER
    workers: int = field(default=0, init=False)
    _began: bool = field(default=False, init=False)
    _stations: dict[int, Any] = field(default_factory=dict[int, Any], init=False)
    _listening: dict[Any, int] = field(default_factory=dict[Any, int], init=False)
    _heard: "deque[tuple[int, dict[str, Any]]]" = field(default_factory=deque["tuple[int, dict[str, Any]]"], init=False)

    def __enter__(self) -> Self:
        ray = _ray()
        if not ray.is_initialized():
            _connect(self.address)
            self._began = True
        room = _room(ray.cluster_resources(), self.gpus)
        self.workers = min(self.most or room, room)
        if not self.workers:
            self.end()
            raise StudyError(
                f"The Ray cluster at {self.address} has no room for a worker that needs one CPU"
                + (f" and {self.gpus:g} GPUs." if self.gpus else ".")
            )
        return super().__enter__()

    def tell(self, worker: int, message: Mapping[str, object]) -> None:
        """Send a message to a worker; does nothing if the worker has ended."""
        self._stations[worker].tell.remote(dict(message))

    def listen(self, timeout: float | None) -> tuple[int, dict[str, Any]] | None:
        """The next message of any worker, with its number; None after ``timeout`` seconds."""
        ray, deadline = _ray(), None if timeout is None else time.monotonic() + timeout
        while not self._heard:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _ = ray.wait(list(self._listening), num_returns=1, timeout=left)
            for reference in ready:
                self._take(reference)
            if left == 0.0 and not self._heard:
                return None
        return self._heard.popleft()

    def renew(self, worker: int) -> None:
        """Start a worker, or restart one that has ended."""
        ray = _ray()
        if worker in self._stations:
            ray.kill(self._stations[worker], no_restart=True)
        # Two threads: one listens, the other receives messages.
        kept = ray.remote(num_cpus=1, num_gpus=self.gpus, max_concurrency=2)(Station)
        # Not Ray's `runtime_env`, which prevents the reuse of idle processes on a node.
        environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        self._stations[worker] = kept.remote(dict(self.first), self.module, environment)
        self._listen_to(worker)

    def _listen_to(self, worker: int) -> None:
        seconds = max(_LISTENING, self.workers / _CALLS)
        self._listening[self._stations[worker].heard.remote(seconds)] = worker

    def _take(self, reference: Any) -> None:
        """Handle the result of a call to an actor."""
        ray, worker = _ray(), self._listening.pop(reference)
        from ray.exceptions import RayError

        try:
            messages: Sequence[dict[str, Any]] = ray.get(reference)
        except RayError as error:
            messages = [{"ended": f"with its node or actor ({type(error).__name__})"}]
        self._heard.extend((worker, message) for message in messages)
        if not (messages and "ended" in messages[-1]):
            self._listen_to(worker)

    def end(self) -> None:
        """End all workers at once."""
        ray = _ray()
        for station in self._stations.values():
            ray.kill(station, no_restart=True)
        if self._began:
            ray.shutdown()


def _connect(address: str) -> None:
    """Connect to a cluster; restores this process's SIGTERM handler, which Ray replaces.

    Raises:
        StudyError: There is no cluster at the address.
    """
    ray, nobody = _ray(), f"There is no Ray cluster at {address}"
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        # Ray's own connection attempts take more than a minute.
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHED).close()
        except OSError as error:
            raise StudyError(f"{nobody}: {error.strerror or error}.") from error
    from ray.exceptions import RayError

    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise StudyError(f"{nobody}: {first_line(error)}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)


def _room(resources: Mapping[str, float], gpus: float) -> int:
    """Number of workers that fit on a cluster."""
    room = int(resources.get("CPU", 0.0))
    if gpus:
        # Ray allocates whole GPUs, or equal shares of single GPUs.
        room = min(room, int(resources.get("GPU", 0.0) / gpus + 1e-9))
    return min(room, _MOST_WORKERS)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise StudyError("A study on a cluster needs Ray: pip install 'lratlas[ray]'.") from error
    return ray
