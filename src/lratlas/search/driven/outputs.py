"""Where what a training prints, logs or displays goes."""

import io
import logging
import os
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import import_module
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

    Handlers of loggers that refer to this stream therefore write for whichever training runs. What is written while
    none does, such as by progress bars that are deleted, is dropped.
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
        elif self._heard:
            self._heard(text)
        if self._target is not None:
            with suppress(OSError):  # a full disk does not end a training
                self._target.write(text)
                self._target.flush()
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        """It stays open for the next training."""

    def reconfigure(self, **_: object) -> None:
        """Accept the settings of a text stream; none of them is needed."""

    def fileno(self) -> int:
        """The file descriptor of the current file, for processes that write to it."""
        return super().fileno() if self._target is None else self._target.fileno()

    def isatty(self) -> bool:
        """A file is no terminal."""
        return False

    @contextmanager
    def record(self) -> Generator[Callable[[], str]]:
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
    def into(self, file: TextIO, heard: Callable[[str], None] | None = None) -> Generator[None]:
        """In the block, what is printed, logged to the usual streams, or displayed in a notebook goes into a file.

        Standard input is empty there, so that nothing waits. What a notebook would display is dropped.
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
    """In the block, what other processes and libraries in C write to standard output goes into a file."""
    try:
        own, usual = file.fileno(), os.dup(1)
    except OSError:  # there is none
        yield
        return
    os.dup2(own, 1)
    try:
        yield
    finally:
        os.dup2(usual, 1)
        os.close(usual)


def _handlers() -> list[logging.StreamHandler[Any]]:
    """Those of all loggers that write to a stream."""
    loggers = (logging.root, *logging.root.manager.loggerDict.values())
    every = (each for logger in loggers if isinstance(logger, logging.Logger) for each in logger.handlers)
    return [each for each in every if isinstance(each, logging.StreamHandler)]


def _suppress_display() -> AbstractContextManager[Any]:
    """In its block, IPython displays nothing."""
    if "IPython" not in sys.modules:
        return nullcontext()
    capture: Any = import_module("IPython.utils.capture")
    return capture.capture_output(stdout=False, stderr=False)
