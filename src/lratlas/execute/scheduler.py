"""The scheduler: it selects the next job and handles failed jobs."""

import heapq
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from lratlas.devices import default_workers, shared_gpus
from lratlas.errors import JobsFailed, StudyError
from lratlas.execute.executors import Executor, LocalWorkers, SerialWorker, SubmittingWorkers, Workers
from lratlas.execute.messages import Message
from lratlas.execute.sending import pack_tasks
from lratlas.study.jobs import Job, Training
from lratlas.study.plan import Plan, plan_digest, prerequisites, read_planned_spec
from lratlas.study.progress import is_done, kind_of, listing
from lratlas.study.records import Failure, write_note
from lratlas.study.store import Store

if TYPE_CHECKING:
    from lratlas.config.extras import Extras
    from lratlas.config.tasks import Tasks
    from lratlas.execute.run_job import Sent


@dataclass(kw_only=True)
class OpenJobs:
    """The unfinished jobs of a plan; every operation takes about the same time for any number of jobs.

    Attributes:
        jobs: All unfinished jobs by id, including those in progress and those given up.
        given_up: Ids of jobs that are not retried.
    """

    jobs: dict[str, Job]
    given_up: set[str] = field(default_factory=set[str])
    _places: Mapping[str, int] = field(default_factory=dict[str, int])
    _missing: dict[str, set[str]] = field(default_factory=dict[str, set[str]])  # unfinished prerequisites of each job
    _waiting: dict[str, list[str]] = field(default_factory=dict[str, list[str]])  # the jobs that wait for each job
    _ready: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])  # heap, in the plan's order
    _paused: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])  # heap, by time

    @property
    def any(self) -> bool:
        """Whether a job can be taken, now or after a pause."""
        return bool(self._ready or self._paused)

    def take(self) -> Job | None:
        """Take the next job that can run now; None if there is none."""
        while self._paused and self._paused[0][0] <= time.monotonic():
            self._free(heapq.heappop(self._paused)[1])
        return self.jobs[heapq.heappop(self._ready)[1]] if self._ready else None

    def pause(self) -> float | None:
        """Seconds until a paused job can be taken again; None if no job is paused."""
        return max(0.0, self._paused[0][0] - time.monotonic()) if self._paused else None

    def put_back(self, job: Job, *, seconds: float) -> None:
        """Return a taken job, to be taken again after a pause."""
        heapq.heappush(self._paused, (time.monotonic() + seconds, job.id))

    def give_up(self, job: Job) -> None:
        """Give up a taken job: it is not retried, and jobs that need it do not start."""
        self.given_up.add(job.id)

    def finish(self, job: Job) -> None:
        """Mark a taken job as done."""
        del self.jobs[job.id]
        for other in self._waiting.pop(job.id, []):
            self._missing[other].discard(job.id)
            if not self._missing[other]:
                self._free(other)

    def _free(self, name: str) -> None:
        heapq.heappush(self._ready, (self._places[name], name))


ATTEMPTS = 3
"""Number of attempts per job in one session."""

PAUSES = (1.0, 5.0)
"""Seconds before the second and the third attempt: a full disk may have space again by then."""

HOPELESS = 3
"""Abort once this many jobs have failed and none has succeeded."""

