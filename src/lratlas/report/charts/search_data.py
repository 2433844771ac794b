"""The data of the charts of a search."""

import math
from dataclasses import dataclass

import polars as pl

from lratlas.report.frames import repeat_by_seed
from lratlas.search.advice import Advice
from lratlas.search.rungs import ANNEALED_PART

_REACH = 4.0  # the scale ends at this multiple of the median distance from the best metric
_DECADES = 0.7  # distances to the best possible metric that span more powers of ten get a log scale
_ROOM = 0.06  # share of the scale left free at either end
_EDGE = 0.03  # distance of the edge from the worse end
_FAR = 3.0  # heights of the scale; a line to a far value ends there, steep enough
_POWER = 700.0  # the largest drawn power of e
_NEAREST = 10.0  # a log scale ends at most this many times nearer to the best possible metric than the measured values
_FEWEST = 3  # metrics after the first length that suffice for a scale
_TICKS = 8  # on a log scale, with 1, 2 and 5 in each decade; beyond this count only the powers of ten


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


AVERAGED, LAST = "averaged", "last"  # the first one ranks the LRs

_HALVINGS = tuple(2**halvings for halvings in range(7))  # a full training over these: lengths at which LRs are compared
_WHOLE = 0.1  # largest distance of the inverse of a share from a whole number


def more_is_better(advice: Advice) -> bool:
    """Whether a larger metric is better."""
    return advice.direction == "maximize"


def part_text(steps: int, *, of: int) -> str:
    """A length as a share of a full training, in words.

    Example:
        >>> [part_text(steps, of=6400) for steps in (100, 1280, 6400, 2000)]
        ['1/64', '1/5', '1', '0.31']
        >>> part_text(1, of=95)  # rounded to whole steps
        '1/64'
    """
    halved = next((number for number in _HALVINGS if steps == max(1, round(of / number))), None)
    number = halved or round(of / steps)
    if halved is None and not (number > 1 and abs(of / steps - number) < _WHOLE):
        return f"{steps / of:.2g}"
    return f"1/{number}" if number > 1 else "1"


def kinds_of_weights(advice: Advice) -> tuple[str, ...]:
    """The available metrics: ``averaged``, which ranks the LRs, and ``last`` if both were reported.

    Under a schedule the last weights rank the LRs, and there is no choice.
    """
    told = advice.evidence.filter(~pl.col("annealed"))
    both = told["averaged"].count() and told["value"].count() and advice.finish != "schedule"
    return (AVERAGED, LAST) if both else (AVERAGED,)


def window(advice: Advice) -> Window:
    """The scale of metrics: the contenders, the expected interval, and the errors of the LRs near the best.

    Contenders are the LRs trained for more than the first length, after that length; all LRs if there are hardly any.
    """
    rows = _constant(advice)
    later = rows.filter(pl.col("steps") > pl.col("steps").min())
    contenders = later if later[AVERAGED].count() >= _FEWEST else rows
    metrics = contenders[AVERAGED].append(anneal_data(advice)["metric"]).drop_nulls()
    near = _last_comparison(advice).filter("near").select(*_interval())
    marks = [near["low"], near["high"], pl.Series([advice.expected_low, advice.expected_high], dtype=pl.Float64)]
    return window_of(advice, metrics.filter(metrics.is_finite()), pl.concat(marks).drop_nulls())


