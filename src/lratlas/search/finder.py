"""Ask and tell: a search for the initial LR of any training, in any framework."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lratlas.config.values import format_value
from lratlas.errors import SearchError
from lratlas.paths import expand_home
from lratlas.search.advice import Advice, advise
from lratlas.search.evidence import has_other_failure
from lratlas.search.journal import Journal, add_results, checkpoint_of, claim, open_folder, withdraw_results
from lratlas.search.rungs import Stage, next_stage, states_to_keep
from lratlas.search.segments import Segment, SegmentResult, block_losses
from lratlas.search.settings import Counted
from lratlas.study.lock import Lock
from lratlas.text import first_not_finite, harmless, is_finite, number, to_python

_METRICS = ("value", "averaged", "seconds", "error")
_MEASURED = {*_METRICS, "losses"}
_PATIENCE = (0.05, 1.0)  # seconds between two checks of whether other processes have finished: first, longest


@dataclass(frozen=True, kw_only=True)
class _Claim:
    segment: Segment
    lock: Lock
    began: float


class Finder:
    """A search for the initial LR: `ask` for segments to train, `tell` their results.

    Example:
        >>> finder = lratlas.Finder("search", steps=10_000, direction="maximize")  # doctest: +SKIP
        >>> while segment := finder.ask():  # doctest: +SKIP
        ...     accuracy, averaged = train(segment)
        ...     finder.tell(segment, value=accuracy, averaged=averaged)
        >>> print(finder.advice())  # doctest: +SKIP

    Every result is stored in the folder. ``Finder(folder)`` reopens a search with its stored settings and continues it;
    any setting given must match the stored one. Several processes can work on one search, each with a separate finder.

    Args:
        folder: The search folder; created if it does not exist.
        steps: Optimizer steps of a full training; only a new search needs them.
        counted: Unit of ``steps`` and of all steps of segments: ``steps`` (the default) or ``epochs``.
        unit: Trainings end at multiples of this number of steps, such as the steps of an epoch; default 1.
        lrs: Initial grid of LRs; default 1e-5 to 1, four per decade, and fewer in trainings of less than 64 units. The
            grid grows if the best LR is at one of its ends.
        budget: Limit of the cost, in full trainings; default 1.5. Only the first rung may exceed it: it trains each of
            ``lrs`` for a 64th of a full training, at least one unit, however small the budget.
        direction: Whether a smaller metric is better (``minimize``, such as a validation loss; the default) or a larger
            one (``maximize``).
        tolerance: Metrics that differ by less than this share of the best one count as equally good; default 0.01.
        resumable: Whether a training can continue from a checkpoint; default True. If False, all segments start from
            fresh weights.
        anneal: Whether the LR can fall to zero within a segment; default True.
        schedule: LR schedule of the full training: ``constant`` (the default), ``linear`` or ``cosine`` (to zero), or a
            function that maps the finished share of the training to a factor of the LR. LRs are then compared under
            this schedule, shrunk to each segment's length: `Segment.lr_at` returns the LR of each step. ``own``: each
            segment is a whole training with a schedule in the training code that ends with it.
        warmup: Steps of the full training over which the LR grows linearly to its value; shrunk with the segments.
        chance: Metric of a model that has learned nothing, such as 0.1 for ten balanced classes. Without it, the search
            cannot distinguish LRs that learn nothing from LRs that tie.
        limit: Best possible value of the metric; by default inferred from the values so far if they are shares,
            percentages or losses.
        samples: Number of validation samples behind an accuracy, which determines its noise. Without ``samples``, or
            ``error`` in `tell`, the search must guess the noise.
        seed: First seed of weights and batch order, default 0; further seeds follow it.

    Raises:
        SpecError: An argument is out of range, or a new search has no ``steps``.
        SearchError: The search in the folder has other settings, is damaged or cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        steps: int | None = None,
        counted: Counted | None = None,
        unit: int | None = None,
        lrs: Iterable[float] | None = None,
        budget: float | None = None,
        direction: Literal["minimize", "maximize"] | None = None,
        tolerance: float | None = None,
        resumable: bool | None = None,
        anneal: bool | None = None,
        schedule: Literal["constant", "linear", "cosine", "own"] | Callable[[float], float] | None = None,
        warmup: int | None = None,
        chance: float | None = None,
        limit: float | None = None,
        samples: int | None = None,
        seed: int | None = None,
    ) -> None:
        settings = {
            "steps": steps,
            "counted": counted,
            "unit": unit,
            "lrs": tuple(lrs) if isinstance(lrs, Iterator) else lrs,
            "budget": budget,
            "direction": direction,
            "tolerance": tolerance,
            "resumable": resumable,
            "anneal": anneal,
            "schedule": schedule,
            "warmup": warmup,
            "chance": chance,
            "limit": limit,
            "samples": samples,
            "seed": seed,
        }
        self.folder = expand_home(folder)
        self.search = open_folder(self.folder, {name: value for name, value in settings.items() if value is not None})
        self._claims = dict[str, _Claim]()
        self._journal = Journal(self.folder)
        self._planned: tuple[tuple[int, int], Stage] | None = None  # state of the journal, and its stage

    def __repr__(self) -> str:
        return f"Finder({str(self.folder)!r}, {self.search.counted}={self.search.steps})"

    @property
    def results(self) -> tuple[SegmentResult, ...]:
        """All results so far, from all processes.

        Raises:
            SearchError: The journal of the search is damaged.
        """
        return tuple(self._journal.read().values())

    @property
    def finished(self) -> bool:
        """Whether no segments are left to train."""
        return not self._waiting()

    def ask(self) -> Segment | None:
        """Return the next segment to train; None once the search is over.

        The segment belongs to this finder until it has a result, is released, or the process ends. If other processes
        train all available segments, the call waits for them.

        Raises:
            SearchError: This finder was already asked for all segments that can be trained now.
        """
        pause = _PATIENCE[0]
        while waiting := self._waiting():
            for each in waiting:
                if self._take(each):
                    return each
            if all(each.name in self._claims for each in waiting):
                raise SearchError(
                    f"Nothing can be trained before the result of {waiting[0].name} is recorded with tell();"
                    " release() returns open segments."
                )
            time.sleep(pause)
            pause = min(2 * pause, _PATIENCE[1])
        return None

    def ask_all(self) -> list[Segment]:
        """Claim all segments that can be trained now, for training in parallel; waits as `ask` does.

        Returns:
            The segments, all claimed by this finder; empty once the search is over.

        Raises:
            SearchError: This finder was already asked for all segments that can be trained now.
        """
        first = self.ask()
        if first is None:
            return []
        waiting = self._waiting()
        return [first, *(each for each in waiting if self._take(each))]

    def tell(
        self,
        segment: Segment,
        *,
        value: float | None = None,
        averaged: float | None = None,
        error: float | None = None,
        losses: Iterable[float] = (),
        seconds: float | None = None,
    ) -> SegmentResult:
        """Record the result of a segment; a NaN or infinite number means that it diverged.

        Args:
            segment: The segment from `ask`.
            value: Validation metric of the weights at its end.
            averaged: Validation metric of the average of the weights after ``segment.average_from``. It ranks the LRs
                if given; give it for all segments with a constant LR or for none.
            error: Standard error of the metric, from the validation samples.
            losses: Training losses in order, one per step or per report, at equal distances.
            seconds: Training time; if None, the wall time since `ask`.

        Returns:
            The result as it is in the journal.

        Raises:
            SearchError: Both metrics are missing and all losses are finite, an argument is not a number, the segment is
                not this finder's, or the folder cannot be written. The result can then be reported again.
        """
        measured = {"value": value, "averaged": averaged, "error": error, "losses": losses, "seconds": seconds}
        return self.tell_all([(segment, measured)])[0]

    def tell_all(self, measured: Sequence[tuple[Segment, Mapping[str, Any]]]) -> list[SegmentResult]:
        """Record the results of segments that were trained in parallel, all or none.

        Args:
            measured: Each segment with its arguments of `tell`, by name.

        Raises:
            SearchError: As in `tell`; none is recorded.
        """
        return self._record([self._result(segment, given) for segment, given in measured])

    def _result(self, segment: Segment, given: Mapping[str, Any]) -> SegmentResult:
        began = self._claim_on(segment).began
        if unknown := sorted(given.keys() - _MEASURED):
            raise SearchError(f"tell() has no argument {unknown[0]}; allowed are {', '.join(sorted(_MEASURED))}.")
        value, averaged, took, error = (
            None if given.get(name) is None else _number(given[name], name) for name in _METRICS
        )
        losses = _numbers(given.get("losses", ()))
        place = first_not_finite(losses)
        told = [metric for metric in (value, averaged) if metric is not None]
        failure = None
        if place is not None:
            failure = f"loss {place + 1} of {len(losses)} is not finite"
        elif not all(map(is_finite, told)):
            failure = "the validation metric is not finite"
        elif not told:
            raise SearchError(f"{segment.name} has neither value nor averaged; tell() needs one of them.")
        if took is not None and not 0 <= took < math.inf:
            raise SearchError(f"seconds is {took}; it must be a number of at least 0.")
        if error is not None and not (is_finite(error) and error >= 0):
            error = None
        return SegmentResult(
            segment=segment,
            value=None if failure else value,
            averaged=None if failure else averaged,
            error=None if failure else error,
            losses=block_losses(losses),
            failure=failure,
            seconds=time.monotonic() - began if took is None else took,
        )

    def fail(self, segment: Segment, reason: str, *, losses: Iterable[float] = ()) -> SegmentResult:
        """Record that a segment could not be trained to its end, and why; its LR is not trained further.

        Args:
            segment: The segment from `ask`.
            reason: Text for people; with the words "not finite", the training counts as diverged.
            losses: Known training losses, in order.

        Raises:
            SearchError: The segment is not this finder's, or the folder cannot be written.
        """
        failed = SegmentResult(
            segment=segment,
            losses=block_losses(_numbers(losses)),
            failure=harmless(str(reason)) or "no reason given",
            seconds=time.monotonic() - self._claim_on(segment).began,
        )
        return self._record([failed])[0]

    def retry_failed(self) -> tuple[str, ...]:
        """Withdraw the failed segments, except those that diverged, so that `ask` returns them again.

        Call it after fixing the mistake in the training.

        Returns:
            Names of the segments.

        Raises:
            SearchError: The folder cannot be read or written.
        """
        names = tuple(each.segment.name for each in self.results if has_other_failure(each))
        if names:
            withdraw_results(self.folder, names)
        return names

    def release(self) -> None:
        """Release the segments without a result: another finder may train them, or this one may ask for them again."""
        while self._claims:
            self._claims.popitem()[1].lock.release()

    def needed(self) -> frozenset[str]:
        """Names of the segments whose final states may still be needed; other states can be deleted.

        Once the search is over, that is only the segment from which the full training can continue.
        """
        results, stage = self._plan()
        if stage.waiting(results):
            return states_to_keep(self.search, stage, results)
        continued = advise(self.search, self.results).segment if self.results else None
        return frozenset({continued} if continued else ())

    def advice(self) -> Advice:
        """Return the advice from the results so far.

        Raises:
            SearchError: There are no results yet, or no LR could be trained.
        """
        advice = advise(self.search, self.results)
        return replace(advice, checkpoint=checkpoint_of(self.folder, advice.segment))

    def _waiting(self) -> tuple[Segment, ...]:
        """The segments that can be trained now."""
        results, stage = self._plan()
        return stage.waiting(results)

    def _plan(self) -> tuple[Mapping[str, SegmentResult], Stage]:
        """The results so far, and the first incomplete stage; planned again once it is complete."""
        results = self._journal.read()
        state = (self._journal.withdrawals, len(results))
        if self._planned is not None:
            (withdrawals, _), stage = self._planned
            if state == self._planned[0] or (withdrawals == state[0] and stage.waiting(results)):
                return results, stage
        stage = next_stage(self.search, results)
        self._planned = (state, stage)
        return results, stage

    def _take(self, each: Segment) -> bool:
        """Claim a segment; False if another process has it, or this finder already does."""
        if each.name in self._claims or (lock := claim(self.folder, each.name)) is None:
            return False
        # Another process may have recorded it between the read of the journal and the claim.
        if each.name in self._journal.read():
            lock.release()
            return False
        self._claims[each.name] = _Claim(segment=each, lock=lock, began=time.monotonic())
        return True

    def _claim_on(self, segment: object) -> _Claim:
        """This finder's claim on a segment."""
        if not isinstance(segment, Segment):
            raise SearchError(f"The segment is {format_value(segment)}; pass the one that ask() returned.")
        asked = self._claims.get(segment.name)
        if asked is None or asked.segment != segment:
            raise SearchError(
                f"{segment.name} did not come from ask() of this finder, or its result is already recorded."
            )
        return asked

    def _record(self, results: list[SegmentResult]) -> list[SegmentResult]:
        add_results(self.folder, results)
        for each in results:
            self._claims.pop(each.segment.name).lock.release()
        return results


def states_to_drop(finder: Finder) -> frozenset[str]:
    """Names of the finished segments whose final states no other segment needs."""
    # In this order: a segment that another process records in the meantime is not among the names yet.
    told = frozenset(each.segment.name for each in finder.results)
    return told - finder.needed()


def _numbers(losses: Iterable[float]) -> list[float]:
    """Losses as numbers; also accepts NumPy arrays and tensors."""
    values: Iterable[object] = losses if isinstance(losses, list | tuple) else to_python(losses)
    return [_number(loss, "a loss") for loss in values]


def _number(told: object, name: str) -> float:
    """A number, also from NumPy or a tensor with one element."""
    found = number(told)
    if found is None:
        raise SearchError(f"{name} is {format_value(told)}; it must be a number.")
    return found
