"""Simulated workers: the real driver feeds them a real plan, and time is a number that it counts up.

Nothing is trained. A worker is busy for as long as its job is said to take, unless it fails before; then it is started
again and the job continues from its last checkpoint, as the driver decides. The driver handles one job after the other.
"""

import heapq
import random
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace, TracebackType
from typing import Any
from unittest.mock import patch

from lratlas.errors import JobsFailed
from lratlas.execute.scheduler import execute
from lratlas.study.plan import Plan
from lratlas.study.store import Store


@dataclass(frozen=True, kw_only=True)
class World:
    """What the simulation assumes, times in seconds.

    Attributes:
        workers: How many, a GPU each.
        seconds: What each job takes, by id.
        segments: How many equal parts with a checkpoint after each a job has, by id; one where it is not named.
        start: From a worker's start until it can take a job.
        per_job: Of the driver, for each job that it gives out.
        between_failures: Mean time of a worker between two failures; None for no failures.
        seed: Of the failures.
    """

    workers: int
    seconds: Mapping[str, float]
    segments: Mapping[str, int] = field(default_factory=dict[str, int])
    start: float = 0.0
    per_job: float = 0.0
    between_failures: float | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result, times in seconds.

    Attributes:
        makespan: From the start to the end of the last job.
        useful: Work that is in the end in the store, summed over workers.
        lost: Work that failures undid.
        waiting: That workers had no job, or had one that the driver was still to give out.
        starting: That workers were coming up.
        driver: That the driver was busy.
        failures: How many there were.
        undone: Jobs that are not done in the end.
    """

    makespan: float
    useful: float
    lost: float
    waiting: float
    starting: float
    driver: float
    failures: int
    undone: int


@dataclass(kw_only=True)
class SimulatedWorkers(AbstractContextManager["SimulatedWorkers"]):
    """Workers whose time passes as soon as the driver listens."""

    world: World
    now: float = 0.0
    useful: float = 0.0
    lost: float = 0.0
    starting: float = 0.0
    driver: float = 0.0
    failures: int = 0
    done: int = 0
    _events: list[tuple[float, int, int, dict[str, Any]]] = field(default_factory=list[Any])  # heap
    _serial: int = 0
    _kept: dict[str, float] = field(default_factory=dict[str, float])  # of jobs under way, up to their checkpoints

    def __post_init__(self) -> None:
        self.workers = self.world.workers
        self._random = random.Random(self.world.seed)

    def __enter__(self) -> "SimulatedWorkers":
        for worker in range(self.workers):
            self.renew(worker)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Nothing is left behind."""

    def tell(self, worker: int, message: Mapping[str, object]) -> None:
        """The worker begins a job; the driver was busy with giving it out."""
        job = str(message["job"])
        self.now += self.world.per_job
        self.driver += self.world.per_job
        kept = self._kept.pop(job, 0.0)
        left = self.world.seconds[job] - kept
        mean = self.world.between_failures
        fails = self._random.expovariate(1 / mean) if mean else float("inf")
        if fails >= left:
            self.useful += left
            self.done += 1
            self._after(left, worker, {"done": job})
            return
        part = self.world.seconds[job] / self.world.segments.get(job, 1)
        self._kept[job] = (kept + fails) // part * part
        self.useful += self._kept[job] - kept
        self.lost += kept + fails - self._kept[job]
        self.failures += 1
        self._after(fails, worker, {"ended": "by a simulated failure"})

    def listen(self, timeout: float | None) -> tuple[int, dict[str, Any]] | None:
        """The next message, at the time at which it is heard."""
        if timeout is not None and (not self._events or self._events[0][0] > self.now + timeout):
            self.now += timeout
            return None
        time, _, worker, message = heapq.heappop(self._events)
        self.now = max(self.now, time)  # it may have waited for the driver
        return worker, message

    def renew(self, worker: int) -> None:
        """A worker comes up."""
        self.starting += self.world.start
        self._after(self.world.start, worker, {"ready": True})

    def _after(self, seconds: float, worker: int, message: dict[str, Any]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (self.now + seconds, self._serial, worker, message))


def simulate(plan: Plan, world: World) -> Outcome:
    """Let the real driver do the whole plan in simulated time.

    Args:
        plan: The plan.
        world: What is assumed.
    """
    simulated = SimulatedWorkers(world=world)

    def made_up(*_: object, **__: object) -> SimulatedWorkers:
        return simulated

    clock = SimpleNamespace(monotonic=lambda: simulated.now)
    with (
        tempfile.TemporaryDirectory() as folder,
        suppress(JobsFailed),
        patch("lratlas.execute.scheduler._processes", made_up),
        patch("lratlas.execute.scheduler.write_note"),  # a file each, with a real disk's real time
        patch("lratlas.execute.scheduler.time", clock),
    ):
        made = Store.create(f"{folder}/study", 'name = "synthetic"\n')
        execute(made, plan, workers=world.workers)
    there = world.workers * simulated.now
    return Outcome(
        makespan=simulated.now,
        useful=simulated.useful,
        lost=simulated.lost,
        waiting=there - simulated.useful - simulated.lost - simulated.starting,
        starting=simulated.starting,
        driver=simulated.driver,
        failures=simulated.failures,
        undone=len(plan.jobs) - simulated.done,
    )
