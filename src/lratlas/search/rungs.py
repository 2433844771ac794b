"""What to train next in a search for the initial LR: a function of its settings and of what was told so far.

Successive halving (Jamieson & Talwalkar, 2016) over LRs that share initial weights and batches. Every rung doubles the
steps; who goes on is decided on the validation quality of averaged weights, projected one doubling ahead.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from lratlas.numbers import lr_fault
from lratlas.search.ranking import near_best, projected, ranking, trial
from lratlas.search.segments import Segment, SegmentResult, make_segment
from lratlas.search.settings import Search

_SCREEN = 1 / 64  # the share of a full training that all LRs get
_FIELD = {1 / 32: 7, 1 / 16: 6, 1 / 8: 5, 1 / 4: 4, 1 / 2: 2, 1.0: 1}  # how many LRs go on to each share
_EXTENDED_TO = 1 / 16  # the longest share at which the grid still grows: later, a new LR would cost too much
_ENOUGH = 1 / 4  # the share of a full training from which it can be told what the whole will come to
_ADDED = 2  # LRs by which an edge is moved
_FARTHEST = 100.0  # how far beyond its ends a grid may grow, as a factor
_STRIDE = (10**0.25, 10.0)  # the least and the largest ratio of the LRs that are added
_ANNEALED = 1 / 4  # a branch is so much longer than what it leaves, of which it is then the last fifth
_MOST_SEEDS = 16
_OCTAVE = 2.0
_ROUNDING = 1e-9


def next_segments(search: Search, results: Sequence[SegmentResult]) -> tuple[Segment, ...]:
    """The segments that can be trained now, in the order in which they are wanted; none once the search is over."""
    return tuple(each for each in _stage(search, results) if each.name not in _names(results))


def needed_states(search: Search, results: Sequence[SegmentResult]) -> frozenset[str]:
    """Names of the segments whose final states may still be trained on.

    Those are the parents of what can be trained now, and what is told of the same stage: who goes on from there is
    decided once all of it is told. Nothing goes on from other seeds than the first, nor where trainings cannot.
    """
    if not search.resumable:
        return frozenset()
    stage, told = _stage(search, results), {each.segment.name for each in results if each.failure is None}
    return frozenset(
        {each.parent for each in stage if each.parent and each.name not in _names(results)}
        | {each.name for each in stage if each.name in told and each.seed == 0}
    )


def spent(search: Search, results: Sequence[SegmentResult]) -> float:
    """What was trained so far, in full trainings."""
    return _cost(search, [each.segment for each in results])


def enough(search: Search) -> float:
    """The budget that takes the best four of the first LRs to a quarter of a full training, and one to its branch."""
    shares = [share for share in _FIELD if share <= _ENOUGH]
    longer = [min(_FIELD[share], len(search.lrs)) * share * (1 / 2 if search.resumable else 1) for share in shares]
    branch = _ENOUGH * (_ANNEALED if search.resumable else 1 + _ANNEALED) if search.anneal else 0.0
    return len(search.lrs) * _SCREEN + sum(longer) + branch


def _names(results: Sequence[SegmentResult]) -> frozenset[str]:
    return frozenset(each.segment.name for each in results)


def _stage(search: Search, results: Sequence[SegmentResult]) -> list[Segment]:
    """The first stage of which not everything is told; empty once the search is over."""
    told = {result.segment.name: result for result in results}
    return next((stage for stage in _stages(search, told) if any(each.name not in told for each in stage)), [])


def _stages(search: Search, told: Mapping[str, SegmentResult]) -> Iterator[list[Segment]]:
    """The segments of each stage, one after the other; a stage is only asked for when those before it are told."""
    made = list[Segment]()
    for share in (_SCREEN, *_FIELD):
        field = list(search.lrs) if share == _SCREEN else _going_on(search, share, made, told)
        if not field:
            break
        stop, before = search.horizon(share), list(made)
        yield _to(search, field, stop, before)
        made = before + _to(search, field, stop, before)
        while share <= _EXTENDED_TO and (more := _beyond_edge(search, field, made, told)):
            field = [*field, *more]
            yield _to(search, field, stop, before)
            made = before + _to(search, field, stop, before)
    if branch := _branch(search, made, told):
        yield [branch]
        made = [*made, branch]
    for seed in range(1, _MOST_SEEDS):
        repeated = _repeated(search, made, told, seed=seed)
        if not repeated:
            break
        yield repeated
        made = made + repeated


def _to(search: Search, lrs: Sequence[float], stop: int, made: Sequence[Segment]) -> list[Segment]:
    """One segment per LR that ends at a step, each going on from the LR's longest where there is one."""
    segments = list[Segment]()
    for lr in sorted(lrs):
        last = max((each for each in made if each.lr == lr), key=lambda each: each.stop, default=None)
        start, parent = (last.stop, last.name) if last and search.resumable else (0, None)
        segments.append(make_segment(lr=lr, seed=0, start=start, stop=stop, parent=parent))
    return segments


