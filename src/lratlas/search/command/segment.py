"""One segment trained by a command: the program is run, what it told is judged, and what went wrong is named."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from signal import Signals
from types import MappingProxyType

from lratlas.numbers import is_finite
from lratlas.search.command.output import OutputParser, Tail, shown, told_no
from lratlas.search.command.process import Ended, Limits, Stop, run_program
from lratlas.search.command.segment_folder import SegmentFolder, prepared
from lratlas.search.command.template import Template, values_of
from lratlas.search.segments import Segment
from lratlas.training.memory import says_out_of_memory

LAST_LINES = 3  # of standard error, in a failure
LAST_BYTES = 1 << 13
LONGEST_REASON = 400
_KILLED = (-9, 137)  # exit codes after a SIGKILL, of a program and of a shell around it
_MARKS = re.compile(r"[\s^~|+-]*")  # underlines of a traceback


@dataclass(frozen=True, kw_only=True)
class TrainedSegment:
    """What a command made of a segment.

    Attributes:
        value: The metric; None if it was not told.
        averaged: The metric of the averaged weights; None if it was not told.
        losses: The training losses in order, the last one NaN if it diverged.
        names: Names of numbers that were told, the first few.
        unread: The last lines without a number, see `OutputParser`.
        failure: What went wrong, in words; None if all went well. It begins with "the command" if that is what
            must be mended, and says "not finite" if the training diverged.
        out_of_memory: Whether it failed since memory did not suffice, which says nothing of the LR.
    """

    value: float | None = None
    averaged: float | None = None
    losses: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    failure: str | None = None
    out_of_memory: bool = False


def train_segment(
    piece: Segment,
    *,
    template: Template,
    root: Path,
    metric: str,
    pattern: re.Pattern[str] | None = None,
    is_continued: bool,
    limits: Limits,
    stop: Stop,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> TrainedSegment:
    """Run the command for a segment, in the current folder, and judge what it did.

    Args:
        piece: The segment.
        template: The command.
        root: The folder of the search; the segment's files go into ``segments/NAME``.
        metric: The name under which the value is told.
        pattern: Finds the value in lines that are no records.
        is_continued: Whether other segments may go on from its final state, which must be saved then.
        limits: How long it may take.
        stop: Tells when to end it.
        environment: What its environment has besides.

    Raises:
        Stopped: Its end was asked for.
        OSError: The files of the segment cannot be written.
    """
    try:
        folder = prepared(root, piece.name, piece.parent)
    except FileNotFoundError:
        return TrainedSegment(failure=f"the state that {piece.parent} left is missing")
    before = folder.fingerprint()
    told = OutputParser(metric, pattern)
    tails = (Tail(folder.stdout), Tail(folder.output))

    def look() -> str | None:
        for tail in tails:
            for line in tail.lines():
                told.take(line)
        return told.diverged

    values = values_of(piece, folder.checkpoint)
    try:
        ended = run_program(
            template.filled(values),
            environment=_environment(values, folder, environment),
            stdout=folder.stdout,
            stderr=folder.stderr,
            watched=(folder.output,),
            look=look,
            limits=limits,
            stop=stop,
        )
    except OSError as error:
        return TrainedSegment(failure=f"the command could not be started: {error}")
    for tail in tails:
        for line in tail.lines(to_the_end=True):
            told.take(line)
    saved = not is_continued or folder.fingerprint() != before
    return _judged(told, ended, folder, saved=saved)


def _environment(values: Mapping[str, str], folder: SegmentFolder, more: Mapping[str, str]) -> dict[str, str]:
    """The environment of the command: this one's, and all that the placeholders say."""
    said = {f"LRATLAS_{name.upper()}": value for name, value in values.items()}
    # What a Python program printed before it was ended must not be lost in a buffer.
    return {"PYTHONUNBUFFERED": "1", **os.environ, **more, **said, "LRATLAS_OUTPUT": str(folder.output)}


def _judged(told: OutputParser, ended: Ended, folder: SegmentFolder, *, saved: bool) -> TrainedSegment:
    """What a segment came to; a divergence explains everything that follows from it."""
    diverged = _divergence(told, ended)
    failure = diverged or _failure(told, ended, folder, saved=saved)
    return TrainedSegment(
        value=told.value,
        averaged=told.averaged,
        names=tuple(told.names),
        unread=tuple(told.unread),
        losses=(*told.losses(), nan) if diverged else told.losses(),
        failure=failure,
        out_of_memory=failure is not None and not diverged and _out_of_memory(ended, folder),
    )


def _divergence(told: OutputParser, ended: Ended) -> str | None:
    for name, value in (("value", told.value), ("value of the averaged weights", told.averaged)):
        if value is not None and not is_finite(value):
            return told.diverged or f"the {name} was not finite ({value})"
    if told.diverged or ended.code != 0 or told.value is None:
        return told.ended_badly()
    return None


def _failure(told: OutputParser, ended: Ended, folder: SegmentFolder, *, saved: bool) -> str | None:
    """What went wrong with the command itself."""
    if ended.cut is not None:
        return f"the command was ended: {ended.cut}"
    if ended.code < 0:
        return f"the command was ended by {_signal_name(-ended.code)}{_last_words(folder)}"
    if ended.code > 0:
        return f"the command exited with code {ended.code}{_last_words(folder)}"
    if told.value is None and told.averaged is None and not told.losses():
        return told_no(told.metric, told.names, told.unread)
    if not saved:
        return "the command saved no checkpoint; it must write its state to {checkpoint} at the end"
    return None


def _out_of_memory(ended: Ended, folder: SegmentFolder) -> bool:
    """Whether the system ended a program for its memory, or the last that it printed says that memory was out."""
    said = any(says_out_of_memory(_last_text(path)) for path in (folder.stderr, folder.stdout))
    return ended.cut is None and (said or ended.code in _KILLED)


def _signal_name(number: int) -> str:
    try:
        name = Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name} (out of memory, perhaps)" if name == "SIGKILL" else name


def _last_words(folder: SegmentFolder) -> str:
    """The last lines that the command printed, those to standard error before others; empty if it printed none."""
    for path in (folder.stderr, folder.stdout):
        lines = [shown(line, longest=LONGEST_REASON) for line in _last_text(path).splitlines()]
        if last := [line for line in lines if not _MARKS.fullmatch(line)][-LAST_LINES:]:
            return f": {'; '.join(last)[-LONGEST_REASON:]}"
    return ""


def _last_text(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        return file.read().decode(errors="replace")
