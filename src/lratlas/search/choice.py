"""Which LR is best: forecasts of the metric at the end of a full training, and the choice between them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lratlas.search.evidence import LONGER, Level, distance, limit_of, metrics_of, trial, validation_error
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search
from lratlas.text import SMALLEST_LR, is_finite

INTERVAL = 1.645
"""Standard errors on either side of what is expected: 90%."""
NEXT_GAIN = 0.6
"""What a doubling of the steps is expected to add, as a share of what the doubling before it added."""
_DRIFT = 0.08  # standard deviation of the logarithm of the distance, per doubling that was not seen
_HALFWAY = 0.5
_DOUBT = 0.7  # standard deviation of what is still expected, as a share of it
_DOUBLED = 1.9  # a length is about twice another, when both are whole steps
_TRUSTED = 1 / 32  # gains from shorter trainings than this share are those of a beginning


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a full training is expected to reach, with a 90% interval, as a metric."""

    value: float
    low: float
    high: float


def forecast(search: Search, results: Sequence[SegmentResult], lr: float, *, level: Level) -> Forecast | None:
    """What a full training at an LR of a level is expected to reach, on the validation set, with a seed not seen.

    The logarithm of the distance to the best possible metric falls with every doubling of the steps; a doubling that
    was not seen adds less than the one before it, and uncertainty. Where the best possible metric is unknown, the
    metric itself is projected. None where most is still to come: no doubling was seen, or the metric is nearer to that
    of a model that has learned nothing than to the best possible one.
    """
    limit = limit_of(search, results)
    score = level.scores[level.lrs.index(lr)]
    doublings = max(0.0, math.log2(search.steps / level.steps))
    own = [each for each in results if each.segment.lr == lr and each.segment.stop == level.steps]
    error = math.hypot(level.noise, validation_error(search, results, own, score))
    scale = distance(search, results, score) or 1.0
    place = _scale(search, results, score)
    seen = gain(search, results, lr, level=level)
    if doublings and (seen is None or _early(search, results, score)):
        return None
    ahead = (seen or 0.0) * NEXT_GAIN * (1 - NEXT_GAIN**doublings) / (1 - NEXT_GAIN)
    spread = math.hypot(error / scale, _DRIFT * doublings, _DOUBT * abs(ahead))
    middle = place(score) - ahead
    ends = [_metric(search, middle + sign * INTERVAL * spread, limit, scale) for sign in (-1, 0, 1)]
    if limit is not None and min(metrics_of(results), default=-1.0) >= 0:
        ends = [max(0.0, end) for end in ends]  # a share or a loss
    return Forecast(value=ends[1], low=min(ends), high=max(ends))


def _scale(search: Search, results: Sequence[SegmentResult], score: float) -> Callable[[float], float]:
    """Where a score is on the scale of the forecast, which falls as the score gets better."""
    limit, unit = limit_of(search, results), distance(search, results, score) or 1.0

    def place(value: float) -> float:
        return -value / unit if limit is None else math.log(max(distance(search, results, value), 1e-12))

    return place


def _early(search: Search, results: Sequence[SegmentResult], score: float) -> bool:
    """Whether less than half of the way from a model that has learned nothing to the best possible metric is done."""
    if search.chance is None or limit_of(search, results) is None:
        return False
    return distance(search, results, score) > _HALFWAY * distance(search, results, search.score(search.chance))


def gain(search: Search, results: Sequence[SegmentResult], lr: float, *, level: Level) -> float | None:
    """By how much the logarithm of the distance to the best possible metric fell with the last doubling of the steps.

    Where the best possible metric is unknown: the gain as a share of all that was gained so far. None where no doubling
    was seen.
    """
    of = [each for each in trial(results, lr, seed=search.seed) if is_finite(search.score(each.quality))]
    return _last_gain(search, of, level.steps, _scale(search, results, level.scores[level.lrs.index(lr)]))


def _last_gain(
    search: Search, of: Sequence[SegmentResult], steps: int, place: Callable[[float], float]
) -> float | None:
    """How far the last doubling of the steps moved a trial on the scale of the forecast; None where it is not known."""
    known = [each for each in of if search.horizon(_TRUSTED) <= each.segment.stop <= steps]
    earlier = [each for each in known if known[-1].segment.stop >= _DOUBLED * each.segment.stop]
    if not earlier:
        return None
    before, after = (search.score(each.quality) for each in (earlier[-1], known[-1]))
    doublings = math.log2(known[-1].segment.stop / earlier[-1].segment.stop)
    return (place(before) - place(after)) / doublings


def _metric(search: Search, place: float, limit: float | None, scale: float) -> float:
    if limit is None:
        return search.metric(-place * scale)
    away = math.exp(min(place, 700.0))
    return limit - away if search.direction == "maximize" else limit + away


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
    places = [at for at in range(len(level.lrs)) if level.is_near(at)]
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
    excess = [level.behind(at) - margin - level.allowance(at) for at in range(len(level.lrs))]
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
