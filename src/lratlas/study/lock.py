"""A lock that one process holds at a time; others wait until the holder ends, even if it is killed.

On a disk the lock is a locked file, which the system frees when the process ends. Object stores have no locks: there
the holder writes an increasing count to a small file, and a count that has not changed for half a minute of the
observer's own time belongs to a dead process. Clocks of different machines are never compared. If locking fails and two
processes run the same study, they waste time but cause no damage: both write the same content.
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
from lratlas.files import open_unlinked
from lratlas.study.folder import Folder

NAME = "driver.lock"
COUNT = ".count"
"""Suffix of the counting file, next to a file that cannot be locked."""
BEAT = 5.0
"""Seconds between two counts."""

BEATS = 6
"""Number of missed beats after which a holder counts as dead."""

_LOOK = 0.2  # seconds between attempts to lock a file
_HELD = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


@contextmanager
def hold_lock(folder: Folder, notice: Callable[[str], None]) -> Generator[None]:
    """Run as the study's only process; wait for another process to end, and report the wait.

    Raises:
        StudyError: The study's folder is not writable.
    """
    lock = Lock(folder, NAME)
    try:
        if not lock.take():
            notice(f"Another process is using {folder.url}; waiting for it to finish.")
            lock.wait()
    except OSError as error:
        raise StudyError(f"{NAME} in {folder.url} cannot be written: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


class Lock:
    """A lock that one process holds at a time; ``with`` waits for it and holds it.

    Args:
        folder: The folder of the lock file.
        name: The name of the lock file, which is never removed.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._file: IO[Any] | None = None
        self._count: _Count | None = None
        if not isinstance(folder.filesystem, LocalFileSystem):
            self._count = _Count(folder, name)

    def take(self) -> bool:
        """Try to acquire the lock.

        Returns:
            Whether this process now holds the lock.

        Raises:
            OSError: The lock file is a link, or is not writable.
            StudyError: The lock file is not writable, on a file system without locks.
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
                self._count = _Count(self._folder, f"{self._name}{COUNT}")
            else:
                self._file = file  # the lock is freed when the file closes, at the latest when the process ends
                return True
        return self._count.take()

    def wait(self) -> None:
        """Wait for the lock, without a time limit."""
        while not self.take():
            time.sleep(min(_LOOK, BEAT))

    def release(self) -> None:
        """Release the lock for the next process."""
        if self._file is not None:
            _unlock(self._file)
            self._file.close()
            self._file = None
        if self._count is not None:
            self._count.release()

    def __del__(self) -> None:
        # Not `release`, which joins a thread: at interpreter exit that thread no longer exists.
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
        OSError: Another process holds the lock, or the file system has no locks.
    """
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)


def _unlock(file: IO[Any]) -> None:
    """Release the lock even if a forked process has the file open."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)


_seen = dict[str, tuple[bytes, float]]()
"""Counts of other holders and the time each was first seen; shared by all `Lock` objects of this process."""


class _Count:
    """A lock on a file system without locks: its file exists while its holder counts in it."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name, self._own = folder, name, uuid.uuid4().hex
        self.ended = threading.Event()
        self._counter: threading.Thread | None = None

    def take(self) -> bool:
        place = f"{self._folder.url}/{self._name}"
        if not self._folder.create_file(self._name, self._text(0)):
            now = b""
            with suppress(StudyError):  # another process removed the file
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
            # If this process was suspended and another took over, the other keeps the lock.
            if self._owner() in {self._own, None}:
                with suppress(StudyError):  # the next write may succeed
                    self._folder.write_bytes(self._name, self._text(number))

    def _text(self, number: int) -> bytes:
        about = {"driver": self._own, "count": number, "host": platform.node(), "process": os.getpid()}
        return json.dumps(about).encode()

    def _owner(self) -> str | None:
        with suppress(StudyError, ValueError, KeyError, TypeError):
            return str(json.loads(self._folder.read_bytes(self._name))["driver"])
        return None
