"""Crops and flips against slicing by hand, and the laws of augmentation."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from lratlas.data.augment import Augmentation, crop_and_flip, then
from lratlas.data.randaugment import randaugment
from lratlas.errors import TaskError
from lratlas.rng import stream

quick = settings(max_examples=25)


def noise(*shape: int) -> Tensor:
    # No zeros, so that padding can be distinguished from the image.
    return torch.randint(1, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def drawn(augmentation: Augmentation, count: int, epoch: int = 0) -> dict[str, Tensor]:
    return augmentation.draws(stream(0, "augment", epoch), count)


@quick
@given(st.integers(0, 4), st.booleans(), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_each_image_is_a_crop_of_its_padded_self(
    padding: int, flip: bool, height: int, width: int, channels: int
) -> None:
    images, augmentation = noise(6, channels, height, width), crop_and_flip(padding=padding, flip=flip)
    draws = drawn(augmentation, 6)
    result = augmentation.apply(images, draws)
    assert result.dtype == torch.uint8
    assert result.is_contiguous()
    for i in range(6):
        top, left = draws["corner"][i].tolist()
        crop = pad(images[i], [padding] * 4)[:, top : top + height, left : left + width]
        assert torch.equal(result[i], crop.flip(-1) if draws["flip"][i] else crop)


def test_without_padding_and_flips_nothing_changes() -> None:
    images, still = noise(20, 3, 6, 7), crop_and_flip(padding=0, flip=False)
    assert torch.equal(still.apply(images, drawn(still, 20)), images)


def test_all_crops_are_equally_likely_and_half_are_flipped() -> None:
    draws = drawn(crop_and_flip(padding=1), 9000)
    counts = (3 * draws["corner"][:, 0] + draws["corner"][:, 1]).bincount(minlength=9)
    # Five standard deviations of a count with mean 1,000.
    assert len(counts) == 9
    assert int((counts - 1000).abs().max()) < 5 * (1000 * 8 / 9) ** 0.5
    assert abs(int(draws["flip"].sum()) - 4500) < 5 * (9000 / 4) ** 0.5


def test_the_crop_reaches_every_corner_of_the_padding() -> None:
    corners = drawn(crop_and_flip(padding=4), 5000)["corner"]
    assert corners.amin(0).tolist() == [0, 0]
    assert corners.amax(0).tolist() == [8, 8]


@pytest.mark.parametrize("augmentation", [crop_and_flip(), randaugment(), then(randaugment(), crop_and_flip())])
def test_draws_are_a_row_per_sample_and_a_function_of_the_stream(augmentation: Augmentation) -> None:
    draws, again, other = drawn(augmentation, 50), drawn(augmentation, 50), drawn(augmentation, 50, epoch=1)
    assert all(len(rows) == 50 for rows in draws.values())
    assert draws.keys() == again.keys()
    assert all(torch.equal(rows, again[key]) for key, rows in draws.items())
    assert any(not torch.equal(rows, other[key]) for key, rows in draws.items())


@quick
@given(st.integers(0, 12))
def test_a_batch_may_be_cut_anywhere(cut: int) -> None:
    images, augmentation = noise(12, 3, 8, 8), then(crop_and_flip(padding=2), crop_and_flip(padding=1))
    draws = drawn(augmentation, 12)
    parts = [
        augmentation.apply(images[rows], {key: values[rows] for key, values in draws.items()})
        for rows in (slice(cut), slice(cut, None))
    ]
    assert torch.equal(torch.cat(parts), augmentation.apply(images, draws))


def test_parts_are_applied_one_after_the_other_with_draws_of_their_own() -> None:
    images, first, second = noise(40, 1, 6, 6), crop_and_flip(padding=2), crop_and_flip(padding=2)
    generator = stream(0, "augment")
    a, b = first.draws(generator, 40), second.draws(generator, 40)
    both = then(first, second)
    assert torch.equal(both.apply(images, drawn(both, 40)), second.apply(first.apply(images, a), b))
    assert not torch.equal(a["corner"], b["corner"])


def test_nothing_then_nothing_is_the_image() -> None:
    images = noise(3, 1, 4, 4)
    result = then().apply(images, drawn(then(), 3))
    assert torch.equal(result, images)
    assert result.data_ptr() != images.data_ptr()


def test_the_images_given_stay_as_they_were() -> None:
    images, before = noise(8, 3, 6, 6), noise(8, 3, 6, 6)
    crop_and_flip().apply(images, drawn(crop_and_flip(), 8)).zero_()
    assert torch.equal(images, before)


def test_names_tell_augmentations_apart() -> None:
    assert crop_and_flip().name == "crop_and_flip(padding=4,flip=true)"
    both = then(randaugment(), crop_and_flip())
    assert both.name == f"then({randaugment().name},{crop_and_flip().name})"
    others = [crop_and_flip(padding=2), crop_and_flip(flip=False), then(crop_and_flip(), randaugment())]
    assert len({crop_and_flip().name, both.name, *(other.name for other in others)}) == 5


def test_an_augmentation_can_be_sent_to_another_process() -> None:
    augmentation = then(crop_and_flip(), randaugment())
    images, sent = noise(8, 3, 8, 8), pickle.loads(pickle.dumps(augmentation))
    assert sent.name == augmentation.name
    draws = drawn(augmentation, 8)
    assert torch.equal(sent.apply(images, draws), augmentation.apply(images, draws))


def test_a_negative_padding_is_refused() -> None:
    with pytest.raises(TaskError, match="padding must be at least 0 pixels, not -1"):
        crop_and_flip(padding=-1)


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)])
@pytest.mark.parametrize("augmentation", [crop_and_flip(), randaugment(), then()])
def test_only_batches_of_bytes_are_taken(augmentation: Augmentation, images: Tensor) -> None:
    with pytest.raises(TaskError, match=r"images uint8 \[n, C, H, W\], before normalisation, not"):
        augmentation.apply(images, drawn(augmentation, len(images)))
