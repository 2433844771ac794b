"""Synthetic trainings for the tests of the search: their quality is a closed-form function of LR, steps and seed."""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lratlas.search.advice import Advice
from lratlas.search.rungs import next_segments
from lratlas.search.segments import Segment, SegmentResult, make_segment
from lratlas.search.settings import Search, make_search

STEPS = 6400

Answer = Callable[[Segment], SegmentResult]
Choose = Callable[[Sequence[Segment]], int]


@dataclass(frozen=True, kw_only=True)
class Valley:
    """A loss that is a parabola in log LR, falls with the steps, and whose best LR moves with them.

    Attributes:
        best: The best LR after a full training.
        drift: The best LR grows with this power of the steps.
        width: Curvature, per decade squared.
        floor: The lowest loss after a full training.
        seeds: How far the logarithm of the best LR moves per seed, in decades.
        shared: What a seed adds to the loss of all LRs alike, as a standard deviation.
        noise: What it adds to that of each LR, as a standard deviation.
        salt: Another draw of the noise.
        chance: The loss of a training that has learned nothing; none is worse, but for the noise.
        until: Trainings of fewer steps have learned nothing.
        breaks: LRs above this one diverge.
    """

    best: float = 0.01
    drift: float = 0.0
    width: float = 0.3
    floor: float = 0.4
    seeds: float = 0.0
    shared: float = 0.0
    noise: float = 0.0
    salt: int = 0
    chance: float = math.inf
    until: int = 0
    breaks: float = math.inf
    full: int = STEPS

    def best_after(self, steps: int) -> float:
        return self.best * (steps / self.full) ** self.drift

    def loss(self, lr: float, steps: int, seed: int = 0) -> float:
        own, shared = normal(f"{self.salt} {lr:.6g} {steps} {seed}"), normal(f"{self.salt} {steps} {seed}")
        noise = self.noise * own + self.shared * shared
        if steps < self.until:
            return self.chance + noise
        distance = math.log10(lr / self.best_after(steps)) - self.seeds * seed
        loss = self.floor * (0.5 + 0.5 * (self.full / steps) ** 0.25) + self.width * distance**2
        return min(loss, self.chance) + noise

    def __call__(self, asked: Segment) -> SegmentResult:
        if asked.lr > self.breaks:
            return diverged(asked)
        loss = self.loss(asked.lr, asked.stop, asked.seed)
        return result(asked, value=loss, averaged=None if asked.annealed else loss)


def normal(name: str) -> float:
    """A draw from the normal distribution, always the same for one name."""
    return random.Random(name).gauss(0.0, 1.0)


def advised_lr(advice: Advice) -> float:
    """The LR of an advice that has one."""
    assert advice.lr is not None, advice.reason
    return advice.lr


def a_search(**settings: object) -> Search:
    return make_search(**({"steps": STEPS} | settings))


def result(
    asked: Segment,
    value: float | None = None,
    *,
    averaged: float | None = None,
    losses: Iterable[float] = (),
    failure: str | None = None,
) -> SegmentResult:
    return SegmentResult(segment=asked, value=value, averaged=averaged, losses=tuple(losses), failure=failure)


def failed(asked: Segment, reason: str = "the command exited with code 1") -> SegmentResult:
    return result(asked, failure=reason)


def diverged(asked: Segment) -> SegmentResult:
    return result(asked, losses=(2.0, math.nan), failure="loss 2 of 2 is not finite")


def scaled(of: SegmentResult, factor: float) -> SegmentResult:
    """The result with metrics that are multiplied by a factor."""
    value, averaged = (None if metric is None else factor * metric for metric in (of.value, of.averaged))
    return replace(of, value=value, averaged=averaged)


def searched(search: Search, answer: Answer, *, choose: Choose | None = None, most: int = 2000) -> list[SegmentResult]:
    """All results of a search; fails if it does not come to an end.

    Args:
        search: The settings.
        answer: The result of a segment.
        choose: Which of the segments that could be trained is the next; all of them are trained together if None.
        most: More segments than any search may ask for.
    """
    results = list[SegmentResult]()
    while waiting := next_segments(search, results):
        results += [answer(each) for each in (waiting if choose is None else [waiting[choose(waiting)]])]
        assert len(results) < most
    return results


def trained(
    lr: float,
    steps: int,
    metric: float | None,
    *,
    seed: int = 0,
    start: int = 0,
    losses: Iterable[float] = (),
    error: float | None = None,
    anneal_from: int | None = None,
) -> SegmentResult:
    """The result of a training to a number of steps; it failed where there is no metric."""
    parent = make_segment(lr=lr, seed=seed, start=0, stop=start, parent=None).name if start else None
    asked = make_segment(lr=lr, seed=seed, start=start, stop=steps, parent=parent, anneal_from=anneal_from)
    if metric is None:
        return failed(asked)
    return SegmentResult(segment=asked, value=metric, error=error, losses=tuple(losses))


def moved(of: SegmentResult, factor: float) -> SegmentResult:
    """The result of the same training in another unit of the LR."""
    asked = of.segment
    lr, seed, start, end = factor * asked.lr, asked.seed, asked.start, asked.anneal_from
    parent = make_segment(lr=lr, seed=seed, start=0, stop=start, parent=None).name if asked.parent else None
    return replace(
        of, segment=make_segment(lr=lr, seed=seed, start=start, stop=asked.stop, parent=parent, anneal_from=end)
    )


def cost(results: Sequence[SegmentResult]) -> int:
    """Steps that were trained."""
    return sum(each.segment.stop - each.segment.start for each in results)


def lrs_to(results: Sequence[SegmentResult], stop: int) -> list[float]:
    """The LRs that were trained to a step at a constant LR, ascending, seed 0."""
    first = [each.segment for each in results if each.segment.seed == 0 and not each.segment.annealed]
    return sorted(each.lr for each in first if each.stop == stop)
