"""A picture of an image and of what each of its Fourier bands holds, above their spectra."""

import base64
import io
from collections.abc import Sequence

import altair as alt
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from lratlas.data.band_ranges import band_name, bands_of, default_bands
from lratlas.data.bands import band_index, keep_band
from lratlas.errors import TaskError
from lratlas.report import look
from lratlas.report.look import Drawing
from lratlas.report.texts import TEXTS

_ROW = 690  # pixels, for all pictures of the row
_WIDEST = 150
_GAP = 14
_SPECTRUM = "log spectrum"
_DECADES = 4  # of the magnitude of frequencies, from black to white


def band_picture(image: Tensor | npt.NDArray[np.generic], bands: Sequence[tuple[int, int]] | None = None) -> Drawing:
    """A row of pictures: the image, then the part of it that each band holds, each above its spectrum (Fig. 9).

    Args:
        image: [C, H, W] with one or three channels: bytes, or floating-point numbers on any scale.
        bands: The lowest and the highest of each band; None for `default_bands`.

    Returns:
        The rows. The pictures are inside them, so that they need no file and no network.

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
    return look.finish(alt.concat(*top, *below, columns=len(parts), spacing=_GAP), TEXTS["band_picture"].alt)


def log_spectrum(image: Tensor, low: int, high: int) -> Tensor:
    """The logarithm of the magnitude of an image's frequencies, those outside a band masked.

    Args:
        image: Floating-point image [C, H, W].
        low: Lowest band.
        high: Highest band, included.

    Returns:
        [1, H, W], the zero frequency in the middle: the mean magnitude over channels, 1 for the largest of the whole
        image and 0 for a ten-thousandth of it, for what is smaller, and outside the band.
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
    """What a band holds, in [0, 1]: with band 0 on the image's own scale, else stretched around mid-grey."""
    part = keep_band(image, low, high)
    if low == 0:
        return part.clamp(0, 1)
    # What is fainter than one of 255 levels, such as rounding errors, is not stretched to a pattern.
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
    # Pixels repeated: a viewer would blur a small picture when it is drawn larger.
    factor = max(1, -(-2 * width // pixels.shape[2]))
    array = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    large = array.repeat(factor, axis=0).repeat(factor, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(large[..., 0] if large.shape[2] == 1 else large).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
