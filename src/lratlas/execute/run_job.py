"""Execute one job of a study, in a worker process, on an executor or in the calling process."""

import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import FrameType
from typing import Any, TypeAlias

import torch

from lratlas.config.code import look_for_code
from lratlas.config.extras import Extras, extras_of
from lratlas.config.tasks import Tasks, tasks_from
from lratlas.errors import StudyError, TaskError
from lratlas.execute.context import WorkerContext
from lratlas.execute.executors import GRACE
from lratlas.execute.messages import BETWEEN_REPORTS, Message, Say, Worked, failure, forward_notices
from lratlas.execute.sending import unpack_tasks
from lratlas.execute.train_job import Stopped, perform
from lratlas.rng import preserve_generators
from lratlas.study.jobs import Training
from lratlas.study.plan import PLAN, Plan, plan_digest, read_planned_spec, read_stored_plan
from lratlas.study.store import Store
from lratlas.training.fingerprint import combine_parts, describe_changes, fingerprint_parts
from lratlas.training.prepare import trust_earlier_check
from lratlas.training.prepared import Conformance

Sent: TypeAlias = tuple[Tasks, Extras]
"""The parts of a study that a spec cannot describe: its tasks and the custom measurements."""


@dataclass(frozen=True, kw_only=True)
class StudySource:
    """The study of a job and how to make its tasks: a small object, equal for all jobs of a session.

    Attributes:
        session: Distinguishes sessions; two sources of the same session are equal.
        folder: The folder of the study, or its URL.
        plan: The digest that identifies the plan, see `plan_digest`.
        path: The import path of modules.
        packed: Tasks that the spec cannot describe, and the custom measurements, as text; None if the spec can.
        sent: The unpacked tasks and measurements; omitted when the source is sent to another process.
        stop: Set to stop jobs in this process.
    """

    session: str
    folder: str = field(compare=False)
    plan: str = field(compare=False)
    path: tuple[str, ...] = field(compare=False)
    packed: str | None = field(compare=False)
    sent: Sent | None = field(compare=False, default=None)
    stop: threading.Event = field(compare=False, default_factory=threading.Event)

    def __reduce__(self) -> tuple[Callable[[], "StudySource"], tuple[()]]:
        kept = {name: getattr(self, name) for name in ("session", "folder", "plan", "path", "packed")}
        return partial(StudySource, **kept), ()


def run_job(source: StudySource, name: str, submission: int) -> list[Message]:
    """Execute a job from its last checkpoint; executors call this function. Repeated calls are harmless.

    Jobs in the same process take turns, because they draw from its random generators. The other state of the process,
    such as its generator states, default dtype and number of threads, is restored afterwards.

    Args:
        source: The study.
        name: Id of the job in the plan.
        submission: Distinguishes repeated calls for the same job: an executor may cache results by arguments.

    Returns:
        Messages about the job: its work, notices, and at the end its completion or its error.

    Raises:
        Stopped: The job was asked to stop, and saved its state.
    """
    del submission
    said = list[Message]()
    with own_state(), forward_notices(said.append):
        try:
            context = _open_context(source)
        except Exception as error:
            return [*said, failure(error)]
        do_job_here(context, name, said.append, stop=source.stop, every=math.inf)
    return said


@lru_cache(maxsize=1)
def _open_context(source: StudySource) -> WorkerContext:
    """The study of a source; programs and data are built once per process and session."""
    look_for_code(place for place in source.path if place not in sys.path)
    return open_context(source.folder, source.plan, source.packed, sent=source.sent)


def forget_context() -> None:
    """Release the study that this process has opened for an executor's jobs."""
    _open_context.cache_clear()


def open_context(folder: str, planned: str, packed: str | None, *, sent: Sent | None = None) -> WorkerContext:
    """Open the study of a job, with the spec that its plan was made from.

    Args:
        folder: The study's folder or URL.
        planned: The digest that identifies the plan, see `plan_digest`.
        packed: The tasks and custom measurements as text, if the spec cannot describe the tasks.
        sent: The unpacked tasks and measurements, if available.

    Raises:
        FolderGone: The study was removed.
        StudyError: The study has another plan.
        TaskError: The tasks cannot be made here, or differ from the planned ones.
    """
    store = Store.reopen(folder)
    plan = read_stored_plan(store)
    if plan is None or plan_digest(plan) != planned:
        raise StudyError(f"{PLAN} in {store.url} changed during the study: it was removed or replaced.")
    spec = read_planned_spec(store, plan)
    made: Sent | None = sent or (unpack_tasks(packed) if packed else None)
    tasks, extras = made or (tasks_from(spec.task), extras_of(spec.measure))
    context = WorkerContext(store, spec, plan, tasks, extras)
    with _trust_plan(plan):
        _check_code(context)
    return context