_STARTS = 3  # consecutive attempts to start a worker
_PATIENCE = 30.0  # seconds until a notice says that no worker has started


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a study: jobs and run-steps done, and run-steps trained in this session."""

    jobs_done: int
    jobs: int
    work_done: int
    work: int
    trained: int
    doing: str


def execute(
    store: Store,
    plan: Plan,
    *,
    workers: int | None,
    cluster: str | None = None,
    gpu_share: float = 1.0,
    executor: Executor | None = None,
    tasks: "Tasks | None" = None,
    extras: "Extras" = (),
    progress: Callable[[Progress], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> bool:
    """Execute all unfinished jobs of the plan. A failed or lost job resumes from its last checkpoint.

    Args:
        store: The study.
        plan: Its stored plan.
        workers: Number of processes, or of jobs submitted at once; 0 for this process only; None for one per
            core or visible GPU, for as many as a cluster has room for, or to submit all jobs at once.
        cluster: Address of a Ray cluster, or ``auto``; None for this machine.
        gpu_share: The fraction of a GPU per worker on a cluster, if the plan trains on GPUs.
        executor: The executor to submit jobs to; None for processes.
        tasks: Tasks that the spec cannot describe, sent to the workers; None if it can.
        extras: The custom measurements, sent with such tasks; otherwise workers import those in the spec.
        progress: Called on every change of progress.
        notice: Called with sentences for the user.

    Returns:
        Whether there were unfinished jobs.

    Raises:
        JobsFailed: Some jobs failed on every attempt; all others are done.
        StudyError: No worker could be started, or every job fails; completed jobs are in the store.
        Exception: With ``workers=0``, the first error of a job, unchanged.
    """
    there = listing(store)
    left = open_jobs(plan, {job.id for job in plan.jobs if not is_done(there, job)})
    if not left.jobs:
        return False
    if workers is None and cluster is None and executor is None:
        workers = default_workers(plan.device)
    most = min(workers, len(left.jobs)) if workers is not None else None
    gpus = gpu_share if plan.device.startswith("cuda") else 0.0
    sent = None if tasks is None else (tasks, extras)
    if workers == 0:
        made = _serial(store, plan, tasks, extras)
    elif executor is not None:
        made = _submitting(store, plan, sent, executor, most or len(left.jobs))
    else:
        made = _processes(store, plan, sent, most, cluster=cluster, gpus=gpus)
    with made:
        scheduler = _Scheduler(
            store=store,
            plan=plan,
            open=left,
            workers=made,
            report=progress or (lambda _: None),
            notice=notice,
            retry=store.how_to_continue(),
        )
        made.meanwhile = scheduler.take_in
        scheduler.tell_progress()
        while scheduler.busy or left.any:
            scheduler.hear()
            scheduler.feed()
    if left.jobs:
        raise JobsFailed(scheduler.describe_failures())
    return True


def _serial(store: Store, plan: Plan, tasks: "Tasks | None", extras: "Extras") -> Workers:
    from lratlas.config.tasks import tasks_from
    from lratlas.execute.context import WorkerContext

    spec = read_planned_spec(store, plan)
    return SerialWorker(context=WorkerContext(store, spec, plan, tasks or tasks_from(spec.task), extras))


def _submitting(store: Store, plan: Plan, sent: "Sent | None", executor: Executor, workers: int) -> Workers:
    from lratlas.execute.run_job import StudySource

    source = StudySource(
        session=uuid.uuid4().hex,
        folder=store.url,
        plan=plan_digest(plan),
        path=tuple(sys.path),
        packed=_pack_source(sent),
        sent=sent,
    )
    return SubmittingWorkers(executor=executor, workers=workers, source=source)


def _processes(
    store: Store, plan: Plan, sent: "Sent | None", workers: int | None, *, cluster: str | None, gpus: float
) -> Workers:
    first: dict[str, object] = {
        "folder": store.url,
        "plan": plan_digest(plan),
        "tasks": _pack_source(sent),
        "path": sys.path,
    }
    if cluster is None:
        return LocalWorkers(workers=workers or 1, first=first, gpus=shared_gpus(plan.device))
    from lratlas.execute.ray import RayWorkers

    return RayWorkers(address=cluster, most=workers, first=first, gpus=gpus)


def _pack_source(sent: "Sent | None") -> str | None:
    return None if sent is None else pack_tasks(sent)


@dataclass(kw_only=True)
class _Scheduler:
    """Assigns jobs to workers and handles their messages."""

    store: Store
    plan: Plan
    open: OpenJobs
    workers: Workers
    report: Callable[[Progress], None]
    notice: Callable[[str], None]
    retry: str  # how the user can retry after a failure
    noticed: set[str] = field(default_factory=set[str])  # notices of workers, each reported once
    busy: dict[int, Job] = field(default_factory=dict[int, Job])
    kinds: Counter[str] = field(default_factory=Counter[str])  # number of workers busy with each kind of job
    idle: deque[int] = field(default_factory=deque[int])
    starts: Counter[int] = field(default_factory=Counter[int])  # consecutive attempts to start each worker
    attempts: Counter[str] = field(default_factory=Counter[str])
    reasons: dict[str, str] = field(default_factory=dict[str, str])  # why each job was given up
    work: Counter[str] = field(default_factory=Counter[str])  # run-steps of jobs in progress, including saved ones
    trained: int = 0
    done: int = 0  # number of jobs

    def __post_init__(self) -> None:
        self._jobs, self._work = len(self.plan.jobs), sum(job.work for job in self.plan.trainings)
        self._left = sum(job.work for job in self.open.jobs.values() if isinstance(job, Training))

    def tell_progress(self) -> None:
        """Report the progress of the study."""
        self.report(
            Progress(
                jobs_done=self._jobs - len(self.open.jobs),
                jobs=self._jobs,
                work_done=self._work - self._left + self.work.total(),
                work=self._work,
                trained=self.trained,
                doing=", ".join(sorted(+self.kinds)),
            )
        )

    def feed(self) -> None:
        """Assign jobs to idle workers while there are jobs that can run."""
        fed = False
        while self.idle and (job := self.open.take()):
            worker = self.idle.popleft()
            self.busy[worker] = job
            self.kinds[_word(job)] += 1
            self.workers.tell(worker, {"job": job.id})
            fed = True
        if fed:
            self.tell_progress()

    def hear(self) -> None:
        """Wait for a message and handle it, or wait until a paused job can be retried."""
        pause = self.open.pause() if self.idle else None
        heard = self.workers.listen(pause if self.busy or self.idle else _PATIENCE)
        if heard is None:
            if not self.busy and not self.idle:
                self.notice("No worker is available yet; waiting for one.")
            return
        self.take_in(*heard)

    def take_in(self, worker: int, message: Message) -> None:
        """Handle a worker's message."""
        if "notice" in message:
            if message["notice"] not in self.noticed:
                self.noticed.add(message["notice"])
                self.notice(message["notice"])
        elif "ready" in message:
            self.starts[worker] = 0
            self.idle.append(worker)
        elif "work" in message:
            self._record_work(self.busy[worker], message["work"])
        elif "done" in message:
            self._finish_job(worker)
        elif "error" in message:
            self._handle_error(worker, message)
        elif "ended" in message:
            self._handle_exit(worker, message["ended"])

    def describe_failures(self) -> str:
        """The message about the jobs that were given up."""
        named = "; ".join(f"{job}: {reason.rstrip('.')}" for job, reason in list(self.reasons.items())[:3])
        more = f", and {len(self.reasons) - 3} more" if len(self.reasons) > 3 else ""
        blocked = len(self.open.jobs) - len(self.reasons)
        needing = f" {blocked} jobs that need them were not started." if blocked else ""
        count = "A job" if len(self.reasons) == 1 else f"{len(self.reasons)} jobs"
        tries = f" in {ATTEMPTS} attempts" if any(self.attempts[job] == ATTEMPTS for job in self.reasons) else ""
        return f"{count} failed{tries} ({named}{more}).{needing} All results so far are saved: {self.retry}."

    def _record_work(self, job: Job, work: int) -> None:
        if job.id in self.work:
            self.trained += work  # the first report of an attempt is the work of an earlier one
        self.work[job.id] += work
        self.tell_progress()

    def _finish_job(self, worker: int) -> None:
        job = self._release_job(worker)
        self._left -= job.work if isinstance(job, Training) else 0
        self.open.finish(job)
        self.done += 1
        self.idle.append(worker)
        self.tell_progress()

    def _handle_error(self, worker: int, message: Message) -> None:
        """Handle a worker that failed at its job or could not start."""
        if "exception" in message:
            self._raise(self._release_job(worker), message["error"], message["exception"])
        if message["final"]:
            raise StudyError(message["error"])
        if worker not in self.busy:
            raise StudyError(f"A worker process failed: {message['error']}")
        self._fail_job(self._release_job(worker), message["error"], again=message["again"])
        if not message["ends"]:
            self.idle.append(worker)

    def _raise(self, job: Job, reason: str, exception: Exception) -> NoReturn:
        """Raise an error of this process unchanged, with its traceback."""
        write_note(self.store, Failure(job=job.id, attempt=1, reason=reason, given_up=True))
        exception.add_note(f"This was the job {job.id}. All results so far are saved: {self.retry}.")
        raise exception

    def _handle_exit(self, worker: int, how: str) -> None:
        """Restart a worker that has ended, and put its job back."""
        if worker in self.busy:
            self._fail_job(self._release_job(worker), f"its worker stopped {how}.")
        elif worker in self.idle:
            self.idle.remove(worker)
        else:
            self._handle_failed_start(worker, how)
        if self.open.any or self.busy:
            self.workers.renew(worker)

    def _handle_failed_start(self, worker: int, how: str) -> None:
        self.starts[worker] += 1
        if self.starts[worker] >= _STARTS:
            raise StudyError(
                f"A worker process could not be started: it stopped {how}; all results so far are saved: {self.retry}."
            )

    def _release_job(self, worker: int) -> Job:
        """Remove and return the job of a worker, which is no longer in progress."""
        job = self.busy.pop(worker)
        self.kinds[_word(job)] -= 1
        del self.work[job.id]
        return job

    def _fail_job(self, job: Job, reason: str, *, again: bool = True) -> None:
        """Put a job back, or give it up: after several attempts, or at once if it would fail again in the same way."""
        self.attempts[job.id] += 1
        attempt = self.attempts[job.id]
        given_up = attempt == ATTEMPTS or not again
        write_note(self.store, Failure(job=job.id, attempt=attempt, reason=reason, given_up=given_up))
        if not given_up:
            self.notice(f"{job.id} failed and is retried: {reason}")
            self.open.put_back(job, seconds=PAUSES[attempt - 1])
            return
        self.reasons[job.id] = reason
        self.open.give_up(job)
        if not self.done and len(self.reasons) >= HOPELESS:
            raise JobsFailed(self.describe_failures())


_STAGES = {
    "pretrain": "pre-training",
    "second": "training with a second PLR",
    "finetune": "fine-tuning",
    "average": "averaging",
}


def _word(job: Job) -> str:
    return _STAGES.get(kind_of(job), kind_of(job))


def open_jobs(plan: Plan, names: set[str]) -> OpenJobs:
    """The unfinished jobs of a plan, by the given ids."""
    holders = plan.holders()
    jobs = {job.id: job for job in plan.jobs if job.id in names}
    missing = {name: prerequisites(job, holders) & names for name, job in jobs.items()}
    waiting = dict[str, list[str]]()
    for name, needed in missing.items():
        for each in needed:
            waiting.setdefault(each, []).append(name)
    places = {name: place for place, name in enumerate(jobs)}
    ready = [(places[name], name) for name, needed in missing.items() if not needed]
    return OpenJobs(jobs=jobs, _places=places, _missing=missing, _waiting=waiting, _ready=ready)
