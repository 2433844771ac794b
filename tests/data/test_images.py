import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from data.makers import random_images
from lratlas.data.images import ImageData, Normalise, statistics
from lratlas.errors import DataError


def made(images: Tensor, labels: Tensor, *, classes: int = 2) -> ImageData:
    good = torch.zeros(1, 3, 4, 5, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    return ImageData(name="Own", train=(images, labels), test=good, classes=tuple(map(str, range(classes))))


@given(st.integers(1, 3), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_statistics_are_those_of_all_pixels(channels: int, count: int, seed: int):
    images = random_images(count, channels, 3, 5, seed=seed)
    mean, deviation = statistics(torch.from_numpy(images))
    values = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(deviation, values.std((0, 2, 3)), rtol=1e-10)
    assert mean.dtype == deviation.dtype == torch.float64


def test_statistics_of_many_images_do_not_depend_on_their_order():
    images = torch.from_numpy(random_images(9000, 1, 2, 2))
    mean, deviation = statistics(images)
    again, again_deviation = statistics(images.flip(0))
    assert torch.equal(mean, again)
    assert torch.equal(deviation, again_deviation)
    assert mean.item() == pytest.approx(images.double().mean().item() / 255, abs=1e-12)


def test_normalised_by_their_own_statistics_images_have_mean_0_and_deviation_1():
    images = torch.from_numpy(random_images(50, 3, 6, 7))
    mean, deviation = statistics(images)
    normalised = Normalise(mean=tuple(mean.tolist()), std=tuple(deviation.tolist()))(images)
    assert normalised.dtype == torch.get_default_dtype()
    assert normalised.shape == images.shape
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(normalised.std((0, 2, 3), correction=0), torch.ones(3), rtol=1e-5, atol=0)


def test_normalising_is_the_formula():
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 3, 1, 1)
    normalise = Normalise(mean=(0.5, 0.25, 0.1), std=(0.5, 0.25, 0.2))
    torch.testing.assert_close(normalise(images).flatten(), torch.tensor([-1.0, 3.0, 0.5]))
    # Batches under vmap have the same values.
    torch.testing.assert_close(torch.func.vmap(normalise)(images[None]), normalise(images)[None])


@pytest.mark.parametrize(
    ("mean", "std", "match"),
    [((0.5,), (0.5, 0.5), "1 values and std 2"), ((), (), "one per channel"), ((0.1,), (0.0,), "above 0")],
)
def test_values_that_cannot_normalise_are_refused(mean: tuple[float, ...], std: tuple[float, ...], match: str):
    with pytest.raises(DataError, match=match):
        Normalise(mean=mean, std=std)


def test_images_with_other_channels_are_not_normalised():
    with pytest.raises(DataError, match="3 channels"):
        Normalise(mean=(0.5,), std=(0.5,))(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))


BYTES = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (BYTES.float(), torch.tensor([0, 1]), "train: images are torch.float32"),
        (BYTES[0], torch.tensor([0, 1]), r"\[n, C, H, W\]"),
        (BYTES[:0], torch.zeros(0, dtype=torch.int64), "must be uint8"),
        (BYTES, torch.tensor([0, 1], dtype=torch.int32), "labels are torch.int32"),
        (BYTES, torch.tensor([0, 1, 1]), "2 images but 3 labels"),
        (BYTES, torch.tensor([0, 2]), "label 2 of image 1 is out of range; with 2 classes, labels go from 0 to 1"),
        (BYTES, torch.tensor([-1, 0]), "label -1 of image 0"),
        (BYTES[..., :4], torch.tensor([0, 1]), r"\(3, 4, 4\), test images \(3, 4, 5\)"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(images: Tensor, labels: Tensor, match: str):
    with pytest.raises(DataError, match=f"^Own.*{match}"):
        made(images, labels)
