"""Choice of the best LR, from forecasts of the metric at the end of a full training."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lratlas.search.evidence import LONGER, Evidence, Level
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search
from lratlas.text import SMALLEST_LR, is_finite

INTERVAL = 1.645
"""Standard errors on each side of the expected value: a 90% interval."""
NEXT_GAIN = 0.6
"""Expected gain of a doubling of the steps, as a share of the gain of the doubling before it."""
_DRIFT = 0.08  # standard deviation of the logarithm of the distance, per unseen doubling
_HALFWAY = 0.5
_DOUBT = 0.7  # standard deviation of the remaining gain, as a share of it
_DOUBLED = 1.9  # a length is about twice another when both are whole steps
_TRUSTED = 1 / 32  # gains from shorter trainings than this share are those of a beginning


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Expected metric of a full training, with a 90% interval."""

    value: float
    low: float
    high: float


def forecast(evidence: Evidence, lr: float, *, level: Level) -> Forecast | None:
    """Forecast the validation metric of a full training at an LR of a level, with a new seed.

    The logarithm of the distance to the best possible metric falls with every doubling of the steps. An unseen doubling
    adds less than the one before it, and adds uncertainty. If the best possible metric is unknown, the metric itself is
    projected. None if most of the gain is still to come: no doubling was seen, or the metric is nearer to that of a
    model that has learned nothing than to the best possible one.
    """
    search, limit = evidence.search, evidence.limit
    score = level.scores[level.lrs.index(lr)]
    doublings = max(0.0, math.log2(search.steps / level.steps))
    own = [each for each in evidence.results if each.segment.lr == lr and each.segment.stop == level.steps]
    error = math.hypot(level.noise, evidence.validation_error(own, score))
    scale = evidence.distance(score) or 1.0
    place = _scale(evidence, score)
    seen = gain(evidence, lr, level=level)
    if doublings and (seen is None or _early(evidence, score)):
        return None
    ahead = (seen or 0.0) * NEXT_GAIN * (1 - NEXT_GAIN**doublings) / (1 - NEXT_GAIN)
    spread = math.hypot(error / scale, _DRIFT * doublings, _DOUBT * abs(ahead))
    middle = place(score) - ahead
    ends = [_metric(search, middle + sign * INTERVAL * spread, limit, scale) for sign in (-1, 0, 1)]
    if limit is not None and min(evidence.metrics, default=-1.0) >= 0:
        ends = [max(0.0, end) for end in ends]  # a share or a loss
    return Forecast(value=ends[1], low=min(ends), high=max(ends))


def _scale(evidence: Evidence, score: float) -> Callable[[float], float]:
    """Return the function from a score to its place on the forecast's scale, which falls as the score improves."""
    unit = evidence.distance(score) or 1.0

    def place(value: float) -> float:
        return -value / unit if evidence.limit is None else math.log(max(evidence.distance(value), 1e-12))

    return place


def _early(evidence: Evidence, score: float) -> bool:
    """Whether the metric is less than halfway from that of an untrained model to the best possible one."""
    chance = evidence.search.chance
    if chance is None or evidence.limit is None:
        return False
    return evidence.distance(score) > _HALFWAY * evidence.distance(evidence.search.score(chance))


def gain(evidence: Evidence, lr: float, *, level: Level) -> float | None:
    """Decrease of the logarithm of the distance to the best possible metric in the last doubling of the steps.

    If the best possible metric is unknown: the gain as a share of the total gain so far. None if no doubling was seen.
    """
    search = evidence.search
    of = [each for each in evidence.trial(lr) if is_finite(search.score(each.quality))]
    return _last_gain(search, of, level.steps, _scale(evidence, level.scores[level.lrs.index(lr)]))


def _last_gain(
    search: Search, of: Sequence[SegmentResult], steps: int, place: Callable[[float], float]
) -> float | None:
    """Move of a trial on the forecast's scale in the last doubling of the steps; None if unknown."""
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
"""The best LR falls as a power of the steps: 0.32 for language models (Bjorck et al., 2024). Here the exponent is
the gain of the last doubling, clipped to this range: LR times steps counts while the metric improves steeply."""
_SEEN = 1 / 4
"""Smallest share of a full training at which steepness counts; in shorter ones the metric always improves steeply."""
_REACH = 0.7
"""The smallest LR near the best falls as this power of the steps: 1 if only LR times steps counted."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The LR to use, and the good range around it."""

    lr: float
    low: float
    high: float


def choose(evidence: Evidence, found: Sequence[Level]) -> Choice:
    """Choose the LR for a full training, and the range of LRs that are equal to the best within the noise.

    The LR is the mean, over log LR, of the LRs that could be the best at the last length. Each is weighted by the
    probability that belongs to its distance from the best. The mean is then shifted for the unseen steps.
    """
    search, last = evidence.search, found[-1]
    part = last.steps / search.steps
    usual, steep = _LR_DRIFT
    more = min(max(_steepness(evidence, found), usual), steep) - usual
    lr = _center(last) * part**usual * max(part, _SEEN) ** more
    low = next((edge * (level.steps / search.steps) ** _REACH for level, edge in _edges(search, found, up=False)), None)
    high = next((edge for _, edge in _edges(search, found, up=True)), None)
    tried = sorted({lr for level in found for lr in level.lrs})
    low, high = tried[0] if low is None else low, tried[-1] if high is None else high
    # A shorter comparison must not shrink the range that is near the best at the longest one.
    near = _around(search, last)
    lr = max(lr, SMALLEST_LR)
    return Choice(lr=lr, low=min(lr, low, near[0]), high=max(lr, high, near[-1]))


def _steepness(evidence: Evidence, learned: Sequence[Level]) -> float:
    """Gain of the last doubling minus the noise of the difference between its two metrics.

    Infinite if no LR had learned at any earlier length.
    """
    last = learned[-1]
    if len(learned) == 1 and any(each.segment.stop * LONGER < last.steps for each in evidence.results):
        return math.inf
    noise = INTERVAL * math.sqrt(2) * last.noise / (evidence.distance(last.scores[last.best]) or 1.0)
    return (gain(evidence, last.lrs[last.best], level=last) or 0.0) - noise


def _center(level: Level) -> float:
    """Mean over log LR of the LRs that could be the best; the best LR if there is no noise."""
    places = [at for at in range(len(level.lrs)) if level.is_near(at)]
    weights = [
        math.exp(-0.5 * (level.behind(at) / level.spread(at)) ** 2) if level.noise > 0 else float(at == level.best)
        for at in places
    ]
    logs = [math.log(level.lrs[at]) for at in places]
    return math.exp(float(np.average(logs, weights=weights)))


def _around(search: Search, level: Level) -> list[float]:
    """The contiguous LRs around the best one that are near it."""
    near = level.near(margin=search.tolerance * abs(level.scores[level.best]))
    first = last = level.best
    while first > 0 and level.lrs[first - 1] in near:
        first -= 1
    while last + 1 < len(level.lrs) and level.lrs[last + 1] in near:
        last += 1
    return [*level.lrs[first : last + 1]]


def _edges(search: Search, found: Sequence[Level], *, up: bool) -> list[tuple[Level, float]]:
    """For each length, longest first: the LR at which others fall behind on one side of the best LR."""
    return [(level, edge) for level in reversed(found) if (edge := _edge(search, level, up=up)) is not None]


def _edge(search: Search, level: Level, *, up: bool) -> float | None:
    """LR at which the distance to the best one reaches its limit; None if all LRs on that side are near."""
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
