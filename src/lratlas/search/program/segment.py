"""One segment of a command: its folder, its record and its run."""

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import nan
from pathlib import Path
from signal import Signals
from types import MappingProxyType
from typing import Literal, get_args
from uuid import uuid4

from lratlas.errors import SearchError
from lratlas.files import TEMPORARY, seal_json, write_file
from lratlas.search.journal import UNREADABLE, read_object
from lratlas.search.program.output import OutputParser, Tail, describe_missing_metric, shorten
from lratlas.search.program.process import Ended, Limits, Stop, run_program
from lratlas.search.program.template import Template, values_of
from lratlas.search.segments import Segment
from lratlas.text import is_finite
from lratlas.training.memory import says_out_of_memory


@dataclass(frozen=True, kw_only=True)
class SegmentFolder:
    """Folder of the files of a segment.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def stdout(self) -> Path:
        """Standard output of the command."""
        return self.path / "stdout.txt"

    @property
    def stderr(self) -> Path:
        """Standard error of the command."""
        return self.path / "stderr.txt"

    @property
    def output(self) -> Path:
        """File for records that the command does not print."""
        return self.path / "output.jsonl"

    @property
    def state(self) -> Path:
        """Folder of the state: the checkpoint and all files with the same prefix."""
        return self.path / "state"

    @property
    def checkpoint(self) -> Path:
        """Path that the command receives; it may become a file or a folder, or get a suffix."""
        return self.state / "checkpoint"

    @property
    def has_state(self) -> bool:
        """Whether a state was saved and not deleted."""
        return self.state.is_dir() and any(self.state.iterdir())

    def fingerprint(self) -> dict[str, tuple[int, int, int]]:
        """Files of the state with inode, size and time of change: changes with every save."""
        return {str(path): _stamp(path) for path in self.state.rglob("*")}

    def drop_state(self) -> None:
        """Delete the state, if there is one."""
        shutil.rmtree(self.state, ignore_errors=True)


LAST_LINES = 3  # of standard error in a failure
LAST_BYTES = 1 << 13
LONGEST_REASON = 400
_KILLED = (-9, 137)  # exit codes after a SIGKILL, of a program and of a shell around it
_MARKS = re.compile(r"[\s^~|+-]*")  # underlines of a traceback


@dataclass(frozen=True, kw_only=True)
class TrainedSegment:
    """Result of a command's segment.

    Attributes:
        value: The metric; None if it was not reported.
        averaged: Metric of the averaged weights; None if it was not reported.
        losses: Training losses in order; the last one is NaN if the training diverged.
        names: First few names of reported numbers.
        unread: Last lines without a number, see `OutputParser`.
        failure: Description of the failure; None on success. It begins with "the command" if the command must be fixed,
            and contains "not finite" if the training diverged.
        out_of_memory: Whether it ran out of memory, which says nothing about the LR.
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
    """Run the command for a segment in the current folder, and judge its output.

    Args:
        piece: The segment.
        template: The command.
        root: The search folder; the segment's files go into ``segments/NAME``.
        metric: Name under which the value is reported.
        pattern: Finds the value in lines that are not records.
        is_continued: Whether other segments may continue from its final state, which it must then save.
        limits: Time limits.
        stop: Request to end.
        environment: Additional environment variables.

    Raises:
        Stopped: The program was asked to end.
        OSError: The files of the segment cannot be written.
    """
    try:
        folder = prepare_folder(root, piece.name, piece.parent)
    except FileNotFoundError:
        return TrainedSegment(failure=f"the saved state of {piece.parent} is missing")
    before = folder.fingerprint()
    told = OutputParser(metric, pattern)
    tails, errors = (Tail(folder.stdout), Tail(folder.output)), Tail(folder.stderr)

    def look() -> str | None:
        for tail in tails:
            for line in tail.lines():
                told.take(line)
        for _ in errors.lines():
            pass
        for tail in (tails[0], errors):  # not a file that the program opened, because it may write at an offset
            tail.shorten()
        return told.diverged

    values = values_of(piece, folder.checkpoint)
    try:
        ended = run_program(
            template.fill(values),
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
    for tail in (*tails, errors):
        tail.shorten()
    saved = not is_continued or folder.fingerprint() != before
    return _judge_segment(told, ended, folder, saved=saved)


def _environment(values: Mapping[str, str], folder: SegmentFolder, more: Mapping[str, str]) -> dict[str, str]:
    """Environment of the command: that of this process, and all placeholders."""
    said = {f"LRATLAS_{name.upper()}": value for name, value in values.items()}
    # Output of a Python program must not be lost in a buffer when it is ended.
    return {"PYTHONUNBUFFERED": "1", **os.environ, **more, **said, "LRATLAS_OUTPUT": str(folder.output)}


def _judge_segment(told: OutputParser, ended: Ended, folder: SegmentFolder, *, saved: bool) -> TrainedSegment:
    """Judge a segment; a divergence explains all other failures."""
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
        return told.why_diverged()
    return None


def _failure(told: OutputParser, ended: Ended, folder: SegmentFolder, *, saved: bool) -> str | None:
    """Failure of the command itself; None on success."""
    if ended.cut is not None:
        return f"the command was stopped: {ended.cut}"
    if ended.code < 0:
        return f"the command was stopped by {_signal_name(-ended.code)}{_last_words(folder)}"
    if ended.code > 0:
        return f"the command exited with code {ended.code}{_last_words(folder)}"
    if told.value is None and told.averaged is None and not told.losses():
        return describe_missing_metric(told.metric, told.names, told.unread)
    if not saved:
        return "the command saved no checkpoint; it must write its state to {checkpoint} at the end"
    return None


def _out_of_memory(ended: Ended, folder: SegmentFolder) -> bool:
    """Whether the system killed a program for its memory, or its last output reports that memory ran out."""
    said = any(says_out_of_memory(_last_text(path)) for path in (folder.stderr, folder.stdout))
    return ended.cut is None and (said or ended.code in _KILLED)


def _signal_name(number: int) -> str:
    try:
        name = Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name} (out of memory, perhaps)" if name == "SIGKILL" else name


