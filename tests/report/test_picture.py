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
from lratlas.report.figures import figure_pdf, figure_svg
from lratlas.report.look import Drawing
from lratlas.report.picture import band_picture

COLOURS = np.random.default_rng(0).integers(0, 256, (3, 8, 12)).astype(np.uint8)


def shown(chart: Drawing, columns: int) -> dict[str, npt.NDArray[np.uint8]]:
    """Each picture by its caption, one pixel for each pixel of the image of that many columns."""
    spec = chart.to_dict()
    rows: list[dict[str, Any]] = [spec["datasets"][panel["data"]["name"]][0] for panel in spec["hconcat"]]
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
    assert list(pictures) == ["image", "band 0 (background)", "band 1-2 (low)", "band 3-7 (mid)", "band 8-10 (high)"]
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
    assert all(np.ptp(picture) == 0 for picture in pictures.values())


def test_the_pictures_are_inside_the_figures() -> None:
    chart = band_picture(COLOURS, [(0, 0), (1, 10)])
    assert figure_svg(chart).count("data:image/png;base64,") == 3
    assert figure_pdf(chart).count(b"/Subtype /Image") == 3


@pytest.mark.parametrize("shape", [(8, 8), (2, 8, 8), (1, 0, 8)])
def test_what_is_not_an_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TaskError, match=r"An image must have the shape \[1 or 3, H, W\]"):
        band_picture(torch.zeros(shape))


def test_a_band_that_the_image_has_not_is_refused() -> None:
    with pytest.raises(TaskError, match="8 x 12 pixels have the bands 0 to 10, not 1 to 11"):
        band_picture(COLOURS, [(1, 11)])
