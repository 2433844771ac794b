"""RandAugment and its image operations."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from lratlas.data.augment import Augmentation, Draws, check_images
from lratlas.errors import TaskError, meant

__all__ = ["randaugment"]

# A float32 result just below a level belongs to that level; true fractions are further off.
_SLACK = 2e-4

_CUT = {3: (125, 123, 114), 1: (123,)}
"""Fill of a cutout, by number of channels: the reference's colour, and its grey value in Pillow."""

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
_ByLevel = Callable[[Tensor, Tensor], Tensor]


def _identity(images: Tensor, _levels: Tensor) -> Tensor:
    return images


def _shear_x(images: Tensor, levels: Tensor) -> Tensor:
    # The upper edge of the image is fixed; pixel centres are half a pixel below edges.
    slope = -0.3 * levels
    return _move_images(images, {(0, 1): slope, (0, 2): slope / 2})


def _shear_y(images: Tensor, levels: Tensor) -> Tensor:
    slope = -0.3 * levels
    return _move_images(images, {(1, 0): slope, (1, 2): slope / 2})


def _translate_x(images: Tensor, levels: Tensor) -> Tensor:
    return _move_images(images, {(0, 2): (150 / 331 * images.shape[3] * levels).trunc()})


def _translate_y(images: Tensor, levels: Tensor) -> Tensor:
    return _move_images(images, {(1, 2): (150 / 331 * images.shape[2] * levels).trunc()})


def _translate_pixels_x(images: Tensor, levels: Tensor) -> Tensor:
    return _move_images(images, {(0, 2): (100 * levels).round()})


def _translate_pixels_y(images: Tensor, levels: Tensor) -> Tensor:
    return _move_images(images, {(1, 2): (100 * levels).round()})


def _rotate(images: Tensor, levels: Tensor) -> Tensor:
    angle = torch.deg2rad(30 * levels)
    cos, sin = angle.cos(), angle.sin()
    y, x = ((side - 1) / 2 for side in images.shape[2:])
    return _move_images(
        images,
        {
            (0, 0): cos,
            (0, 1): sin,
            (1, 0): -sin,
            (1, 1): cos,
            (0, 2): x - cos * x - sin * y,
            (1, 2): y + sin * x - cos * y,
        },
    )


def _brightness(images: Tensor, levels: Tensor) -> Tensor:
    return _bytes(_unit(images) * _factor(levels))


def _colour(images: Tensor, levels: Tensor) -> Tensor:
    return images if images.shape[1] == 1 else _blend(images, _grey(_unit(images)), levels)


def _contrast(images: Tensor, levels: Tensor) -> Tensor:
    return _blend(images, _grey(_unit(images)).mean((1, 2, 3), keepdim=True), levels)


def _sharpness(images: Tensor, levels: Tensor) -> Tensor:
    unit, channels = _unit(images), images.shape[1]
    kernel = torch.tensor([[1, 1, 1], [1, 5, 1], [1, 1, 1]], device=images.device) / 13
    smooth = unit.clone()  # the border is not smoothed
    smooth[:, :, 1:-1, 1:-1] = conv2d(unit, kernel.expand(channels, 1, 3, 3), groups=channels)
    return _blend(images, smooth, levels)


def _posterize(images: Tensor, levels: Tensor) -> Tensor:
    return _without_bits(images, (4 * levels.abs()).round())


def _posterize_hard(images: Tensor, levels: Tensor) -> Tensor:
    # Stronger at lower levels, as in the reference; one bit remains.
    return _without_bits(images, 8 - (4 * levels.abs() + _SLACK).trunc().clamp(min=1))


def _solarize(images: Tensor, levels: Tensor) -> Tensor:
    return _invert_above(images, 255 * (1 - levels.abs()))


def _solarize_above(images: Tensor, levels: Tensor) -> Tensor:
    # Stronger at lower levels, as in the reference.
    return _invert_above(images, 256 * levels.abs())


def _solarize_add(images: Tensor, levels: Tensor) -> Tensor:
    brighter = (images + 110 * _each(levels.abs()) + _SLACK).clamp(max=255).to(torch.uint8)
    return _invert_above(brighter, torch.full_like(levels, 128))


def _invert(images: Tensor, _levels: Tensor) -> Tensor:
    return 255 - images


