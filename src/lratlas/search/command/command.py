"""`find` for any program: each segment is trained by a shell command that reports its result in JSON lines."""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

from lratlas.errors import SearchError, SpecError
from lratlas.search.advice import Advice
from lratlas.search.command.failures import stop_if_hopeless
from lratlas.search.command.output import told_no
from lratlas.search.command.process import Limits, Stop, Stopped
from lratlas.search.command.record import Judge, judge_of, record_judge
from lratlas.search.command.segment import TrainedSegment, train_segment
from lratlas.search.command.segment_folder import segment_folder
from lratlas.search.command.template import Template, check_program, placeholders
from lratlas.search.driven.validation import compiled_pattern
from lratlas.search.finder import Finder
from lratlas.search.segments import Segment, SegmentResult, mean_of_last_fifth

SLACK = 60.0  # seconds that any segment may take
PATIENCE = 10  # times the expected time
WAIT = 0.05  # seconds between two looks at the workers
LAST_MOMENT = 1.0  # seconds for ending processes without grace
JUDGED_BY_LOSS = (
    "The command told no validation metric: choices were made on the training loss, which favours LRs that overfit;"
    ' print {"value": …} at the end of each segment.'
)


def find_by_command(
    command: str,
    finders: Sequence[Finder],
    *,
    metric: str | None = None,
    pattern: str | None = None,
    timeout: float | None = None,
    stall: float | None = None,
    started: Callable[[Segment], None] = lambda _: None,
    ended: Callable[[SegmentResult], None] = lambda _: None,
    notice: Callable[[str], None] = lambda _: None,
) -> Advice:
    """Search for an initial LR with a program that trains; resumes what the search's folder holds.

    The program runs in the current folder. Its output and its checkpoints are kept in ``segments/NAME`` of the search's
    folder; states that no segment needs any more are deleted. A segment that fails is named and the search continues.

    Args:
        command: The command with placeholders; see :func:`lratlas.search.command.template.placeholders`.
        finders: Finders on one folder, resumable and annealing only if the command is. So many programs run at once.
        metric: The name under which the program tells its validation metric, ``averaged_`` before it for the averaged
            weights; None: ``value`` and ``averaged``, or the training loss where neither is told.
        pattern: A regular expression whose first group is the metric in what the program prints besides.
        timeout: Seconds that a segment may take; None: ten times what earlier segments let expect, plus a minute.
        stall: Seconds that a program may print nothing; None: for ever.
        started: Called with each segment when it begins.
        ended: Called with what was recorded of each segment.
        notice: Called with sentences about what went wrong.

    Returns:
        The advice; if choices were made on the training loss, a warning says so.

    Raises:
        SpecError: The command or an argument cannot be used.
        SearchError: No LR could be trained, the first three segments failed in the same way, the search was begun with
            another metric, or its folder is damaged or cannot be written.
    """
    template = placeholders(command)
    check_program(template)
    _check(template, finders, timeout, stall)
    root = finders[0].folder.resolve()
    search = _Searching(
        template=template,
        root=root,
        metric=metric,
        pattern=None if pattern is None else compiled_pattern(pattern),
        judge=judge_of(root, metric=metric),
        limits=Limits(timeout=timeout, stall=stall),
        started=started,
        ended=ended,
        notice=notice,
    )
    _run_threads(search, finders)
    advice = finders[0].advice()
    if advice.segment and segment_folder(root, advice.segment).state.exists():
        advice = replace(advice, checkpoint=segment_folder(root, advice.segment).checkpoint)
    return replace(advice, warnings=(*advice.warnings, JUDGED_BY_LOSS)) if search.judge == "loss" else advice


@dataclass(kw_only=True)
class _Searching:
    """What the threads of a search share."""

    template: Template
    root: Path
    metric: str | None
    pattern: re.Pattern[str] | None
    judge: Judge | None
    limits: Limits
    started: Callable[[Segment], None]
    ended: Callable[[SegmentResult], None]
    notice: Callable[[str], None]
    stop: Stop = field(default_factory=Stop)
    lock: threading.Lock = field(default_factory=threading.Lock)
    error: BaseException | None = None


@dataclass(frozen=True, kw_only=True)
class _Worker:
    """A thread that serves a finder: ``free`` while it trains nothing, ``done`` when it has ended.

    Events, since a thread that was joined is taken for ended when Ctrl-C interrupts the joining (Python 3.11).
    """

    finder: Finder
    free: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)


def _check(template: Template, finders: Sequence[Finder], timeout: float | None, stall: float | None) -> None:
    if not finders:
        raise SpecError("A search with a command needs at least one finder.")
    for name, seconds in (("timeout", timeout), ("stall", stall)):
        if seconds is not None and not seconds > 0:
            raise SpecError(f"{name} is {seconds}; it must be a number of seconds above 0.")
    settings = finders[0].search
    if settings.resumable and not template.resumable:
        raise SpecError("The command has no {checkpoint}, so the finder must be made with resumable=False.")
    if settings.anneal and not template.anneals:
        raise SpecError("The command has no {final_lr}, so the finder must be made with anneal=False.")


