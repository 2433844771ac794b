"""Labelled images as bytes, and subsets of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lratlas.errors import DataError
from lratlas.rng import stream

Pair = tuple[Tensor, Tensor]

LEVELS = 256
_CHUNK = 4096  # images counted at a time
_NAMED = 3  # number of names to show


NAMES = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """A labelled set of images, as bytes.

    Attributes:
        name: Title, for captions.
        train: Images, uint8 [n, C, H, W], and labels from 0, int64 [n].
        test: Images and labels of the test set; the images have the same size.
        classes: Names of the classes, in the order of their labels.

    Raises:
        DataError: Types, shapes, counts or labels do not match.
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
            raise DataError(
                f"{self.name}: training images are {train}, but test images are {test} (C, H, W); they must agree."
            )


def check_pair(images: Tensor, labels: Tensor, *, classes: int, where: str) -> None:
    """Check the images and labels of one split.

    Args:
        images: Must be uint8, [n, C, H, W].
        labels: Must be int64, [n], from 0 to ``classes`` - 1.
        classes: Number of classes.
        where: Start of the message, for example the file.

    Raises:
        DataError: A condition is violated.
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
    """For each split that lacks some classes, a clause with their number and the first names."""
    found = list[str]()
    for split, (_, labels) in (("training", data.train), ("test", data.test)):
        counts = torch.bincount(labels, minlength=len(data.classes)).tolist()
        lacking = [name for name, count in zip(data.classes, counts, strict=True) if not count]
        if lacking:
            found.append(
                f"the {split} set has no images for {len(lacking)} of the {len(data.classes)} classes"
                f" ({first_names(lacking)})"
            )
    return found


def first_names(names: Sequence[str]) -> str:
    """The first few of many names, and the number of further ones."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all images and pixels.

    Levels are counted as whole numbers, so the result does not depend on the order or the number of images.

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
    """Normalise bytes to numbers around 0: ``(x / 255 - mean) / std`` for each channel, on the device of ``x``.

    Attributes:
        mean: Subtracted from each channel's values in [0, 1].
        std: Divides the difference.

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
            Numbers of PyTorch's default dtype, [n, C, H, W], on the same device.

        Raises:
            DataError: The number of channels does not match.
        """
        if images.shape[-3] != len(self.mean):
            raise DataError(
                f"The images have {images.shape[-3]} channels, but mean and std have {len(self.mean)} values."
            )
        values = images.to(torch.get_default_dtype())
        top = LEVELS - 1
        # Plain numbers instead of small tensors: nothing is copied to the device.
        channels = [
            (channel - top * mean) / (top * std)
            for channel, mean, std in zip(values.unbind(-3), self.mean, self.std, strict=True)
        ]
        return torch.stack(channels, dim=-3)


def subset(
    data: ImageData,
    *,
    images: int | None = None,
    test_images: int | None = None,
    classes: Sequence[int | str] | None = None,
    corruption: float = 0.0,
    pixels: int | None = None,
    seed: int = 0,
) -> ImageData:
    """Select a part of a data set; the same seed gives the same part.

    Subsets are stratified: class counts differ by at most one, as far as each class has enough images. For equal seed
    and classes, a larger subset contains a smaller one. Images stay in order.

    Args:
        data: The whole data set.
        images: Number of training images; all if None.
        test_images: Number of test images; all if None.
        classes: Labels or names of the classes, all if None. They are relabelled from 0, in the order of their old
            labels.
        corruption: Share of the selected training images whose label is replaced by that of another class, each other
            class being equally likely; test labels stay correct. A larger share changes the same images and more.
        pixels: New height and width of all images, each pixel the mean of those it covers (rounded); None to keep the
            size.
        seed: Determines the images and the wrong labels.

    Raises:
        DataError: There are too few images, a class is unknown, the share is not in [0, 1], or the images are smaller
            than ``pixels``.
    """
    labels = list(range(len(data.classes))) if classes is None else _labels(data, classes)
    train = _relabel(_select_images(data.train, labels, images, seed, "train"), labels)
    test = _relabel(_select_images(data.test, labels, test_images, seed, "test"), labels)
    return replace(
        data,
        train=(_reduce_pixels(train[0], pixels), _corrupt_labels(train[1], len(labels), corruption, seed)),
        test=(_reduce_pixels(test[0], pixels), test[1]),
        classes=tuple(data.classes[label] for label in labels),
    )


def _labels(data: ImageData, wanted: Sequence[int | str]) -> list[int]:
    """Old labels of the requested classes, in ascending order."""
    found: set[int] = set()
    for name in wanted:
        label = data.classes.index(name) if name in data.classes else name
        if not isinstance(label, int) or not 0 <= label < len(data.classes):
            raise DataError(
                f"{data.name} has no class {name!r}; choose from 0 to {len(data.classes) - 1}"
                f" or from {', '.join(data.classes)}."
            )
        found.add(label)
    if not found:
        raise DataError("The list of classes is empty; name at least one.")
    return sorted(found)


def _select_images(pair: Pair, labels: list[int], count: int | None, seed: int, split: str) -> Pair:
    """The images of these classes, or the requested number of them, in their original order."""
    order = _stratify(pair[1], seed, split)
    order = order[torch.isin(pair[1][order], torch.tensor(labels))]
    wanted = len(order) if count is None else count
    if not 1 <= wanted <= len(order):
        raise DataError(
            f"{wanted} images of the {split} set were requested, but these classes have {len(order)}; request from 1 to"
            f" {len(order)}."
        )
    if wanted == len(pair[1]):
        return pair
    rows = order[:wanted].sort().values
    return pair[0][rows], pair[1][rows]


def _stratify(labels: Tensor, seed: int, split: str) -> Tensor:
    """An order of all images: the first of each class, drawn at random, then the second of each, and so on."""
    ranks = np.empty(len(labels), dtype=np.int64)
    kinds = labels.numpy()
    for label in np.unique(kinds):
        rows = np.flatnonzero(kinds == label)
        ranks[rows] = stream(seed, f"subset/{split}", int(label)).permutation(len(rows))
    turns = stream(seed, f"turns/{split}").permutation(int(kinds.max()) + 1)
    return torch.from_numpy(np.lexsort((turns[kinds], ranks)))


def _relabel(pair: Pair, labels: list[int]) -> Pair:
    return pair[0], torch.searchsorted(torch.tensor(labels), pair[1])


def _reduce_pixels(images: Tensor, pixels: int | None) -> Tensor:
    if pixels is None:
        return images
    height, width = images.shape[2:]
    if not 1 <= pixels <= min(height, width):
        raise DataError(
            f"pixels is {pixels}, but the images are {height} x {width}; choose from 1 to {min(height, width)}."
        )
    return functional.adaptive_avg_pool2d(images.float(), pixels).round().to(torch.uint8)


def _corrupt_labels(labels: Tensor, classes: int, share: float, seed: int) -> Tensor:
    if not 0 <= share <= 1:
        raise DataError(f"corruption is {share:g}; it must be a share from 0 to 1.")
    if share and classes < 2:
        raise DataError("Corrupting labels needs at least two classes.")
    if not share:
        return labels
    generator = stream(seed, "corruption")
    order = generator.permutation(len(labels))
    shifts = generator.integers(1, classes, size=len(labels))
    rows = torch.from_numpy(order[: round(share * len(labels))])
    corrupted = labels.clone()
    corrupted[rows] = (labels[rows] + torch.from_numpy(shifts)[rows]) % classes
    return corrupted
