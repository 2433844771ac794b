"""A worker process: it reads jobs from standard input and reports on standard output, as JSON lines.

Run as ``python -m lratlas.execute.worker``. The first line names the study; each further line names a job. When
standard input closes, the driver is gone and the worker exits at once; all completed work is in the store. On a stop
message or SIGTERM, the worker saves its stack after the current step and exits.
"""

import json
import os
import queue
import signal
import sys
import threading
import warnings
from contextlib import suppress
from functools import partial
from io import TextIOWrapper
from typing import IO, Any, cast

from lratlas.execute.messages import Message, Say, failure, forward_notices
from lratlas.startup import reset_process


def main() -> None:
    """Serve the driver until it ends."""
    reset_process()
    # Ctrl-C reaches the whole process group; the driver ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders = _Orders()
    signal.signal(signal.SIGTERM, lambda _number, _frame: orders.stop())
    # Output of user code goes to standard error; the original standard output carries the protocol.
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    # Neither the protocol nor the output of user code depends on the terminal's encoding.
    cast("TextIOWrapper", sys.stdin).reconfigure(encoding="utf-8")
    cast("TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    say = partial(_say_to, out)
    try:
        _serve(orders, say)
    except Exception as error:
        say(failure(error, ends=True))


class _Orders:
    """The driver's messages: a queue of jobs, and whether to stop."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def take(self) -> dict[str, Any] | None:
        """The next message; None if the worker should stop."""
        message = self._messages.get()
        return None if self.stopping.is_set() else message

    def put(self, message: dict[str, Any]) -> None:
        """Add a message."""
        self._messages.put(message)

    def stop(self) -> None:
        """Stop as soon as the current job is saved."""
        self.stopping.set()
        self._messages.put(None)


def _serve(orders: _Orders, say: Say) -> None:
    import torch

    from lratlas.config.code import look_for_code
    from lratlas.execute.run_job import do_job, open_context
    from lratlas.execute.train_job import Stopped

    # One thread per process: small models scale with processes, not with threads, and the bits stay the same.
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module=r"torch\..*")
    start = orders.take()
    if start is None:
        return
    with forward_notices(say), suppress(Stopped):
        # Use the driver's search order, but never shadow modules that are already imported.
        look_for_code(place for place in start["path"] if place not in sys.path)
        sys.path[:] = dict.fromkeys([*start["path"], *sys.path])
        context = open_context(start["folder"], start["plan"], start["tasks"])
        say({"ready": True})
        # An error may have left an accelerator unusable in this process.
        ends = context.device.type != "cpu"
        while message := orders.take():
            failed = do_job(context, message["job"], say, stopping=orders.stopping.is_set, ends=ends) is not None
            if failed and ends:
                return


def _listen(orders: _Orders) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "stop" in message:
            orders.stop()
        else:
            orders.put(message)
    os._exit(1)  # the main thread may be in a long computation


def _say_to(out: IO[str], message: Message) -> None:
    try:
        out.write(json.dumps(message) + "\n")
    except BrokenPipeError:
        os._exit(1)  # the driver is gone, and its end of the other pipe closes next


if __name__ == "__main__":
    main()
