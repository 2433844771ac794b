"""Fourier bands of images: the band of each frequency, and images with only some of the bands."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lratlas.data.band_ranges import bands_of
from lratlas.errors import TaskError


def band_index(height: int, width: int) -> Tensor:
    """The band |k| + |l| of every frequency of an image, int64 [height, width], in the order of `torch.fft.fft2`.

    k and l are signed whole frequencies, from -(n // 2) to (n - 1) // 2 cycles along a side of n pixels, so band 0 is
    the mean of the image (paper, Fourier bands).

    >>> band_index(4, 3).tolist()
    [[0, 1, 1], [1, 2, 2], [2, 3, 3], [1, 2, 2]]

    Raises:
        TaskError: A side is shorter than one pixel.
    """
    if min(height, width) < 1:
        raise TaskError(f"An image must be at least 1 x 1 pixel, not {height} x {width}.")
    return _distance(height)[:, None] + _distance(width)


def keep_band(images: Tensor, low: int, high: int, *, kept: bool = True) -> Tensor:
    """Images with only the bands ``low`` to ``high``, including both ends, or with all other bands.

    The remaining frequencies are transformed back; since |k| + |l| is equal for a frequency and its mirror image, the
    result is real. For normalised images, the mean of the data set is only in band 0.

    Args:
        images: Floating-point images [..., H, W].
        low: Lowest band, at least 0.
        high: Highest band, at least ``low``, at most `bands_of` the images' size.
        kept: True to keep these bands and drop the others, False to drop these.

    Returns:
        The filtered images, of the same shape and dtype; computed in float64 for float64 images, otherwise in float32.

    Raises:
        TaskError: The images are not floating-point, or the bands are out of range.
    """
    _check(low, high)
    if not images.is_floating_point() or images.dim() < 2:
        raise TaskError(f"Bands need floating-point images [..., H, W], not {images.dtype} {tuple(images.shape)}.")
    height, width = images.shape[-2:]
    highest = bands_of((height, width))
    if high > highest:
        raise TaskError(f"Images of {height} x {width} pixels have the bands 0 to {highest}, not {low} to {high}.")
    # For real images, rfft2 returns the frequencies l >= 0, which come first.
    bands = band_index(height, width)[:, : width // 2 + 1]
    mask = (((bands >= low) & (bands <= high)) == kept).to(images.device)
    wide = images if images.dtype == torch.float64 else images.float()
    spectrum = torch.fft.rfft2(wide) * mask
    return torch.fft.irfft2(spectrum, s=(height, width)).to(images.dtype)


@dataclass(frozen=True, kw_only=True)
class FilterBands:
    """A filter for training on some bands: called on normalised floating-point images [n, C, H, W], it filters them.

    Attributes:
        low: Lowest band.
        high: Highest band, included.
        kept: True to train only on these bands, False on all others.

    Raises:
        TaskError: The bands are out of range.
    """

    low: int
    high: int
    kept: bool = True

    def __post_init__(self) -> None:
        _check(self.low, self.high)

    def __call__(self, images: Tensor) -> Tensor:
        """The filtered images; see `keep_band`."""
        return keep_band(images, self.low, self.high, kept=self.kept)

    @property
    def name(self) -> str:
        """The name of the filter with its settings, part of a run's identity."""
        return f"filter_bands(low={self.low},high={self.high},kept={str(self.kept).lower()})"


def _distance(size: int) -> Tensor:
    """|frequency| along one side: 0, 1, ... up to half its length and back to 1."""
    steps = torch.arange(size)
    return torch.minimum(steps, size - steps)


def _check(low: int, high: int) -> None:
    if not 0 <= low <= high:
        raise TaskError(f"A band goes from a low number of at least 0 to a high number, not from {low} to {high}.")
