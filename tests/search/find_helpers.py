"""Made-up trainings for the tests of the search: their quality is a closed-form function of LR, steps and seed."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lratlas.search.rungs import next_segments
from lratlas.search.segments import Segment, SegmentResult
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
    """

    best: float = 0.01
    drift: float = 0.0
    width: float = 0.3
    floor: float = 0.4
    seeds: float = 0.0
    full: int = STEPS

    def best_after(self, steps: int) -> float:
        return self.best * (steps / self.full) ** self.drift

    def loss(self, lr: float, steps: int, seed: int = 0) -> float:
        distance = math.log10(lr / self.best_after(steps)) - self.seeds * seed
        return self.floor * (0.5 + 0.5 * (self.full / steps) ** 0.25) + self.width * distance**2

    def __call__(self, asked: Segment) -> SegmentResult:
        loss = self.loss(asked.lr, asked.stop, asked.seed)
        return result(asked, value=loss, averaged=loss)


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


def scaled(of: SegmentResult, factor: float) -> SegmentResult:
    """The result with metrics that are multiplied by a factor."""
    value, averaged = (None if metric is None else factor * metric for metric in (of.value, of.averaged))
    return replace(of, value=value, averaged=averaged)


def searched(search: Search, answer: Answer, *, choose: Choose = lambda _: 0, most: int = 2000) -> list[SegmentResult]:
    """All results of a search whose segments are trained one after the other; fails if it does not come to an end.

    Args:
        search: The settings.
        answer: What comes of a segment.
        choose: Which of the segments that could be trained is the next.
        most: More segments than any search may ask for.
    """
    results = list[SegmentResult]()
    while waiting := next_segments(search, results):
        results.append(answer(waiting[choose(waiting)]))
        assert len(results) < most
    return results


def cost(results: Sequence[SegmentResult]) -> int:
    """Steps that were trained."""
    return sum(each.segment.stop - each.segment.start for each in results)


def lrs_to(results: Sequence[SegmentResult], stop: int) -> list[float]:
    """The LRs that were trained to a step at a constant LR, ascending, seed 0."""
    first = [each.segment for each in results if each.segment.seed == 0 and not each.segment.annealed]
    return sorted(each.lr for each in first if each.stop == stop)
