"""Ranges of Fourier bands and their names, for plans and charts; does not import PyTorch."""

from collections.abc import Sequence
from typing import NamedTuple


class Band(NamedTuple):
    """A range of bands, including both ends."""

    low: int
    high: int


def bands_of(size: Sequence[int]) -> int:
    """The highest band of images of ``size`` (height, width): half of one side plus half of the other.

    >>> bands_of((32, 32)), bands_of((5, 4))
    (32, 4)
    """
    height, width = size
    return height // 2 + width // 2


def default_bands(height: int, width: int) -> tuple[Band, ...]:
    """The paper's four bands (0, 1-8, 9-24, 25-32 for 32 x 32 pixels), with borders scaled by the image's size.

    They cover every frequency once. Very small images have fewer bands.

    >>> [tuple(band) for band in default_bands(28, 28)]
    [(0, 0), (1, 7), (8, 21), (22, 28)]
    """
    return tuple(_name_bands(bands_of((height, width))))


def band_name(low: int, high: int, highest: int) -> str:
    """The name of a band in charts: with its role for the default bands, otherwise only the numbers.

    Args:
        low: The lowest band of the range.
        high: The highest band of the range.
        highest: The highest band of the images.

    >>> band_name(9, 24, 32), band_name(5, 24, 32), band_name(3, 3, 32)
    ('9-24 (mid)', '5-24', '3')
    """
    numbers = f"{low}" if low == high else f"{low}-{high}"
    role = _name_bands(highest).get(Band(low, high))
    return f"{numbers} ({role})" if role else numbers


def _name_bands(highest: int) -> dict[Band, str]:
    """The default bands in order, with their roles; bands without frequencies are omitted."""
    quarter, three_quarters = highest // 4, 3 * highest // 4
    named = {
        Band(0, 0): "background",
        Band(1, quarter): "low",
        Band(quarter + 1, three_quarters): "mid",
        Band(three_quarters + 1, highest): "high",
    }
    return {band: role for band, role in named.items() if band.low <= band.high}
