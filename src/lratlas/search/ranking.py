"""How good the LRs of a search look so far: scores projected to the end of a full training.

Short trainings are biased: where a training is cut short, larger LRs look better than they will (or smaller ones, where
it overfits). What an LR gained from the last doubling of its steps tells where it is going.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lratlas.numbers import is_finite
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search

NEXT_GAIN = 0.5
"""What a doubling of the steps is expected to add, as a share of what the doubling before it added."""

_TRUSTED = 1 / 32  # gains from shorter trainings than this share are those of a beginning
_COMPARED = 3  # so many LRs, at least, make a curve


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """What an LR is expected to reach.

    Attributes:
        lr: The LR.
        score: Its metric after a full training, averaged weights, more being better; minus infinity where it failed.
        steps: The longest training behind it.
        seeds: How many seeds were trained that long.
    """

    lr: float
    score: float
    steps: int
    seeds: int


def trial(results: Sequence[SegmentResult], lr: float, *, seed: int = 0) -> list[SegmentResult]:
    """The results of one LR and seed at a constant LR, ascending in steps."""
    found = [
        each for each in results if each.segment.lr == lr and each.segment.seed == seed and not each.segment.annealed
    ]
    return sorted(found, key=lambda each: each.segment.stop)


def projected(search: Search, results: Sequence[SegmentResult], *, doublings: float) -> float:
    """The score of a trial after so many more doublings of its steps.

    Args:
        search: The settings.
        results: Those of one trial, ascending in steps.
        doublings: How many; the first adds half of what the last one in the results did, the next a quarter, …
    """
    if not results:
        return -math.inf
    last = search.score(results[-1].quality)
    before = last - gain(search, results)
    # The sum of a geometric series, also for a fraction of a doubling.
    return _moved(search, last, before, last, times=NEXT_GAIN * (1 - NEXT_GAIN**doublings) / (1 - NEXT_GAIN))


def gain(search: Search, results: Sequence[SegmentResult]) -> float:
    """What the last doubling of the steps brought to a trial, more being better; 0 where it is not known."""
    if len(results) < 2 or results[-2].segment.stop < search.horizon(_TRUSTED):
        return 0.0
    last, before = (search.score(each.quality) for each in (results[-1], results[-2]))
    return last - before if is_finite(last) and is_finite(before) else 0.0


def ranking(search: Search, results: Sequence[SegmentResult]) -> list[Ranked]:
    """What each LR of the last rung with at least three LRs is expected to reach, ascending in LR.

    Where there is no such rung, those of the rung with the most LRs; none before anything was told.
    """
    rungs = _rungs(results)
    if not rungs:
        return []
    several = [stop for stop, lrs in rungs.items() if len(lrs) >= _COMPARED]
    rung = max(several) if several else max(rungs, key=lambda stop: (len(rungs[stop]), stop))
    # One that failed there is among them, so that what lies on both sides of it is not taken for neighbours.
    lrs = {each.segment.lr for each in results if each.segment.stop == rung and not each.segment.annealed}
    return [_rank(search, results, lr, least=rung) for lr in sorted(lrs)]


def near_best(search: Search, ranked: Sequence[Ranked]) -> list[Ranked]:
    """Those around the best one that are, without a gap, as good as it is within the tolerance."""
    best = max(range(len(ranked)), key=lambda place: (ranked[place].score, ranked[place].lr))
    limit = ranked[best].score - search.tolerance * abs(ranked[best].score)
    low = high = best
    while low > 0 and ranked[low - 1].score >= limit:
        low -= 1
    while high + 1 < len(ranked) and ranked[high + 1].score >= limit:
        high += 1
    return list(ranked[low : high + 1])


def _rungs(results: Sequence[SegmentResult]) -> dict[int, set[float]]:
    """The LRs that reached each number of steps at a constant LR without failing."""
    rungs = dict[int, set[float]]()
    for each in results:
        if not each.segment.annealed and each.failure is None:
            rungs.setdefault(each.segment.stop, set()).add(each.segment.lr)
    return rungs


def _rank(search: Search, results: Sequence[SegmentResult], lr: float, *, least: int) -> Ranked:
    of = [
        each for each in results if each.segment.lr == lr and each.segment.stop == least and not each.segment.annealed
    ]
    first = trial(results, lr, seed=min(each.segment.seed for each in of))
    steps = first[-1].segment.stop
    final = projected(search, first, doublings=math.log2(search.steps / steps))
    # Only the first seed climbs all rungs; the others tell how it stands to the mean on this one.
    scores = [search.score(each.quality) for each in of]
    own = next(search.score(each.quality) for each in first if each.segment.stop == least)
    known = is_finite(final) and is_finite(own)
    score = _moved(search, final, own, sum(scores) / len(scores)) if known else -math.inf
    return Ranked(lr=lr, score=score, steps=steps, seeds=len(of))


def _moved(search: Search, score: float, before: float, after: float, *, times: float = 1.0) -> float:
    """A score after a change like that from ``before`` to ``after``, some times over.

    A loss that is above zero changes by a factor, so that it stays above zero; any other metric by a difference.
    """
    if not is_finite(score):
        return -math.inf
    if search.direction == "minimize" and max(score, before, after) < 0:
        return score * (after / before) ** times
    return score + times * (after - before)
