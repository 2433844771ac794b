"""Augmentation of images in memory: random draws for an epoch, and their application to a batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lratlas.errors import TaskError

__all__ = ["Augmentation", "crop_and_flip", "then"]

Draws = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A random change of training images, made by `crop_and_flip`, `randaugment` or `then`.

    Random numbers are drawn for all samples of an epoch at once, separate from their application, so that an epoch can
    be replayed and a sample changes in the same way in any batch.

    Attributes:
        name: A description with all settings; part of a run's identity.
        draws: Called with a generator and a number of samples n; returns an epoch's random numbers: tensors [n, ...].
        apply: Called with images, uint8 [n, C, H, W], and the draws of these samples; returns new images: uint8, of the
            same shape. Sample i only depends on image i and row i. Runs on the device of the images.
    """

    name: str
    draws: Callable[[np.random.Generator, int], Draws]
    apply: Callable[[Tensor, Mapping[str, Tensor]], Tensor]


def crop_and_flip(*, padding: int = 4, flip: bool = True) -> Augmentation:
    """Random crops of the original size from the zero-padded image, and horizontal flips of half of the images.

    Args:
        padding: Zeros added on each side, in pixels; all (2 padding + 1)^2 crops are equally likely.
        flip: Whether to flip.

    Raises:
        TaskError: The padding is negative.
    """
    if padding < 0:
        raise TaskError(f"padding must be at least 0 pixels, not {padding}.")
    return Augmentation(
        name=f"crop_and_flip(padding={padding},flip={str(flip).lower()})",
        draws=partial(_draw_crops, padding=padding, flip=flip),
        apply=partial(_crop, padding=padding),
    )


def then(*parts: Augmentation) -> Augmentation:
    """Apply augmentations in sequence, each with separate draws; without any, images stay unchanged."""
    return Augmentation(
        name="then(" + ",".join(part.name for part in parts) + ")",
        draws=partial(_draw_parts, parts=parts),
        apply=partial(_apply_parts, parts=parts),
    )


def check_images(images: Tensor) -> None:
    """Refuse images that no augmentation supports.

    Raises:
        TaskError: The images are not uint8 [n, C, H, W].
    """
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise TaskError(
            f"Augmentation needs images uint8 [n, C, H, W], before normalisation, not {images.dtype}"
            f" {tuple(images.shape)}."
        )


def _draw_crops(generator: np.random.Generator, count: int, *, padding: int, flip: bool) -> Draws:
    corners = generator.integers(0, 2 * padding + 1, size=(count, 2))
    flipped = generator.random(count) < 0.5 if flip else np.zeros(count, dtype=np.bool_)
    return {"corner": torch.from_numpy(corners), "flip": torch.from_numpy(flipped)}


def _crop(images: Tensor, draws: Mapping[str, Tensor], *, padding: int) -> Tensor:
    check_images(images)
    device, (height, width) = images.device, images.shape[2:]
    corner, flip = (draws[name].to(device) for name in ("corner", "flip"))
    rows = corner[:, :1] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    columns = corner[:, 1:] + torch.where(flip[:, None], columns.flip(0), columns)
    samples = torch.arange(len(images), device=device)[:, None, None]
    # With the channels last, indexing moves all channels of a pixel in one copy.
    padded = pad(images, [padding] * 4).permute(0, 2, 3, 1)
    return padded[samples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _draw_parts(generator: np.random.Generator, count: int, *, parts: tuple[Augmentation, ...]) -> Draws:
    return {f"{i}.{key}": rows for i, part in enumerate(parts) for key, rows in part.draws(generator, count).items()}


def _apply_parts(images: Tensor, draws: Mapping[str, Tensor], *, parts: tuple[Augmentation, ...]) -> Tensor:
    check_images(images)
    changed = images.clone()
    for i, part in enumerate(parts):
        own = {key.removeprefix(f"{i}."): rows for key, rows in draws.items() if key.startswith(f"{i}.")}
        changed = part.apply(changed, own)
    return changed
