"""The digits that come with the package: scikit-learn's, and split as it splits them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lratlas.data
from lratlas.data.handwritten import handwritten_digits
from lratlas.rng import stream

FILE = Path(lratlas.data.__file__).with_name("digits.npz")
PIXELS, LABELS = load_digits(return_X_y=True)


def test_the_file_has_the_digits_of_scikit_learn() -> None:
    with np.load(FILE, allow_pickle=False) as file:
        assert np.array_equal(file["images"].reshape(-1, 64), PIXELS)
        assert np.array_equal(file["labels"], LABELS)


@given(test_share=st.floats(10 / 1797, 1787 / 1797))
@example(test_share=0.3)
@example(test_share=0.2)
@example(test_share=0.5)
def test_they_are_split_as_scikit_learn_splits_them(test_share: float) -> None:
    data = handwritten_digits(test_share)
    random_state = int(stream(0, "digits").integers(2**31))
    split = train_test_split(PIXELS, LABELS, test_size=test_share, stratify=LABELS, random_state=random_state)
    train_x, test_x, train_y, test_y = map(torch.as_tensor, split)
    for (images, labels), (pixels, known) in ((data.train, (train_x, train_y)), (data.test, (test_x, test_y))):
        assert images.dtype == torch.uint8
        assert torch.equal(images, pixels.to(torch.uint8).reshape(-1, 1, 8, 8))
        assert torch.equal(labels, known)
        assert labels.dtype == torch.int64


def test_the_public_function_gives_rows_of_pixels_from_0_to_1() -> None:
    data = handwritten_digits(0.3)
    for (x, y), (images, labels) in zip(lratlas.data.digits(), (data.train, data.test), strict=True):
        assert x.dtype == torch.float32
        assert torch.equal(16 * x, images.flatten(1))
        assert torch.equal(y, labels)


@pytest.mark.parametrize(
    ("test_share", "words"),
    [
        (2.0, "^test_share is 2.0; it must be above 0 and below 1$"),
        (float("nan"), "^test_share is nan; it must be above 0 and below 1$"),
        (0.0001, "^test_share is 0.0001; each part must have at least 10 of 1797 images$"),
        (0.9999, "^test_share is 0.9999; each part must have at least 10 of 1797 images$"),
    ],
)
def test_a_share_that_cannot_be_is_refused(test_share: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        handwritten_digits(test_share)
