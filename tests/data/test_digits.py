"""The digits: scikit-learn's, kept so that scikit-learn need not be imported."""

import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from lratlas.data.digits import digits


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRATLAS_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("test_share", [0.2, 0.3])
def test_every_image_is_in_one_part_and_every_class_in_both(test_share: float) -> None:
    data = digits(test_share)
    (train_x, train_y), (test_x, test_y) = data.train, data.test
    assert abs(len(test_x) - 1797 * test_share) <= 1
    for label in range(10):
        share = float((test_y == label).sum() / ((train_y == label).sum() + (test_y == label).sum()))
        assert abs(share - test_share) < 0.01
    pixels, labels = load_digits(return_X_y=True)
    written = sorted((*row, label) for row, label in zip(pixels.astype(int).tolist(), labels.tolist(), strict=True))
    images, known = torch.cat([train_x, test_x]).flatten(1), torch.cat([train_y, test_y])
    assert sorted((*row, label) for row, label in zip(images.tolist(), known.tolist(), strict=True)) == written


def test_a_second_time_they_are_read_without_scikit_learn(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digits(0.3)

    def same_without_scikit_learn() -> bool:
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "sklearn.datasets", None)
            again = digits(0.3)
        pairs = zip((*first.train, *first.test), (*again.train, *again.test), strict=True)
        return all(torch.equal(one, other) for one, other in pairs)

    assert same_without_scikit_learn()
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ImportError):
        same_without_scikit_learn()
    digits(0.3)  # makes the damaged file anew
    assert same_without_scikit_learn()


@pytest.mark.parametrize(
    ("test_share", "words"),
    [
        (2.0, "^test_share is 2.0; it must lie above 0 and below 1$"),
        (float("nan"), "^test_share is nan; it must lie above 0 and below 1$"),
        (0.0001, "number of classes"),
    ],
)
def test_a_share_that_cannot_be_is_refused(test_share: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        digits(test_share)