def _going_on(search: Search, share: float, made: Sequence[Segment], told: Mapping[str, SegmentResult]) -> list[float]:
    """The LRs that are trained to a share of the steps: the best, as many as are meant to and can be paid for."""
    reached = max(each.stop for each in made)
    best = _best(search, sorted({each.lr for each in made if each.stop == reached}), made, told)
    steps = search.horizon(share) - (reached if search.resumable else 0)
    affordable = int((search.budget - _cost(search, made) + _ROUNDING) * search.steps / steps)
    # A single LR has nothing to be compared with; only the longest rungs are for the best alone.
    fewest = 2 if _FIELD[share] > 2 else 1
    return best[: min(_FIELD[share], affordable)] if min(affordable, len(best)) >= fewest else []


def _best(
    search: Search, lrs: Sequence[float], made: Sequence[Segment], told: Mapping[str, SegmentResult]
) -> list[float]:
    """LRs that did not fail, those first that look best one doubling ahead."""
    results = [told[each.name] for each in made]
    scores = {lr: projected(search, trial(results, lr), doublings=1) for lr in lrs}
    return sorted((lr for lr in lrs if scores[lr] > -math.inf), key=lambda lr: (-scores[lr], -lr))


def _beyond_edge(
    search: Search, field: Sequence[float], made: Sequence[Segment], told: Mapping[str, SegmentResult]
) -> list[float]:
    """LRs beyond the end of the grid at which the best one stands; none where it stands inside."""
    best = _best(search, field, made, told)[:1]
    lrs = sorted({each.lr for each in made})
    if not best or best[0] not in {lrs[0], lrs[-1]}:
        return []
    up = best[0] == lrs[-1]
    neighbours = lrs[-2:] if up else lrs[:2]
    # A dense grid would spend the budget on its way, and a coarse one leave the allowed factor at once.
    ratio = min(max(neighbours[-1] / neighbours[0], _STRIDE[0]), _STRIDE[1])
    low, high = search.lrs[0] / _FARTHEST, search.lrs[-1] * _FARTHEST
    added = [best[0] * ratio ** (number if up else -number) for number in range(1, _ADDED + 1)]
    added = [lr for lr in added if low * (1 - _ROUNDING) <= lr <= high * (1 + _ROUNDING) and not lr_fault(lr)]
    cost = len(added) * made[-1].stop / search.steps
    return added if _cost(search, made) + cost <= search.budget + _ROUNDING else []


def _branch(search: Search, made: Sequence[Segment], told: Mapping[str, SegmentResult]) -> Segment | None:
    """The best LR of the longest rung once more, going to zero from there; None where the budget forbids it."""
    longest = max(each.stop for each in made)
    best = _best(search, sorted({each.lr for each in made if each.stop == longest}), made, told)
    if not search.anneal or not best:
        return None
    last = next(each for each in made if each.lr == best[0] and each.stop == longest)
    start, parent = (last.stop, last.name) if search.resumable else (0, None)
    stop = last.stop + max(1, round(_ANNEALED * last.stop))
    branch = make_segment(lr=last.lr, seed=0, start=start, stop=stop, parent=parent, anneal_from=last.stop)
    return branch if _cost(search, [*made, branch]) <= search.budget + _ROUNDING else None


def _repeated(
    search: Search, made: Sequence[Segment], told: Mapping[str, SegmentResult], *, seed: int
) -> list[Segment]:
    """Another seed for the LRs that are compared, until the near-best lie within an octave or the budget ends."""
    ranked = ranking(search, [told[each.name] for each in made])
    near = near_best(search, ranked) if ranked else []
    if not near or near[-1].lr / near[0].lr <= _OCTAVE:
        return []
    stop = min(each.steps for each in ranked)
    going = [each.lr for each in ranked if each.score > -math.inf]
    repeats = [make_segment(lr=lr, seed=seed, start=0, stop=stop, parent=None) for lr in going]
    return repeats if _cost(search, [*made, *repeats]) <= search.budget + _ROUNDING else []


def _cost(search: Search, segments: Sequence[Segment]) -> float:
    return sum(each.steps for each in segments) / search.steps
