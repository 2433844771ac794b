"""Ticks for log axes that span few decades, where Vega's own labels run into each other."""

import math

import altair as alt

from lratlas.report import look


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``: powers of ten if there are two or more, else also 2 and 5 times them.

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
    """An axis from ``low`` to ``high`` with `log_ticks`, or Vega's where there is at most one; no labels touch."""
    ticks = log_ticks(low, high)
    axis = alt.Axis(format=look.LR_FORMAT, labelExpr=look.PLAIN_EXPONENT, labelOverlap="greedy", grid=False)
    if len(ticks) > 1:
        axis.values = ticks
    else:
        axis.tickCount = 3
    return axis
