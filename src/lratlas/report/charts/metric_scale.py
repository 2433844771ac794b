"""The scale of the validation metric in the charts of a search."""

import math
from dataclasses import dataclass

import polars as pl

from lratlas.search.advice import Advice

_REACH = 4.0  # the scale ends at this multiple of the median distance from the best metric
_DECADES = 0.7  # distances to the best possible metric that span more powers of ten get a log scale
_ROOM = 0.06  # share of the scale left free at either end
_EDGE = 0.03  # distance of the edge from the worse end
_FAR = 3.0  # heights of the scale; a line to a far value ends there, steep enough
_POWER = 700.0  # the largest drawn power of e
_NEAREST = 10.0  # a log scale ends at most this many times nearer to the best possible metric than the measured values
_FEWEST = 3  # metrics after the first length that suffice for a scale
_TICKS = 8  # on a log scale, with 1, 2 and 5 in each decade; beyond this count only the powers of ten
AVERAGED, LAST = "averaged", "last"  # the first one ranks the LRs


@dataclass(frozen=True, kw_only=True)
class Window:
    """The visible range of metrics, and their coordinates.

    On a log scale the coordinate of a metric is its distance to the best possible one.

    Attributes:
        low: The metric at the lower end.
        high: The metric at the upper end.
        more_is_better: Whether the high end is the better one.
        limit: The best possible metric, if the scale is logarithmic in the distance to it; else None.
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
        """The coordinate of marks for values beyond the worse end, or without a metric."""
        return self.at(_EDGE if self.more_is_better else 1 - _EDGE)

    @property
    def ticks(self) -> list[float] | None:
        """The labelled coordinates of a log scale; None if Vega chooses them."""
        if self.limit is None:
            return None
        low, high = sorted(self.domain)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [(digit, float(f"{digit}e{decade}")) for decade in decades for digit in (1, 2, 5)]
        ticks = [(digit, tick) for digit, tick in ticks if low <= tick <= high]
        chosen = [tick for digit, tick in ticks if len(ticks) <= _TICKS or digit == 1]
        return chosen if len(chosen) > 1 else None

    def at(self, height: float) -> float:
        """The coordinate at a height: 0 is the lower end, 1 the upper one."""
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
        """The coordinates of a column of metrics, clipped to the scale."""
        return self._clip(column, 0.0, 1.0)

    def coordinates(self) -> pl.Expr:
        """The coordinates of the column ``metric``, clipped to a few heights beyond the scale."""
        return self._clip("metric", -_FAR, 1 + _FAR)

    def outside(self) -> pl.Expr:
        """Whether the column ``metric`` is beyond the scale; the best possible metric is at its end."""
        beyond = math.inf if self.limit is not None and self.more_is_better else self.high
        short = -math.inf if self.limit is not None and not self.more_is_better else self.low
        return ~pl.col("metric").is_between(short, beyond)

    def _coordinate(self, metric: float) -> float:
        return metric if self.limit is None else abs(self.limit - metric)

    def _clip(self, column: str, lowest: float, highest: float) -> pl.Expr:
        ends = sorted((self.at(lowest), self.at(highest)))
        coordinate = pl.col(column) if self.limit is None else (pl.col(column) - self.limit).abs()
        return coordinate.clip(*ends)


def window(advice: Advice) -> Window:
    """The scale of metrics: the contenders, the expected interval, and the errors of the LRs near the best.

    Contenders are the LRs trained for more than the first length, after that length; all LRs if there are hardly any.
    """
    rows = constant_rows(advice)
    later = rows.filter(pl.col("steps") > pl.col("steps").min())
    contenders = later if later[AVERAGED].count() >= _FEWEST else rows
    metrics = contenders[AVERAGED].append(anneal_data(advice)["metric"]).drop_nulls()
    near = advice.compared.filter(pl.col("steps") == pl.col("steps").max(), "near").select(*interval())
    marks = [near["low"], near["high"], pl.Series([advice.expected_low, advice.expected_high], dtype=pl.Float64)]
    return window_of(advice, metrics.filter(metrics.is_finite()), pl.concat(marks).drop_nulls())


def window_of(advice: Advice, metrics: pl.Series, marks: pl.Series) -> Window:
    """The scale: all metrics or, if a few are very bad, those not far beyond the median; and all marks.

    It never extends beyond the possible metrics.

    Args:
        advice: The result of a search.
        metrics: All measured metrics, finite.
        marks: Other values to show, such as the ends of intervals.
    """
    more = advice.direction == "maximize"
    if metrics.is_empty():
        return Window(low=0.0, high=1.0, more_is_better=more)
    limit = advice.limit
    floor, ceiling = _possible(advice)
    if limit is not None:
        distances = (metrics - limit).abs()
        least = max(_least(pl.concat([distances, (marks - limit).abs()])), _least(distances) / _NEAREST)
        logs = -distances.clip(least).log()
        if _spread(logs) > _DECADES * math.log(10):
            far, near = (_exp(-end) for end in _ends(logs, -(marks - limit).abs().clip(least).log()))
            low, high = sorted((limit - far, limit - near) if more else (limit + near, limit + far))
            return Window(low=max(low, floor), high=min(high, ceiling), more_is_better=more, limit=limit)
    sign = 1 if more else -1
    low, high = sorted(sign * end for end in _ends(sign * metrics, sign * marks))
    return Window(low=max(low, floor), high=min(high, ceiling), more_is_better=more)


def _possible(advice: Advice) -> tuple[float, float]:
    """The limits of a scale: the best possible metric, and zero unless a metric is below it."""
    seen = advice.evidence.select(negative=pl.any_horizontal((pl.col("value", "averaged") < 0).any()))
    floor = -math.inf if seen.item() else 0.0
    if advice.limit is None:
        return floor, math.inf
    return (floor, advice.limit) if advice.direction == "maximize" else (advice.limit, math.inf)


def _least(distances: pl.Series) -> float:
    """The substitute for a zero distance: half the smallest positive one."""
    positive = [distance for distance in distances if distance > 0]
    return max(min(positive) / 2, _exp(-_POWER)) if positive else 1.0


def _exp(power: float) -> float:
    return math.exp(min(max(power, -_POWER), _POWER))


def _spread(scores: pl.Series) -> float:
    """The distance from the best score to the worst one, at most a multiple of the distance to the median."""
    best, worst, middle = (float(scores.quantile(share, "nearest") or 0.0) for share in (1.0, 0.0, 0.5))
    return min(best - worst, _REACH * (best - middle)) if middle < best else best - worst


def _ends(scores: pl.Series, marks: pl.Series) -> tuple[float, float]:
    """The smallest and the largest visible score."""
    best = max(scores)
    low, high = min([best - _spread(scores), *marks]), max([best, *marks])
    room = _ROOM * max(high - low, 1e-3 * abs(best), 1e-9)
    return low - room, high + room


def more_is_better(advice: Advice) -> bool:
    """Whether a larger metric is better."""
    return advice.direction == "maximize"


def anneal_data(advice: Advice) -> pl.DataFrame:
    """The successful annealed branches: ``lr``, ``seed``, ``steps``, ``metric``."""
    rows = advice.evidence.filter(pl.col("annealed") & pl.col("failure").is_null())
    return rows.select("lr", "seed", "steps", metric=pl.coalesce("value", "averaged")).drop_nulls("metric")


def constant_rows(advice: Advice) -> pl.DataFrame:
    """Successful segments without an annealed end, with the ranking metric and the metric of the last weights."""
    rows = advice.evidence.filter(~pl.col("annealed") & pl.col("failure").is_null())
    order = ("value", "averaged") if advice.finish == "schedule" else ("averaged", "value")
    return rows.select("lr", "seed", "steps", averaged=pl.coalesce(*order), last="value")


def interval() -> tuple[pl.Expr, pl.Expr]:
    """The ends of the 90% interval of the difference to the best LR, around the metric."""
    return (
        (pl.col("metric") - pl.col("allowed")).alias("low"),
        (pl.col("metric") + pl.col("allowed")).alias("high"),
    )
