"""Pictures of the data: bands of images, and ticks."""

import base64
import io
from collections.abc import Sequence

import altair as alt
import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from PIL import Image
from torch import Tensor

from lratlas.data.band_ranges import band_name, bands_of, default_bands
from lratlas.data.bands import band_index, keep_band
from lratlas.data.shapes import HALF_WIDTH, Shape, boundary_distance
from lratlas.errors import StudyError, TaskError
from lratlas.report import theme
from lratlas.report.rows import inline
from lratlas.report.theme import Drawing, Text

_ROW = 690  # pixels, for all pictures of the row
_WIDEST = 150
_GAP = 14
_SPECTRUM = "log spectrum"
_DECADES = 4  # of the magnitude of frequencies, from black to white


_BAND_PICTURE_WORDS = Text(
    heading="An image and its Fourier bands",
    caption="The first image of the test set, then its part in each band of frequencies. The parts "
    "sum to the image. Band 0 has the scale of the image; the other bands are stretched "
    "around mid-grey so that faint ones are visible. Below is the logarithm of each "
    "spectrum, with the zero frequency in the middle: white is the largest magnitude of the "
    "image, black a ten-thousandth of it or less, or outside the band.",
    alt="A row of pictures: an image, then its part in each band of frequencies, from the mean colour to the "
    "finest detail. A second row: the spectrum of each, in which the band is a ring.",
)


