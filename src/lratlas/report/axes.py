"""Axes and scales of charts."""

import math
from typing import Any

import altair as alt
import polars as pl

from lratlas.report.theme import LR_FORMAT

# Pixels above an axis for the names of regimes.
HEADROOM = 30
# Vega writes 1e+0 instead of 1e0.
PLAIN_EXPONENT = "replace(datum.label, '+', '')"


def plr_axis(*, elr: bool) -> alt.X:
    """The log axis of the pre-training LR, with one labelled tick per decade until zoomed in."""
    return (
        alt.X("plr:Q")
        .scale(type="log", nice=False)
        .title("pre-training LR (ELR)" if elr else "pre-training LR")
        .axis(
            format="~e",
            labelExpr=PLAIN_EXPONENT,
            tickCount=6,
            labelOverlap="greedy",
            labelSeparation=4,
            grid=False,
        )
    )


def power_axis() -> alt.Axis:
    """The axis of a log scale over many decades."""
    return alt.Axis(format="~e", labelExpr=PLAIN_EXPONENT, tickCount=5)


def limits(
    data: pl.DataFrame, lowest: str, highest: str, *, floor: float | None = None, share: bool = False
) -> tuple[float, float] | None:
    """The ends of a scale that covers two columns.

    Args:
        data: The rows.
        lowest: The column with the lowest values.
        highest: The column with the highest.
        floor: The start of the scale, unless there are lower values.
        share: The values are shares of a whole: deviations below 0 or above 1 are cut off.

    Returns:
        The ends; None if a column has no value.
    """
    ends = data.select(low=pl.min_horizontal(pl.col(lowest).min(), pl.lit(floor)), high=pl.col(highest).max())
    low, high = ends.row(0)
    if low is None or high is None:
        return None
    if share:
        low, high = max(low, 0.0), min(high, 1.0)
    return low, max(high, low + 1e-3)


def scale(
    data: pl.DataFrame,
    lowest: str,
    highest: str,
    *,
    floor: float | None = None,
    share: bool = False,
    height: int | None = None,
) -> alt.Scale:
    """The `round_scale` with these `limits`."""
    ends = limits(data, lowest, highest, floor=floor, share=share)
    return round_scale(*ends, height=height) if ends else alt.Scale()


def round_scale(low: Any, high: Any, *, height: int | None = None, log: bool = False) -> alt.Scale:
    """The scale from ``low`` to ``high``, numbers or expressions, rounded to ticks, with room above for names.

    The room is in pixels, beyond the scale: an axis never extends beyond the possible values.

    Args:
        low: The lower end.
        high: The upper end.
        height: The height of the panel, in pixels; None for a chart with a single panel.
        log: The scale is logarithmic, and not rounded.
    """
    ends = alt.Scale(domain=[low, high], rangeMin=height or alt.expr("height"), rangeMax=HEADROOM, nice=not log)
    if log:
        ends.type = "log"
    else:
        ends.zero = False
    return ends


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``: powers of ten if there are two or more, else also 2 and 5 times these.

    Example:
        >>> log_ticks(3, 200), log_ticks(3, 60)
        ([10.0, 100.0], [5.0, 10.0, 20.0, 50.0])
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**decade for decade in decades if low <= 10.0**decade <= high]
    if len(tens) > 1:
        return tens
    return [
        float(f"{digit}e{decade}")
        for decade in decades
        for digit in (1, 2, 5)
        if low <= float(f"{digit}e{decade}") <= high
    ]


def log_axis(low: float, high: float) -> alt.Axis:
    """An axis from ``low`` to ``high`` with `log_ticks`, or Vega's ticks if there is at most one; no labels touch."""
    ticks = log_ticks(low, high)
    axis = alt.Axis(format=LR_FORMAT, labelExpr=PLAIN_EXPONENT, labelOverlap="greedy", grid=False)
    if len(ticks) > 1:
        axis.values = ticks
    else:
        axis.tickCount = 3
    return axis