def do_job(
    context: WorkerContext,
    name: str,
    say: Say,
    *,
    stopping: Callable[[], bool],
    ends: bool = False,
    every: float = BETWEEN_REPORTS,
) -> Exception | None:
    """Execute a job of the plan; report its progress and, at the end, its completion or its error.

    Args:
        context: The study.
        name: Id of the job.
        say: Receives each message.
        stopping: Whether to stop training after the current step.
        ends: Whether the process ends if the job fails.
        every: Seconds between two progress messages.

    Returns:
        The error of the job, if it failed.

    Raises:
        Stopped: Training was stopped and its state saved.
    """
    worked = Worked(say, every=every)
    try:
        with _trust_plan(context.plan):
            perform(context, context.jobs[name], worked, stopping)
        worked.rest()
    except Stopped:
        raise
    except Exception as error:
        say(failure(error, ends=ends))
        return error
    say({"done": name})
    return None


def do_job_here(
    context: WorkerContext, name: str, say: Say, *, stop: threading.Event, every: float = BETWEEN_REPORTS
) -> Exception | None:
    """`do_job` in a process with its own signal handlers: training is saved before they are called.

    Args:
        context: The study.
        name: Id of the job.
        say: Receives each message.
        stop: Set to stop the job.
        every: Seconds between two progress messages.

    Raises:
        Stopped: ``stop`` was set.
    """
    while not stop.is_set():
        trains = isinstance(context.jobs[name], Training)
        with suppress(Stopped), _defer_signals() if trains else nullcontext(_never) as asked:
            return do_job(context, name, say, stopping=lambda: asked() or stop.is_set(), every=every)
        # If the handler returns without ending the process, the job continues.
    raise Stopped


_TURN = threading.RLock()


@contextmanager
def own_state() -> Generator[None]:
    """Give a job the PyTorch state of a fresh process with one thread; restore the state afterwards.

    Only one thread of this process executes a job at a time.
    """
    with _TURN, preserve_generators(), one_thread(), torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\..*")
        dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


@contextmanager
def one_thread() -> Generator[None]:
    """Limit PyTorch to one thread inside the block: other numbers may change the last bits of sums.

    Small models scale with processes, not with threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _never() -> bool:
    return False


@contextmanager
def _defer_signals() -> Generator[Callable[[], bool]]:
    """Defer Ctrl-C and SIGTERM until the block ends; the yielded function returns whether a signal has arrived.

    A second signal, or a timeout of a few seconds, ends the block at once. Outside the main thread, do nothing.
    """
    asked, before = list[int](), dict[int, Any]()

    def take(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        restore()
        timer = threading.Timer(GRACE, os.kill, (os.getpid(), number))
        timer.daemon = True
        timers.append(timer)
        timer.start()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    timers = list[threading.Timer]()
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # Ignored signals stay ignored; handlers not installed from Python cannot be restored.
        before |= {number: each for number, each in handlers.items() if each not in {signal.SIG_IGN, None}}
        for number in before:
            signal.signal(number, take)
    try:
        yield lambda: bool(asked)
    finally:
        restore()
        for timer in timers:
            timer.cancel()
        if asked:
            signal.raise_signal(asked[0])


def _trust_plan(plan: Plan) -> AbstractContextManager[object]:
    """Trust that the driver has compared the tasks of this process with a plain loop."""
    return trust_earlier_check(Conformance(**plan.checked.model_dump())) if plan.checked else nullcontext()


def _check_code(context: WorkerContext) -> None:
    """Refuse to train a task that differs from the plan: code here may differ, edited or patched in the driver.

    Raises:
        TaskError: The task of the first repetition behaves differently.
    """
    planned = context.plan.task_parts
    try:
        parts = fingerprint_parts(context.tasks.of(0))
    except Exception:  # the first job fails in the same way, and reports it
        return
    if planned and combine_parts(parts) != combine_parts(planned):
        raise TaskError(
            f"A worker process found a different task than planned: {describe_changes(planned, parts)} differ."
            " Workers import modules from their files: do not edit or patch them while a study runs, and restart"
            " Python after an edit."
        )
