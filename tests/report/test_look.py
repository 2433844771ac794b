"""Colours that can be seen on either page and distinguished with any colour vision."""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from lratlas.report import theme

Floats = npt.NDArray[np.float64]
PAGES = ("#FFFFFF", "#14171A")
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
_VISION = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.9505, 1.0, 1.089])


def linear(colour: str) -> Floats:
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2."""
    low, high = sorted(float(linear(colour) @ _LUMINANCE) + 0.05 for colour in (one, other))
    return high / low


def lab(light: Floats) -> Floats:
    xyz = _XYZ @ light.clip(0, 1) / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def tinted(colour: str, page: str, share: float) -> str:
    mixed = (round(share * int(colour[i : i + 2], 16) + (1 - share) * int(page[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{part:02X}" for part in mixed)


MARKS = {
    *theme.REGIME_COLOURS.values(),
    *theme.STRONG,
    theme.NEUTRAL,
    *theme.ramp(theme.BAND_RAMP, 8),
    *theme.ramp(theme.FLR_RAMP, 14),
    *theme.ramp(theme.SWA_RAMP, 7),
    *theme.ramp(theme.ORDERED_RAMP, 7),
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("colour", sorted(MARKS))
def test_marks_have_three_to_one_on_a_light_page_and_on_a_dark_one(colour: str, page: str) -> None:
    assert contrast(colour, page) >= 3


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("colour", [*theme.STRONG, theme.NEUTRAL])
def test_lines_have_three_to_one_over_every_regime(colour: str, page: str) -> None:
    assert min(contrast(colour, tinted(tint, page, 0.16)) for tint in theme.REGIME_COLOURS.values()) >= 3


@pytest.mark.parametrize(("page", "ink"), [("#FFFFFF", "#000000"), ("#14171A", "#E6E8EB")])
def test_the_names_of_regimes_can_be_read_over_their_tints(page: str, ink: str) -> None:
    assert min(contrast(ink, tinted(tint, page, 0.16)) for tint in theme.REGIME_COLOURS.values()) >= 4.5


@pytest.mark.parametrize("vision", _VISION)
@pytest.mark.parametrize("colours", [list(theme.REGIME_COLOURS.values()), theme.STRONG, theme.BAND_RAMP])
def test_colours_differ_with_any_colour_vision(colours: list[str], vision: str) -> None:
    seen = {colour: lab(_VISION[vision] @ linear(colour)) for colour in colours}
    # A difference of 2.3 is just noticeable.
    assert min(float(np.linalg.norm(seen[a] - seen[b])) for a, b in combinations(colours, 2)) > 3 * 2.3


@pytest.mark.parametrize("vision", _VISION)
@pytest.mark.parametrize("count", range(2, 8))
def test_lengths_differ_with_any_colour_vision(count: int, vision: str) -> None:
    colours = theme.ramp(theme.ORDERED_RAMP, count)
    seen = [lab(_VISION[vision] @ linear(colour)) for colour in colours]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) > (11 if count > 5 else 17)
    assert sorted(colours, key=lambda colour: contrast(colour, "#FFFFFF")) == colours
