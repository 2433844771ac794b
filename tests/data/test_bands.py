"""Fourier bands against a direct DFT in float64, counting, and the laws of filtering."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lratlas.data.band_ranges import band_name, bands_of, default_bands
from lratlas.data.bands import FilterBands, band_index, keep_band
from lratlas.errors import TaskError

SIDES = st.integers(1, 11)

quick = settings(max_examples=25)


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).to(dtype)


def dft(size: int) -> Tensor:
    """The matrix of the unitary DFT, one row for each frequency of `frequencies`."""
    angles = -2 * math.pi * torch.outer(frequencies(size).double(), torch.arange(size).double()) / size
    return torch.polar(torch.full_like(angles, 1 / math.sqrt(size)), angles)


def frequencies(size: int) -> Tensor:
    """Signed whole frequencies in order of size, the lowest first."""
    return torch.arange(-(size // 2), (size + 1) // 2)


def distances(height: int, width: int) -> Tensor:
    return frequencies(height).abs()[:, None] + frequencies(width).abs()


@quick
@given(SIDES, SIDES)
def test_each_band_has_the_frequencies_that_counting_finds(height: int, width: int) -> None:
    counted: dict[int, int] = {}
    for k in frequencies(height).tolist():
        for el in frequencies(width).tolist():
            counted[abs(k) + abs(el)] = counted.get(abs(k) + abs(el), 0) + 1
    index = band_index(height, width)
    assert index.dtype == torch.int64
    assert dict(enumerate(index.flatten().bincount().tolist())) == counted
    assert max(counted) == bands_of((height, width))


@quick
@given(SIDES, SIDES)
def test_the_index_is_in_the_order_of_the_fft(height: int, width: int) -> None:
    assert torch.equal(torch.fft.fftshift(band_index(height, width)), distances(height, width))


@quick
@given(SIDES, SIDES)
def test_the_energy_of_each_band_is_that_of_a_direct_dft(height: int, width: int) -> None:
    images = noise(2, 3, height, width)
    spectrum = dft(height) @ images.to(torch.complex128) @ dft(width).T
    for band in range(bands_of((height, width)) + 1):
        expected = (spectrum.abs().square() * (distances(height, width) == band)).sum((-2, -1))
        energy = keep_band(images, band, band).square().sum((-2, -1))
        torch.testing.assert_close(energy, expected, rtol=1e-10, atol=1e-10)


@quick
@given(SIDES, SIDES)
def test_a_band_is_the_inverse_of_a_direct_dft(height: int, width: int) -> None:
    images, highest = noise(2, 1, height, width), bands_of((height, width))
    low, high = highest // 3, 2 * highest // 3
    mask = (distances(height, width) >= low) & (distances(height, width) <= high)
    spectrum = dft(height) @ images.to(torch.complex128) @ dft(width).T
    expected = dft(height).mH @ (spectrum * mask) @ dft(width).conj()
    assert float(expected.imag.abs().max()) < 1e-12
    torch.testing.assert_close(keep_band(images, low, high), expected.real, rtol=1e-10, atol=1e-10)


@quick
@given(SIDES, SIDES)
def test_all_bands_sum_to_the_image(height: int, width: int) -> None:
    images = noise(2, 3, height, width, dtype=torch.float32)
    parts = [keep_band(images, band, band) for band in range(bands_of((height, width)) + 1)]
    assert float((torch.stack(parts).sum(0) - images).abs().max()) < 1e-5
    defaults = [keep_band(images, *band) for band in default_bands(height, width)]
    assert float((torch.stack(defaults).sum(0) - images).abs().max()) < 1e-5


@quick
@given(SIDES, SIDES, st.data())
def test_what_is_kept_and_what_is_removed_sum_to_the_image(height: int, width: int, data: st.DataObject) -> None:
    low = data.draw(st.integers(0, bands_of((height, width))))
    high = data.draw(st.integers(low, bands_of((height, width))))
    images = noise(2, 1, height, width)
    kept, removed = keep_band(images, low, high), keep_band(images, low, high, kept=False)
    torch.testing.assert_close(kept + removed, images, rtol=0, atol=1e-12)
    torch.testing.assert_close(keep_band(kept, low, high), kept, rtol=0, atol=1e-12)
    assert float(keep_band(kept, low, high, kept=False).abs().max()) < 1e-12


def test_the_mean_of_the_data_set_counts_in_the_band_zero_alone() -> None:
    images, mean = noise(4, 3, 9, 8), torch.tensor([0.5, -0.2, 3.0], dtype=torch.float64)[:, None, None]
    for low, high in ((1, 2), (3, 8)):
        torch.testing.assert_close(keep_band(images - mean, low, high), keep_band(images, low, high))
    torch.testing.assert_close(keep_band(images - mean, 0, 2), keep_band(images, 0, 2) - mean)


def test_band_zero_is_the_mean_of_each_channel() -> None:
    images = noise(2, 3, 7, 6)
    torch.testing.assert_close(keep_band(images, 0, 0), images.mean((-2, -1), keepdim=True).expand_as(images))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_result_has_the_type_and_shape_of_the_images(dtype: torch.dtype) -> None:
    images = noise(2, 3, 6, 5, dtype=dtype)
    filtered = keep_band(images, 1, 3)
    assert filtered.dtype == dtype
    assert filtered.shape == images.shape
    # Computed in float32 at least, and only the result rounded.
    torch.testing.assert_close(filtered, keep_band(images.double(), 1, 3).to(dtype), rtol=0.01, atol=1e-5)


def test_the_default_bands_are_the_papers_at_its_size() -> None:
    assert default_bands(32, 32) == ((0, 0), (1, 8), (9, 24), (25, 32))
    assert default_bands(28, 28) == ((0, 0), (1, 7), (8, 21), (22, 28))
    assert default_bands(64, 64) == ((0, 0), (1, 16), (17, 48), (49, 64))


@quick
@given(SIDES, SIDES)
def test_the_default_bands_cover_every_band_once(height: int, width: int) -> None:
    covered = [band for low, high in default_bands(height, width) for band in range(low, high + 1)]
    assert covered == list(range(bands_of((height, width)) + 1))


def test_bands_are_named_with_their_role_only_at_the_default_borders() -> None:
    names = [band_name(low, high, 32) for low, high in default_bands(32, 32)]
    assert names == ["0 (background)", "1-8 (low)", "9-24 (mid)", "25-32 (high)"]
    assert [band_name(1, 12, 32), band_name(9, 24, 28), band_name(7, 7, 28)] == ["1-12", "9-24", "7"]


def test_a_filter_is_keep_band_with_its_settings() -> None:
    images = noise(2, 1, 8, 8)
    keep, drop = FilterBands(low=1, high=3), FilterBands(low=1, high=3, kept=False)
    assert torch.equal(keep(images), keep_band(images, 1, 3))
    assert torch.equal(drop(images), keep_band(images, 1, 3, kept=False))
    assert keep.name == "filter_bands(low=1,high=3,kept=true)"
    assert len({keep.name, drop.name, FilterBands(low=0, high=3).name, FilterBands(low=1, high=4).name}) == 4


def test_filtering_leaves_its_images_as_they_were() -> None:
    images = noise(2, 1, 8, 8)
    before = images.clone()
    keep_band(images, 2, 3)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("low", "high"), [(-1, 2), (3, 2)])
def test_bands_out_of_order_are_refused(low: int, high: int) -> None:
    with pytest.raises(TaskError, match=f"at least 0 to a high number, not from {low} to {high}"):
        keep_band(noise(1, 1, 8, 8), low, high)
    with pytest.raises(TaskError, match=f"not from {low} to {high}"):
        FilterBands(low=low, high=high)


def test_bands_that_the_images_have_not_are_refused() -> None:
    with pytest.raises(TaskError, match="8 x 5 pixels have the bands 0 to 6, not 1 to 7"):
        keep_band(noise(1, 1, 8, 5), 1, 7)


def test_images_of_bytes_are_refused() -> None:
    with pytest.raises(TaskError, match=r"floating-point images .*, not torch\.uint8 \(1, 1, 8, 8\)"):
        keep_band(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), 0, 1)


def test_an_image_without_pixels_has_no_bands() -> None:
    with pytest.raises(TaskError, match="at least 1 x 1 pixel, not 0 x 4"):
        band_index(0, 4)
