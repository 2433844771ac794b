"""One driver at a time, on a disk and on a file system without locks."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from lratlas.study.lock import NAME, hold_lock
from lratlas.study.store import Store

HOLD = """
import sys, time
from lratlas.study.lock import hold_lock
from lratlas.study.store import Store
with hold_lock(Store.open(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def silent(_: str) -> None:
    raise AssertionError("nobody holds the study")


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("lratlas.study.lock.BEAT", 0.05)
    return Store.create(tmp_path / "study" if request.param == "disk" else f"memory://{uuid4().hex}", "spec")


def waiting(store: Store, deeds: list[str]) -> threading.Thread:
    def wait() -> None:
        with hold_lock(store, deeds.append):
            deeds.append("second")

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_second_waits_for_the_first_and_says_so_once(store: Store):
    deeds = list[str]()
    with hold_lock(store, silent):
        thread = waiting(store, deeds)
        until(lambda: bool(deeds))
        time.sleep(0.5)  # longer than a driver that is gone would be waited for
        deeds.append("first")
    thread.join()
    assert [deed.partition(" works on ")[0] for deed in deeds] == ["Another process", "first", "second"]


def test_it_is_free_again_after_an_error(store: Store):
    with pytest.raises(ZeroDivisionError), hold_lock(store, silent):
        raise ZeroDivisionError
    with hold_lock(store, silent):
        pass


def test_a_driver_that_was_killed_holds_nothing(tmp_path: Path):
    store = Store.create(tmp_path / "study", "spec")
    process = subprocess.Popen([sys.executable, "-c", HOLD, store.url], stdout=subprocess.PIPE, encoding="utf-8")
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with hold_lock(store, silent):
        pass


def test_a_count_that_stands_still_belongs_to_a_driver_that_is_gone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lratlas.study.lock.BEAT", 0.05)
    store, said = Store.create(f"memory://{uuid4().hex}", "spec"), list[str]()
    store.write_bytes(NAME, b'{"driver": "another", "count": 7}')
    with hold_lock(store, said.append):
        assert b"another" not in store.read_bytes(NAME)
    assert len(said) == 1
    assert not store.exists(NAME)


def test_one_that_was_taken_over_leaves_the_other_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lratlas.study.lock.BEAT", 0.02)
    store, other = Store.create(f"memory://{uuid4().hex}", "spec"), b'{"driver": "another", "count": 0}'
    with hold_lock(store, silent):
        store.write_bytes(NAME, other)
        time.sleep(0.2)
        assert store.read_bytes(NAME) == other
    assert store.read_bytes(NAME) == other
