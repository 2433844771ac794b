"""Data as tensors."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["digits"]


def digits(*, test_share: float = 0.3) -> tuple[tuple["Tensor", "Tensor"], tuple["Tensor", "Tensor"]]:
    """The 1,797 handwritten digits that come with the package, split into training and test set as in the preset.

    Source: the test set of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, 1998 (doi:10.24432/C50P49), licence CC BY 4.0, as scikit-learn packages it.

    Args:
        test_share: Share of the images in the test set, above 0 and below 1; the same for every class.

    Returns:
        Two pairs, each of images as rows of 8x8 pixels in [0, 1] (float32 [n, 64]) and their digits (int64 [n]).

    Raises:
        ValueError: The share is out of range, or leaves a set with fewer images than classes.
    """
    from lratlas.data.handwritten import handwritten_digits

    data = handwritten_digits(test_share)
    (train_x, train_y), (test_x, test_y) = data.train, data.test
    return (train_x.flatten(1).float() / 16, train_y), (test_x.flatten(1).float() / 16, test_y)
