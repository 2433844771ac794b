"""Names at the ends of lines, moved apart so that they do not overlap."""

import math
from collections.abc import Sequence

import altair as alt
import polars as pl

from lratlas.report.axes import HEADROOM


def place_names(
    ends: pl.DataFrame, low: float, high: float, *, height: float, room: float, log: bool = False
) -> pl.DataFrame:
    """The ends of lines with the places of their names, which overlap neither each other nor the ends of the axis.

    Args:
        ends: A row for each line, with its value in the column ``mean``.
        low: The lower end of the axis.
        high: The upper end of the axis.
        height: The height of the panel, in pixels.
        room: The smallest distance of two names, in pixels.
        log: The axis is logarithmic.

    Returns:
        The rows, ascending in ``mean``, which is now the place of the name.
    """
    low, high = (math.log(end) if log else end for end in (low, high))
    value = (pl.col("mean").log() if log else pl.col("mean")).clip(low, high)
    rows = ends.with_columns(mean=value).sort("mean", maintain_order=True)
    gap = room / (height - HEADROOM) * (high - low)
    moved = pl.Series("mean", spread(rows["mean"].to_list(), gap=gap), dtype=pl.Float64)
    return rows.with_columns(moved.exp() if log else moved)


def spread(places: Sequence[float], *, gap: float) -> list[float]:
    """Places moved apart until neighbours have at least a gap; the centre of a group is unchanged.

    Example:
        >>> spread([1.0, 1.0, 5.0], gap=1.0)
        [0.5, 1.5, 5.0]

    Args:
        places: The places, ascending.
        gap: The smallest distance.
    """
    crowds = list[list[float]]()
    for place in places:
        crowds.append([place])
        while len(crowds) > 1 and _first(crowds[-1], gap) - _last(crowds[-2], gap) < gap:
            crowds[-2:] = [crowds[-2] + crowds[-1]]
    return [_first(crowd, gap) + number * gap for crowd in crowds for number in range(len(crowd))]


def _first(crowd: Sequence[float], gap: float) -> float:
    return sum(crowd) / len(crowd) - gap * (len(crowd) - 1) / 2


def _last(crowd: Sequence[float], gap: float) -> float:
    return sum(crowd) / len(crowd) + gap * (len(crowd) - 1) / 2


def line_names(base: alt.Chart, colour: alt.Color, *, lettering: int) -> list[alt.Chart]:
    """The names of lines next to the panel, each after a dash in its line's colour.

    Args:
        base: A chart with a row for each line and its place encoded; ``label`` is the name.
        colour: The colour of the lines. Names have the text colour, readable on any page.
        lettering: Size of the names, in pixels.
    """
    dash = base.mark_tick(orient="horizontal", width=lettering, thickness=3, xOffset=lettering, clip=False)
    text = base.mark_text(align="left", dx=1.75 * lettering, fontSize=lettering, clip=False)
    return [dash.encode(color=colour), text.encode(text=alt.Text("label:N"))]