def _cutout(images: Tensor, levels: Tensor, places: Tensor) -> Tensor:
    sides = torch.tensor(images.shape[2:], device=images.device)
    size = 40 * levels.abs()[:, None]
    first = (places * sides - size / 2).clamp(min=0).trunc()
    last = torch.minimum(first + size + _SLACK, sides).trunc()
    rows, columns = (
        (torch.arange(side, device=images.device) >= first[:, axis, None])
        & (torch.arange(side, device=images.device) <= last[:, axis, None])
        for axis, side in enumerate(images.shape[2:])
    )
    colour = torch.tensor(_CUT[images.shape[1]], dtype=torch.uint8, device=images.device)
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], colour[:, None, None], images)


def _auto_contrast(images: Tensor, _levels: Tensor) -> Tensor:
    low, high = (extreme(_unit(images), (2, 3), keepdim=True) for extreme in (torch.amin, torch.amax))
    return torch.where(low == high, images, _bytes((_unit(images) - low) / (high - low)))


def _equalize(images: Tensor, _levels: Tensor) -> Tensor:
    # Like Pillow: a level becomes the number of darker pixels divided by 1/255 of all but the brightest pixels.
    levels = images.flatten(2).long()
    counts = levels.new_zeros((*levels.shape[:2], 256)).scatter_add_(2, levels, torch.ones_like(levels))
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255
    table = ((counts.cumsum(2) - counts + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step == 0, levels, table.gather(2, levels)).to(torch.uint8).view_as(images)


def _placeless(operation: _ByLevel) -> Operation:
    return lambda images, levels, _places: operation(images, levels)


def _one_sided(operation: _ByLevel) -> _ByLevel:
    """An operation with factors from 0.1 to 1.9, whatever the sign of the level."""
    return lambda images, levels: operation(images, 2 * levels.abs() - 1)


_COMMON: Mapping[str, _ByLevel] = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
}
_FACTORS: Mapping[str, _ByLevel] = {
    "colour": _colour,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
}
_TORCHVISION: Mapping[str, _ByLevel] = {
    **_COMMON,
    **_FACTORS,
    "identity": _identity,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "posterize": _posterize,
    "solarize": _solarize,
}
_EFFICIENTNET: Mapping[str, _ByLevel] = {
    **_COMMON,
    **{name: _one_sided(operation) for name, operation in _FACTORS.items()},
    "invert": _invert,
    "translate_x": _translate_pixels_x,
    "translate_y": _translate_pixels_y,
    "posterize": _posterize_hard,
    "solarize": _solarize_above,
    "solarize_add": _solarize_add,
}
OPERATIONS: Mapping[str, Mapping[str, Operation]] = {
    "efficientnet": {**{name: _placeless(each) for name, each in _EFFICIENTNET.items()}, "cutout": _cutout},
    "torchvision": {name: _placeless(each) for name, each in _TORCHVISION.items()},
}
"""The 16 operations of the paper's reference code, in the style of EfficientNet, and torchvision's 14."""


def _without_bits(images: Tensor, dropped: Tensor) -> Tensor:
    bits = _each(dropped.to(torch.uint8))
    return (images >> bits) << bits


def _invert_above(images: Tensor, thresholds: Tensor) -> Tensor:
    return torch.where(images >= _each(thresholds - _SLACK), 255 - images, images)


