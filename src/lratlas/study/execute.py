"""From jobs to results: worker processes on this machine, each with one thread, fed in the order of the plan."""

import base64
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any, cast

from lratlas.errors import StudyError
from lratlas.study.plan import Geometry, Job, Plan, Training
from lratlas.study.progress import is_done
from lratlas.study.store import Store


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study is: jobs and run-steps done, and run-steps trained since it was started this time."""

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
    workers: int,
    tasks: object = None,
    progress: Callable[[Progress], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> bool:
    """Do all jobs of the plan that are not done.

    Args:
        store: The study.
        plan: Its stored plan.
        workers: Number of processes.
        tasks: Tasks that the spec cannot describe, sent to the workers; None if it can.
        progress: Called on every change of progress.
        notice: Called with sentences that workers say.

    Returns:
        Whether there were any.

    Raises:
        StudyError: A job failed or a worker process ended; everything finished so far is in the store.
    """
    jobs = plan.jobs
    open_jobs = {job.id: job for job in jobs if not is_done(store, job)}
    state = _State(plan=plan, jobs=len(jobs), open_jobs=open_jobs, report=progress or (lambda _: None))
    if not open_jobs:
        return False
    payload = None
    if tasks is not None:
        import cloudpickle

        payload = base64.b64encode(cloudpickle.dumps(tasks)).decode()
    first: dict[str, object] = {"folder": store.url, "tasks": payload, "path": sys.path}
    with _processes(min(workers, len(open_jobs)), first) as (processes, messages):
        for index in range(len(processes)):
            _feed(state, processes, index)
        while state.open_jobs:
            index, message = messages.get()
            if "notice" in message:
                notice(message["notice"])
                continue
            _take(state, processes[index], index, message)
            if "done" in message:
                for idle in [each for each in range(len(processes)) if each not in state.busy]:
                    _feed(state, processes, idle)
    return True


@dataclass(kw_only=True)
class _State:
    plan: Plan
    jobs: int
    open_jobs: dict[str, Job]
    report: Callable[[Progress], None]
    busy: dict[int, Job] = field(default_factory=dict[int, Job])
    partial: dict[str, int] = field(default_factory=dict[str, int])
    trained: int = 0
    resumed: set[str] = field(default_factory=set[str])

    def tell(self) -> None:
        """Report progress."""
        total = sum(job.work for job in self.plan.trainings)
        left = sum(job.work for job in self.open_jobs.values() if isinstance(job, Training))
        doing = ", ".join(sorted({_word(job) for job in self.busy.values()}))
        self.report(
            Progress(
                jobs_done=self.jobs - len(self.open_jobs),
                jobs=self.jobs,
                work_done=total - left + sum(self.partial.values()),
                work=total,
                trained=self.trained,
                doing=doing,
            )
        )


def _feed(state: _State, processes: "list[subprocess.Popen[str]]", index: int) -> None:
    """Give worker ``index`` the first open job whose own needs are done."""
    taken = {job.id for job in state.busy.values()}
    for job in state.open_jobs.values():
        if job.id not in taken and not any(need in state.open_jobs for need in _needs(state.plan, job)):
            state.busy[index] = job
            _tell(processes[index], {"job": job.id})
            break
    state.tell()


def _take(state: _State, process: "subprocess.Popen[str]", index: int, message: dict[str, Any]) -> None:
    """Take in what a worker says."""
    if "work" in message:
        job = state.busy[index]
        before = state.partial.get(job.id, 0)
        state.partial[job.id] = before + message["work"]
        if job.id in state.resumed:
            state.trained += message["work"]
        state.resumed.add(job.id)  # the first report of a job is what an earlier session had trained
        state.tell()
    elif "done" in message:
        job = state.busy.pop(index)
        state.partial.pop(job.id, None)
        del state.open_jobs[job.id]
        state.tell()
    elif "error" in message:
        if message["known"]:
            raise StudyError(message["error"])
        where = f"Job {state.busy[index].id}" if index in state.busy else "A worker process"
        raise StudyError(
            f"{where} failed: {message['error']} Nothing already computed is lost: `lratlas resume` continues."
        )
    elif "ended" in message:
        code = process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise StudyError(
            f"A worker process was ended {how} (out of memory, perhaps); nothing already computed is lost:"
            " continue with `lratlas resume`."
        )


def _needs(plan: Plan, job: Job) -> set[str]:
    """The jobs that must be done before this one."""
    if not isinstance(job, Geometry):
        needed = job.parent if isinstance(job, Training) else job.training
        return {needed} if needed else set()
    holders = plan.holders()
    return {holders[run] for grid in job.solutions.values() for row in grid for run in row}


_STAGES = {
    "pretrain": "pre-training",
    "second": "training with a second PLR",
    "finetune": "fine-tuning",
    "average": "averaging",
}


def _word(job: Job) -> str:
    if isinstance(job, Training):
        return _STAGES[job.stage]
    return type(job).__name__.lower()


@contextmanager
def _processes(
    count: int, first: dict[str, object]
) -> "Generator[tuple[list[subprocess.Popen[str]], queue.SimpleQueue[tuple[int, dict[str, Any]]]]]":
    """Worker processes and the queue of what they say; all are ended on the way out, however that happens."""
    messages: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
    processes: list[subprocess.Popen[str]] = []
    listeners: list[threading.Thread] = []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    try:
        for index in range(count):
            process = subprocess.Popen(
                [sys.executable, "-m", "lratlas.study.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            processes.append(process)
            listeners.append(threading.Thread(target=_listen, args=(index, process, messages), daemon=True))
            listeners[-1].start()
            _tell(process, first)
        yield processes, messages
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            with suppress(OSError):  # what it did not read any more
                cast("IO[str]", process.stdin).close()
        for listener in listeners:
            listener.join()


def _tell(process: "subprocess.Popen[str]", message: Mapping[str, object]) -> None:
    stdin = cast("IO[str]", process.stdin)
    with suppress(OSError):  # the worker has ended; its listener says how
        stdin.write(json.dumps(message) + "\n")
        stdin.flush()


def _listen(
    index: int, process: "subprocess.Popen[str]", messages: "queue.SimpleQueue[tuple[int, dict[str, Any]]]"
) -> None:
    with cast("IO[str]", process.stdout) as lines:
        for line in lines:
            if line.endswith("\n"):  # the last words of a worker that was killed may be cut short
                messages.put((index, json.loads(line)))
    messages.put((index, {"ended": True}))