def band_picture(image: Tensor | npt.NDArray[np.generic], bands: Sequence[tuple[int, int]] | None = None) -> Drawing:
    """A row of pictures: the image, then its part in each band, each above its spectrum (Fig. 9).

    Args:
        image: [C, H, W] with one or three channels: bytes, or floating-point numbers on any scale.
        bands: The lowest and the highest index of each band; None for `default_bands`.

    Returns:
        The rows, with the pictures embedded, so they need no file and no network.

    Raises:
        TaskError: The image has another shape or type, or a band is out of range.
    """
    shown = _unit(torch.as_tensor(image))
    size = (int(shown.shape[1]), int(shown.shape[2]))
    chosen = default_bands(*size) if bands is None else bands
    highest = bands_of(size)
    parts = {"image": (shown, log_spectrum(shown, 0, highest))} | {
        f"band {band_name(low, high, highest)}": (_part(shown, low, high), log_spectrum(shown, low, high))
        for low, high in chosen
    }
    width = min(_WIDEST, _ROW // len(parts) - _GAP)
    top = [_panel(pixels, caption, caption, width=width) for caption, (pixels, _) in parts.items()]
    below = [
        _panel(spectrum, f"{caption}, {_SPECTRUM}", _SPECTRUM, width=width) for caption, (_, spectrum) in parts.items()
    ]
    return theme.finish(alt.concat(*top, *below, columns=len(parts), spacing=_GAP), _BAND_PICTURE_WORDS)


def log_spectrum(image: Tensor, low: int, high: int) -> Tensor:
    """The logarithm of the magnitude of an image's frequencies, masked outside a band.

    Args:
        image: Floating-point image [C, H, W].
        low: Lowest band.
        high: Highest band, included.

    Returns:
        [1, H, W], the zero frequency in the middle: the mean magnitude over channels, 1 for the largest of the whole
        image, 0 for a ten-thousandth of it or less, and 0 outside the band.
    """
    magnitude = torch.fft.fft2(image.double()).abs().mean(0, keepdim=True)
    share = magnitude / magnitude.max().clamp(min=torch.finfo(torch.float64).tiny)
    level = (1 + share.clamp(min=torch.finfo(torch.float64).tiny).log10() / _DECADES).clamp(0, 1)
    bands = band_index(*image.shape[-2:])
    return torch.fft.fftshift(level * ((bands >= low) & (bands <= high)), dim=(-2, -1))


def _unit(image: Tensor) -> Tensor:
    """The image with values in [0, 1], float64 [C, H, W]."""
    if image.dim() != 3 or image.shape[0] not in {1, 3} or 0 in image.shape or image.is_complex():
        raise TaskError(f"An image must have the shape [1 or 3, H, W] to be shown, not {tuple(image.shape)}.")
    if image.dtype == torch.uint8:
        return image.double() / 255
    low, high = image.double().aminmax()
    return (image.double() - low) / (high - low).clamp(min=torch.finfo(torch.float64).tiny)


def _part(image: Tensor, low: int, high: int) -> Tensor:
    """The content of a band, in [0, 1]: with band 0 on the scale of the image, else stretched around mid-grey."""
    part = keep_band(image, low, high)
    if low == 0:
        return part.clamp(0, 1)
    # Content fainter than one of 255 levels, such as rounding errors, must not be stretched to a pattern.
    return 0.5 + part / (2 * part.abs().max().clamp(min=1 / 255))


def _panel(pixels: Tensor, caption: str, title: str, *, width: int) -> alt.Chart:
    height = round(width * pixels.shape[1] / pixels.shape[2])
    return (
        alt.Chart(alt.InlineData(values=[{"url": _data_uri(pixels, width), "caption": caption}]))
        .mark_image(width=width, height=height, aspect=False)
        .encode(x=alt.value(width / 2), y=alt.value(height / 2), url=alt.Url("url:N"), description="caption:N")
        .properties(width=width, height=height, title=title)
    )


def _data_uri(pixels: Tensor, width: int) -> str:
    # Repeat pixels: a viewer would blur an enlarged small picture.
    factor = max(1, -(-2 * width // pixels.shape[2]))
    array = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    large = array.repeat(factor, axis=0).repeat(factor, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(large[..., 0] if large.shape[2] == 1 else large).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


_KINDS = ("class 0", "class 1", "class 0, uninformative", "class 1, uninformative")
_COLOURS = alt.Scale(domain=list(_KINDS), range=[*theme.STRONG[:2]] * 2)
_SHAPES = alt.Scale(domain=list(_KINDS), range=["circle", "square", "triangle-up", "diamond"])
_TURN = 180  # points of a circle
_SIZE = 320  # pixels, of either side
_UNINFORMATIVE = 60  # points; more would hide the curves

Pair = tuple[Tensor, Tensor]


def feature_points(train: Pair, singles: Pair | None, shape: Shape, *, margin: float) -> pl.DataFrame:
    """The points of the first feature with their kinds: the training set, and some uninformative points.

    Args:
        train: Inputs [n, 2 · features] and labels [n], 0 or 1.
        singles: Inputs and labels of single-feature test sets, with a leading axis of features; None for none.
        shape: The curves that separate the classes.
        margin: Smallest distance of informative points from the curves.

    Returns:
        One row per point: ``x1``, ``x2``, ``label``, and ``kind``: ``class 0`` or ``class 1``, and whether the point
        is uninformative: closer to a curve than the margin.
    """
    # If only the second feature is informative, the first is not.
    sets = singles or tuple(part[None] for part in train)
    others = (part[1:2, :_UNINFORMATIVE].flatten(0, 1) for part in sets)
    inputs, labels = (torch.cat(parts) for parts in zip(train, others, strict=True))
    points = inputs[:, :2]
    frame = pl.DataFrame({"x1": points[:, 0].tolist(), "x2": points[:, 1].tolist(), "label": labels.long().tolist()})
    near = pl.Series(boundary_distance(shape, points.numpy()) < margin)
    name = pl.format("class {}", "label")
    return frame.with_columns(kind=pl.when(near).then(name + pl.lit(", uninformative")).otherwise(name))


def boundary_lines(shape: Shape) -> pl.DataFrame:
    """The curves between the classes as one line, with breaks at null rows.

    Args:
        shape: The curves that separate the classes.

    Returns:
        Columns ``x1``, ``x2`` and ``place`` (along the line). Straight pieces extend beyond the square.
    """
    angle = np.linspace(0, 2 * np.pi, _TURN + 1)
    circles = [radius * np.stack([np.cos(angle), np.sin(angle)], axis=1) for radius in shape.radii]
    gap = np.full((1, 2), np.nan)
    rows = np.concatenate([row for piece in (*shape.segments, *circles) for row in (piece, gap)])
    return pl.DataFrame(rows, schema=["x1", "x2"]).fill_nan(None).with_row_index("place")


_TICKS_WORDS = Text(
    heading="One feature of the data",
    caption="The two coordinates of one feature, with a mark for each training sample. This feature "
    "is enough to separate the classes at the grey curves, which have an empty margin "
    "(shaded). If a feature is uninformative, the point is on a curve for both classes: 60 "
    "samples of a test set in which only another feature is informative.",
    alt="Scatter plot of one two-dimensional feature, a mark per sample, coloured by class. Grey curves with an "
    "empty margin separate the classes; marks of both classes on the curves are uninformative.",
)


def ticks_chart(points: pl.DataFrame, shape: Shape, *, margin: float) -> Drawing:
    """One feature of the synthetic data: both classes, the curves, the empty margin, uninformative points (Fig. 4).

    Args:
        points: Points from `feature_points`.
        shape: The curves that separate the classes.
        margin: Smallest distance of informative points from the curves.

    Raises:
        StudyError: There are no points.
    """
    if points.is_empty():
        raise StudyError("The ticks chart needs points, but the data have none.")
    ends = alt.Scale(domain=[-HALF_WIDTH, HALF_WIDTH], nice=False)
    axis = alt.Axis(values=list(range(-2, 3)), grid=False)
    x, y = alt.X("x1:Q").scale(ends).axis(axis), alt.Y("x2:Q").scale(ends).axis(axis)
    curves = alt.Chart(inline(boundary_lines(shape))).encode(x=x, y=y, order=alt.Order("place:Q"))
    # The width in pixels of the margin on both sides: it covers all points within that distance.
    wide = alt.expr(f"{2 * margin / (2 * HALF_WIDTH)} * width")
    empty = curves.mark_line(clip=True, opacity=0.22, color=theme.NEUTRAL, strokeWidth=wide, strokeCap="round")
    lines = curves.mark_line(clip=True, color=theme.NEUTRAL, strokeWidth=1.5)
    legend = alt.Legend(orient="bottom", columns=2)
    dots = (
        alt.Chart(inline(points))
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
    return theme.finish(chart, _TICKS_WORDS)
