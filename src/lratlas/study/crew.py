"""The workers of a study as their driver sees them: where they run is a crew's own affair."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

WORKER = "lratlas.study.worker"
"""The module that a worker process runs."""

ENVIRONMENT: Mapping[str, str] = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
"""What a worker's environment has besides the driver's own: one thread each."""

GRACE = 8.0
"""Seconds that workers get to come to the end of what they can save, when a study is told to end."""


class Crew(AbstractContextManager["Crew"], Protocol):
    """Workers that talk in messages, JSON objects; all of them end with the crew.

    Attributes:
        workers: How many there are; they are numbered from 0.
    """

    @property
    def workers(self) -> int:
        """How many there are."""
        ...

    def tell(self, worker: int, message: Mapping[str, object]) -> None:
        """Send a worker a message; nothing happens if it has ended."""
        ...

    def listen(self, timeout: float | None) -> tuple[int, dict[str, Any]] | None:
        """The next message of any worker, with its number; None after ``timeout`` seconds.

        The last message of a worker is ``{"ended": how}``.
        """
        ...

    def renew(self, worker: int) -> None:
        """Start a worker anew that has ended."""
        ...
