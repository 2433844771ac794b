"""What a program prints: its metric, its losses, and why it failed."""

import json
import os
import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import cast

from lratlas.errors import SearchError
from lratlas.search.driven.printed import ESCAPES
from lratlas.search.segments import SegmentResult
from lratlas.text import is_finite, number

CHUNK = 1 << 16  # bytes read at a time
LONGEST_FILE = 1 << 25  # bytes that a program's output may have before the middle of it is left out
KEPT_END = 1 << 22  # bytes of its beginning, and of its end, that stay
_MOST_UNREAD = 1 << 25  # bytes that are read after they were written; of more, only the end
_LEFT_OUT = b"\n[lratlas: the middle of this output was left out]\n"
LONGEST_LINE = 1 << 20  # a longer one is no record
KEPT_LOSSES = 4096
KEPT_NAMES = 16
KEPT_LINES = 2  # the last ones that are no records
SHOWN = 100  # characters of a line in a message
NOT_FINITE_IN_A_ROW = 2  # one alone may be a step that a gradient scaler skips
PRINTED = "; it printed "
"""Where the part of a failure begins that quotes what the command printed."""
_LINE_END = re.compile(rb"\n|(?=\r)")  # a progress bar returns to the start of its line and writes on


class Tail:
    """The lines of a file that another process appends to; at most one line is held.

    A carriage return begins a new line too, and stays at its start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._open = b""
        self._too_long = False

    def lines(self, *, to_the_end: bool = False) -> Iterator[bytes]:
        """The lines that were completed since the last call; with ``to_the_end`` also a last one without an end.

        Of an output that grows faster than it can be read, only the end is.
        """
        if self._path.exists():
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if size - self._offset > _MOST_UNREAD:  # more than can be read as fast as it is written
                    self._offset, self._open, self._too_long = size - KEPT_END, b"", True
                file.seek(self._offset)
                while chunk := file.read(min(CHUNK, size - self._offset)):
                    self._offset += len(chunk)
                    yield from self._split(chunk)
        if to_the_end and self._open and not self._too_long:
            yield self._open
            self._open = b""

    def shorten(self) -> None:
        """Leave out the middle of a file that has become too long; what was not read yet stays.

        What is written in this very moment may be lost.
        """
        if self._offset <= LONGEST_FILE:
            return
        with self._path.open("r+b") as file:
            file.seek(self._offset - KEPT_END)
            end = file.read()
            file.seek(KEPT_END)
            file.write(_LEFT_OUT + end)
            file.truncate()
        self._offset = KEPT_END + len(_LEFT_OUT) + KEPT_END

    def _split(self, chunk: bytes) -> Iterator[bytes]:
        *ended, rest = _LINE_END.split(chunk)
        for part in ended:
            if not self._too_long:
                yield self._open + part
            self._open, self._too_long = b"", False
        self._open += rest
        if len(self._open) > LONGEST_LINE:
            self._open, self._too_long = b"", True


class OutputParser:
    """What the records of one segment say.

    Attributes:
        value: The last value of the metric; None if none was told.
        averaged: The same of the averaged weights.
        diverged: Which loss was not finite, twice in a row; None while all is well.
        step: The last step that was told; None if none was.
        names: Names of numbers that were told, the first few.
        metric: The name under which the value is told.
        unread: The last lines in which there was no number, shortened and without control characters.

    Args:
        metric: See above.
        pattern: Finds the value, as its first group, in lines that are no records.
    """

    def __init__(self, metric: str, pattern: re.Pattern[str] | None = None) -> None:
        self.value: float | None = None
        self.averaged: float | None = None
        self.diverged: str | None = None
        self.step: int | None = None
        self.names: dict[str, None] = {}
        self.metric = metric
        self.unread = deque[str](maxlen=KEPT_LINES)
        self._averaged, self._pattern = "averaged" if metric == "value" else f"averaged_{metric}", pattern
        self._count = 0
        self._bad: list[str] = []
        self._losses = _Means()

    def take(self, line: bytes) -> None:
        """Take in a line; anything but a JSON object, also behind a progress bar, is only remembered."""
        record = _record(line)
        if self._pattern is not None and not record:
            found = self._pattern.findall(ESCAPES.sub("", line.decode(errors="replace")))
            record = {self.metric: found[-1]} if found else {}
        told = {name: found for name, entry in record.items() if (found := number(entry)) is not None}
        for name, found in told.items():
            self._take_number(name, found)
        if "loss" in told:
            self._take_loss(told["loss"])
        lacks_metric = self.metric in record and self.metric not in told
        if (lacks_metric or not told) and (said := shorten(line)):
            self.unread.append(said)

    def losses(self) -> tuple[float, ...]:
        """The finite losses in order, means over equally many of them."""
        return self._losses.all()

    def why_diverged(self) -> str | None:
        """Why the training diverged, judged when it has ended: then a single loss is enough, if it was the last."""
        return self.diverged or (self._bad[0] if self._bad else None)

    def _take_number(self, name: str, found: float) -> None:
        if len(self.names) < KEPT_NAMES:
            self.names[name] = None
        if name == "step" and is_finite(found):
            self.step = int(found)
        if name == self.metric:
            self.value = found
        if name == self._averaged:
            self.averaged = found

    def _take_loss(self, loss: float) -> None:
        self._count += 1
        if is_finite(loss):
            self._bad = []
            self._losses.add(loss)
            return
        where = f"at step {self.step}" if self.step is not None else f"in record {self._count}"
        self._bad.append(f"the loss was not finite ({loss}) {where}")
        if len(self._bad) >= NOT_FINITE_IN_A_ROW and self.diverged is None:
            self.diverged = self._bad[0]
        self._bad = self._bad[:NOT_FINITE_IN_A_ROW]


def describe_missing_metric(metric: str, names: Collection[str], unread: Sequence[str] = ()) -> str:
    """The failure of a command that does not tell its metric.

    Args:
        metric: The name that was looked for.
        names: Those that were told.
        unread: Lines that could not be used.
    """
    found = "it printed no JSON records with numbers (--metric-pattern reads other lines)"
    if names:
        found = f"its records have {', '.join(names)} (--metric names one)"
    quoted = " and ".join(f"`{line}`" for line in unread)
    return f"the command told no {metric!r}; {found}{PRINTED + quoted if quoted else ''}"


def shorten(text: bytes | str, *, longest: int = SHOWN) -> str:
    """What a program printed, fit for a message: on one line, without control characters, and shortened."""
    if isinstance(text, bytes):
        text = text[-CHUNK:].decode(errors="replace")
    text = " ".join(ESCAPES.sub("", text).split())
    text = "".join(sign for sign in text if sign.isprintable())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class _Means:
    """Numbers in order; when they become too many, each two neighbours become their mean."""

    def __init__(self) -> None:
        self._means: list[float] = []
        self._stride = 1
        self._open: list[float] = []

    def add(self, number: float) -> None:
        self._open.append(number)
        if len(self._open) < self._stride:
            return
        self._means.append(_mean(self._open))
        self._open = []
        if len(self._means) >= KEPT_LOSSES:
            self._means = [_mean(pair) for pair in zip(self._means[::2], self._means[1::2], strict=True)]
            self._stride *= 2

    def all(self) -> tuple[float, ...]:
        return (*self._means, *([_mean(self._open)] if self._open else []))


def _mean(numbers: "list[float] | tuple[float, ...]") -> float:
    return sum(numbers) / len(numbers)


def _record(line: bytes) -> dict[str, object]:
    """The JSON object in a line, or behind a progress bar; empty where there is none. NaN and Infinity may occur."""
    text = ESCAPES.sub("", line.decode(errors="replace")).strip(" \t\n\v\f")
    if text.startswith("\r"):
        text = text[max(0, text.find("{")) :]
    if not text.startswith("{"):
        return {}
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}


ALIKE = 3
OF_COMMAND = "the command "
"""How the reasons begin that speak of the command; others, such as a loss that was NaN, speak of the LR."""
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def stop_if_hopeless(results: Sequence[SegmentResult]) -> None:
    """Stop a search in which the command failed in every segment, the last three times in the same way.

    Numbers and quotations of what the command printed may differ.

    Args:
        results: All that is known of the search.

    Raises:
        SearchError: It cannot succeed; the message has the reason.
    """
    failures = [result.failure for result in results if (result.failure or "").startswith(OF_COMMAND)]
    if len(failures) < ALIKE or len(failures) < len(results):
        return
    if len({_NUMBER.sub("0", str(failure).partition(PRINTED)[0]) for failure in failures[-ALIKE:]}) == 1:
        raise SearchError(
            f"All of the first {len(failures)} segments failed, the last one because {str(failures[-1]).rstrip('.')}."
            " Correct the command and start again with --retry-failed, which trains them again."
        )
