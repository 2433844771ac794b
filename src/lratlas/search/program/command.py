"""Search that runs a command for each segment."""

import re
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

from lratlas.devices import divide_gpus
from lratlas.errors import SearchError, SpecError
from lratlas.search.advice import Advice
from lratlas.search.driven.printed import compile_pattern
from lratlas.search.finder import Finder, states_to_drop
from lratlas.search.journal import claim
from lratlas.search.program.output import describe_missing_metric, stop_if_hopeless
from lratlas.search.program.process import Limits, Stop, Stopped
from lratlas.search.program.segment import Judge, TrainedSegment, judge_of, record_judge, segment_folder, train_segment
from lratlas.search.program.template import Template, check_program, placeholders
from lratlas.search.segments import Segment, SegmentResult, mean_of_last_fifth
from lratlas.search.wording import LESS_MEMORY


class Turns:
    """Allows several programs to run in parallel, or one exclusively.

    Attributes:
        most: Number of programs at once; can be lowered.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._running = 0
        self._alone = False  # whether a program runs exclusively, or waits for that
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, *, alone: bool) -> Generator[None]:
        """Wait until a program can run, and reserve its slot in the block.

        Args:
            alone: Whether no other program can run at the same time.
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


SLACK = 60.0  # seconds that any segment may take
PATIENCE = 10  # times the expected time
WAIT = 0.05  # seconds between two checks of the workers
LAST_MOMENT = 1.0  # seconds to end processes without grace
JUDGED_BY_LOSS = (
    "The command reported no validation metric: LRs were compared by the training loss, which favours LRs that"
    ' overfit; print {"value": …} at the end of each segment.'
)


def find_by_command(
    command: str,
    finders: Sequence[Finder],
    *,
    metric: str | None = None,
    pattern: str | None = None,
    timeout: float | None = None,
    stall: float | None = None,
    gpus: Sequence[str] = (),
    started: Callable[[Segment], None] = lambda _: None,
    ended: Callable[[SegmentResult], None] = lambda _: None,
    notice: Callable[[str], None] = lambda _: None,
) -> Advice:
    """Search for an initial LR with a program that trains; resumes the search in the folder.

    The program runs in the current folder. Its output and checkpoints are in ``segments/NAME`` of the search folder;
    states that no segment needs any more are deleted. If a segment fails, the search names it and continues. If a
    segment runs out of memory, it is repeated with no other program at the same time.

    Args:
        command: Command with placeholders; see :func:`lratlas.search.program.template.placeholders`.
        finders: Finders on one folder, one per parallel program; resumable and annealing only if the command is.
        metric: Name under which the program reports its validation metric, with the prefix ``averaged_`` for the
            averaged weights. If None, ``value`` and ``averaged``, or the training loss if neither is reported.
        pattern: Regular expression that finds the metric, as its first group, in other output of the program.
        timeout: Seconds that a segment may take; if None, ten times the time expected from earlier segments, plus a
            minute.
        stall: Seconds that a program may print nothing; None for no limit.
        gpus: CUDA devices to divide among the programs; if empty, each program sees the devices of this process.
        started: Called with each segment when it begins.
        ended: Called with the recorded result of each segment.
        notice: Called with sentences about problems.

    Returns:
        The advice; if LRs were compared by the training loss, a warning says so.

    Raises:
        SpecError: The command or an argument cannot be used.
        SearchError: No LR could be trained, the first three segments failed in the same way, memory is too small for
            one program, the search was started with another metric, or its folder is damaged or cannot be written.
    """
    template = placeholders(command)
    check_program(template)
    _check(template, finders, timeout, stall)
    root = finders[0].folder.resolve()
    search = _Searching(
        template=template,
        root=root,
        metric=metric,
        pattern=None if pattern is None else compile_pattern(pattern),
        judge=judge_of(root, metric=metric, pattern=pattern),
        limits=Limits(timeout=timeout, stall=stall),
        turns=Turns(len(finders)),
        started=started,
        ended=ended,
        notice=notice,
    )
    parts = divide_gpus(gpus, len(finders))
    _run_threads(search, [_Worker(finder=finder, gpus=part) for finder, part in zip(finders, parts, strict=True)])
    advice = finders[0].advice()
    if advice.segment and segment_folder(root, advice.segment).state.exists():
        advice = replace(advice, checkpoint=segment_folder(root, advice.segment).checkpoint)
    return replace(advice, warnings=(*advice.warnings, JUDGED_BY_LOSS)) if search.judge == "loss" else advice


