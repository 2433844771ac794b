"""Which LR to use, and which are as good: from the lengths at which LRs were compared to a full training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lratlas.numbers import SMALLEST_LR
from lratlas.search.evidence import LONGER, distance
from lratlas.search.forecast import INTERVAL, gain
from lratlas.search.level import Level
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search

_LR_DRIFT = (0.1, 0.7)
"""The best LR falls like the steps to a power: 0.32 for language models (Bjorck et al., 2024). Here it is the gain of
the last doubling between these two: where the metric still improves steeply, LR times steps is what counts."""
_SEEN = 1 / 4
"""From this share of a full training on; in shorter ones the metric always improves steeply."""
_REACH = 0.7
"""The smallest LR that is near the best falls like the steps to this power: 1 if only LR times steps counted."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The LR to use, and the good range around it."""

    lr: float
    low: float
    high: float


def choose(search: Search, results: Sequence[SegmentResult], found: Sequence[Level]) -> Choice:
    """The LR to use for a full training, and the range of those that cannot be told from the best.

    The LR is the mean, over log LR, of those that could be the best at the last length, each with the probability that
    goes with its distance to the best; then it is shifted for the steps that were not seen.
    """
    last = found[-1]
    part = last.steps / search.steps
    usual, steep = _LR_DRIFT
    more = min(max(_steepness(search, results, found), usual), steep) - usual
    lr = _center(last) * part**usual * max(part, _SEEN) ** more
    low = next((edge * (level.steps / search.steps) ** _REACH for level, edge in _edges(search, found, up=False)), None)
    high = next((edge for _, edge in _edges(search, found, up=True)), None)
    tried = sorted({lr for level in found for lr in level.lrs})
    low, high = tried[0] if low is None else low, tried[-1] if high is None else high
    # A shorter comparison takes nothing from the range that the longest one could not tell from the best.
    near = _around(search, last)
    lr = max(lr, SMALLEST_LR)
    return Choice(lr=lr, low=min(lr, low, near[0]), high=max(lr, high, near[-1]))


def _steepness(search: Search, results: Sequence[SegmentResult], learned: Sequence[Level]) -> float:
    """The gain of the last doubling, as far as it exceeds the noise of the two metrics that it is the difference of.

    It is as steep as can be where nothing had been learned before.
    """
    last = learned[-1]
    if len(learned) == 1 and any(each.segment.stop * LONGER < last.steps for each in results):
        return math.inf
    noise = INTERVAL * math.sqrt(2) * last.noise / (distance(search, results, last.scores[last.best]) or 1.0)
    return (gain(search, results, last.lrs[last.best], level=last) or 0.0) - noise


def _center(level: Level) -> float:
    """The mean of the LRs that could be the best, over log LR; the best one itself where there is no noise."""
    places = [at for at, lr in enumerate(level.lrs) if lr in level.near()]
    weights = [
        math.exp(-0.5 * (level.behind(at) / level.spread(at)) ** 2) if level.noise > 0 else float(at == level.best)
        for at in places
    ]
    logs = [math.log(level.lrs[at]) for at in places]
    return math.exp(float(np.average(logs, weights=weights)))


def _around(search: Search, level: Level) -> list[float]:
    """The LRs next to the best one, on either side up to the first that is behind."""
    near = level.near(margin=search.tolerance * abs(level.scores[level.best]))
    first = last = level.best
    while first > 0 and level.lrs[first - 1] in near:
        first -= 1
    while last + 1 < len(level.lrs) and level.lrs[last + 1] in near:
        last += 1
    return [*level.lrs[first : last + 1]]


def _edges(search: Search, found: Sequence[Level], *, up: bool) -> list[tuple[Level, float]]:
    """Where, on one side of the best LR, others fall behind: at each length that saw it, the longest first."""
    return [(level, edge) for level in reversed(found) if (edge := _edge(search, level, up=up)) is not None]


def _edge(search: Search, level: Level, *, up: bool) -> float | None:
    """The LR at which the distance to the best one is as large as it may be; None where all on that side are near."""
    margin = search.tolerance * abs(level.scores[level.best])
    excess = [level.behind(at) - margin - level.allowed(at) for at in range(len(level.lrs))]
    step = 1 if up else -1
    at = level.best
    while 0 <= at + step < len(level.lrs):
        if excess[at + step] > 0:
            inside, outside = math.log(level.lrs[at]), math.log(level.lrs[at + step])
            share = -excess[at] / (excess[at + step] - excess[at])
            return math.exp(inside + share * (outside - inside))
        at += step
    beyond = [lr for lr in level.failed if (lr > level.lrs[at]) == up]
    return level.lrs[at] if beyond else None
