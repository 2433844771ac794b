"""Smaller and noisier versions of a data set: fewer or smaller images, fewer classes, wrong labels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lratlas.data.images import ImageData, Pair
from lratlas.errors import DataError
from lratlas.streams import stream


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
    """Take a part of a data set, the same one for the same seed.

    Subsets are stratified: class counts differ by at most one, as far as each class has enough images. A smaller one
    is contained in a larger one of the same seed and classes. Images stay in their order.

    Args:
        data: The whole data set.
        images: Training images to take; all if None.
        test_images: Test images to take; all if None.
        classes: Labels or names of the classes to take, all if None. They are labelled anew from 0, in the order of
            their old labels.
        corruption: Share of the training images taken whose label is replaced by that of another class, each other
            class being equally likely; test labels stay right. A larger share changes the same images and more.
        pixels: Height and width that all images are reduced to, each pixel the mean of those it covers (rounded);
            as they are if None.
        seed: Which images and which wrong labels.

    Raises:
        DataError: There are not so many images, no such class, the share is not in [0, 1], or the images are smaller
            than ``pixels``.
    """
    labels = list(range(len(data.classes))) if classes is None else _labels(data, classes)
    train = _relabelled(_taken(data.train, labels, images, seed, "train"), labels)
    test = _relabelled(_taken(data.test, labels, test_images, seed, "test"), labels)
    return replace(
        data,
        train=(_reduced(train[0], pixels), _corrupted(train[1], len(labels), corruption, seed)),
        test=(_reduced(test[0], pixels), test[1]),
        classes=tuple(data.classes[label] for label in labels),
    )


def _labels(data: ImageData, wanted: Sequence[int | str]) -> list[int]:
    """Old labels of the wanted classes, in ascending order."""
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


def _taken(pair: Pair, labels: list[int], count: int | None, seed: int, split: str) -> Pair:
    """The images of these classes, or as many as asked of them, in their order."""
    order = _stratified(pair[1], seed, split)
    order = order[torch.isin(pair[1][order], torch.tensor(labels))]
    wanted = len(order) if count is None else count
    if not 1 <= wanted <= len(order):
        raise DataError(
            f"{wanted} images of the {split} set are asked for, but these classes have {len(order)}; take 1 or more."
        )
    if wanted == len(pair[1]):
        return pair
    rows = order[:wanted].sort().values
    return pair[0][rows], pair[1][rows]


def _stratified(labels: Tensor, seed: int, split: str) -> Tensor:
    """An order of all images: the first of each class, drawn at random, then the second of each, and so on."""
    ranks = np.empty(len(labels), dtype=np.int64)
    kinds = labels.numpy()
    for label in np.unique(kinds):
        rows = np.flatnonzero(kinds == label)
        ranks[rows] = stream(seed, f"subset/{split}", int(label)).permutation(len(rows))
    turns = stream(seed, f"turns/{split}").permutation(int(kinds.max()) + 1)
    return torch.from_numpy(np.lexsort((turns[kinds], ranks)))


def _relabelled(pair: Pair, labels: list[int]) -> Pair:
    return pair[0], torch.searchsorted(torch.tensor(labels), pair[1])


def _reduced(images: Tensor, pixels: int | None) -> Tensor:
    if pixels is None:
        return images
    height, width = images.shape[2:]
    if not 1 <= pixels <= min(height, width):
        raise DataError(
            f"pixels is {pixels}, but the images are {height} x {width}; take from 1 to {min(height, width)}."
        )
    return functional.adaptive_avg_pool2d(images.float(), pixels).round().to(torch.uint8)


def _corrupted(labels: Tensor, classes: int, share: float, seed: int) -> Tensor:
    if not 0 <= share <= 1:
        raise DataError(f"corruption is {share:g}; it must be a share from 0 to 1.")
    if share and classes < 2:
        raise DataError("Labels can only be corrupted if there are at least two classes.")
    if not share:
        return labels
    generator = stream(seed, "corruption")
    order = generator.permutation(len(labels))
    shifts = generator.integers(1, classes, size=len(labels))
    rows = torch.from_numpy(order[: round(share * len(labels))])
    corrupted = labels.clone()
    corrupted[rows] = (labels[rows] + torch.from_numpy(shifts)[rows]) % classes
    return corrupted
