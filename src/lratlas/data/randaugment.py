"""RandAugment on batches: for each image a few operations at random, all of one magnitude."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lratlas.data.augment import Augmentation, Draws, check_images
from lratlas.errors import TaskError

_BINS = 31
# A result that float32 leaves just below a level belongs to that level; true fractions are further off.
_SLACK = 2e-4

Operation = Callable[[Tensor, Tensor], Tensor]


def randaugment(*, count: int = 2, magnitude: int = 14) -> Augmentation:
    """RandAugment (Cubuk et al., 2020): ``count`` operations for each image, drawn with replacement.

    The operations and their ranges are those of torchvision: identity, shear and translation along either axis,
    rotation, brightness, colour, contrast, sharpness (all these with a random sign), posterize, solarize, automatic
    contrast and equalisation. Pixels from outside the image are black; the nearest pixel is taken.

    Args:
        count: Operations per image, one after the other.
        magnitude: Strength of the operations, from 0 to 30, the end of each range.

    Raises:
        TaskError: The count is below 1, or the magnitude is out of range.
    """
    if count < 1:
        raise TaskError(f"RandAugment needs at least 1 operation per image, not {count}.")
    if not 0 <= magnitude < _BINS:
        raise TaskError(f"The magnitude of RandAugment must lie from 0 to {_BINS - 1}, but it is {magnitude}.")
    return Augmentation(
        name=f"randaugment(count={count},magnitude={magnitude})",
        draws=partial(_draw, operations=count),
        apply=partial(_apply, magnitude=magnitude),
    )


def _draw(generator: np.random.Generator, count: int, *, operations: int) -> Draws:
    shape = (count, operations)
    kinds, signs = generator.integers(0, len(OPERATIONS), size=shape), generator.integers(0, 2, size=shape)
    return {"operation": torch.from_numpy(kinds), "sign": torch.from_numpy(2 * signs - 1)}


def _apply(images: Tensor, draws: Mapping[str, Tensor], *, magnitude: int) -> Tensor:
    check_images(images)
    if images.shape[1] not in {1, 3} or min(images.shape[2:]) < 3:
        raise TaskError(
            f"RandAugment is of images with 1 or 3 channels and at least 3 x 3 pixels, not {tuple(images.shape[1:])}."
        )
    kinds, signs = (draws[name].to(images.device) for name in ("operation", "sign"))
    for kind, sign in zip(kinds.T, signs.T, strict=True):
        images = _one_each(images, kind, sign * (magnitude / (_BINS - 1)))
    return images


def _one_each(images: Tensor, kinds: Tensor, levels: Tensor) -> Tensor:
    """Each image changed by the operation of its own; the images that share one go through it together."""
    changed = images.clone()
    for i, operation in enumerate(OPERATIONS.values()):
        rows = (kinds == i).nonzero()[:, 0]
        if len(rows):
            changed[rows] = operation(images[rows], levels[rows].float())
    return changed


def _identity(images: Tensor, _levels: Tensor) -> Tensor:
    return images


def _shear_x(images: Tensor, levels: Tensor) -> Tensor:
    # The upper edge of the image stays where it is; pixel centres lie half a pixel below edges.
    slope = -0.3 * levels
    return _moved(images, {(0, 1): slope, (0, 2): slope / 2})


def _shear_y(images: Tensor, levels: Tensor) -> Tensor:
    slope = -0.3 * levels
    return _moved(images, {(1, 0): slope, (1, 2): slope / 2})


def _translate_x(images: Tensor, levels: Tensor) -> Tensor:
    return _moved(images, {(0, 2): (150 / 331 * images.shape[3] * levels).trunc()})


def _translate_y(images: Tensor, levels: Tensor) -> Tensor:
    return _moved(images, {(1, 2): (150 / 331 * images.shape[2] * levels).trunc()})


def _rotate(images: Tensor, levels: Tensor) -> Tensor:
    angle = torch.deg2rad(30 * levels)
    cos, sin = angle.cos(), angle.sin()
    y, x = ((side - 1) / 2 for side in images.shape[2:])
    return _moved(
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
    from kornia.enhance import adjust_brightness_accumulative

    return _bytes(adjust_brightness_accumulative(_unit(images), _factor(levels)))


def _colour(images: Tensor, levels: Tensor) -> Tensor:
    from kornia.enhance import adjust_saturation_with_gray_subtraction

    if images.shape[1] == 1:
        return images
    return _bytes(adjust_saturation_with_gray_subtraction(_unit(images), _factor(levels)))


def _contrast(images: Tensor, levels: Tensor) -> Tensor:
    from kornia.enhance import adjust_contrast_with_mean_subtraction

    return _bytes(adjust_contrast_with_mean_subtraction(_unit(images), _factor(levels)))


def _sharpness(images: Tensor, levels: Tensor) -> Tensor:
    from kornia.enhance import sharpness

    return _bytes(sharpness(_unit(images), _factor(levels)))


def _posterize(images: Tensor, levels: Tensor) -> Tensor:
    dropped = (4 * levels.abs()).round().to(torch.uint8)[:, None, None, None]
    return (images >> dropped) << dropped


def _solarize(images: Tensor, levels: Tensor) -> Tensor:
    threshold = (255 * (1 - levels.abs()) - _SLACK)[:, None, None, None]
    return torch.where(images >= threshold, 255 - images, images)


def _auto_contrast(images: Tensor, _levels: Tensor) -> Tensor:
    from kornia.enhance import normalize_min_max

    flat = images.amax((2, 3), keepdim=True) == images.amin((2, 3), keepdim=True)
    return torch.where(flat, images, _bytes(normalize_min_max(_unit(images), eps=1e-12)))


def _equalize(images: Tensor, _levels: Tensor) -> Tensor:
    from kornia.enhance import equalize

    return _bytes(equalize(_unit(images)))


OPERATIONS: Mapping[str, Operation] = {
    "identity": _identity,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": _brightness,
    "colour": _colour,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
}


def _moved(images: Tensor, entries: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """The images moved by the matrices [n, 2, 3] that differ from the identity in these entries."""
    from kornia.geometry.transform import affine

    matrices = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    for (row, column), values in entries.items():
        matrices[:, row, column] = values
    return affine(images.float(), matrices, mode="nearest").to(torch.uint8)


def _factor(levels: Tensor) -> Tensor:
    return 1 + 0.9 * levels


def _unit(images: Tensor) -> Tensor:
    return images.float() / 255


def _bytes(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255 + _SLACK).to(torch.uint8)
