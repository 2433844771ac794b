"""Choose the next segments of a search for the initial LR, as a function of its settings and results.

The search is a successive halving (Jamieson & Talwalkar, 2016) over LRs that share initial weights and batches, ranked
by the validation metric of averaged weights. As long as no LR has learned anything, LRs are not ranked but thinned out
evenly. The budget left after the last rung goes to further seeds of the LRs that could be the best, and to longer
trainings.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lratlas.search.choice import choose
from lratlas.search.evidence import LONGER, Evidence, Level
from lratlas.search.regimes import alike, diverging, last_loss, learners, levels, undecided_lrs
from lratlas.search.segments import Segment, SegmentResult, make_segment
from lratlas.search.settings import Search
from lratlas.text import lr_fault

_SCREEN = 1 / 64  # share of a full training that all LRs get
_FIELD: Mapping[float, int] = {1 / 32: 7, 1 / 16: 6, 1 / 8: 5, 1 / 4: 4}  # number of LRs that continue to each share
_UNRANKED: Mapping[float, int] = {1 / 32: 9, 1 / 16: 6, 1 / 8: 5, 1 / 4: 4, 1 / 2: 3, 1.0: 2}  # while no LR has learned
_FRESH: Mapping[float, int] = {1 / 16: 6, 1 / 4: 3}  # if every length starts from fresh weights
_LAST = 1 / 4  # share of a full training at which the last LRs are compared
_HALF = 1 / 2  # share of a full training that some LRs should reach if none has learned before
_BY_LOSS = 1 / 32  # up to this share, LRs whose metrics tie are ranked by their training losses
_EXTENDED_TO = 1 / 16  # longest share at which the grid still grows: a later LR would cost too much
_PAIR = 2
_FEW = 3  # LRs that make a comparison
_ADDED = 2  # LRs that are added at an edge
_FARTHEST = 100.0  # largest factor by which a grid may grow beyond its ends
_LOWEST = 1e4  # `_FARTHEST` downwards, while every LR diverges
_STRIDE = (10**0.25, 10.0)  # smallest and largest ratio of the added LRs
ANNEALED_PART = 0.2
"""The last part of a training, over which an annealed LR falls linearly to zero."""
_SEEDS = 2  # seeds of each LR in the good range, before any LR is trained further
_MOST_SEEDS = 16
WIDTH = 2.0
"""A range of this ratio, an octave, is narrow enough."""
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Segments that can be trained in parallel, and the names of those whose states are needed after them."""

    segments: tuple[Segment, ...]
    keep: frozenset[str] = frozenset()

    def waiting(self, known: Mapping[str, SegmentResult]) -> tuple[Segment, ...]:
        """The segments without a result, in order of priority."""
        return tuple(each for each in self.segments if each.name not in known)


def next_segments(search: Search, results: Sequence[SegmentResult]) -> tuple[Segment, ...]:
    """The segments that can be trained now, in order of priority; empty once the search is over."""
    known = by_name(results)
    return next_stage(search, known).waiting(known)


def next_stage(search: Search, known: Mapping[str, SegmentResult]) -> Stage:
    """The first stage that lacks a result; empty once the search is over.

    The stage depends on the results of earlier stages: while it lacks a result, no further result changes it.

    Args:
        search: The settings.
        known: The results so far, by segment name.
    """
    stages = _Plan(search, known).stages()
    return next((stage for stage in stages if stage.waiting(known)), Stage(segments=()))


def states_to_keep(search: Search, stage: Stage, known: Mapping[str, SegmentResult]) -> frozenset[str]:
    """Names of the segments whose final states may be needed to continue training.

    These are the parents of the segments that can be trained now, and the finished segments of the stage: the LRs that
    continue from them are chosen once the stage is complete.
    """
    if not search.resumable:
        return frozenset()
    parents = frozenset(each.parent for each in stage.waiting(known) if each.parent)
    reached = {name for name in (*(each.name for each in stage.segments), *stage.keep) if name in known}
    return parents | frozenset(name for name in reached if known[name].failure is None)


def by_name(results: Sequence[SegmentResult]) -> dict[str, SegmentResult]:
    """Results by segment name."""
    return {each.segment.name: each for each in results}


def trainings_spent(search: Search, results: Sequence[SegmentResult]) -> float:
    """Training done so far, in full trainings."""
    return _cost(search, [each.segment for each in results])


