"""Waiting for worker processes on this machine."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lratlas.execute.executors import WORKER, LocalWorkers


class ToldError(Exception):
    """What the handler of the signal raises."""


def test_a_signal_that_another_thread_receives_ends_the_wait_for_a_message() -> None:
    def handler(*_: object) -> None:
        raise ToldError

    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    before = signal.signal(signal.SIGUSR1, handler)
    began = time.monotonic()
    try:
        threading.Timer(0.2, lambda: signal.pthread_kill(other.ident or 0, signal.SIGUSR1)).start()
        with pytest.raises(ToldError):
            LocalWorkers(workers=1, first={}).listen(60)
    finally:
        signal.signal(signal.SIGUSR1, before)
        done.set()
        other.join()
    assert time.monotonic() - began < 30  # at the latest when the wait is over it would be raised in any case


def test_nothing_is_heard_where_nobody_works() -> None:
    assert LocalWorkers(workers=1, first={}).listen(0.1) is None
    assert LocalWorkers(workers=1, first={}).listen(0) is None


def test_a_worker_whose_driver_has_gone_ends_without_a_word(tmp_path: Path) -> None:
    listening, heard = os.pipe()
    os.close(listening)
    worker = subprocess.Popen(
        [sys.executable, "-m", WORKER], stdin=subprocess.PIPE, stdout=heard, stderr=subprocess.PIPE, encoding="utf-8"
    )
    os.close(heard)
    assert worker.stdin
    # It wants to say that there is no such study.
    worker.stdin.write(json.dumps({"folder": str(tmp_path / "none"), "path": [], "tasks": None}) + "\n")
    worker.stdin.flush()
    assert worker.wait(timeout=60) == 1
    assert worker.communicate()[1] == ""