@dataclass(kw_only=True)
class _Searching:
    """State shared by the threads of a search."""

    template: Template
    root: Path
    metric: str | None
    pattern: re.Pattern[str] | None
    judge: Judge | None
    limits: Limits
    turns: Turns
    started: Callable[[Segment], None]
    ended: Callable[[SegmentResult], None]
    notice: Callable[[str], None]
    stop: Stop = field(default_factory=Stop)
    lock: threading.Lock = field(default_factory=threading.Lock)
    error: BaseException | None = None


@dataclass(frozen=True, kw_only=True)
class _Worker:
    """Thread that serves a finder: ``free`` while it trains nothing, ``done`` when it has ended.

    ``gpus`` are the environment variables of its programs that select GPUs.

    These are events because Python 3.11 takes a thread for ended if Ctrl-C interrupts ``join()``.
    """

    finder: Finder
    gpus: Mapping[str, str]
    free: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)


def _check(template: Template, finders: Sequence[Finder], timeout: float | None, stall: float | None) -> None:
    if not finders:
        raise SpecError("A command search needs at least one finder.")
    for name, seconds in (("timeout", timeout), ("stall", stall)):
        if seconds is not None and not seconds > 0:
            raise SpecError(f"--{name} is {seconds}; it must be a number of seconds above 0.")
    settings = finders[0].search
    if settings.resumable and not template.resumable:
        raise SpecError(
            "The command has no {checkpoint}, but the search began with a command that continues trainings: pass"
            " it the path of its state, as in [--resume {checkpoint}], or use another folder (docs/command.md)."
        )
    if settings.anneal and not template.anneals:
        raise SpecError(
            "The command has no {final_lr}, but the search began with a command that anneals its LR: pass it the"
            " LR at the end, as in --final-lr {final_lr}, or use another folder (docs/command.md)."
        )
    if settings.counted == "steps" and "epochs" in template.names:
        raise SpecError(
            "The command has {epochs}, but the search counts steps: use --epochs, the epochs of a full"
            " training, instead of --steps, or pass the command its {stop}."
        )


def _run_threads(search: _Searching, workers: Sequence[_Worker]) -> None:
    """Serve each finder in a thread; any exception during the wait ends their programs."""
    # Threads run the programs while this one waits: Ctrl-C only reaches this thread, and never while a program is
    # ended.
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
    """Wait for workers that run a program; a worker that waits for other processes has nothing to end."""
    deadline = time.monotonic() + seconds
    # Many short waits: a signal to another thread does not end a long one.
    while not all(worker.free.wait(WAIT) for worker in workers) and time.monotonic() < deadline:
        pass


def _serve(search: _Searching, worker: _Worker) -> None:
    """Train segments until there are none left."""
    stopped = search.stop.asked.is_set
    try:
        while not stopped() and (piece := worker.finder.ask()) is not None:
            worker.free.clear()
            if not stopped():
                _train(search, worker, piece)
            worker.free.set()
    except Stopped:
        pass
    except OSError as error:
        search.error = SearchError(f"The search in {search.root} cannot continue: {error}. Fix this and rerun.")
    except BaseException as error:  # the waiting thread raises it
        search.error = error
    finally:
        worker.finder.release()  # segments that were not trained to their end
        worker.free.set()
        worker.done.set()


def _train(search: _Searching, worker: _Worker, piece: Segment) -> None:
    """Train a segment and record its result."""
    finder = worker.finder
    with search.lock:
        search.started(piece)
    _restore_parent(search, worker, piece)
    trained = _train_segment(search, worker, piece)
    with search.lock:
        result = _record_result(search, finder, piece, trained)
        search.ended(result)
        for name in states_to_drop(finder):
            segment_folder(search.root, name).drop_state()
    stop_if_hopeless(finder.results)


