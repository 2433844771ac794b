"""The workers of a study as their driver sees them: where they run is a crew's own affair."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

WORKER = "lratlas.study.execute.worker"
"""The module that a worker process runs."""

ENVIRONMENT: Mapping[str, str] = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
"""What a worker's environment has besides the driver's own: one thread each."""

GRACE = 8.0
"""Seconds that workers get to come to the end of what they can save, when a study is told to end."""


class Crew(AbstractContextManager["Crew"], ABC):
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
