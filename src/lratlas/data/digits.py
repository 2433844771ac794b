"""Scikit-learn's handwritten digits."""

from functools import partial
from importlib.metadata import version

import torch

from lratlas.data.cache import load_or_make
from lratlas.data.images import ImageData
from lratlas.rng import stream


def digits(test_share: float) -> ImageData:
    """The 1,797 images of 8x8 pixels with values up to 16, split the same way every time and alike in every class.

    Importing scikit-learn takes each process seconds, so the images are kept.

    Args:
        test_share: Share of the images that are for testing, above 0 and below 1.

    Raises:
        ValueError: It is no such share, or leaves a part without an image of some class.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share}; it must lie above 0 and below 1")
    stamp = f"scikit-learn {version('scikit-learn')}, {test_share}"
    return load_or_make(partial(_split, test_share), title="digits", stem="digits", stamp=stamp)


def _split(test_share: float) -> ImageData:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    random_state = int(stream(0, "digits").integers(2**31))
    parts = train_test_split(pixels, labels, test_size=test_share, stratify=labels, random_state=random_state)
    train_x, test_x, train_y, test_y = (torch.as_tensor(part) for part in parts)
    return ImageData(
        name="digits",
        train=(train_x.to(torch.uint8).reshape(-1, 1, 8, 8), train_y),
        test=(test_x.to(torch.uint8).reshape(-1, 1, 8, 8), test_y),
        classes=tuple("0123456789"),
    )