def _run_threads(search: _Searching, finders: Sequence[Finder]) -> None:
    """Let each finder be served by a thread; whatever ends the waiting here ends their programs."""
    # Waiting here and running there: Ctrl-C reaches this thread alone, and never in the middle of ending a program.
    workers = [_Worker(finder=finder) for finder in finders]
    for worker in workers:
        worker.free.set()
    try:
        for worker in workers:
            threading.Thread(target=_serve, args=(search, worker), daemon=True).start()
        while search.error is None and not all(worker.done.wait(WAIT) for worker in workers):
            pass
    finally:
        search.stop.asked.set()
        try:
            _await_free(workers, inf)
        finally:
            search.stop.at_once.set()
            _await_free(workers, LAST_MOMENT)
    if search.error is not None:
        raise search.error


def _await_free(workers: Sequence[_Worker], seconds: float) -> None:
    """Wait for those that run a program; one that waits for segments of other processes has nothing to end."""
    deadline = time.monotonic() + seconds
    # Many short waits: a signal that another thread receives does not end a long one.
    while not all(worker.free.wait(WAIT) for worker in workers) and time.monotonic() < deadline:
        pass


def _serve(search: _Searching, worker: _Worker) -> None:
    """Train segments until there are none."""
    stopped = search.stop.asked.is_set
    try:
        while not stopped() and (piece := worker.finder.ask()) is not None:
            worker.free.clear()
            if not stopped():
                _train(search, worker.finder, piece)
            worker.free.set()
    except Stopped:
        pass
    except OSError as error:
        search.error = SearchError(f"The search in {search.root} cannot go on: {error}.")
    except BaseException as error:  # the waiting thread raises it
        search.error = error
    finally:
        worker.free.set()
        worker.done.set()


def _train(search: _Searching, finder: Finder, piece: Segment) -> None:
    """Train a segment and record its result."""
    limits = search.limits
    if limits.timeout is None:
        limits = replace(limits, timeout=time_limit(finder.results, piece.steps))
    with search.lock:
        search.started(piece)
    trained = train_segment(
        piece,
        template=search.template,
        root=search.root,
        metric=search.metric or "value",
        pattern=search.pattern,
        is_continued=finder.search.resumable and not piece.annealed,
        limits=limits,
        stop=search.stop,
    )
    with search.lock:
        result = _told(search, finder, piece, trained)
        search.ended(result)
        _drop_states(search.root, finder)
    stop_if_hopeless(finder.results, search.root)


def _told(search: _Searching, finder: Finder, piece: Segment, trained: TrainedSegment) -> SegmentResult:
    """Record the result of a segment; the first one that went well settles by what all are judged."""
    if failure := trained.failure or _lack(search, finder, trained):
        search.notice(f"{piece.name} failed: {failure} ({segment_folder(search.root, piece.name).path}).")
        return finder.fail(piece, failure, losses=trained.losses)
    value, averaged = trained.value, trained.averaged
    if search.judge is None:
        search.judge = "loss" if value is None and averaged is None else "value"
        record_judge(search.root, search.judge, metric=search.metric)
        if search.judge == "loss":
            search.notice(JUDGED_BY_LOSS)
    if search.judge == "loss":
        value, averaged = mean_of_last_fifth(trained.losses), None
    return finder.tell(piece, value=value, averaged=averaged, losses=trained.losses)


def _lack(search: _Searching, finder: Finder, trained: TrainedSegment) -> str | None:
    """What a segment does not tell although it is judged by it; None if nothing is missing."""
    if search.judge == "loss":
        return None if trained.losses else told_no("loss", trained.names, trained.unread)
    if trained.value is not None or trained.averaged is not None:
        return None
    # A loss stands in only for a metric that was not named, is to be small, and was never told.
    stands_in = search.judge is None and search.metric is None and finder.search.direction == "minimize"
    return None if stands_in else told_no(search.metric or "value", trained.names, trained.unread)


def time_limit(results: Sequence[SegmentResult], steps: int) -> float | None:
    """How long a segment may take, judged by earlier ones: ten times what they let expect, plus a minute.

    Args:
        results: What is known; the longest segment that went well tells the pace.
        steps: Steps of the segment.

    Returns:
        Seconds; None while nothing is known.
    """
    known = [result for result in results if result.failure is None and result.seconds > 0]
    if not known:
        return None
    longest = max(known, key=lambda result: (result.segment.steps, result.seconds))
    return SLACK + PATIENCE * longest.seconds * max(1.0, steps / longest.segment.steps)


def _drop_states(root: Path, finder: Finder) -> None:
    """Delete the states of finished segments that none will be continued from."""
    # In this order: a segment that another process tells meanwhile is not among the names yet.
    told = {result.segment.name for result in finder.results}
    for name in told - finder.needed():
        segment_folder(root, name).drop_state()
