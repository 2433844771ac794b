"""Each operation of RandAugment against Pillow's, and what is drawn."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor

from lratlas.data.augment import crop_and_flip, then
from lratlas.data.randaugment import OPERATIONS, Operations, randaugment
from lratlas.errors import TaskError
from lratlas.rng import stream

NAMES = {family: list(operations) for family, operations in OPERATIONS.items()}
PLACE = (0.3, 0.85)  # of cutouts, in shares of height and width
Oracle = Callable[[Image.Image, float], Image.Image]


def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    """The image whose point (x, y), counted from its corner, is taken from the given point of the original."""
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def moved(share: float, side: int) -> int:
    return int(150 / 331 * side * share)


def solarized(image: Image.Image, threshold: float) -> Image.Image:
    return image.point([level if level < threshold else 255 - level for level in range(256)] * len(image.getbands()))


def brightened(image: Image.Image, added: float) -> Image.Image:
    return image.point([min(255, int(round(level + added, 6))) for level in range(256)] * len(image.getbands()))


def cut(image: Image.Image, size: float) -> Image.Image:
    """The square of the reference: its centre anywhere, cut off at the edges, the last row and column included."""
    down, right = (share * side for share, side in zip(PLACE, (image.height, image.width), strict=True))
    left, top = int(max(0, right - size / 2)), int(max(0, down - size / 2))
    corner = int(min(image.width, left + size)), int(min(image.height, top + size))
    result = image.copy()
    ImageDraw.Draw(result).rectangle((left, top, *corner), (125, 123, 114) if image.mode == "RGB" else 123)
    return result


# Pillow's functions at a signed share of each range.
BOTH: dict[str, Oracle] = {
    "shear_x": lambda image, share: affine(1, 0.3 * share, 0, 0, 1, 0)(image),
    "shear_y": lambda image, share: affine(1, 0, 0, 0.3 * share, 1, 0)(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}
TORCHVISION: dict[str, Oracle] = {
    **BOTH,
    "identity": lambda image, _: image,
    "translate_x": lambda image, share: affine(1, 0, -moved(share, image.width), 0, 1, 0)(image),
    "translate_y": lambda image, share: affine(1, 0, 0, 0, 1, -moved(share, image.height))(image),
    "brightness": lambda image, share: ImageEnhance.Brightness(image).enhance(1 + 0.9 * share),
    "posterize": lambda image, share: ImageOps.posterize(image, 8 - round(4 * abs(share))),
    "solarize": lambda image, share: ImageOps.solarize(image, math.ceil(round(255 - 255 * abs(share), 6))),
}
# As the reference code calls them; a translation there is of the place that a pixel is taken from.
EFFICIENTNET: dict[str, Oracle] = {
    **BOTH,
    "brightness": lambda image, share: ImageEnhance.Brightness(image).enhance(0.1 + 1.8 * abs(share)),
    "invert": lambda image, _: ImageOps.invert(image),
    "translate_x": lambda image, share: affine(1, 0, -100 * share, 0, 1, 0)(image),
    "translate_y": lambda image, share: affine(1, 0, 0, 0, 1, -100 * share)(image),
    "posterize": lambda image, share: ImageOps.posterize(image, max(1, int(round(4 * abs(share), 6)))),
    "solarize": lambda image, share: solarized(image, round(256 * abs(share), 6)),
    "solarize_add": lambda image, share: solarized(brightened(image, 110 * abs(share)), 128),
    "cutout": lambda image, share: cut(image, round(40 * abs(share), 6)),
}
EXACT: dict[str, dict[str, Oracle]] = {"torchvision": TORCHVISION, "efficientnet": EFFICIENTNET}
# One level of 255: Pillow rounds the grey or smoothed image before it blends, and its automatic contrast cuts off
# what rounding has left just below a level.
WITHIN_ONE: dict[str, dict[str, Oracle]] = {
    "torchvision": {
        "auto_contrast": lambda image, _: ImageOps.autocontrast(image),
        "colour": lambda image, share: ImageEnhance.Color(image).enhance(1 + 0.9 * share),
        "contrast": lambda image, share: ImageEnhance.Contrast(image).enhance(1 + 0.9 * share),
        "sharpness": lambda image, share: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * share),
    },
    "efficientnet": {
        "auto_contrast": lambda image, _: ImageOps.autocontrast(image),
        "colour": lambda image, share: ImageEnhance.Color(image).enhance(0.1 + 1.8 * abs(share)),
        "contrast": lambda image, share: ImageEnhance.Contrast(image).enhance(0.1 + 1.8 * abs(share)),
        "sharpness": lambda image, share: ImageEnhance.Sharpness(image).enhance(0.1 + 1.8 * abs(share)),
    },
}
families = pytest.mark.parametrize("family", OPERATIONS)


def cases(oracles: dict[str, dict[str, Oracle]]) -> list[tuple[Operations, str]]:
    kinds: tuple[Operations, ...] = ("efficientnet", "torchvision")
    return [(family, name) for family in kinds for name in oracles[family]]


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


def changed(images: Tensor, family: Operations, name: str, *, magnitude: int = 14, sign: int = 1) -> Tensor:
    rows = torch.full((len(images), 1), NAMES[family].index(name))
    places = torch.tensor(PLACE).expand(len(images), 1, 2)
    draws = {"operation": rows, "sign": torch.full_like(rows, sign), "place": places}
    return randaugment(count=1, magnitude=magnitude, operations=family).apply(images, draws)


@pytest.mark.parametrize(("family", "number"), [("efficientnet", 16), ("torchvision", 14)])
def test_there_is_an_oracle_for_each_operation(family: str, number: int) -> None:
    assert {*EXACT[family], *WITHIN_ONE[family], "rotate"} == set(NAMES[family])
    assert len(NAMES[family]) == number


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0, 9, 14, 30])
@pytest.mark.parametrize(("family", "name"), cases(EXACT))
def test_an_operation_is_pillows(images: Tensor, family: Operations, name: str, magnitude: int, sign: int) -> None:
    result = changed(images, family, name, magnitude=magnitude, sign=sign)
    expected = pillow(images, EXACT[family][name], sign * magnitude / 30)
    assert result.dtype == torch.uint8
    assert torch.equal(result, expected)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0, 9, 14, 30])
@pytest.mark.parametrize(("family", "name"), cases(WITHIN_ONE))
def test_an_operation_is_pillows_within_one_level(
    images: Tensor, family: Operations, name: str, magnitude: int, sign: int
) -> None:
    result = changed(images, family, name, magnitude=magnitude, sign=sign)
    expected = pillow(images, WITHIN_ONE[family][name], sign * magnitude / 30)
    assert int((result.int() - expected.int()).abs().max()) <= 1


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0, 9, 14, 30])
def test_rotation_is_pillows_but_for_a_pixel_in_five_hundred(images: Tensor, magnitude: int, sign: int) -> None:
    result = changed(images, "efficientnet", "rotate", magnitude=magnitude, sign=sign)
    expected = pillow(images, lambda image, share: image.rotate(30 * share), sign * magnitude / 30)
    # Pillow rounds the angle's sine to 16 bits, so that a point half-way between pixels can fall to the other.
    assert float((result != expected).any(1).float().mean()) < 1 / 500


@families
def test_each_image_has_the_operations_of_its_own_row_in_order(family: Operations) -> None:
    names = NAMES[family]
    pairs = torch.cartesian_prod(torch.arange(len(names)), torch.arange(len(names)))
    images = torch.randint(0, 256, (len(pairs), 3, 16, 16), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    signs = torch.where((pairs + torch.arange(2)) % 2 == 0, 1, -1)
    draws = {"operation": pairs, "sign": signs, "place": torch.tensor(PLACE).expand(len(pairs), 2, 2)}
    together = randaugment(operations=family).apply(images, draws)
    for i, ((first, second), (a, b)) in enumerate(zip(pairs.tolist(), signs.tolist(), strict=True)):
        alone = changed(changed(images[i : i + 1], family, names[first], sign=a), family, names[second], sign=b)
        assert torch.equal(together[i : i + 1], alone)


def test_of_the_pairs_of_the_reference_59_in_256_leave_one_colour() -> None:
    # 32 have a translation second, by 47 of 32 pixels; 26 have one first, and second neither another nor a cutout; one
    # brightens and solarizes, which leaves no pixel above 127, and posterizes to one bit.
    pairs = torch.cartesian_prod(torch.arange(16), torch.arange(16))
    images = torch.randint(0, 256, (256, 3, 32, 32), generator=torch.Generator().manual_seed(5)).to(torch.uint8)
    draws = {"operation": pairs, "sign": torch.ones_like(pairs), "place": torch.tensor(PLACE).expand(256, 2, 2)}
    flat = randaugment().apply(images, draws).flatten(2)
    assert int((flat.amax(2) == flat.amin(2)).all(1).sum()) == 32 + 26 + 1


@families
def test_operations_signs_and_places_are_drawn_evenly_for_each_sample(family: Operations) -> None:
    number = len(NAMES[family])
    draws = randaugment(operations=family).draws(stream(0, "augment"), 1000 * number)
    assert draws["operation"].shape == draws["sign"].shape == (1000 * number, 2)
    for column in draws["operation"].T:
        counts = column.bincount(minlength=number)
        # Five standard deviations of a count with mean 1,000.
        assert len(counts) == number
        assert int((counts - 1000).abs().max()) < 5 * (1000 * (1 - 1 / number)) ** 0.5
    assert set(draws["sign"].unique().tolist()) == {-1, 1}
    assert abs(float(draws["sign"].double().mean())) < 5 / (2000 * number) ** 0.5
    pairs = number * draws["operation"][:, 0] + draws["operation"][:, 1]
    assert len(pairs.unique()) == number**2
    places = draws["place"].double()
    assert places.shape == (1000 * number, 2, 2)
    assert 0 <= float(places.min()) < 0.01
    assert 0.99 < float(places.max()) < 1
    # Five standard errors of a mean of uniform numbers.
    assert float((places.mean(0) - 0.5).abs().max()) < 5 * (12 * 1000 * number) ** -0.5


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
    assert randaugment().name == "randaugment(count=2,magnitude=14,operations=efficientnet)"
    other = randaugment(count=1, magnitude=9, operations="torchvision")
    assert other.name == "randaugment(count=1,magnitude=9,operations=torchvision)"


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(TaskError, match="at least 1 operation per image, not 0"):
        randaugment(count=0)
    for magnitude in (-1, 31):
        with pytest.raises(TaskError, match=f"must be from 0 to 30, not {magnitude}"):
            randaugment(magnitude=magnitude)
    with pytest.raises(TaskError, match=r"no operations 'torch'.*; choose from efficientnet, torchvision"):
        randaugment(operations="torch")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("shape", [(4, 2, 8, 8), (4, 3, 2, 8)])
def test_images_that_it_cannot_change_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TaskError, match=r"with 1 or 3 channels and at least 3 x 3 pixels, not"):
        randaugment().apply(torch.zeros(shape, dtype=torch.uint8), randaugment().draws(stream(0, "augment"), 4))
