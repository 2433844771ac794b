"""How many programs run at once."""

import threading
from collections.abc import Generator
from contextlib import contextmanager


class Turns:
    """Lets threads run programs side by side, or one alone.

    Attributes:
        most: Programs at once; may be lowered.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._running = 0
        self._alone = False  # whether one runs alone, or waits for that
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, *, alone: bool) -> Generator[None]:
        """Wait until a program may run, and hold its place meanwhile.

        Args:
            alone: Whether no other program may run at the same time.
        """
        with self._changed:
            if alone:
                self._changed.wait_for(lambda: not self._alone)
                self._alone = True
            self._changed.wait_for(lambda: self._has_room(alone=alone))
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._alone = self._alone and not alone
                self._changed.notify_all()

    def _has_room(self, *, alone: bool) -> bool:
        return not self._running if alone else not self._alone and self._running < self.most