def _last_words(folder: SegmentFolder) -> str:
    """Last lines of the command's output, standard error first; empty if it printed nothing."""
    for path in (folder.stderr, folder.stdout):
        lines = [shorten(line, longest=LONGEST_REASON) for line in _last_text(path).splitlines()]
        if last := [line for line in lines if not _MARKS.fullmatch(line)][-LAST_LINES:]:
            return f": {'; '.join(last)[-LONGEST_REASON:]}"
    return ""


def _last_text(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        return file.read().decode(errors="replace")


def segment_folder(root: Path, name: str) -> SegmentFolder:
    """Folder of the files of a segment.

    Args:
        root: The search folder.
        name: The segment's name.
    """
    return SegmentFolder(path=root / "segments" / name)


def prepare_folder(root: Path, name: str, parent: str | None) -> SegmentFolder:
    """Make a new folder for a segment, with a copy of its parent's state.

    Files of an interrupted attempt are moved away before they are deleted, so that a program that is still running
    cannot write into the new folder.

    Args:
        root: The search folder.
        name: The segment's name.
        parent: Name of the parent; None if the segment starts from fresh weights.

    Raises:
        FileNotFoundError: The parent's state is missing.
        OSError: The files cannot be written.
    """
    folder = segment_folder(root, name)
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        folder.path.rename(folder.path.parent / f"{TEMPORARY}{uuid4().hex}")
    for old in folder.path.parent.glob(f"{TEMPORARY}*"):
        shutil.rmtree(old, ignore_errors=True)
    if parent is None:
        folder.state.mkdir(parents=True)
        return folder
    source = segment_folder(root, parent)
    if not source.has_state:
        raise FileNotFoundError(source.state)
    folder.path.mkdir()
    shutil.copytree(source.state, folder.state, symlinks=True)
    return folder


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns


Judge = Literal["value", "loss"]
FILE = "command.json"
_MEND = "Delete it and rerun with the previous --metric."


def judge_of(root: Path, *, metric: str | None, pattern: str | None = None) -> Judge | None:
    """The stored metric by which the segments of a search are compared.

    Args:
        root: The search folder.
        metric: Name of the value from the user; None if none was given.
        pattern: Pattern of the value from the user; None if none was given.

    Returns:
        The kind of metric; None before the first judged segment.

    Raises:
        SearchError: The search was started with another name, or the record is damaged.
    """
    path = root / FILE
    if not path.exists():
        return None
    try:
        record = read_object(path.read_bytes())
        judge, named, sought = record["judge"], record["metric"], record.get("pattern")
    except UNREADABLE as error:
        raise SearchError(f"{path} is damaged. {_MEND}") from error
    if judge not in get_args(Judge):
        allowed = " or ".join(get_args(Judge))
        raise SearchError(f"{path} is damaged: its metric is {judge!r}, but must be {allowed}. {_MEND}")
    if named != metric:
        raise SearchError(
            f"The metric is {_name(metric)}, but the search in {root} began with {_name(named)};"
            f" {'leave --metric out' if named is None else f'use --metric {named}'}, or use another folder."
        )
    if sought != pattern:
        raise SearchError(
            f"--metric-pattern is {pattern!r}, but the search in {root} began with {sought!r}; use that pattern,"
            " or another folder."
        )
    return judge


def record_judge(root: Path, judge: Judge, *, metric: str | None, pattern: str | None = None) -> None:
    """Store the metric by which the segments are compared, for later runs of the search.

    Raises:
        OSError: The record cannot be written.
    """
    write_file(root / FILE, seal_json({"judge": judge, "metric": metric, "pattern": pattern}).encode())


def _name(metric: str | None) -> str:
    return "unnamed (value)" if metric is None else repr(metric)
