"""The standard streams while trainings run: what each training prints is written to its own file."""

import io
import logging
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import IO, Any, TextIO, cast


class _Bytes(io.RawIOBase):
    """The binary side of `Outputs`, which some programs write to."""

    def __init__(self, text: "Outputs") -> None:
        super().__init__()
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._text.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


class _Recorder(logging.Handler):
    """Adds the messages of loggers to what is recorded, wherever else they are written."""

    def __init__(self, written: list[str]) -> None:
        super().__init__()
        self._written = written

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._written.append(f"{record.getMessage()}\n")
        except Exception:  # a message that does not fit its arguments, as all handlers treat it
            self.handleError(record)


class Outputs(io.TextIOBase):
    """Stands for ``sys.stdout`` and ``sys.stderr`` while trainings run: what each prints goes into its own file.

    Handlers of loggers that refer to this stream therefore write for whichever training runs.

    Attributes:
        target: The file of the training that runs; None for the usual stream.
        heard: Called with what the training prints, and not with what its measurement does.
    """

    def __init__(self, usual: TextIO) -> None:
        super().__init__()
        self.target: TextIO | None = None
        self.heard: Callable[[str], None] | None = None
        self._usual = usual
        self._recorded: list[str] | None = None
        self._bytes = _Bytes(self)

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All files are UTF-8."""
        return "utf-8"

    @property
    def errors(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Characters that cannot be encoded."""
        return "backslashreplace"

    @property
    def buffer(self) -> IO[bytes]:
        """The binary stream."""
        return cast("IO[bytes]", self._bytes)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str, /) -> int:
        """Write for the training that runs, at once: a process that is forked would write a buffer again."""
        if self._recorded is not None:
            self._recorded.append(text)
        elif self.heard:
            self.heard(text)
        current = self.target or self._usual
        count = current.write(text)
        if self.target:
            current.flush()
        return count

    def flush(self) -> None:
        """Nothing is buffered here."""
        (self.target or self._usual).flush()

    def close(self) -> None:
        """It stays open for the next training."""

    def reconfigure(self, **_: object) -> None:
        """Accept the settings of a text stream; none of them is needed."""

    def fileno(self) -> int:
        """The file descriptor of the current file, for processes that write to it."""
        return (self.target or self._usual).fileno()

    def isatty(self) -> bool:
        """A file is no terminal."""
        return False

    @contextmanager
    def recorded(self) -> Generator[Callable[[], str]]:
        """Record what is written or logged in the block, as a function that returns all of it so far."""
        before, self._recorded = self._recorded, list[str]()
        written = self._recorded
        recorder = _Recorder(written)
        logging.root.addHandler(recorder)
        try:
            yield lambda: "".join(written)
        finally:
            logging.root.removeHandler(recorder)
            self._recorded = before

    @contextmanager
    def installed(self) -> Generator[None]:
        """It takes the place of both streams in the block; standard input is empty there, so that nothing waits."""
        streams = sys.stdout, sys.stderr, sys.stdin
        with open(os.devnull, encoding="utf-8") as nothing:  # noqa: PTH123 - no path of a file
            sys.stdout = sys.stderr = cast("TextIO", self)
            sys.stdin = nothing
            try:
                yield
            finally:
                sys.stdout, sys.stderr, sys.stdin = streams
