"""A picture of one two-dimensional feature of the synthetic data: its points, its curves, and the margin about them."""

import altair as alt
import numpy as np
import polars as pl
import torch
from torch import Tensor

from lratlas.data.shapes import HALF_WIDTH, Shape, boundary_distance
from lratlas.errors import StudyError
from lratlas.report import look
from lratlas.report.look import Drawing
from lratlas.report.texts import TEXTS

_KINDS = ("class 0", "class 1", "class 0, uninformative", "class 1, uninformative")
_COLOURS = alt.Scale(domain=list(_KINDS), range=[*look.STRONG[:2]] * 2)
_SHAPES = alt.Scale(domain=list(_KINDS), range=["circle", "square", "triangle-up", "diamond"])
_TURN = 180  # points of a circle
_SIZE = 320  # pixels, of either side
_UNINFORMATIVE = 60  # points, more of which would hide the curves

Pair = tuple[Tensor, Tensor]


def feature_points(train: Pair, singles: Pair | None, shape: Shape, *, margin: float) -> pl.DataFrame:
    """The points of the first feature, each with what it is: the training set, and some where it is uninformative.

    Args:
        train: Inputs [n, 2 · features] and labels [n], 0 or 1.
        singles: The same of single-feature test sets, with an axis of features before the others; None for none.
        shape: What separates the classes.
        margin: Distance to the curves that informative points keep.

    Returns:
        One row per point: ``x1``, ``x2``, ``label``, and ``kind``: ``class 0`` or ``class 1``, and whether the point is
        uninformative: closer to a curve than the margin.
    """
    # Where only the second feature is informative, the first is not.
    sets = singles or tuple(part[None] for part in train)
    others = (part[1:2, :_UNINFORMATIVE].flatten(0, 1) for part in sets)
    inputs, labels = (torch.cat(parts) for parts in zip(train, others, strict=True))
    points = inputs[:, :2]
    frame = pl.DataFrame({"x1": points[:, 0].tolist(), "x2": points[:, 1].tolist(), "label": labels.long().tolist()})
    near = pl.Series(boundary_distance(shape, points.numpy()) < margin)
    name = pl.format("class {}", "label")
    return frame.with_columns(kind=pl.when(near).then(name + pl.lit(", uninformative")).otherwise(name))


def boundary_lines(shape: Shape) -> pl.DataFrame:
    """The curves between the classes as one line, which is broken where a row is null.

    Args:
        shape: What separates the classes.

    Returns:
        Columns ``x1``, ``x2`` and ``place`` (along the line). Straight pieces run past the square.
    """
    angle = np.linspace(0, 2 * np.pi, _TURN + 1)
    circles = [radius * np.stack([np.cos(angle), np.sin(angle)], axis=1) for radius in shape.radii]
    gap = np.full((1, 2), np.nan)
    rows = np.concatenate([row for piece in (*shape.segments, *circles) for row in (piece, gap)])
    return pl.DataFrame(rows, schema=["x1", "x2"]).fill_nan(None).with_row_index("place")


def ticks_chart(points: pl.DataFrame, shape: Shape, *, margin: float) -> Drawing:
    """One feature of the synthetic data: both classes, the curves, the empty margin, uninformative points (Fig. 4).

    Args:
        points: As `feature_points` returns them.
        shape: What separates the classes.
        margin: Distance to the curves that informative points keep.

    Raises:
        StudyError: There are no points.
    """
    if points.is_empty():
        raise StudyError("The ticks chart needs points, but the data have none.")
    ends = alt.Scale(domain=[-HALF_WIDTH, HALF_WIDTH], nice=False)
    axis = alt.Axis(values=list(range(-2, 3)), grid=False)
    x, y = alt.X("x1:Q").scale(ends).axis(axis), alt.Y("x2:Q").scale(ends).axis(axis)
    curves = alt.Chart(look.inline(boundary_lines(shape))).encode(x=x, y=y, order=alt.Order("place:Q"))
    # As wide as the margin on both sides, in pixels: all points within that distance.
    wide = alt.expr(f"{2 * margin / (2 * HALF_WIDTH)} * width")
    empty = curves.mark_line(clip=True, opacity=0.22, color=look.NEUTRAL, strokeWidth=wide, strokeCap="round")
    lines = curves.mark_line(clip=True, color=look.NEUTRAL, strokeWidth=1.5)
    legend = alt.Legend(orient="bottom", columns=2)
    dots = (
        alt.Chart(look.inline(points))
        .mark_point(filled=True, opacity=1)
        .encode(
            x=x,
            y=y,
            color=alt.Color("kind:N").scale(_COLOURS).title(None).legend(legend),
            shape=alt.Shape("kind:N").scale(_SHAPES).title(None).legend(legend),
            size=alt.condition("test(/,/, datum.kind)", alt.value(60), alt.value(24)),
            tooltip=["kind:N", alt.Tooltip("x1:Q").format(".2f"), alt.Tooltip("x2:Q").format(".2f")],
        )
    )
    chart = alt.LayerChart(layer=[empty, lines, dots]).properties(width=_SIZE, height=_SIZE)
    return look.finish(chart, TEXTS["ticks"].alt)
