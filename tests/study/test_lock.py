"""One driver at a time, on a disk and on a file system without locks."""

import errno
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

from lratlas.errors import SearchError, StudyError
from lratlas.search.journal import claim, open_folder, withdraw_results
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
    assert [deed.partition(" is using ")[0] for deed in deeds] == ["Another process", "first", "second"]


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


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK], ids=errno.errorcode.get)
def lockless(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A study on a disk whose file system knows no locks."""

    def fail(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("fcntl.flock", fail)
    monkeypatch.setattr("lratlas.study.lock.BEAT", 0.05)
    return Store.create(tmp_path / "study", "spec")


def test_without_locks_the_second_waits_for_the_first(lockless: Store):
    deeds = list[str]()
    with hold_lock(lockless, silent):
        thread = waiting(lockless, deeds)
        until(lambda: bool(deeds))
        time.sleep(0.5)
        deeds.append("first")
    thread.join()
    assert [deed.partition(" is using ")[0] for deed in deeds] == ["Another process", "first", "second"]


def test_without_locks_that_of_a_process_that_is_gone_expires(lockless: Store):
    lockless.write_bytes(f"{NAME}.count", b'{"driver": "gone", "count": 7}')
    with hold_lock(lockless, lambda _: None):
        assert b"gone" not in lockless.read_bytes(f"{NAME}.count")
    assert not lockless.exists(f"{NAME}.count")


def test_without_locks_claims_on_segments_expire_too(lockless: Store):
    folder = Path(lockless.root)
    held = claim(folder, "segment")
    assert held is not None
    assert claim(folder, "segment") is None
    time.sleep(0.5)
    assert claim(folder, "segment") is None
    held.release()
    assert claim(folder, "segment") is not None
    (folder / "claims" / "other.lock.count").write_text("of a process that is gone")
    until(lambda: claim(folder, "other") is not None)


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_left(tmp_path: Path):
    store, kept = Store.create(tmp_path / "study", "spec"), tmp_path / "kept"
    kept.write_text("somebody's")
    for name in (NAME, "journal.jsonl"):
        (Path(store.root) / name).symlink_to(kept)
    with pytest.raises(StudyError, match="cannot be written: Too many levels"), hold_lock(store, silent):
        pass
    with pytest.raises(SearchError, match=r"journal\.jsonl cannot be written"):
        withdraw_results(Path(store.root), ["segment"])
    (Path(store.root) / "claims").symlink_to(tmp_path)
    with pytest.raises(SearchError, match="claims is a link"):
        open_folder(Path(store.root), {"steps": 100})
    assert kept.read_text() == "somebody's"
    assert {path.name for path in tmp_path.iterdir()} == {"study", "kept"}


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
