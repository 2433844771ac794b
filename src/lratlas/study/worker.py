"""A worker process: it does the jobs it is told on standard input and reports on standard output, as JSON lines.

Run as ``python -m lratlas.study.worker``. The first line names the study; each further line a job. When standard
input closes, the driver is gone and the worker ends at once: whatever it had finished is in the store.
"""

import base64
import json
import logging
import os
import queue
import signal
import sys
import threading
import traceback
import warnings
from typing import IO, Any

from lratlas.errors import LRAtlasError


def main() -> None:
    """Serve the driver until it is gone."""
    # Ctrl-C reaches the whole group; the driver ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever user code prints goes to standard error; the original standard output carries the protocol.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    try:
        _serve(lines, out)
    except Exception as error:
        if os.environ.get("LRATLAS_DEBUG"):
            traceback.print_exc()
        known = isinstance(error, LRAtlasError)
        _say(out, error=str(error) if known else _sentence(error), known=known)


class _Notices(logging.Handler):
    """What the package logs, as messages to the driver."""

    def __init__(self, out: IO[str]) -> None:
        super().__init__(logging.WARNING)
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        _say(self._out, notice=record.getMessage())


def _serve(lines: "queue.SimpleQueue[str]", out: IO[str]) -> None:
    import torch

    from lratlas.study.conduct import stored_spec
    from lratlas.study.jobs import perform
    from lratlas.study.plan import read_plan
    from lratlas.study.store import Store
    from lratlas.study.study import Study
    from lratlas.study.tasks import tasks_from

    # One thread per process: for small models processes scale and threads do not, and the bits stay the same.
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module=r"torch\..*")
    logging.getLogger("lratlas").addHandler(_Notices(out))
    start = json.loads(lines.get())
    # Modules beside the user's script are found here too.
    sys.path += [place for place in start["path"] if place not in sys.path]
    store = Store.open(start["folder"])
    spec = stored_spec(store)
    tasks = _loaded(start["tasks"]) if start["tasks"] else tasks_from(spec.task)
    plan = read_plan(store.read_text("plan.json"), where="plan.json")
    study = Study(store, spec, plan, tasks)
    jobs = {job.id: job for job in plan.jobs}
    _say(out, ready=True)
    while True:
        name = json.loads(lines.get())["job"]
        perform(study, jobs[name], lambda work: _say(out, work=work))
        _say(out, done=name)


def _listen(lines: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(1)  # the main thread may be deep in a computation


def _loaded(text: str) -> Any:
    """Tasks sent by the driver of this very study, never read from a file."""
    import cloudpickle

    return cloudpickle.loads(base64.b64decode(text))


def _sentence(error: Exception) -> str:
    """What went wrong in one line: PyTorch's messages go on for many."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": .") + "."


def _say(out: IO[str], **message: object) -> None:
    out.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    main()
