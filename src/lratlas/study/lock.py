"""One driver at a time: whoever else starts the same study waits until it has ended, however it ends.

On a disk it is a locked file, which the system frees with the process. Elsewhere, where nothing can be locked, the
driver keeps counting in a small file, and a count that has stood still for half a minute of the observer's own time
belongs to a driver that is gone. No clock is compared with another's. Two drivers in the same study, should that fail,
cost time but no harm: what both write is the same.
"""

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from lratlas.errors import StudyError
from lratlas.study.store import Store

NAME = "driver.lock"
BEAT = 5.0
"""Seconds between two counts."""

BEATS = 6
"""A driver that has missed so many is gone."""

_LOOK = 0.2  # seconds between two tries to lock a file


@contextmanager
def hold_lock(store: Store, notice: Callable[[str], None]) -> Generator[None]:
    """Be the study's only driver inside; waits for the one that there may be, and says so.

    Raises:
        StudyError: The study's folder cannot be written.
    """
    hold = _lock_store if isinstance(store.filesystem, LocalFileSystem) else _counting
    with hold(store, lambda: notice(f"Another process works on {store.url}; this one waits until it has ended.")):
        yield


@contextmanager
def _lock_store(store: Store, say: Callable[[], None]) -> Generator[None]:
    lock = FileLock(Path(store.root) / NAME)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say()
            lock.acquire(poll_interval=_LOOK)
    except OSError as error:
        raise StudyError(f"{store.url} cannot be written: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _counting(store: Store, say: Callable[[], None]) -> Generator[None]:
    own, waiting, seen, since = uuid.uuid4().hex, False, b"", time.monotonic()
    while not store.create_file(NAME, _count(own, 0)):
        if not waiting:
            say()
            waiting = True
        now = b""
        with suppress(StudyError):  # it was removed meanwhile
            now = store.read_bytes(NAME)
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > BEAT * BEATS:
            store.remove(NAME)
            continue
        time.sleep(min(1.0, BEAT))
    ended = threading.Event()
    counter = threading.Thread(target=_keep_counting, args=(store, own, ended), daemon=True)
    counter.start()
    try:
        yield
    finally:
        ended.set()
        counter.join()
        if _owner(store) == own:
            with suppress(StudyError):
                store.remove(NAME)


def _keep_counting(store: Store, own: str, ended: threading.Event) -> None:
    number = 0
    while not ended.wait(BEAT):
        number += 1
        # Whoever took over meanwhile, because this process was stopped for long, stays the driver.
        if _owner(store) in {own, None}:
            with suppress(StudyError):  # the next one may come through
                store.write_bytes(NAME, _count(own, number))


def _count(own: str, number: int) -> bytes:
    return json.dumps({"driver": own, "count": number, "host": platform.node(), "process": os.getpid()}).encode()


def _owner(store: Store) -> str | None:
    with suppress(StudyError, ValueError, KeyError, TypeError):
        return str(json.loads(store.read_bytes(NAME))["driver"])
    return None
