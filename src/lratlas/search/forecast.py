"""What a full training may reach, from the lengths that were trained."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lratlas.numbers import is_finite
from lratlas.search.evidence import distance, limit_of, metrics_of, trial, validation_error
from lratlas.search.level import Level
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search

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
