"""Parse the output of a program: its metric, its losses, and the reason of a failure."""

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
LONGEST_FILE = 1 << 25  # bytes of output that a program may have before its middle is dropped
KEPT_END = 1 << 22  # bytes at the beginning, and at the end, that stay
_MOST_UNREAD = 1 << 25  # bytes that are read after they were written; beyond that, only the end is read
_LEFT_OUT = b"\n[lratlas: the middle of this output was left out]\n"
LONGEST_LINE = 1 << 20  # a longer line is not a record
KEPT_LOSSES = 4096
KEPT_NAMES = 16
KEPT_LINES = 2  # last lines that are not records
SHOWN = 100  # characters of a line in a message
NOT_FINITE_IN_A_ROW = 2  # a single one may be a step that a gradient scaler skips
PRINTED = "; it printed "
"""Start of the part of a failure that quotes the command's output."""
_LINE_END = re.compile(rb"\n|(?=\r)")  # a progress bar returns to the start of its line and overwrites it


class Tail:
    """Lines of a file that another process appends to; at most one line is in memory.

    A carriage return also begins a new line, and stays at its start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._open = b""
        self._too_long = False

    def lines(self, *, to_the_end: bool = False) -> Iterator[bytes]:
        """Lines completed since the last call; with ``to_the_end`` also an incomplete last line.

        If output grows faster than it can be read, only its end is returned.
        """
        if self._path.exists():
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if size - self._offset > _MOST_UNREAD:  # it grows faster than it can be read
                    self._offset, self._open, self._too_long = size - KEPT_END, b"", True
                file.seek(self._offset)
                while chunk := file.read(min(CHUNK, size - self._offset)):
                    self._offset += len(chunk)
                    yield from self._split(chunk)
        if to_the_end and self._open and not self._too_long:
            yield self._open
            self._open = b""

    def shorten(self) -> None:
        """Drop the middle of a file that has become too long, but no unread lines.

        Output written during the call may be lost.
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
    """Metrics and losses from the records of one segment.

    Attributes:
        value: Last value of the metric; None if none was reported.
        averaged: Last value of the metric of the averaged weights; None if none was reported.
        diverged: Description of the loss that was not finite twice in a row; None if there is none.
        step: Last reported step; None if none was reported.
        names: First few names of reported numbers.
        metric: Name under which the value is reported.
        unread: Last lines without a number, shortened and without control characters.

    Args:
        metric: See the attribute.
        pattern: Finds the value, as its first group, in lines that are not records.
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
        """Parse a line: a JSON object, also after a progress bar; other lines are only stored."""
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
        """Finite losses in order, as means over equal numbers of them."""
        return self._losses.all()

    def why_diverged(self) -> str | None:
        """Why an ended training diverged: one loss that is not finite is enough if it was the last."""
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
    """Failure of a command that does not report its metric.

    Args:
        metric: The expected name.
        names: The reported names.
        unread: Lines that could not be used.
    """
    found = "it printed no JSON records with numbers (use --metric-pattern to read other lines)"
    if names:
        found = f"its records have {', '.join(names)} (select one with --metric)"
    quoted = " and ".join(f"`{line}`" for line in unread)
    return f"the command reported no {metric!r}; {found}{PRINTED + quoted if quoted else ''}"


def shorten(text: bytes | str, *, longest: int = SHOWN) -> str:
    """Shorten printed text for a message: one line, without control characters."""
    if isinstance(text, bytes):
        text = text[-CHUNK:].decode(errors="replace")
    text = " ".join(ESCAPES.sub("", text).split())
    text = "".join(sign for sign in text if sign.isprintable())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class _Means:
    """Numbers in order; once there are too many, neighbouring pairs are merged into their means."""

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
    """JSON object in a line, or after a progress bar; empty if there is none. NaN and Infinity are allowed."""
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
"""Start of failures that concern the command; others, such as a NaN loss, concern the LR."""
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def stop_if_hopeless(results: Sequence[SegmentResult]) -> None:
    """Stop a search in which every segment failed, the last three in the same way.

    Numbers and quotations of the command's output may differ.

    Args:
        results: All results so far.

    Raises:
        SearchError: The search cannot succeed; the message gives the reason.
    """
    failures = [result.failure for result in results if (result.failure or "").startswith(OF_COMMAND)]
    if len(failures) < ALIKE or len(failures) < len(results):
        return
    if len({_NUMBER.sub("0", str(failure).partition(PRINTED)[0]) for failure in failures[-ALIKE:]}) == 1:
        raise SearchError(
            f"All of the first {len(failures)} segments failed. The last error: {str(failures[-1]).rstrip('.')}."
            " Fix the command and rerun with --retry-failed, which retrains them."
        )