def _restore_parent(search: _Searching, worker: _Worker, piece: Segment) -> None:
    """Retrain up to a segment if its parent's state was deleted; recorded results stay."""
    parent = next((each.segment for each in worker.finder.results if each.segment.name == piece.parent), None)
    if parent is None:
        return
    while (lock := claim(search.root, parent.name)) is None:  # another worker needs it too
        if search.stop.asked.wait(WAIT):
            raise Stopped
    try:
        if not segment_folder(search.root, parent.name).has_state:
            # From fresh weights: the parent's parent may have lost its state as well.
            again = _train_segment(search, worker, replace(parent, parent=None, start=0))
            if again.failure:
                search.notice(f"{parent.name} could not be retrained to restore its state: {again.failure}.")
    finally:
        lock.release()


def _train_segment(search: _Searching, worker: _Worker, piece: Segment) -> TrainedSegment:
    """Run the command for a segment; after running out of memory, with no other program at the same time.

    Raises:
        SearchError: Memory is too small for one program.
    """
    side_by_side = search.turns.most > 1
    trained = _run_segment(search, worker, piece, alone=False)
    if trained.out_of_memory and side_by_side:
        trained = _run_segment(search, worker, piece, alone=True)
        if not trained.out_of_memory:
            search.turns.most = max(1, search.turns.most - 1)
            search.notice(
                f"{piece.name} ran out of memory next to other programs, but not on its own: from now on, at"
                f" most {search.turns.most} run at once (--workers)."
            )
    if trained.out_of_memory:
        raise SearchError(
            f"{piece.name} ran out of memory, although no other program of the search was running:"
            f" {trained.failure}. {LESS_MEMORY}"
        )
    return trained


def _run_segment(search: _Searching, worker: _Worker, piece: Segment, *, alone: bool) -> TrainedSegment:
    with search.turns.turn(alone=alone):
        if search.stop.asked.is_set():
            raise Stopped
        limits, settings = search.limits, worker.finder.search
        if limits.timeout is None:
            limits = replace(limits, timeout=time_limit(worker.finder.results, piece.steps))
        return train_segment(
            piece,
            template=search.template,
            root=search.root,
            metric=search.metric or "value",
            pattern=search.pattern,
            is_continued=settings.resumable and not piece.annealed,
            limits=limits,
            stop=search.stop,
            environment=worker.gpus,
        )


def _record_result(search: _Searching, finder: Finder, piece: Segment, trained: TrainedSegment) -> SegmentResult:
    """Record the result of a segment; the first success determines the metric of the search."""
    if failure := trained.failure or _lack(search, finder, trained):
        search.notice(f"{piece.name} failed: {failure} ({segment_folder(search.root, piece.name).path}).")
        return finder.fail(piece, failure, losses=trained.losses)
    value, averaged = trained.value, trained.averaged
    if search.judge is None:
        search.judge = "loss" if value is None and averaged is None else "value"
        sought = None if search.pattern is None else search.pattern.pattern
        record_judge(search.root, search.judge, metric=search.metric, pattern=sought)
        if search.judge == "loss":
            search.notice(JUDGED_BY_LOSS)
    if search.judge == "loss":
        value, averaged = mean_of_last_fifth(trained.losses), None
    return finder.tell(piece, value=value, averaged=averaged, losses=trained.losses)


def _lack(search: _Searching, finder: Finder, trained: TrainedSegment) -> str | None:
    """Failure of a segment that did not report the metric of the search; None if nothing is missing."""
    if search.judge == "loss":
        return None if trained.losses else describe_missing_metric("loss", trained.names, trained.unread)
    if trained.value is not None or trained.averaged is not None:
        return None
    # A loss only replaces a metric that was not named, is minimized, and was never reported.
    stands_in = search.judge is None and search.metric is None and finder.search.direction == "minimize"
    return None if stands_in else describe_missing_metric(search.metric or "value", trained.names, trained.unread)


def time_limit(results: Sequence[SegmentResult], steps: int) -> float | None:
    """Time limit of a segment: ten times the time expected from earlier ones, plus a minute.

    Args:
        results: Results so far; the longest successful segment sets the pace.
        steps: Steps of the segment.

    Returns:
        Seconds; None without results.
    """
    known = [result for result in results if result.failure is None and result.seconds > 0]
    if not known:
        return None
    longest = max(known, key=lambda result: (result.segment.steps, result.seconds))
    return SLACK + PATIENCE * longest.seconds * max(1.0, steps / longest.segment.steps)
