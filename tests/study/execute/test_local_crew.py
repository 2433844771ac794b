"""Waiting for worker processes on this machine."""

import signal
import threading
import time

import pytest

from lratlas.study.execute.local_crew import LocalCrew


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
            LocalCrew(workers=1, first={}).listen(60)
    finally:
        signal.signal(signal.SIGUSR1, before)
        done.set()
        other.join()
    assert time.monotonic() - began < 30  # at the latest when the wait is over it would be raised in any case


def test_nothing_is_heard_where_nobody_works() -> None:
    assert LocalCrew(workers=1, first={}).listen(0.1) is None
    assert LocalCrew(workers=1, first={}).listen(0) is None