def curves_data(advice: Advice) -> pl.DataFrame:
    """The metric over the LR, a curve for each trained number of steps.

    Args:
        advice: The result of a search.

    Returns:
        One row per curve and LR, for the mean over seeds and then for each seed: ``weights`` (see
        `kinds_of_weights`), ``seed`` (null: the mean), ``steps``, ``part`` (of a full training, in words), ``lr``,
        ``metric``, ``seeds``, ``drawn`` (the coordinate, clipped to slightly beyond the scale) and ``outside`` (beyond
        the scale). Failed and annealed segments have no row.
    """
    rows = pl.concat(
        _constant(advice).select("lr", "seed", "steps", weights=pl.lit(kind), metric=kind)
        for kind in kinds_of_weights(advice)
    )
    means = (
        repeat_by_seed(rows.drop_nulls("metric"))
        .group_by("weights", "seed", "steps", "lr")
        .agg(pl.col("metric").mean(), seeds=pl.col("one").n_unique())
        .join(advice.compared.select("steps", "lr", compared="metric"), on=["steps", "lr"], how="left")
        .sort("weights", "seed", "steps", "lr")
    )
    ranked = pl.col("seed").is_null() & (pl.col("weights") == AVERAGED)
    means = means.with_columns(metric=pl.when(ranked).then(pl.coalesce("compared", "metric")).otherwise("metric"))
    return _place_rows(_with_part(means.drop("compared"), advice), window(advice))


def rungs_data(advice: Advice) -> pl.DataFrame:
    """`curves_data` without the length at which LRs only stopped for annealing."""
    data = curves_data(advice)
    stops = data["steps"].unique().to_list()
    before = [stop - round(ANNEALED_PART * stop) for stop in stops]
    return data.filter(~pl.col("steps").is_in(before))


def errors_data(advice: Advice) -> pl.DataFrame:
    """Each LR's difference to the best one with its error, at the lengths at which LRs were compared.

    Returns:
        One row per length and LR: ``lr``, ``steps``, ``part`` (of a full training, in words), ``longest`` (of all
        lengths), ``outside`` (beyond the scale), ``seeds``, ``metric``, ``near`` (within the noise of the best one),
        ``best`` (the metric of the best LR), ``low`` and ``high`` (the 90% interval of the difference, around the
        metric; null for the best LR, which is compared with itself), and the places of the last three on the scale.
    """
    shown, best = window(advice), pl.col("metric").max() if more_is_better(advice) else pl.col("metric").min()
    rows = _with_part(advice.compared.sort("steps", "lr"), advice).with_columns(
        best=best.over("steps"), longest=pl.col("steps") == pl.col("steps").max()
    )
    is_best = pl.col("lr") == pl.col("lr").filter(pl.col("metric") == pl.col("best")).first().over("steps")
    rows = rows.with_columns(pl.when(~is_best).then(end).alias(end.meta.output_name()) for end in _interval())
    drawn = {f"drawn_{name}": shown.within(name) for name in ("best", "low", "high")}
    rows = rows.with_columns(outside=shown.outside())
    return rows.select(
        "lr", "steps", "part", "longest", "outside", "seeds", "metric", "near", "best", "low", "high", **drawn
    )


def expected_data(advice: Advice) -> pl.DataFrame:
    """The expected result of a full training at the advised LR, and its place on the scale.

    Returns:
        One row, or none without an LR: ``lr``, ``metric``, ``low``, ``high``, ``drawn``, ``drawn_low``, ``drawn_high``.
    """
    row = {"lr": advice.lr, "metric": advice.expected, "low": advice.expected_low, "high": advice.expected_high}
    schema = dict.fromkeys(row, pl.Float64)
    rows = pl.DataFrame([row], schema=schema).drop_nulls().filter(pl.all_horizontal(pl.all().is_finite()))
    shown = window(advice)
    return rows.with_columns(drawn=shown.within(), drawn_low=shown.within("low"), drawn_high=shown.within("high"))


