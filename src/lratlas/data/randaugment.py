"""RandAugment on batches: for each image a few operations at random, all of one magnitude."""

from collections.abc import Mapping
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lratlas.data.augment import Augmentation, Draws, check_images
from lratlas.data.image_operations import OPERATIONS
from lratlas.errors import TaskError, meant

_BINS = 31

Operations = Literal["efficientnet", "torchvision"]


def randaugment(*, count: int = 2, magnitude: int = 14, operations: Operations = "efficientnet") -> Augmentation:
    """RandAugment (Cubuk et al., 2020): ``count`` operations for each image, drawn with replacement.

    ``efficientnet``: the 16 operations of the paper's reference code: automatic contrast, equalisation, inversion,
    posterize, solarize, solarize after brightening, colour, contrast, brightness, sharpness, rotation, shear and
    translation along either axis, cutout. At magnitude 14 posterize leaves one bit, colour, contrast, brightness and
    sharpness have the factor 0.94, a cutout is a square of 18.7 pixels, and translations are by 46.7 pixels: 23 % of
    the pairs of operations leave an image of 32x32 pixels in one colour.

    ``torchvision``: its 14 operations: identity, shear and translation along either axis, rotation, brightness,
    colour, contrast, sharpness (all these with a random sign), posterize, solarize, automatic contrast and
    equalisation.

    Args:
        count: Operations per image, one after the other.
        magnitude: Strength of the operations, from 0 to 30, the end of each range.
        operations: Which operations and ranges.

    Raises:
        TaskError: The count is below 1, the magnitude is out of range, or there are no such operations.
    """
    if count < 1:
        raise TaskError(f"RandAugment needs at least 1 operation per image, not {count}.")
    if not 0 <= magnitude < _BINS:
        raise TaskError(f"The magnitude of RandAugment must lie from 0 to {_BINS - 1}, but it is {magnitude}.")
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
            f"RandAugment is of images with 1 or 3 channels and at least 3 x 3 pixels, not {tuple(images.shape[1:])}."
        )
    kinds, signs, places = (draws[name].to(images.device) for name in ("operation", "sign", "place"))
    for at in range(kinds.shape[1]):
        levels = signs[:, at] * (magnitude / (_BINS - 1))
        images = _one_each(images, kinds[:, at], levels, places[:, at], family=family)
    return images


def _one_each(images: Tensor, kinds: Tensor, levels: Tensor, places: Tensor, *, family: str) -> Tensor:
    """Each image changed by its operation; the images that share one go through it together."""
    changed = images.clone()
    for i, operation in enumerate(OPERATIONS[family].values()):
        rows = (kinds == i).nonzero()[:, 0]
        if len(rows):
            changed[rows] = operation(images[rows], levels[rows].float(), places[rows])
    return changed
