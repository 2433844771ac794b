"""What a training prints, and the metric in it."""

import io
import logging
import os
import re
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import IO, Any, Literal, TextIO, cast

from lratlas.errors import SpecError
from lratlas.search.driven.validation import (
    AFTER,
    ESCAPES,
    HELD_OUT,
    differ,
    find_values,
    is_extreme,
    metric_pattern,
    numbers_of,
    parse_number,
    same_name,
)
from lratlas.text import number


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


_HIGHER = (
    r"acc|accurac(?:y|ies)|f1|f-score|auc|auroc|map|iou|dice|bleu|rouge|psnr|ssim|r2|precision|recall|score|rewards?"
    r"|top[-_@]?\d"
)
_LOWER = r"loss|err|error|ppl|perplexity|nll|mse|mae|rmse|wer|cer|fid|bpc|bpd|elbo"
_TO_CHOOSE_ON = r"val|valid|validation|dev|eval|evaluation"
_SEEN = r"train|training|trained|best|max|min|lr|time"
_EDGE = r"(?![A-Za-z])"
_METRIC = re.compile(rf"(?i)(?<![A-Za-z])(?P<name>(?:{_HIGHER}|{_LOWER}){_EDGE}\w*){AFTER}")
_SET = re.compile(rf"(?i)(?<![A-Za-z])(?P<held>(?:{HELD_OUT}){_EDGE})|(?<![A-Za-z])(?:{_SEEN}){_EDGE}")
_LINE = re.compile(r"(\r\n|[\r\n])")
_LONGEST = 2_000  # characters of a line; a longer one is no report


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A metric that the training prints, or returns at its end.

    Attributes:
        name: Its name, or the pattern that finds it.
        pattern: Finds it in a line; None for a name of `Heard`.
        by_name: Whether the pattern was made from the name: then values of the training set and extremes do not count.
        every: The steps after which it is printed again; None where the training gets its length, and the last
            value counts.
        late: After how many steps more it is printed.
    """

    name: str
    pattern: re.Pattern[str] | None = None
    by_name: bool = False
    every: int | None = None
    late: int = 0


@dataclass(kw_only=True)
class Heard:
    """The metrics in what a training has printed.

    Attributes:
        sought: The metric that is looked for; None for any of a validation set.
        values: By name, the steps after which it was printed, with its last value there.
        several: By name, the steps after which lines with different values of it were printed, with the values.
        unclear: The different values on one line of the metric that is looked for, the first such line; else empty.
        of_return: Names of numbers in what was returned.
    """

    sought: Printed | None = None
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    several: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    unclear: list[float] = field(default_factory=list)
    of_return: set[str] = field(default_factory=set)
    _open: str = ""
    _lines: dict[str, tuple[int, list[float]]] = field(default_factory=dict)  # by name, the last step and its values

    def hear(self, text: str, step: int) -> None:
        """What was printed, after this number of optimizer steps."""
        *lines, self._open = _LINE.split(self._open + text)
        self._open = self._open[: _LONGEST + 1]
        for line, end in zip(lines[::2], lines[1::2], strict=True):
            self._read_line(line, step, stays=end != "\r")

    def last(self, *, after: int) -> float | None:
        """The last value of the metric that is looked for, if it was printed after more steps than these."""
        found = self.values.get(self.sought.name, {}) if self.sought else {}
        step = max(found, default=0)
        return found[step] if step > after else None

    def record_return(self, value: object, step: int) -> None:
        """What the training returned at its end: a number, or a dictionary with the metric; a last line has ended."""
        self.hear("\n", step)
        found = value if isinstance(value, Mapping) else {RETURNED: value}
        for name, each in found.items():
            if (metric := number(each)) is not None:
                self.of_return.add(str(name))
                self.add(str(name), metric, step)

    def add(self, name: str, value: float, step: int) -> None:
        """A value of a metric, if it is one that is looked for."""
        if self.sought is None or same_name(name, self.sought.name):
            self.values.setdefault(self.sought.name if self.sought else name, {})[step] = value

    def _read_line(self, line: str, step: int, *, stays: bool) -> None:
        """Read a line; one that does not stay is overwritten by the next one, as progress bars are."""
        if len(line) > _LONGEST:
            return
        line = ESCAPES.sub("", line)
        sought = self.sought
        found = (
            self._find_in_line(line, sought.name, sought.pattern) if sought and sought.pattern else _metrics_in(line)
        )
        for name, values in found.items():
            self.add(name, values[-1], step)
            if stays:
                self._compare(name, values, step)

    def _compare(self, name: str, values: list[float], step: int) -> None:
        """Note where lines after one step have different values of a name."""
        before = self._lines.get(name, (step, []))
        every = [*(before[1] if before[0] == step else []), *values]
        self._lines[name] = step, every
        if differ(every):
            self.several.setdefault(name, {})[step] = every

    def _find_in_line(self, line: str, name: str, pattern: re.Pattern[str]) -> dict[str, list[float]]:
        assert self.sought is not None
        if not self.sought.by_name:
            values = numbers_of(pattern.finditer(line))
        elif differ(values := find_values(name, pattern, line)):
            self.unclear = self.unclear or values
        return {name: values} if values else {}


def _metrics_in(line: str) -> dict[str, list[float]]:
    """By name, the values of validation sets in a line; the one that counts is the last in the list."""
    values = dict[str, list[float]]()
    for found in _METRIC.finditer(line):
        # The last set that is named before the number: "val" in "train loss 0.1, val loss 0.2".
        sets = [*_SET.finditer(line, 0, found.start(2))]
        if sets and sets[-1]["held"] and not is_extreme(found, sets[-1].start()):
            name, value = f"{sets[-1]['held']} {found['name']}".lower(), parse_number(found)
            if value is not None:  # of several the first one in the line counts
                values.setdefault(name, []).insert(0, value)
    return values


RETURNED = "the number that it returns"


def most_telling(heard: Heard) -> str | None:
    """Of the metrics that a training prints or returns, the one to choose by; None if there is none.

    Of a validation set rather than a test set; rather one that is better when higher, such as an accuracy, than a loss.
    """

    def rank(name: str) -> tuple[bool, bool, int]:
        return _has(_TO_CHOOSE_ON, name), better(name) == "maximize", len(heard.values[name])

    held = [
        name for name in heard.values if _has(HELD_OUT, name) or (name in heard.of_return and not _has(_SEEN, name))
    ]
    return max(held, key=rank, default=None)


def better(name: str) -> Literal["minimize", "maximize"] | None:
    """Which way a metric is better, by its name; None where this does not tell."""
    higher, lower = _has(_HIGHER, name), _has(_LOWER, name)
    return None if higher == lower else "maximize" if higher else "minimize"


def known_direction(name: str, given: Literal["minimize", "maximize"] | None) -> Literal["minimize", "maximize"]:
    """Which way a metric is better: as given, or by its name.

    Raises:
        SpecError: It is not given, and the name does not tell.
    """
    direction = given or better(name)
    if direction is None:
        raise SpecError(f"Is a lower or a higher {name} better? Give direction: minimize or maximize.")
    return direction


def _has(words: str, name: str) -> bool:
    return bool(re.search(rf"(?i)(?<![A-Za-z])(?:{words}){_EDGE}", name))


def make_printed(metric: str | None, pattern: re.Pattern[str] | None) -> Printed | None:
    """The metric that a training prints, by its name or by a pattern; None where neither is given."""
    if pattern is not None:
        return Printed(name=metric or pattern.pattern, pattern=pattern)
    return None if metric is None else Printed(name=metric, pattern=metric_pattern(metric), by_name=True)