def signs_data(advice: Advice) -> pl.DataFrame:
    """The signs that are not on a curve: failed LRs, annealed branches, and points where curves leave the scale.

    Returns:
        One row per sign: ``sign`` (``failed``, ``annealed`` or ``off the scale``), ``weights`` (null: any), ``lr``,
        ``seed`` (null: mean over seeds), ``steps``, ``metric`` (null for failures), ``drawn`` (its place) and
        ``reason`` (of a failure).
    """
    shown = window(advice)
    off = curves_data(advice).filter(pl.col("outside") & pl.col("seed").is_null())
    failed = advice.evidence.filter(pl.col("failure").is_not_null()).unique("lr", keep="first", maintain_order=True)
    floats = dict.fromkeys(("lr", "metric", "drawn"), pl.Float64)
    schema = pl.Schema(
        {"sign": pl.String, "weights": pl.String, "seed": pl.Int64, "steps": pl.Int64, "reason": pl.String} | floats
    )
    parts = [
        failed.with_columns(sign=pl.lit("failed"), drawn=shown.edge, reason="failure"),
        anneal_data(advice).with_columns(sign=pl.lit("annealed"), drawn=shown.within()),
        off.with_columns(sign=pl.lit("off the scale"), drawn=shown.edge),
    ]
    return pl.concat([schema.to_frame(), *(_fill_columns(part, schema) for part in parts)])


def regimes_data(advice: Advice) -> pl.DataFrame:
    """The LR ranges of the regimes, from the observed thresholds: the gap between two regimes contains the threshold.

    Returns:
        One row per band, ascending: ``regime`` (``1``, ``2``, ``3``), ``low``, ``high``, ``middle`` (their geometric
        mean).
    """
    low, high = lr_range(advice)
    first, last = advice.convergence, advice.divergence
    ends = {
        "1": (low, first.below) if first else None,
        "2": (first.above, last.below if last else high) if first else None,
        "3": (last.above, high) if last else None,
    }
    rows = [{"regime": name, "low": at[0], "high": at[1]} for name, at in ends.items() if at and at[0] < at[1]]
    schema = {"regime": pl.String} | dict.fromkeys(("low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema=schema).with_columns(middle=(pl.col("low") * pl.col("high")).sqrt())


def lr_range(advice: Advice) -> tuple[float, float]:
    """The range of the tested LRs and the LRs in the advice, with a small margin on either side."""
    named = [each for each in (advice.lr, advice.low, advice.high) if each is not None]
    lrs = [*advice.evidence["lr"], *named]
    room = max((max(lrs) / min(lrs)) ** 0.02, 1.15)
    return min(lrs) / room, max(lrs) * room


def anneal_data(advice: Advice) -> pl.DataFrame:
    """The successful annealed branches: ``lr``, ``seed``, ``steps``, ``metric``."""
    rows = advice.evidence.filter(pl.col("annealed") & pl.col("failure").is_null())
    return rows.select("lr", "seed", "steps", metric=pl.coalesce("value", "averaged")).drop_nulls("metric")


def _constant(advice: Advice) -> pl.DataFrame:
    """Successful segments without an annealed end, with the ranking metric and the metric of the last weights."""
    rows = advice.evidence.filter(~pl.col("annealed") & pl.col("failure").is_null())
    order = ("value", "averaged") if advice.finish == "schedule" else ("averaged", "value")
    return rows.select("lr", "seed", "steps", averaged=pl.coalesce(*order), last="value")


def _last_comparison(advice: Advice) -> pl.DataFrame:
    return advice.compared.filter(pl.col("steps") == pl.col("steps").max())


def _interval() -> tuple[pl.Expr, pl.Expr]:
    """The ends of the 90% interval of the difference to the best LR, around the metric."""
    return (
        (pl.col("metric") - pl.col("allowed")).alias("low"),
        (pl.col("metric") + pl.col("allowed")).alias("high"),
    )


def _with_part(rows: pl.DataFrame, advice: Advice) -> pl.DataFrame:
    names = {str(steps): part_text(steps, of=advice.steps) for steps in rows["steps"].unique()}
    return rows.with_columns(part=pl.col("steps").cast(pl.String).replace(names))


def _place_rows(rows: pl.DataFrame, shown: Window) -> pl.DataFrame:
    """The rows with their places on the scale."""
    return rows.with_columns(drawn=shown.coordinates(), outside=shown.outside())


def _fill_columns(rows: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """The rows with these columns; missing ones are null."""
    lacking = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in rows.columns]
    return rows.with_columns(lacking).select(schema.names()).cast(schema)
