"""One job of a study in any process: a worker's, one of an executor's, or the calling one."""

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
"""What a spec cannot describe of a study: its tasks, and with them the custom measurements."""


@dataclass(frozen=True, kw_only=True)
class StudySource:
    """Where a job's study is and how its tasks are made: small, and the same for all jobs of a session.

    Attributes:
        session: Distinguishes sessions; two sources of the same session are equal.
        folder: The folder of the study, or its URL.
        plan: What tells its plan from others, as `plan_digest` does.
        path: Where modules are found.
        packed: Tasks that the spec cannot describe, and the custom measurements, as text; None if it can.
        sent: The same as they are; left out where the source is sent to another process.
        stop: Set when jobs in this process shall end.
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
    """Do a job from its last checkpoint; this is what an executor is given. Doing it twice is harmless.

    Jobs in the same process take turns, because they draw from its generators. What the process has besides them, such
    as the states of its generators, its default dtype and its number of threads, is the same afterwards.

    Args:
        source: The study.
        name: Id of the job in the study's plan.
        submission: Distinguishes this call from others of the same job: an executor may remember results by arguments.

    Returns:
        Messages on the job: its work, notices, and at last that it is done or what went wrong.

    Raises:
        Stopped: The job was told to end, and has kept what it could.
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
    """The study of a source; programs and data are made once per process and session."""
    look_for_code(place for place in source.path if place not in sys.path)
    return open_context(source.folder, source.plan, source.packed, sent=source.sent)


def forget_context() -> None:
    """Let go of the study that this process has opened for an executor's jobs."""
    _open_context.cache_clear()


def open_context(folder: str, planned: str, packed: str | None, *, sent: Sent | None = None) -> WorkerContext:
    """Open the study that jobs are to be done of, by the spec that its plan was made from.

    Args:
        folder: Its folder or URL.
        planned: What tells its plan from others, as `plan_digest` does.
        packed: Its tasks and custom measurements as text, where the spec cannot describe the tasks.
        sent: The same as they are, where they are at hand.

    Raises:
        StudyError: There is no such study, or it has another plan.
        TaskError: The tasks cannot be made here, or are others than were planned.
    """
    store = Store.open(folder)
    plan = read_stored_plan(store)
    if plan is None or plan_digest(plan) != planned:
        raise StudyError(f"{PLAN} in {store.url} is not the one that is worked on: it was removed or replaced.")
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
    """Do a job of the plan; say how far it is, and at last that it is done or what went wrong.

    Args:
        context: The study.
        name: Id of the job.
        say: Called with each message.
        stopping: Whether to leave a training after the step that it is at.
        ends: Whether the process ends where the job fails.
        every: Seconds between two messages on how far it is.

    Returns:
        The error that the job failed with.

    Raises:
        Stopped: A training was left, and kept.
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
    """`do_job` in a process that has its own handlers of signals: a training is kept before they are called.

    Args:
        context: The study.
        name: Id of the job.
        say: Called with each message.
        stop: Set when the job shall end.
        every: Seconds between two messages on how far it is.

    Raises:
        Stopped: ``stop`` was set.
    """
    while not stop.is_set():
        trains = isinstance(context.jobs[name], Training)
        with suppress(Stopped), _defer_signals() if trains else nullcontext(_never) as asked:
            return do_job(context, name, say, stopping=lambda: asked() or stop.is_set(), every=every)
        # A handler that only took note of its signal lets the job continue.
    raise Stopped


_TURN = threading.RLock()


@contextmanager
def own_state() -> Generator[None]:
    """What jobs see of PyTorch is what they see in a fresh process with one thread; afterwards all is as it was.

    Meanwhile no other thread of this process does a job.
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
    """Let PyTorch use one thread meanwhile: with other numbers the last bits of sums may be others.

    For small models processes scale, and threads do not.
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
    """Let Ctrl-C and SIGTERM wait until the block has ended, and tell it that one has come.

    A second one, or a few seconds, end the block at once. Outside the main thread signals are not its affair.
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
        # Ignored signals stay ignored; handlers that are not Python's could not be put back.
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
    """Tasks that this process makes are those that the driver has compared with a plain loop."""
    return trust_earlier_check(Conformance(**plan.checked.model_dump())) if plan.checked else nullcontext()


def _check_code(context: WorkerContext) -> None:
    """Refuse to train another task than was planned: code may differ here, edited or patched in the other process.

    Raises:
        TaskError: The task of the first repetition behaves in another way.
    """
    planned = context.plan.task_parts
    try:
        parts = fingerprint_parts(context.tasks.of(0))
    except Exception:  # which the first job meets too, and reports
        return
    if planned and combine_parts(parts) != combine_parts(planned):
        raise TaskError(
            f"A worker process finds another task than the one that was planned: {describe_changes(planned, parts)}"
            " differ. Its modules are imported from their files: do not edit or patch them while a study runs, and"
            " start Python again after an edit."
        )
