"""What the charts of a search show, as frames: qualities, regimes and failures, nothing drawn yet."""

from dataclasses import dataclass

import polars as pl

from lratlas.report.rows import by_seed
from lratlas.search.advice import Advice

AVERAGED, LAST = "averaged", "last"

_SHARES = (64, 32, 16, 8, 5, 4, 2, 1)  # of a full training; a fifth is where an annealed end begins
_REACH = 4.0  # the scale reaches so many times farther from the best than half of all metrics are


@dataclass(frozen=True, kw_only=True)
class Window:
    """The metrics that a chart shows.

    Attributes:
        low: Where the scale begins.
        high: Where it ends.
        edge: Where marks stand for what is worse than all of it, or has no metric.
        more_is_better: Whether the better end is the high one.
    """

    low: float
    high: float
    edge: float
    more_is_better: bool


def more_is_better(advice: Advice) -> bool:
    """Whether a larger metric is better."""
    return advice.direction == "maximize"


def part_text(steps: int, *, of: int) -> str:
    """A rung of a search as the share of a full training that it was meant to be.

    Example:
        >>> part_text(100, of=6400), part_text(1, of=95), part_text(1280, of=6400), part_text(6400, of=6400)
        ('1/64', '1/64', '1/5', '1')
    """
    part = min(_SHARES, key=lambda share: abs(of / share - steps))
    return "1" if part == 1 else f"1/{part}"


def kinds_of_weights(advice: Advice) -> tuple[str, ...]:
    """Which metrics can be shown: ``averaged``, which ranks the LRs, and ``last`` where both were told."""
    told = advice.evidence.filter(~pl.col("annealed"))
    return (AVERAGED, LAST) if told["averaged"].count() and told["value"].count() else (AVERAGED,)


def window(advice: Advice) -> Window:
    """The scale of metrics: all of them, or, where a few are awful, those not far beyond the middle one."""
    more = more_is_better(advice)
    sign = 1 if more else -1
    scores = sign * _constant(advice)[AVERAGED].append(annealed_data(advice)["metric"])
    best, worst, middle = (float(scores.quantile(share, "nearest") or 0.0) for share in (1.0, 0.0, 0.5))
    end = max(worst, best - _REACH * (best - middle)) if middle < best else worst
    span = max(best - end, 1e-3 * abs(best), 1e-9)
    # Names of regimes stand at the top, names of LRs may hang below the best.
    below, above = (0.06, 0.1) if more else (0.1, 0.14)
    bottom, top = sorted((sign * best, sign * end))
    low, high = bottom - below * span, top + above * span
    edge = low + 0.03 * (high - low) if more else high - 0.07 * (high - low)
    return Window(low=low, high=high, edge=edge, more_is_better=more)


def curves_data(advice: Advice) -> pl.DataFrame:
    """The metric over the LR, a curve for each number of steps that were trained.

    Args:
        advice: What a search came to.

    Returns:
        One row per curve and LR, for the mean over seeds and then for each seed: ``weights`` (see
        `kinds_of_weights`), ``seed`` (null: the mean), ``steps``, ``part`` (of a full training, in words), ``lr``,
        ``metric``, ``seeds``, ``drawn`` (the metric, or not far outside the scale) and ``outside`` (it is). Segments
        that failed have no row, annealed ones neither.
    """
    rows = pl.concat(
        _constant(advice).select("lr", "seed", "steps", weights=pl.lit(kind), metric=kind)
        for kind in kinds_of_weights(advice)
    )
    means = (
        by_seed(rows.drop_nulls("metric"))
        .group_by("weights", "seed", "steps", "lr")
        .agg(pl.col("metric").mean(), seeds=pl.col("one").n_unique())
        .sort("weights", "seed", "steps", "lr")
    )
    return _placed(_with_part(means, advice), window(advice))


def signs_data(advice: Advice) -> pl.DataFrame:
    """What is not on a curve: failed LRs, annealed branches, and where curves leave the scale.

    Returns:
        One row per sign: ``sign`` (``failed``, ``annealed`` or ``off the scale``), ``weights`` (null: whichever are
        shown), ``lr``, ``seed`` (null: mean over seeds), ``steps``, ``metric`` (null where it failed), ``drawn`` (its
        place) and ``reason`` (why it failed).
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
        annealed_data(advice).with_columns(sign=pl.lit("annealed"), drawn=within(shown)),
        off.with_columns(sign=pl.lit("off the scale"), drawn=shown.edge),
    ]
    return pl.concat([schema.to_frame(), *(_filled(part, schema) for part in parts)])


def regimes_data(advice: Advice) -> pl.DataFrame:
    """Where the regimes lie, as far as the search saw thresholds: the gap between two of them holds the threshold.

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


def within(shown: Window) -> pl.Expr:
    """The metric, moved to the end of the scale where it lies beyond it."""
    return pl.col("metric").clip(shown.low, shown.high)


def lr_range(advice: Advice) -> tuple[float, float]:
    """The LRs that were tried, and a little room on either side."""
    lrs = advice.evidence["lr"].unique().sort()
    room = max((lrs[-1] / lrs[0]) ** 0.02, 1.15)
    return lrs[0] / room, lrs[-1] * room


def annealed_data(advice: Advice) -> pl.DataFrame:
    """The annealed branches that went well: ``lr``, ``seed``, ``steps``, ``metric``."""
    rows = advice.evidence.filter(pl.col("annealed") & pl.col("failure").is_null())
    return rows.select("lr", "seed", "steps", metric=pl.coalesce("value", "averaged")).drop_nulls("metric")


def _constant(advice: Advice) -> pl.DataFrame:
    """Segments at a constant LR that went well, with both qualities."""
    rows = advice.evidence.filter(~pl.col("annealed") & pl.col("failure").is_null())
    return rows.select("lr", "seed", "steps", averaged=pl.coalesce("averaged", "value"), last="value")


def _with_part(rows: pl.DataFrame, advice: Advice) -> pl.DataFrame:
    names = {steps: part_text(steps, of=advice.steps) for steps in rows["steps"].unique()}
    return rows.with_columns(part=pl.col("steps").replace_strict(names, return_dtype=pl.String))


def _placed(rows: pl.DataFrame, shown: Window) -> pl.DataFrame:
    """The rows with their places on the scale; a line to a far one leaves it steeply enough at three heights."""
    height = shown.high - shown.low
    far = pl.col("metric").clip(shown.low - 3 * height, shown.high + 3 * height)
    return rows.with_columns(drawn=far, outside=~pl.col("metric").is_between(shown.low, shown.high))


def _filled(rows: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """The rows with these columns, null where they lack one."""
    lacking = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in rows.columns]
    return rows.with_columns(lacking).select(schema.names()).cast(schema)
