"""A worker process: it does the jobs it is told on standard input and reports on standard output, as JSON lines.

Run as ``python -m lratlas.execute.worker``. The first line names the study; each further line a job. When
standard input closes, the driver is gone and the worker ends at once: whatever it had finished is in the store. Told to
stop, or sent a SIGTERM, it keeps its stack after the step that it is at, and ends.
"""

import json
import logging
import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from io import TextIOWrapper
from typing import IO, TYPE_CHECKING, Any, cast

from lratlas.errors import LRAtlasError, MeasurementError, StudyError
from lratlas.startup import reset_process

if TYPE_CHECKING:
    from lratlas.execute.context import Study
    from lratlas.study.plan import Plan

_BETWEEN_REPORTS = 1.0  # seconds

_OF_CODE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RuntimeError,  # NotImplementedError is one
    TypeError,
    ValueError,
)
"""Built-in errors that the same code raises again."""


def main() -> None:
    """Serve the driver until it is gone."""
    reset_process()
    # Ctrl-C reaches the whole group; the driver ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = _Told()
    signal.signal(signal.SIGTERM, lambda _number, _frame: told.stop())
    # Whatever user code prints goes to standard error; the original standard output carries the protocol.
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    # Neither the protocol nor what user code prints depends on the encoding of the terminal.
    cast("TextIOWrapper", sys.stdin).reconfigure(encoding="utf-8")
    cast("TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")
    threading.Thread(target=_listen, args=(told,), daemon=True).start()
    try:
        _serve(told, out)
    except Exception as error:
        _tell_error(out, error, ends=True)


def _tell_error(out: IO[str], error: Exception, *, ends: bool) -> None:
    """Say what went wrong, and whether this process ends because of it."""
    if os.environ.get("LRATLAS_DEBUG"):
        traceback.print_exception(error)
    known = isinstance(error, LRAtlasError)
    # A full disk or a damaged file may be better next time; a task that is wrong stays wrong.
    final = known and not isinstance(error, StudyError)
    retried = isinstance(error, StudyError) and not isinstance(error, MeasurementError)
    again = ends or (retried if known else not _would_recur(error))
    _say(out, error=str(error) if known else _sentence(error), final=final, again=again, ends=ends)


def _would_recur(error: Exception) -> bool:
    """Whether the same code raises the error again: it is one of Python's or PyTorch's kinds for wrong code.

    Everything else may go well next time: disks, networks, memory, and the clients of object stores, whose errors are
    classes in their own modules.
    """
    from lratlas.training.memory import is_out_of_memory

    if isinstance(error, RuntimeError) and is_out_of_memory(error):
        return False
    package = type(error).__module__.partition(".")[0]
    return package == "torch" or (package == "builtins" and isinstance(error, _OF_CODE))


class _Told:
    """What the driver has said: what to do, one after the other, and whether to stop."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def take(self) -> dict[str, Any] | None:
        """The next message; None once it is time to stop."""
        message = self._messages.get()
        return None if self.stopping.is_set() else message

    def put(self, message: dict[str, Any]) -> None:
        """A message has come."""
        self._messages.put(message)

    def stop(self) -> None:
        """End as soon as what is under way is saved."""
        self.stopping.set()
        self._messages.put(None)


class Worked:
    """Sums up the work on a job and tells the driver now and then: it may have a thousand workers to listen to."""

    def __init__(self, out: IO[str]) -> None:
        self._out, self._work, self._told = out, 0, -math.inf

    def __call__(self, work: int) -> None:
        """So much was done; a negative number takes some of it back."""
        self._work += work
        # The first report is told at once: it is what an earlier attempt had trained.
        if time.monotonic() - self._told >= _BETWEEN_REPORTS:
            self._tell()

    def rest(self) -> None:
        """Tell what has not been told yet."""
        if self._work:
            self._tell()

    def _tell(self) -> None:
        _say(self._out, work=self._work)
        self._work, self._told = 0, time.monotonic()


class _Notices(logging.Handler):
    """What the package logs, as messages to the driver."""

    def __init__(self, out: IO[str]) -> None:
        super().__init__(logging.WARNING)
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        _say(self._out, notice=record.getMessage())


def _serve(told: _Told, out: IO[str]) -> None:
    import torch

    from lratlas.config.extras import extras_of
    from lratlas.config.tasks import tasks_from
    from lratlas.execute.context import Study
    from lratlas.execute.sending import unpacked_tasks
    from lratlas.execute.train_job import Stopped, perform
    from lratlas.study.plan import stored_plan, stored_spec
    from lratlas.study.store import Store

    # One thread per process: for small models processes scale and threads do not, and the bits stay the same.
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module=r"torch\..*")
    logging.getLogger("lratlas").addHandler(_Notices(out))
    start = told.take()
    if start is None:
        return
    # Modules beside the user's script are found here too.
    sys.path += [place for place in start["path"] if place not in sys.path]
    store = Store.open(start["folder"])
    spec = stored_spec(store)
    tasks, extras = unpacked_tasks(start["tasks"]) if start["tasks"] else (None, None)
    tasks = tasks or tasks_from(spec.task)
    extras = extras_of(spec.measure) if extras is None else extras
    plan = stored_plan(store)
    if plan is None:
        raise StudyError(f"There is no plan.json in {store.url} any more.")
    study = Study(store, spec, plan, tasks, extras)
    jobs = {job.id: job for job in plan.jobs}
    with _checked(plan):
        _check_code(study)
    _say(out, ready=True)
    with _checked(plan), suppress(Stopped):
        while message := told.take():
            name = message["job"]
            try:
                worked = Worked(out)
                perform(study, jobs[name], worked, told.stopping.is_set)
                worked.rest()
            except Stopped:
                raise
            except Exception as error:
                # It may have left an accelerator useless to this process.
                ends = study.device.type != "cpu"
                _tell_error(out, error, ends=ends)
                if ends:
                    return
            else:
                _say(out, done=name)


def _check_code(study: "Study") -> None:
    """Refuse to train another task than was planned: code may differ here, edited or patched in the other process.

    Raises:
        TaskError: The task of the first repetition behaves in another way.
    """
    from lratlas.errors import TaskError
    from lratlas.training.fingerprint import changed_parts, combined, fingerprint_parts

    planned = study.plan.task_parts
    try:
        parts = fingerprint_parts(study.tasks.of(0))
    except Exception:  # which the first job meets too, and reports
        return
    if planned and combined(parts) != combined(planned):
        raise TaskError(
            f"A worker process finds another task than the one that was planned: {changed_parts(planned, parts)}"
            " differ. Its modules are imported from their files: do not edit or patch them while a study runs, and"
            " start Python again after an edit."
        )


def _checked(plan: "Plan") -> AbstractContextManager[object]:
    """Tasks that this process makes are those that the driver has compared with a plain loop."""
    from lratlas.training.prepare import checked_before
    from lratlas.training.prepared import Conformance

    return checked_before(Conformance(**plan.checked.model_dump())) if plan.checked else nullcontext()


def _listen(told: _Told) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "stop" in message:
            told.stop()
        else:
            told.put(message)
    os._exit(1)  # the main thread may be deep in a computation


def _sentence(error: Exception) -> str:
    """What went wrong in one line: PyTorch's messages go on for many."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": .") + "."


def _say(out: IO[str], **message: object) -> None:
    try:
        out.write(json.dumps(message) + "\n")
    except BrokenPipeError:
        os._exit(1)  # the driver is gone, and its end of the other pipe follows


if __name__ == "__main__":
    main()
