"""Redirects the output of a training: printed, logged or displayed."""

import io
import logging
import os
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import import_module
from typing import IO, Any, TextIO, cast


class _Bytes(io.RawIOBase):
    """Binary side of `Outputs`, which some programs write to."""

    def __init__(self, text: "Outputs") -> None:
        super().__init__()
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._text.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


class _Recorder(logging.Handler):
    """Records the messages of loggers in addition to their other handlers."""

    def __init__(self, written: list[str]) -> None:
        super().__init__()
        self._written = written

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._written.append(f"{record.getMessage()}\n")
        except Exception:  # a message that does not fit its arguments; other handlers ignore it too
            self.handleError(record)


class Outputs(io.TextIOBase):
    """Replaces ``sys.stdout`` and ``sys.stderr`` while trainings run: each training's output goes into a separate file.

    Handlers of loggers that refer to this stream therefore write for the current training. Output while no training
    runs, such as from deleted progress bars, is dropped.
    """

    def __init__(self) -> None:
        super().__init__()
        self._target: TextIO | None = None
        self._heard: Callable[[str], None] | None = None
        self._recorded: list[str] | None = None
        self._bytes = _Bytes(self)

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All files are UTF-8."""
        return "utf-8"

    @property
    def errors(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Error handling of characters that cannot be encoded."""
        return "backslashreplace"

    @property
    def buffer(self) -> IO[bytes]:
        """The binary stream."""
        return cast("IO[bytes]", self._bytes)

    def writable(self) -> bool:
        """Always True."""
        return True

    def write(self, text: str, /) -> int:
        """Write for the current training, unbuffered: a forked process would write a buffer again."""
        if self._recorded is not None:
            self._recorded.append(text)
        elif self._heard:
            self._heard(text)
        if self._target is not None:
            with suppress(OSError):  # a full disk must not end a training
                self._target.write(text)
                self._target.flush()
        return len(text)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def close(self) -> None:
        """Do nothing: the stream stays open for the next training."""

    def reconfigure(self, **_: object) -> None:
        """Accept and ignore the settings of a text stream."""

    def fileno(self) -> int:
        """File descriptor of the current file, for processes that write to it."""
        return super().fileno() if self._target is None else self._target.fileno()

    def isatty(self) -> bool:
        """Always False: a file is not a terminal."""
        return False

    @contextmanager
    def record(self) -> Generator[Callable[[], str]]:
        """Record output and log messages in the block; yields a function that returns all text so far."""
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
    def into(self, file: TextIO, heard: Callable[[str], None] | None = None) -> Generator[None]:
        """Redirect printed text, logs to the standard streams, and notebook displays in the block into a file.

        Standard input is empty in the block, so that nothing waits for it. Notebook displays are dropped.
        """
        streams = sys.stdout, sys.stderr, sys.stdin
        with open(os.devnull, encoding="utf-8") as nothing, _suppress_display():  # noqa: PTH123 - no path of a file
            sys.stdout = sys.stderr = cast("TextIO", self)
            sys.stdin = nothing
            self._target, self._heard = file, heard
            moved = [(each, each.stream) for each in _handlers() if any(each.stream is one for one in streams)]
            for each, _ in moved:
                each.stream = self
            try:
                with _of_processes(file):
                    yield
            finally:
                self._target = self._heard = None
                sys.stdout, sys.stderr, sys.stdin = streams
                usual = {id(each): stream for each, stream in moved}
                for each in _handlers():
                    if each.stream is self:
                        each.stream = usual.get(id(each), sys.stderr)


@contextmanager
def _of_processes(file: TextIO) -> Generator[None]:
    """Redirect standard output of other processes and C libraries in the block into a file."""
    try:
        own, usual = file.fileno(), os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    os.dup2(own, 1)
    try:
        yield
    finally:
        os.dup2(usual, 1)
        os.close(usual)


def _handlers() -> list[logging.StreamHandler[Any]]:
    """Handlers of all loggers that write to a stream."""
    loggers = (logging.root, *logging.root.manager.loggerDict.values())
    every = (each for logger in loggers if isinstance(logger, logging.Logger) for each in logger.handlers)
    return [each for each in every if isinstance(each, logging.StreamHandler)]


def _suppress_display() -> AbstractContextManager[Any]:
    """Suppress IPython's displays in the block."""
    if "IPython" not in sys.modules:
        return nullcontext()
    capture: Any = import_module("IPython.utils.capture")
    return capture.capture_output(stdout=False, stderr=False)
