"""Which job of a plan is next: in the plan's order, once the jobs that it needs are done."""

import heapq
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from lratlas.study.plan.plan import Geometry, Job, Plan, Training


@dataclass(kw_only=True)
class OpenJobs:
    """The jobs of a plan that are not done; every operation takes about the same time, however many there are.

    Attributes:
        jobs: All of them by id, those under way and given up too.
        given_up: Ids of jobs that are not tried again.
    """

    jobs: dict[str, Job]
    given_up: set[str] = field(default_factory=set[str])
    _places: Mapping[str, int] = field(default_factory=dict[str, int])
    _missing: dict[str, set[str]] = field(default_factory=dict[str, set[str]])  # what each one still needs
    _waiting: dict[str, list[str]] = field(default_factory=dict[str, list[str]])  # who needs each one
    _ready: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])  # heap, in the plan's order
    _paused: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])  # heap, by time

    @property
    def any(self) -> bool:
        """Whether there is a job that can be taken, now or after a pause."""
        return bool(self._ready or self._paused)

    def take(self) -> Job | None:
        """The next job that can be done now, which is then under way; None where there is none."""
        while self._paused and self._paused[0][0] <= time.monotonic():
            self._free(heapq.heappop(self._paused)[1])
        return self.jobs[heapq.heappop(self._ready)[1]] if self._ready else None

    def pause(self) -> float | None:
        """Seconds until a job that was put back can be taken again; None where none was."""
        return max(0.0, self._paused[0][0] - time.monotonic()) if self._paused else None

    def put_back(self, job: Job, *, seconds: float) -> None:
        """A job that was taken is to be taken again, after a while."""
        heapq.heappush(self._paused, (time.monotonic() + seconds, job.id))

    def give_up(self, job: Job) -> None:
        """A job that was taken is not tried again, nor are those begun that need it."""
        self.given_up.add(job.id)

    def finish(self, job: Job) -> None:
        """A job that was taken is done."""
        del self.jobs[job.id]
        for other in self._waiting.pop(job.id, []):
            self._missing[other].discard(job.id)
            if not self._missing[other]:
                self._free(other)

    def _free(self, name: str) -> None:
        heapq.heappush(self._ready, (self._places[name], name))


def open_jobs(plan: Plan, names: set[str]) -> OpenJobs:
    """The jobs of a plan with these ids."""
    holders = plan.holders()
    jobs = {job.id: job for job in plan.jobs if job.id in names}
    missing = {name: _needs(job, holders) & names for name, job in jobs.items()}
    waiting = dict[str, list[str]]()
    for name, needed in missing.items():
        for each in needed:
            waiting.setdefault(each, []).append(name)
    places = {name: place for place, name in enumerate(jobs)}
    ready = [(places[name], name) for name, needed in missing.items() if not needed]
    return OpenJobs(jobs=jobs, _places=places, _missing=missing, _waiting=waiting, _ready=ready)


def _needs(job: Job, holders: Mapping[str, str]) -> set[str]:
    """The jobs that must be done before this one."""
    if not isinstance(job, Geometry):
        needed = job.parent if isinstance(job, Training) else job.training
        return {needed} if needed else set()
    return {holders[run] for grid in job.solutions.values() for row in grid for run in row}
