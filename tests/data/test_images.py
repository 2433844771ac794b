from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from data.makers import random_images
from lratlas.data.images import ImageData, Normalise, statistics, subset
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
        (BYTES[..., :4], torch.tensor([0, 1]), r"\(3, 4, 4\), but test images are \(3, 4, 5\)"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(images: Tensor, labels: Tensor, match: str):
    with pytest.raises(DataError, match=f"^Own.*{match}"):
        made(images, labels)


NAMES = ("ant", "bee", "cat", "dog")


def numbered(counts: list[int]) -> ImageData:
    """Images whose four bytes are their number, in a mixed order of classes."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    images = torch.arange(len(labels), dtype=torch.int32).view(torch.uint8).reshape(-1, 1, 2, 2)
    return ImageData(name="Own", train=(images, labels), test=(images, labels), classes=NAMES[: len(counts)])


def numbers(images: torch.Tensor) -> list[int]:
    return images.flatten().view(torch.int32).tolist()


COUNTS = st.lists(st.integers(1, 12), min_size=2, max_size=4)


@given(COUNTS, st.data(), st.integers(0, 5))
def test_subsets_are_stratified_nested_and_in_order(counts: list[int], data: Any, seed: int):
    whole = numbered(counts)
    large = data.draw(st.integers(1, sum(counts)))
    small = data.draw(st.integers(1, large))
    taken = {size: subset(whole, images=size, test_images=size, seed=seed) for size in (small, large)}
    for size, part in taken.items():
        for images, labels in (part.train, part.test):
            found = numbers(images)
            assert len(found) == size
            assert found == sorted(set(found))
            assert torch.equal(labels, whole.train[1][found])
            got = labels.bincount(minlength=len(counts)).tolist()
            fullest = max(got)
            assert all(count >= fullest - 1 or count == there for count, there in zip(got, counts, strict=True))
    for split in ("train", "test"):
        assert set(numbers(getattr(taken[small], split)[0])) <= set(numbers(getattr(taken[large], split)[0]))


def test_the_seed_decides_which_images_are_taken():
    whole = numbered([50, 50])
    first, again, other = (numbers(subset(whole, images=20, seed=seed).train[0]) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    both = subset(whole, images=20, test_images=20, seed=1)
    assert numbers(both.train[0]) != numbers(both.test[0])


def test_nothing_asked_changes_nothing():
    whole = numbered([3, 4])
    same = subset(whole)
    assert torch.equal(same.train[0], whole.train[0])
    assert torch.equal(same.train[1], whole.train[1])
    assert (same.classes, same.name) == (whole.classes, whole.name)


@pytest.mark.parametrize("classes", [[3, 1], ["dog", "bee"], ["bee", 3, "dog"]])
def test_classes_are_labelled_again_in_the_order_of_their_labels(classes: list[int | str]):
    whole = numbered([5, 6, 7, 8])
    part = subset(whole, classes=classes)
    assert part.classes == ("bee", "dog")
    assert part.train[1].bincount().tolist() == [6, 8]
    old = whole.train[1][numbers(part.train[0])]
    assert torch.equal(old, torch.tensor([1, 3])[part.train[1]])
    assert subset(whole, classes=classes, images=8).train[1].bincount().tolist() == [4, 4]


@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
def test_corruption_replaces_that_share_of_the_training_labels_by_others(share: float):
    whole = numbered([25, 25, 25, 25])
    noisy = subset(whole, corruption=share)
    assert int((noisy.train[1] != whole.train[1]).sum()) == round(100 * share)
    assert torch.equal(noisy.train[0], whole.train[0])
    assert torch.equal(noisy.test[1], whole.test[1])


def test_wrong_labels_are_uniform_over_the_other_classes():
    whole = numbered([3000, 3000, 3000])
    wrong = subset(whole, corruption=1.0).train[1]
    for label in range(3):
        got = wrong[whole.train[1] == label].bincount(minlength=3).tolist()
        assert got[label] == 0
        # 3,000 fair coins: five standard deviations are 137.
        assert all(abs(count - 1500) < 137 for other, count in enumerate(got) if other != label)


def test_a_larger_share_changes_the_same_images_and_more():
    whole = numbered([40, 40, 40])
    few, many = (subset(whole, corruption=share, seed=3).train[1] for share in (0.2, 0.5))
    changed = few != whole.train[1]
    assert torch.equal(few[changed], many[changed])


def test_the_whole_data_set_is_left_as_it_was():
    whole = numbered([10, 10])
    before = whole.train[1].clone()
    subset(whole, images=10, corruption=1.0, classes=[0, 1])
    subset(whole, corruption=1.0)
    assert torch.equal(whole.train[1], before)


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"images": 8}, "8 images of the train set were requested, but these classes have 7"),
        ({"test_images": 0}, "0 images of the test set"),
        ({"images": 4, "classes": [0]}, "have 3"),
        ({"classes": ["cow"]}, "no class 'cow'; choose from 0 to 1 or from ant, bee"),
        ({"classes": [2]}, "no class 2"),
        ({"classes": [-1]}, "no class -1"),
        ({"classes": []}, "list of classes is empty"),
        ({"corruption": 1.1}, "corruption is 1.1"),
        ({"corruption": float("nan")}, "corruption is nan"),
        ({"corruption": 0.5, "classes": ["ant"]}, "at least two classes"),
    ],
)
def test_what_cannot_be_taken_is_refused(asked: dict[str, Any], match: str):
    with pytest.raises(DataError, match=match):
        subset(numbered([3, 4]), **asked)


@given(st.integers(0, 5), st.integers(1, 12), st.integers(1, 12))
def test_reduced_images_are_means_of_what_each_pixel_covers(seed: int, size: int, pixels: int):
    pixels = min(size, pixels)
    images = torch.randint(0, 256, (3, 2, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    labels = torch.arange(3) % 2
    whole = ImageData(name="Own", train=(images, labels), test=(images[:2], labels[:2]), classes=NAMES[:2])
    small = subset(whole, pixels=pixels)
    ends = [(i * size // pixels, -(-(i + 1) * size // pixels)) for i in range(pixels)]
    means = torch.stack(
        [
            torch.stack([images[..., top:bottom, left:right].double().mean((-1, -2)) for left, right in ends], -1)
            for top, bottom in ends
        ],
        -2,
    )
    assert (small.train[0].double() - means).abs().max() <= 0.5 + 1e-5
    assert torch.equal(small.train[0][:2], small.test[0])
    assert torch.equal(small.train[1], labels)
