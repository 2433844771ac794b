"""The picture of an image and its bands, read back from the chart."""

import base64
import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from lratlas.errors import TaskError
from lratlas.report.charts.pictures import band_picture, log_spectrum
from lratlas.report.figures import figure_pdf, figure_svg
from lratlas.report.theme import Drawing

COLOURS = np.random.default_rng(0).integers(0, 256, (3, 8, 12)).astype(np.uint8)


def shown(chart: Drawing, columns: int) -> dict[str, npt.NDArray[np.uint8]]:
    """Each picture by its caption, one pixel for each pixel of the image of that many columns."""
    spec = chart.to_dict()
    rows: list[dict[str, Any]] = [spec["datasets"][panel["data"]["name"]][0] for panel in spec["concat"]]
    decoded = {
        row["caption"]: np.asarray(Image.open(io.BytesIO(base64.b64decode(row["url"].partition(",")[2]))))
        for row in rows
    }
    steps = {picture.shape[1] // columns for picture in decoded.values()}
    assert len(steps) == 1
    step = steps.pop()
    sharp = [picture[::step, ::step] == picture[step - 1 :: step, step - 1 :: step] for picture in decoded.values()]
    assert all(same.all() for same in sharp)
    return {caption: picture[::step, ::step] for caption, picture in decoded.items()}


def test_an_image_of_bytes_is_shown_as_it_is_beside_its_mean_colour() -> None:
    pictures = shown(band_picture(COLOURS), 12)
    names = ["image", "band 0 (background)", "band 1-2 (low)", "band 3-7 (mid)", "band 8-10 (high)"]
    assert list(pictures) == [*names, *(f"{name}, log spectrum" for name in names)]
    assert (pictures["image"] == COLOURS.transpose(1, 2, 0)).all()
    mean = COLOURS.mean((1, 2))
    assert np.abs(pictures["band 0 (background)"] - mean).max() <= 0.5 + 1e-6


def test_a_wave_shows_in_its_band_with_full_contrast_and_nowhere_else() -> None:
    wave = torch.cos(2 * math.pi * 3 * torch.arange(16) / 16).expand(1, 10, 16)
    pictures = shown(band_picture(5 * wave + 2, [(0, 0), (1, 2), (3, 4), (5, 13)]), 16)
    expected = np.broadcast_to((255 * (0.5 + wave[0] / 2)).numpy(), (10, 16))
    assert np.abs(pictures["band 3-4"] - expected).max() <= 0.51
    for band in ("band 0 (background)", "band 1-2", "band 5-13"):
        assert np.abs(pictures[band] - 127.5).max() <= 0.51


def test_the_scale_of_a_floating_point_image_does_not_matter() -> None:
    image = torch.from_numpy(COLOURS).double()
    assert band_picture(image).to_dict() == band_picture(image / 64 - 2).to_dict()


def test_an_image_of_one_colour_has_no_pattern() -> None:
    pictures = shown(band_picture(np.full((1, 8, 8), 200, np.uint8)), 8)
    assert (pictures["image"] == 200).all()
    assert all(np.ptp(picture) == 0 for caption, picture in pictures.items() if "spectrum" not in caption)


def test_the_pictures_are_inside_the_figures() -> None:
    chart = band_picture(COLOURS, [(0, 0), (1, 10)])
    assert figure_svg(chart).count("data:image/png;base64,") == 6
    assert figure_pdf(chart).count(b"/Subtype /Image") == 6


@pytest.mark.parametrize(("height", "width"), [(5, 6), (8, 7)])
def test_a_spectrum_is_the_logarithm_of_the_magnitudes_of_its_band(height: int, width: int) -> None:
    image = np.random.default_rng(1).normal(size=(3, height, width))
    columns = [np.arange(size) - size // 2 for size in (height, width)]
    waves = [np.exp(-2j * np.pi * np.outer(k, np.arange(len(k))) / len(k)) for k in columns]
    magnitude = np.abs(waves[0] @ image @ waves[1].T).mean(0)
    band = np.add.outer(*(np.abs(k) for k in columns))
    level = np.clip(1 + np.log10(magnitude / magnitude.max()) / 4, 0, 1)
    for low, high in ((0, 0), (1, 2), (0, height // 2 + width // 2)):
        found = log_spectrum(torch.from_numpy(image), low, high)[0].numpy()
        assert found == pytest.approx(np.where((low <= band) & (band <= high), level, 0), abs=1e-9)


def test_a_wave_is_two_white_points_of_the_spectrum() -> None:
    wave = torch.cos(2 * math.pi * 3 * torch.arange(16) / 16).expand(1, 10, 16)
    assert log_spectrum(wave, 0, 13)[0].nonzero().tolist() == [[5, 5], [5, 11]]
    assert log_spectrum(wave, 4, 13).max() == 0


@pytest.mark.parametrize("shape", [(8, 8), (2, 8, 8), (1, 0, 8)])
def test_what_is_not_an_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TaskError, match=r"An image must have the shape \[1 or 3, H, W\]"):
        band_picture(torch.zeros(shape))


def test_a_band_that_the_image_has_not_is_refused() -> None:
    with pytest.raises(TaskError, match="8 x 12 pixels have the bands 0 to 10, not 1 to 11"):
        band_picture(COLOURS, [(1, 11)])
