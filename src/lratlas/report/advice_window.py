"""The scale of metrics that the charts of a search share: how far it reaches, and whether it is logarithmic."""

import math
from dataclasses import dataclass

import polars as pl

from lratlas.search.advice import Advice

_REACH = 4.0  # the scale reaches this many times farther from the best metric than half of all metrics are
_DECADES = 0.7  # distances to the best possible metric that span more powers of ten have a log scale
_ROOM = 0.06  # left free at either end
_EDGE = 0.03  # distance of the edge from the worse end
_FAR = 3.0  # heights of the scale at which a line to a far value leaves it steeply enough
_POWER = 700.0  # of e, the largest one that is drawn
_TICKS = 8  # on a log scale, with 1, 2 and 5 in each decade; of more, only the powers of ten


@dataclass(frozen=True, kw_only=True)
class Window:
    """The metrics that a chart shows, and their coordinates.

    On a log scale the coordinate of a metric is its distance to the best possible one.

    Attributes:
        low: The metric at the lower end.
        high: The metric at the upper end.
        more_is_better: Whether the better end is the high one.
        limit: The best possible metric, where the scale is logarithmic in the distance to it; else None.
    """

    low: float
    high: float
    more_is_better: bool
    limit: float | None = None

    @property
    def domain(self) -> list[float]:
        """The coordinates of the lower and the upper end."""
        return [self._coordinate(self.low), self._coordinate(self.high)]

    @property
    def edge(self) -> float:
        """The coordinate at which marks stand for what is worse than the whole scale, or has no metric."""
        return self.at(_EDGE if self.more_is_better else 1 - _EDGE)

    @property
    def ticks(self) -> list[float] | None:
        """The labelled coordinates of a log scale; None where Vega chooses them."""
        if self.limit is None:
            return None
        low, high = sorted(self.domain)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [(digit, float(f"{digit}e{decade}")) for decade in decades for digit in (1, 2, 5)]
        ticks = [(digit, tick) for digit, tick in ticks if low <= tick <= high]
        chosen = [tick for digit, tick in ticks if len(ticks) <= _TICKS or digit == 1]
        return chosen if len(chosen) > 1 else None

    def at(self, height: float) -> float:
        """The coordinate at a height, 0 being the lower end and 1 the upper one."""
        low, high = self.domain
        if self.limit is None:
            return low + height * (high - low)
        power = (1 - height) * math.log(low) + height * math.log(high)
        return _exp(power)

    def height(self, coordinate: float) -> float:
        """The inverse of `at`."""
        low, high = self.domain
        if self.limit is None:
            return (coordinate - low) / (high - low)
        start, end = math.log(low), math.log(high)
        return (math.log(coordinate) - start) / (end - start)

    def within(self, column: str = "metric") -> pl.Expr:
        """The coordinates of a column of metrics, moved to the end of the scale where they lie beyond it."""
        return self._clipped(column, 0.0, 1.0)

    def drawn(self) -> pl.Expr:
        """The coordinates of the column ``metric``, moved to a few heights of the scale where they lie farther away."""
        return self._clipped("metric", -_FAR, 1 + _FAR)

    def outside(self) -> pl.Expr:
        """Whether the column ``metric`` lies beyond the scale; the best possible metric is at its end."""
        beyond = math.inf if self.limit is not None and self.more_is_better else self.high
        short = -math.inf if self.limit is not None and not self.more_is_better else self.low
        return ~pl.col("metric").is_between(short, beyond)

    def _coordinate(self, metric: float) -> float:
        return metric if self.limit is None else abs(self.limit - metric)

    def _clipped(self, column: str, lowest: float, highest: float) -> pl.Expr:
        ends = sorted((self.at(lowest), self.at(highest)))
        coordinate = pl.col(column) if self.limit is None else (pl.col(column) - self.limit).abs()
        return coordinate.clip(*ends)


def window_of(advice: Advice, metrics: pl.Series, marks: pl.Series) -> Window:
    """The scale: all metrics or, where a few are awful, those not far beyond the middle one; and all marks.

    It never reaches beyond the metrics that are possible.

    Args:
        advice: What a search came to.
        metrics: All that were measured, finite.
        marks: Other values to be shown, such as the ends of intervals.
    """
    more = advice.direction == "maximize"
    if metrics.is_empty():
        return Window(low=0.0, high=1.0, more_is_better=more)
    limit = advice.limit
    floor, ceiling = _possible(advice)
    if limit is not None:
        distances = (metrics - limit).abs()
        least = _least(distances)
        logs = -distances.clip(least).log()
        if _spread(logs) > _DECADES * math.log(10):
            far, near = (_exp(-end) for end in _ends(logs, -(marks - limit).abs().clip(least).log()))
            low, high = sorted((limit - far, limit - near) if more else (limit + near, limit + far))
            return Window(low=max(low, floor), high=min(high, ceiling), more_is_better=more, limit=limit)
    sign = 1 if more else -1
    low, high = sorted(sign * end for end in _ends(sign * metrics, sign * marks))
    return Window(low=max(low, floor), high=min(high, ceiling), more_is_better=more)


def _possible(advice: Advice) -> tuple[float, float]:
    """How far a scale may reach: to the best possible metric, and below zero only where a metric is."""
    seen = advice.evidence.select(negative=pl.any_horizontal((pl.col("value", "averaged") < 0).any()))
    floor = -math.inf if seen.item() else 0.0
    if advice.limit is None:
        return floor, math.inf
    return (floor, advice.limit) if advice.direction == "maximize" else (advice.limit, math.inf)


def _least(distances: pl.Series) -> float:
    """What stands for no distance at all: half the least one that is above zero."""
    positive = [distance for distance in distances if distance > 0]
    return max(min(positive) / 2, _exp(-_POWER)) if positive else 1.0


def _exp(power: float) -> float:
    return math.exp(min(max(power, -_POWER), _POWER))


def _spread(scores: pl.Series) -> float:
    """The distance from the best score to the worst one, or to a multiple of that to the middle one."""
    best, worst, middle = (float(scores.quantile(share, "nearest") or 0.0) for share in (1.0, 0.0, 0.5))
    return min(best - worst, _REACH * (best - middle)) if middle < best else best - worst


def _ends(scores: pl.Series, marks: pl.Series) -> tuple[float, float]:
    """The least and the largest score that are shown."""
    best = max(scores)
    low, high = min([best - _spread(scores), *marks]), max([best, *marks])
    room = _ROOM * max(high - low, 1e-3 * abs(best), 1e-9)
    return low - room, high + room
