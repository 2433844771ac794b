"""Images in memory: what a reader returns, their statistics, and their normalisation on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lratlas.errors import DataError

Pair = tuple[Tensor, Tensor]

LEVELS = 256
_CHUNK = 4096  # images counted at a time
_NAMED = 3  # of many


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """A labelled set of images, as bytes.

    Attributes:
        name: Title, for captions.
        train: Images, uint8 [n, C, H, W], and labels from 0, int64 [n].
        test: The same for the test set; images of the same size.
        classes: Names of the classes, in the order of their labels.

    Raises:
        DataError: Types, shapes, counts or labels do not fit together.
    """

    name: str
    train: Pair
    test: Pair
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for split, (images, labels) in (("train", self.train), ("test", self.test)):
            check_pair(images, labels, classes=len(self.classes), where=f"{self.name}, {split}")
        train, test = (tuple(images.shape[1:]) for images, _ in (self.train, self.test))
        if train != test:
            raise DataError(f"{self.name}: training images are {train}, test images {test} (C, H, W); they must agree.")


def check_pair(images: Tensor, labels: Tensor, *, classes: int, where: str) -> None:
    """Check images and labels of one split.

    Args:
        images: Should be uint8, [n, C, H, W].
        labels: Should be int64, [n], from 0 to ``classes`` - 1.
        classes: Number of classes.
        where: How the message begins, for example the file.

    Raises:
        DataError: One of these does not hold.
    """
    if images.dtype != torch.uint8 or images.dim() != 4 or not images.numel():
        raise DataError(f"{where}: images are {images.dtype} {tuple(images.shape)}; they must be uint8 [n, C, H, W].")
    if labels.dtype != torch.int64 or labels.dim() != 1:
        raise DataError(f"{where}: labels are {labels.dtype} {tuple(labels.shape)}; they must be int64 [n].")
    if len(images) != len(labels):
        raise DataError(
            f"{where}: there are {len(images)} images but {len(labels)} labels; each image needs one label."
        )
    outside = ((labels < 0) | (labels >= classes)).nonzero()
    if len(outside):
        row = int(outside[0])
        raise DataError(
            f"{where}: label {int(labels[row])} of image {row} is out of range;"
            f" with {classes} classes, labels go from 0 to {classes - 1}."
        )


def missing_classes(data: ImageData) -> list[str]:
    """For each split that lacks some of the classes, a clause that says how many and names the first."""
    found = list[str]()
    for split, (_, labels) in (("training", data.train), ("test", data.test)):
        counts = torch.bincount(labels, minlength=len(data.classes)).tolist()
        lacking = [name for name, count in zip(data.classes, counts, strict=True) if not count]
        if lacking:
            found.append(
                f"the {split} set has no images of {len(lacking)} of the {len(data.classes)} classes"
                f" ({first_names(lacking)})"
            )
    return found


def first_names(names: Sequence[str]) -> str:
    """The first few of many names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all images and pixels.

    Levels are counted in whole numbers, so that neither depends on the order or the number of images.

    Args:
        images: Bytes, uint8 [n, C, H, W].

    Returns:
        Mean [C] and standard deviation [C] (of the population) of pixel values in [0, 1], float64 on the CPU.
    """
    counts = torch.zeros(images.shape[1], LEVELS, dtype=torch.int64)
    for chunk in images.split(_CHUNK):
        for number, channel in enumerate(chunk.unbind(1)):
            counts[number] += torch.bincount(channel.flatten(), minlength=LEVELS).cpu()
    shares = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(LEVELS, dtype=torch.float64) / (LEVELS - 1)
    mean = shares @ values
    deviation = (shares * (values - mean[:, None]).square()).sum(1).sqrt()
    return mean, deviation


@dataclass(frozen=True, kw_only=True)
class Normalise:
    """From bytes to numbers around 0: ``(x / 255 - mean) / std`` for each channel, on the device of ``x``.

    Attributes:
        mean: What is subtracted from each channel's values in [0, 1].
        std: What they are divided by then.

    Raises:
        DataError: The two differ in length, or a divisor is not above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise DataError(f"mean has {len(self.mean)} values and std {len(self.std)}; both need one per channel.")
        if not all(0 < deviation < float("inf") for deviation in self.std):
            raise DataError(f"std is {self.std}; each value must be a finite number above 0.")

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise images.

        Args:
            images: Bytes, uint8 [n, C, H, W].

        Returns:
            Numbers of PyTorch's default type, [n, C, H, W], on the same device.

        Raises:
            DataError: The number of channels is another one.
        """
        if images.shape[-3] != len(self.mean):
            raise DataError(
                f"The images have {images.shape[-3]} channels, but mean and std have {len(self.mean)} values."
            )
        values = images.to(torch.get_default_dtype())
        top = LEVELS - 1
        # Plain numbers, not small tensors: nothing is copied to the device.
        channels = [
            (channel - top * mean) / (top * std)
            for channel, mean, std in zip(values.unbind(-3), self.mean, self.std, strict=True)
        ]
        return torch.stack(channels, dim=-3)
