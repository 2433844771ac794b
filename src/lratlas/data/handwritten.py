"""The handwritten digits that come with the package, in ``digits.npz``.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
(doi:10.24432/C50P49), licence CC BY 4.0: its test set, in the order of scikit-learn's package.
"""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lratlas.data.images import ImageData
from lratlas.rng import stream

_FILE = Path(__file__).with_name("digits.npz")
_CLASSES = 10


def handwritten_digits(test_share: float) -> ImageData:
    """The 1,797 images of 8x8 pixels with values up to 16, in a fixed split that is stratified by class.

    Args:
        test_share: Share of the images in the test set, above 0 and below 1.

    Raises:
        ValueError: The share is out of range, or leaves a set with fewer images than classes.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share}; it must be above 0 and below 1")
    with np.load(_FILE, allow_pickle=False) as file:
        images, labels = torch.as_tensor(file["images"])[:, None], torch.as_tensor(file["labels"]).long()
    test_size = math.ceil(test_share * len(labels))
    if not _CLASSES <= test_size <= len(labels) - _CLASSES:
        raise ValueError(f"test_share is {test_share}; each part must have at least {_CLASSES} of {len(labels)} images")
    train, test = _split(labels.numpy(), test_size, random_state=int(stream(0, "digits").integers(2**31)))
    return ImageData(
        name="digits",
        train=(images[train], labels[train]),
        test=(images[test], labels[test]),
        classes=tuple("0123456789"),
    )


def _split(
    labels: NDArray[np.int64], test_size: int, *, random_state: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and for testing, equal to scikit-learn's ``train_test_split(…, stratify=labels)``."""
    rng = np.random.RandomState(random_state)  # the generator of scikit-learn
    counts = np.bincount(labels)
    trained = _apportion(counts, len(labels) - test_size, rng)
    _apportion(counts - trained, test_size, rng)  # the remaining samples; the call draws from the generator
    rows = [np.flatnonzero(labels == label)[rng.permutation(count)] for label, count in enumerate(counts)]
    train = [each[:count] for each, count in zip(rows, trained, strict=True)]
    test = [each[count:] for each, count in zip(rows, trained, strict=True)]
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


def _apportion(counts: NDArray[np.int64], size: int, rng: np.random.RandomState) -> NDArray[np.int64]:
    """Number of samples per class out of ``size``: its share, rounded by largest remainders, ties broken at random."""
    shares = counts / counts.sum() * size
    given = np.floor(shares)
    remainders = shares - given
    for remainder in np.unique(remainders)[::-1]:
        left = int(size - given.sum())
        if left <= 0:
            break
        tied = np.flatnonzero(remainders == remainder)
        given[rng.choice(tied, size=min(len(tied), left), replace=False)] += 1
    return given.astype(np.int64)
