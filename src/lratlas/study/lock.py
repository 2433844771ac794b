"""A lock that one process holds; others wait until that process ends, however it ends.

On a disk a lock is a locked file, which the system frees with the process. Elsewhere, where nothing can be locked, its
holder keeps counting in a small file, and a count that has stood still for half a minute of the observer's own time
belongs to a process that is gone. No clock is compared with another's. Two drivers in the same study, should that fail,
cost time but no harm: what both write is the same.
"""

import errno
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

from lratlas.errors import StudyError
from lratlas.study.files import open_unlinked
from lratlas.study.folder import Folder

NAME = "driver.lock"
BEAT = 5.0
"""Seconds between two counts."""

BEATS = 6
"""Missed beats after which a holder counts as gone."""

_LOOK = 0.2  # seconds between two tries to lock a file
_HELD = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
_COUNT = ".count"  # suffix of the counting file, next to a file that cannot be locked


@contextmanager
def hold_lock(folder: Folder, notice: Callable[[str], None]) -> Generator[None]:
    """Be the study's only driver inside; waits for the one that there may be, and says so.

    Raises:
        StudyError: The study's folder cannot be written.
    """
    lock = Lock(folder, NAME)
    try:
        if not lock.take():
            notice(f"Another process works on {folder.url}; this one waits until it has ended.")
            lock.wait()
    except OSError as error:
        raise StudyError(f"{NAME} in {folder.url} cannot be written: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


class Lock:
    """A lock that one process holds at a time; inside a ``with`` it is held, and waited for.

    Args:
        folder: Where it is.
        name: Its file there, which stays.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._file: IO[Any] | None = None
        self._count: _Count | None = None
        if not isinstance(folder.filesystem, LocalFileSystem):
            self._count = _Count(folder, name)

    def take(self) -> bool:
        """Try to get it.

        Returns:
            Whether this process holds it now.

        Raises:
            OSError: Its file is a link, or cannot be written.
            StudyError: The same, where nothing can be locked.
        """
        if self._count is None:
            file = open_unlinked(Path(self._folder.root) / self._name, "ab")
            try:
                _lock_now(file)
            except OSError as error:
                file.close()
                if error.errno not in _NO_LOCKS | _HELD:
                    raise
                if error.errno in _HELD:
                    return False
                self._count = _Count(self._folder, f"{self._name}{_COUNT}")
            else:
                self._file = file  # the lock is freed with it, at the latest when the process ends
                return True
        return self._count.take()

    def wait(self) -> None:
        """Get it, however long that takes."""
        while not self.take():
            time.sleep(min(_LOOK, BEAT))

    def release(self) -> None:
        """Let the next process have it."""
        if self._file is not None:
            _unlock(self._file)
            self._file.close()
            self._file = None
        if self._count is not None:
            self._count.release()

    def __del__(self) -> None:
        # Not `release`, which waits for a thread: where the process ends there is none any more.
        if self._file is not None:
            self._file.close()
        if self._count is not None:
            self._count.ended.set()

    def __enter__(self) -> None:
        self.wait()

    def __exit__(self, *_: object) -> None:
        self.release()


def _lock_now(file: IO[Any]) -> None:
    """Lock an open file.

    Raises:
        OSError: Another process holds it, or the file system has no locks.
    """
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)


def _unlock(file: IO[Any]) -> None:
    """Let go of the lock also where a forked process has the file open."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)


_seen = dict[str, tuple[bytes, float]]()
"""The counts of others, and since when they stand still: whoever asks again may do so with another object."""


class _Count:
    """A lock without the system: its file is there as long as its holder counts in it."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name, self._own = folder, name, uuid.uuid4().hex
        self.ended = threading.Event()
        self._counter: threading.Thread | None = None

    def take(self) -> bool:
        place = f"{self._folder.url}/{self._name}"
        if not self._folder.create_file(self._name, self._text(0)):
            now = b""
            with suppress(StudyError):  # it was removed meanwhile
                now = self._folder.read_bytes(self._name)
            seen, since = _seen.get(place, (None, 0.0))
            if now != seen:
                _seen[place] = now, time.monotonic()
            elif time.monotonic() - since > BEAT * BEATS:
                self._folder.remove(self._name)
            return False
        _seen.pop(place, None)
        self.ended.clear()
        self._counter = threading.Thread(target=self._keep_counting, daemon=True)
        self._counter.start()
        return True

    def release(self) -> None:
        if self._counter is None:
            return
        self.ended.set()
        self._counter.join()
        self._counter = None
        if self._owner() == self._own:
            with suppress(StudyError):
                self._folder.remove(self._name)

    def _keep_counting(self) -> None:
        number = 0
        while not self.ended.wait(BEAT):
            number += 1
            # Whoever took over meanwhile, because this process was stopped for long, keeps it.
            if self._owner() in {self._own, None}:
                with suppress(StudyError):  # the next one may come through
                    self._folder.write_bytes(self._name, self._text(number))

    def _text(self, number: int) -> bytes:
        about = {"driver": self._own, "count": number, "host": platform.node(), "process": os.getpid()}
        return json.dumps(about).encode()

    def _owner(self) -> str | None:
        with suppress(StudyError, ValueError, KeyError, TypeError):
            return str(json.loads(self._folder.read_bytes(self._name))["driver"])
        return None
