"""A page that is made again when what it shows has changed."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_REST = 4.0  # a page is kept for so many times as long as it took to make


@dataclass(frozen=True)
class _Made:
    """A page, the version of what it shows, and until when it is not made again."""

    text: str
    version: str
    until: float


class LivePage:
    """A page of the newest version, made by one thread at a time and once for each version.

    Making a page may take seconds of a processor that the study needs too. So a page counts as the newest one for
    four times as long as it took to make.
    """

    def __init__(self, *, render: Callable[[], str], version: Callable[[], str]) -> None:
        """Make nothing yet.

        Args:
            render: Makes the page.
            version: A short text that changes with what the page shows; asked for often.
        """
        self._render, self._version = render, version
        self._made: _Made | None = None
        self._lock = threading.Lock()

    def version(self) -> str:
        """The version of the page as ``text`` would give it now; never waits for one that is being made."""
        made = self._made
        return made.version if made and time.monotonic() < made.until else self._version()

    def text(self) -> str:
        """The page; waits for one that is being made."""
        with self._lock:
            wanted = self.version()  # asked before the page is made: what comes meanwhile is another version
            if self._made is None or wanted != self._made.version:
                began = time.monotonic()
                text = self._render()
                now = time.monotonic()
                self._made = _Made(text, wanted, now + _REST * (now - began))
            return self._made.text