def _move_images(images: Tensor, entries: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """Move images by matrices [n, 3, 3] that differ from the identity in these entries; new pixels are black."""
    matrices = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    for (row, column), values in entries.items():
        matrices[:, row, column] = values
    height, width = images.shape[2:]
    y, x = (each.flatten() for each in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    points = torch.stack([x, y, torch.ones_like(x)]).to(images.device, torch.float32)
    # The nearest pixels [n, (x, y), pixels]; on a tie, up to rounding, the further one, like Pillow.
    source = (torch.linalg.inv(matrices)[:, :2] @ points + 0.5 + 1e-5).floor().long()
    ends = torch.tensor([[width], [height]], device=images.device)
    inside = ((source >= 0) & (source < ends)).all(1)
    places = torch.where(inside, source[:, 1] * width + source[:, 0], 0)
    values = images.flatten(2).gather(2, places[:, None].expand(-1, images.shape[1], -1))
    return torch.where(inside[:, None], values, 0).view_as(images)


def _each(values: Tensor) -> Tensor:
    """One value per image [n], in a shape that broadcasts with the images."""
    return values[:, None, None, None]


def _factor(levels: Tensor) -> Tensor:
    return _each(1 + 0.9 * levels)


def _blend(images: Tensor, other: Tensor, levels: Tensor) -> Tensor:
    """Blend images with versions without colour, contrast or sharpness: factor 1 keeps the images, 0 the versions."""
    return _bytes(other + (_unit(images) - other) * _factor(levels))


def _grey(images: Tensor) -> Tensor:
    """Luma (ITU-R BT.601) of colour images; single-channel images are returned unchanged."""
    if images.shape[1] == 1:
        return images
    return (images * torch.tensor([0.299, 0.587, 0.114], device=images.device).view(3, 1, 1)).sum(1, keepdim=True)


def _unit(images: Tensor) -> Tensor:
    return images.float() / 255


def _bytes(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255 + _SLACK).to(torch.uint8)


_BINS = 31

Operations = Literal["efficientnet", "torchvision"]


def randaugment(*, count: int = 2, magnitude: int = 14, operations: Operations = "efficientnet") -> Augmentation:
    """RandAugment (Cubuk et al., 2020): ``count`` operations for each image, drawn with replacement.

    ``efficientnet``: the 16 operations of the paper's reference code: automatic contrast, equalisation, inversion,
    posterize, solarize, solarize after brightening, colour, contrast, brightness, sharpness, rotation, shear and
    translation along either axis, cutout. At magnitude 14, posterize leaves one bit, colour, contrast, brightness and
    sharpness have the factor 0.94, a cutout is a square of 18.7 pixels, and translations are by 46.7 pixels: 23% of
    the pairs of operations turn an image of 32x32 pixels into a single colour.

    ``torchvision``: its 14 operations: identity, shear and translation along either axis, rotation, brightness,
    colour, contrast, sharpness (all these with a random sign), posterize, solarize, automatic contrast and
    equalisation.

    Args:
        count: Number of operations per image, applied in sequence.
        magnitude: Strength of the operations, from 0 to 30, the end of each range.
        operations: The set of operations and their ranges.

    Raises:
        TaskError: The count is below 1, the magnitude is out of range, or the set of operations is unknown.
    """
    if count < 1:
        raise TaskError(f"RandAugment needs at least 1 operation per image, not {count}.")
    if not 0 <= magnitude < _BINS:
        raise TaskError(f"The magnitude of RandAugment must be from 0 to {_BINS - 1}, not {magnitude}.")
    if operations not in OPERATIONS:
        hint = meant(operations, OPERATIONS)
        raise TaskError(f"RandAugment has no operations {operations!r}{hint}; choose from {', '.join(OPERATIONS)}.")
    return Augmentation(
        name=f"randaugment(count={count},magnitude={magnitude},operations={operations})",
        draws=partial(_draw, operations=count, kinds=len(OPERATIONS[operations])),
        apply=partial(_apply, magnitude=magnitude, family=operations),
    )


def _draw(generator: np.random.Generator, count: int, *, operations: int, kinds: int) -> Draws:
    shape = (count, operations)
    drawn, signs = generator.integers(0, kinds, size=shape), generator.integers(0, 2, size=shape)
    places = generator.random((*shape, 2), dtype=np.float32)
    return {
        "operation": torch.from_numpy(drawn),
        "sign": torch.from_numpy(2 * signs - 1),
        "place": torch.from_numpy(places),
    }


def _apply(images: Tensor, draws: Mapping[str, Tensor], *, magnitude: int, family: str) -> Tensor:
    check_images(images)
    if images.shape[1] not in {1, 3} or min(images.shape[2:]) < 3:
        raise TaskError(
            f"RandAugment needs images with 1 or 3 channels and at least 3 x 3 pixels, not {tuple(images.shape[1:])}."
        )
    kinds, signs, places = (draws[name].to(images.device) for name in ("operation", "sign", "place"))
    for at in range(kinds.shape[1]):
        levels = signs[:, at] * (magnitude / (_BINS - 1))
        images = _one_each(images, kinds[:, at], levels, places[:, at], family=family)
    return images


def _one_each(images: Tensor, kinds: Tensor, levels: Tensor, places: Tensor, *, family: str) -> Tensor:
    """Apply its operation to each image; images with the same operation are processed together."""
    changed = images.clone()
    for i, operation in enumerate(OPERATIONS[family].values()):
        rows = (kinds == i).nonzero()[:, 0]
        if len(rows):
            changed[rows] = operation(images[rows], levels[rows].float(), places[rows])
    return changed