def enough(search: Search) -> float:
    """Budget that takes the last LRs to a quarter of a full training, and one LR to its annealed end."""
    cost, before = 0, 0
    for share in _shares(search):
        stop, count = search.horizon(share), len(search.lrs)
        if before:
            count = min(count, _fields(search)[share])
        cost += count * (stop - before * search.continues)
        before = stop
    return cost / search.steps + (_LAST * ANNEALED_PART if search.continues and search.anneals else 0.0)


def _fields(search: Search) -> Mapping[float, int]:
    return _FIELD if search.continues else _FRESH


def _shares(search: Search) -> tuple[float, ...]:
    """Shares of a full training that are compared first, without shares of equal length."""
    return tuple({search.horizon(share): share for share in (_SCREEN, *_fields(search))}.values())


class _Plan:
    """The stages of a search in order; a stage is only requested once the results of earlier stages are known."""

    def __init__(self, search: Search, known: Mapping[str, SegmentResult]) -> None:
        self.search, self.known = search, known
        self.made: list[Segment] = []
        self._evidence = Evidence(search, [])

    @property
    def evidence(self) -> Evidence:
        """Known results of the stages so far."""
        results = [self.known[each.name] for each in self.made if each.name in self.known]
        if len(results) > len(self._evidence.results):  # stages only ever add some
            self._evidence = Evidence(self.search, results)
        return self._evidence

    def stages(self) -> Iterator[Stage]:
        """Yield the rungs, an annealed end, then further seeds and longer trainings of the LRs near the best."""
        search = self.search
        shares = _shares(search)
        for share in shares:
            field = [*search.lrs] if share == shares[0] else self._field(share)
            if not field:
                return
            stop = search.horizon(share)
            before = [*self.made]
            begin = _descent(search, stop)
            if share == _LAST and search.continues and search.anneals and begin < stop:
                yield self._train(field, begin)
                middle = frozenset(each.name for each in self.made[len(before) :])
                yield self._train([lr for lr in field if self._goes(lr, search.seed, stop)], stop, keep=middle)
                yield from self._anneal_best(stop, seed=search.seed)
            else:
                yield self._train(field, stop)
            while (share == shares[0] or share <= _EXTENDED_TO) and (more := self._beyond(stop)):
                yield self._train(more, stop, keep=self._ending_at(stop))
        share = _LAST
        while share < 1 and not learners(evidence := self.evidence, evidence.level(search.horizon(share))):
            share *= 2
            if search.horizon(share) == search.horizon(share / 2):
                continue
            field = self._field(share)
            if not field:
                return
            yield self._train(field, search.horizon(share))
        yield from self._rounds(share)

    def _train(
        self, lrs: Sequence[float], stop: int, *, seed: int | None = None, keep: frozenset[str] = frozenset()
    ) -> Stage:
        """One segment per LR up to a step, from the LR's longest training if it can be continued."""
        seed = self.search.seed if seed is None else seed
        # In a short training, several shares may have the same length.
        there = {(each.lr, each.seed) for each in self.made if each.stop == stop and not each.annealed}
        segments = tuple(self._segment(lr, seed, stop) for lr in sorted(lrs) if (lr, seed) not in there)
        self.made += segments
        return Stage(segments=segments, keep=keep)

    def _segment(self, lr: float, seed: int, stop: int, *, anneal_from: int | None = None) -> Segment:
        search = self.search
        end = stop if anneal_from is None else anneal_from
        of = [each for each in self.made if each.seed == seed and not each.annealed and each.stop <= end]
        # The states of LRs left behind at an earlier length are deleted.
        last = max((each.stop for each in of), default=None)
        parent = next((each for each in of if each.lr == lr and each.stop == last), None) if search.continues else None
        return make_segment(
            lr=lr,
            seed=seed,
            start=parent.stop if parent else 0,
            stop=stop,
            parent=parent.name if parent else None,
            anneal_from=anneal_from,
            schedule=search.schedule,
            warmup=search.warmup_of(stop),
        )

    def _cost_to(self, lr: float, seed: int, stop: int) -> float:
        return self._segment(lr, seed, stop).steps / self.search.steps

    def _budget_left(self) -> float:
        return self.search.budget - _cost(self.search, self.made) + _ROUNDING

    def _field(self, share: float) -> list[float]:
        """The LRs that are trained to a share of the steps: the best ones, up to the planned number and the budget."""
        search, evidence = self.search, self.evidence
        level = evidence.level(max(each.stop for each in self.made if not each.annealed))
        lost = diverging(evidence)
        going = [lr for lr in level.lrs if lr not in lost]
        learned = [lr for lr in learners(evidence, level) if lr not in lost]
        stop = search.horizon(share)
        if not going:
            return []
        if not learned:
            moved = undecided_lrs(evidence.results)
            open_ = [lr for lr in going if lr in moved]
            return self._space_lrs(open_ if len(open_) > 1 else going, share)
        ranked = self._rank_lrs(level, learned, by_loss=share <= _BY_LOSS * 2)
        # LRs that have learned nothing are ranked by their distance to the best LR, not by their noise. LRs left behind
        # while none had learned come back.
        others = {*going} - {*learned}
        if not self._was_ranked(level):
            failed = {each.segment.lr for each in evidence.results if each.failure is not None}
            others |= {each.lr for each in self.made} - lost - failed - {*ranked}
        ranked += sorted(others, key=lambda lr: (round(abs(math.log(lr / ranked[0])), 3), lr))
        return self._affordable(ranked[: _fields(search)[share]], [search.seed], stop)

    def _space_lrs(self, lrs: Sequence[float], share: float) -> list[float]:
        """Evenly spaced LRs; later, few enough that two can reach half of a full training within the budget."""
        search, stop = self.search, self.search.horizon(share)
        count, each = _UNRANKED[share], self._cost_to(lrs[0], search.seed, stop)
        later = 2 * (_HALF - share)
        if search.continues and share >= _LAST / 2 and 2 * each + later <= self._budget_left():
            count = min(count, int((self._budget_left() - later) / each))
        return self._affordable(_evenly(lrs, count), [search.seed], stop)

    def _was_ranked(self, level: Level) -> bool:
        """Whether LRs had learned at the length before, so that LRs left behind since then had been ranked."""
        lengths = sorted({each.stop for each in self.made if not each.annealed and LONGER * each.stop < level.steps})
        return not lengths or bool(learners(evidence := self.evidence, evidence.level(lengths[-1])))

    def _rank_lrs(self, level: Level, lrs: Sequence[float], *, by_loss: bool) -> list[float]:
        """Rank LRs of a level, best first; with ``by_loss``, LRs near the best are ranked by their losses."""
        scores = dict(zip(level.lrs, level.scores, strict=True))
        near, evidence = set(level.near()) if by_loss else set[float](), self.evidence
        losses = {lr: last_loss(evidence.trial(lr)) for lr in near}
        if any(math.isnan(loss) for loss in losses.values()):
            near = set()
        return sorted(lrs, key=lambda lr: (lr not in near, losses[lr] if lr in near else -scores[lr], lr))

    def _beyond(self, stop: int) -> list[float]:
        """LRs to add beyond an end of the grid if the best LR is at that end, if all diverged, or if none has moved."""
        search, evidence = self.search, self.evidence
        level = evidence.level(stop)
        lrs = sorted({each.lr for each in self.made})
        lost = diverging(evidence)
        farthest = _FARTHEST
        going = [lr for lr in level.lrs if lr not in lost]
        if not going:
            if not lost:  # all failed, but not because the LR was too large
                return []
            up, farthest = False, _LOWEST
        elif lost and len(going) < _FEW and going[0] == lrs[0]:
            up, farthest = False, _LOWEST  # for a comparison with LRs below
        elif alike(evidence.results, stop):
            # All may be far too small: try larger ones once, while that is cheap.
            if stop > search.horizon(_SCREEN):
                return []
            up = True
        elif not learners(evidence, level) or level.tied:
            return []
        else:
            best = self._rank_lrs(level, going, by_loss=True)[0]
            if best not in {lrs[0], lrs[-1]}:
                return []
            up = best == lrs[-1]
        ends = lrs[-2:] if up else lrs[:2]
        # A dense grid would spend the budget on the way; a coarse one would exceed the allowed factor at once.
        ratio = min(max(ends[-1] / ends[0], _STRIDE[0]), _STRIDE[1])
        if not going or alike(evidence.results, stop):
            ratio = _STRIDE[1]
        low, high = search.lrs[0] / farthest, search.lrs[-1] * _FARTHEST
        edge = lrs[-1] if up else lrs[0]
        added = [edge * ratio ** (number if up else -number) for number in range(1, _ADDED + 1)]
        added = [lr for lr in added if low * (1 - _ROUNDING) <= lr <= high * (1 + _ROUNDING) and not lr_fault(lr)]
        affordable = len(added) * stop / search.steps <= self._budget_left()
        return added if affordable or not level.lrs else []

    def _anneal_best(self, stop: int, *, seed: int) -> Iterator[Stage]:
        """Train the best LR again with an annealed end over the last fifth, if the budget allows it."""
        level = (evidence := self.evidence).level(stop)
        if not level.lrs or not learners(evidence, level):
            return
        end = self._segment(level.lrs[level.best], seed, stop, anneal_from=_descent(self.search, stop))
        if end.steps / self.search.steps <= self._budget_left() and end.anneal_from != end.stop:
            self.made.append(end)
            yield Stage(segments=(end,), keep=self._ending_at(stop))

    def _rounds(self, share: float) -> Iterator[Stage]:
        """Yield further seeds of the LRs in the good range, then longer trainings, until the range is narrow."""
        search = self.search
        while True:
            evidence, stop = self.evidence, search.horizon(share)
            learned = [each for each in levels(evidence) if each.steps <= stop and learners(evidence, each)]
            if not learned or learned[-1].steps != stop:
                return
            level = learned[-1]
            good = choose(evidence, learned)
            near = [lr for lr in self._rank_lrs(level, level.lrs, by_loss=False) if good.low <= lr <= good.high]
            if back := self._lrs_left_behind(level):
                yield self._train(back, stop, keep=self._ending_at(stop))
                continue
            if len(near) < 2 or good.high / good.low <= WIDTH:
                return
            seeds = 1 + max(each.seed for each in self.made) - search.seed
            if seeds < (_SEEDS if share < 1 else _MOST_SEEDS):
                chosen, more = self._affordable(near, [search.seed + seeds], stop), [search.seed + seeds]
            else:
                if share == 1:
                    return
                share *= 2
                stop = search.horizon(share)
                chosen, more = list[float](), list[int]()
                for count in range(seeds, 0, -1):
                    more = [search.seed + number for number in range(count)]
                    if chosen := self._affordable(near, more, stop):
                        break
            if not chosen:
                return
            keep = self._ending_at(stop)
            stages = [
                self._train([lr for lr in chosen if self._goes(lr, seed, stop)], stop, seed=seed) for seed in more
            ]
            yield Stage(segments=tuple(each for stage in stages for each in stage.segments), keep=keep)

    def _lrs_left_behind(self, level: Level) -> list[float]:
        """The neighbour of the best LR that was left behind while none had learned; the smaller one first."""
        if self._was_ranked(level):
            return []
        best = level.lrs[level.best]
        tried = {each.lr for each in self.made} - diverging(self.evidence)
        smaller, larger = [lr for lr in tried if lr < best], [lr for lr in tried if lr > best]
        beside = [*([max(smaller)] if smaller else []), *([min(larger)] if larger else [])]
        missing = [lr for lr in beside if lr not in {*level.lrs, *level.failed}]
        return self._affordable(missing[:1], [self.search.seed], level.steps)

    def _goes(self, lr: float, seed: int, stop: int) -> bool:
        """Whether an LR has not failed with a seed."""
        of = [each.name for each in self.made if each.lr == lr and each.seed == seed and each.stop <= stop]
        return all(self.known[name].failure is None for name in of)

    def _ending_at(self, stop: int) -> frozenset[str]:
        return frozenset(each.name for each in self.made if each.stop == stop and not each.annealed)

    def _affordable(self, lrs: Sequence[float], seeds: Sequence[int], stop: int) -> list[float]:
        """The first LRs that the budget allows, each with all seeds; empty unless two can be compared."""
        left, chosen = self._budget_left(), list[float]()
        for lr in lrs:
            left -= sum(self._cost_to(lr, seed, stop) for seed in seeds)
            if left < 0:
                break
            chosen.append(lr)
        return chosen if len(chosen) >= min(2, len(lrs)) else []


def _evenly(lrs: Sequence[float], count: int) -> list[float]:
    """That many evenly spaced LRs: the middles of equal parts; of a final pair the smaller one, which is safer."""
    count = min(count, len(lrs))
    middle = 0.0 if count == _PAIR else 0.5
    return [lrs[int((number + 0.5) * len(lrs) / count - 0.5 + middle)] for number in range(count)]


def _descent(search: Search, stop: int) -> int:
    """The step at which annealing begins."""
    return stop - search.unit * round(ANNEALED_PART * stop / search.unit)


def _cost(search: Search, segments: Sequence[Segment]) -> float:
    return sum(each.steps for each in segments) / search.steps
