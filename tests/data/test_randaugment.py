"""Each operation of RandAugment against Pillow's, and what is drawn."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from lratlas.data.augment import crop_and_flip, then
from lratlas.data.randaugment import OPERATIONS, randaugment
from lratlas.errors import TaskError
from lratlas.streams import stream

NAMES = list(OPERATIONS)
Oracle = Callable[[Image.Image, float], Image.Image]


def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    """The image whose point (x, y), counted from its corner, is taken from the given point of the original."""
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def moved(share: float, side: int) -> int:
    return int(150 / 331 * side * share)


# Pillow's functions at a signed share of each range.
EXACT: dict[str, Oracle] = {
    "identity": lambda image, _: image,
    "shear_x": lambda image, share: affine(1, 0.3 * share, 0, 0, 1, 0)(image),
    "shear_y": lambda image, share: affine(1, 0, 0, 0.3 * share, 1, 0)(image),
    "translate_x": lambda image, share: affine(1, 0, -moved(share, image.width), 0, 1, 0)(image),
    "translate_y": lambda image, share: affine(1, 0, 0, 0, 1, -moved(share, image.height))(image),
    "brightness": lambda image, share: ImageEnhance.Brightness(image).enhance(1 + 0.9 * share),
    "posterize": lambda image, share: ImageOps.posterize(image, 8 - round(4 * abs(share))),
    "solarize": lambda image, share: ImageOps.solarize(image, math.ceil(round(255 - 255 * abs(share), 6))),
    "equalize": lambda image, _: ImageOps.equalize(image),
}
# One level of 255: Pillow rounds the grey or smoothed image before it blends, and its automatic contrast cuts off
# what rounding has left just below a level.
WITHIN_ONE: dict[str, Oracle] = {
    "auto_contrast": lambda image, _: ImageOps.autocontrast(image),
    "colour": lambda image, share: ImageEnhance.Color(image).enhance(1 + 0.9 * share),
    "contrast": lambda image, share: ImageEnhance.Contrast(image).enhance(1 + 0.9 * share),
    "sharpness": lambda image, share: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * share),
}


@pytest.fixture(params=[(3, 32, 32), (1, 32, 32), (3, 15, 22)], ids=["colour", "grey", "oblong"])
def images(request: pytest.FixtureRequest) -> Tensor:
    """Noise of several contrasts, and one channel of a single colour."""
    shape: tuple[int, int, int] = request.param
    made = torch.randint(0, 256, (12, *shape), generator=torch.Generator().manual_seed(1))
    made[4:8] = 60 + made[4:8] // 3
    made[8:] = made[8:].sort(-1).values // 2
    made[8, 0] = 77
    return made.to(torch.uint8)


def pillow(images: Tensor, oracle: Oracle, share: float) -> Tensor:
    results = [np.asarray(oracle(picture, share)) for picture in pictures(images)]
    return torch.from_numpy(np.stack(results)).reshape(len(images), *images.shape[2:], -1).permute(0, 3, 1, 2)


def pictures(images: Tensor) -> Iterator[Image.Image]:
    for image in images.permute(0, 2, 3, 1).numpy():
        yield Image.fromarray(image if image.shape[2] == 3 else image[..., 0])


def changed(images: Tensor, name: str, *, magnitude: int = 14, sign: int = 1) -> Tensor:
    rows = torch.full((len(images), 1), NAMES.index(name))
    draws = {"operation": rows, "sign": torch.full_like(rows, sign)}
    return randaugment(count=1, magnitude=magnitude).apply(images, draws)


def test_there_is_an_oracle_for_each_operation() -> None:
    assert {*EXACT, *WITHIN_ONE, "rotate"} == set(NAMES)
    assert len(NAMES) == 14


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0, 9, 14, 30])
@pytest.mark.parametrize("name", EXACT)
def test_an_operation_is_pillows(images: Tensor, name: str, magnitude: int, sign: int) -> None:
    result = changed(images, name, magnitude=magnitude, sign=sign)
    expected = pillow(images, EXACT[name], sign * magnitude / 30)
    assert result.dtype == torch.uint8
    assert torch.equal(result, expected)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0, 9, 14, 30])
@pytest.mark.parametrize("name", WITHIN_ONE)
def test_an_operation_is_pillows_within_one_level(images: Tensor, name: str, magnitude: int, sign: int) -> None:
    result = changed(images, name, magnitude=magnitude, sign=sign)
    expected = pillow(images, WITHIN_ONE[name], sign * magnitude / 30)
    assert int((result.int() - expected.int()).abs().max()) <= 1


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0, 9, 14, 30])
def test_rotation_is_pillows_but_for_a_pixel_in_five_hundred(images: Tensor, magnitude: int, sign: int) -> None:
    result = changed(images, "rotate", magnitude=magnitude, sign=sign)
    expected = pillow(images, lambda image, share: image.rotate(30 * share), sign * magnitude / 30)
    # Pillow rounds the angle's sine to 16 bits, so that a point half-way between pixels can fall to the other.
    assert float((result != expected).any(1).float().mean()) < 1 / 500


def test_each_image_has_the_operations_of_its_own_row_in_order() -> None:
    images = torch.randint(0, 256, (14 * 14, 3, 16, 16), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    pairs = torch.cartesian_prod(torch.arange(14), torch.arange(14))
    signs = torch.where((pairs + torch.arange(2)) % 2 == 0, 1, -1)
    together = randaugment().apply(images, {"operation": pairs, "sign": signs})
    for i, ((first, second), (a, b)) in enumerate(zip(pairs.tolist(), signs.tolist(), strict=True)):
        alone = changed(changed(images[i : i + 1], NAMES[first], sign=a), NAMES[second], sign=b)
        assert torch.equal(together[i : i + 1], alone)


def test_operations_and_signs_are_drawn_evenly_for_each_sample() -> None:
    draws = randaugment().draws(stream(0, "augment"), 14_000)
    assert draws["operation"].shape == draws["sign"].shape == (14_000, 2)
    for column in draws["operation"].T:
        counts = column.bincount(minlength=14)
        # Five standard deviations of a count with mean 1,000.
        assert len(counts) == 14
        assert int((counts - 1000).abs().max()) < 5 * (1000 * 13 / 14) ** 0.5
    assert set(draws["sign"].unique().tolist()) == {-1, 1}
    assert abs(float(draws["sign"].double().mean())) < 5 / 28_000**0.5
    pairs = 14 * draws["operation"][:, 0] + draws["operation"][:, 1]
    assert len(pairs.unique()) == 14 * 14


@pytest.mark.parametrize("cut", [1, 5, 29])
def test_a_batch_may_be_cut_anywhere(cut: int) -> None:
    images = torch.randint(0, 256, (30, 3, 32, 32), generator=torch.Generator().manual_seed(4)).to(torch.uint8)
    augmentation = then(randaugment(), crop_and_flip())
    draws = augmentation.draws(stream(0, "augment"), 30)
    whole = augmentation.apply(images, draws)
    parts = [
        augmentation.apply(images[rows], {key: values[rows] for key, values in draws.items()})
        for rows in (slice(cut), slice(cut, None))
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_the_images_given_stay_as_they_were() -> None:
    images = torch.randint(0, 256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    before = images.clone()
    result = randaugment().apply(images, randaugment().draws(stream(0, "augment"), 40))
    assert torch.equal(images, before)
    result.zero_()
    assert torch.equal(images, before)


def test_the_name_holds_the_settings() -> None:
    assert randaugment().name == "randaugment(count=2,magnitude=14)"
    assert randaugment(count=1, magnitude=9).name == "randaugment(count=1,magnitude=9)"


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(TaskError, match="at least 1 operation per image, not 0"):
        randaugment(count=0)
    for magnitude in (-1, 31):
        with pytest.raises(TaskError, match=f"must lie from 0 to 30, but it is {magnitude}"):
            randaugment(magnitude=magnitude)


@pytest.mark.parametrize("shape", [(4, 2, 8, 8), (4, 3, 2, 8)])
def test_images_that_it_cannot_change_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TaskError, match=r"with 1 or 3 channels and at least 3 x 3 pixels, not"):
        randaugment().apply(torch.zeros(shape, dtype=torch.uint8), randaugment().draws(stream(0, "augment"), 4))
