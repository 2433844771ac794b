"""The order of mini-batches, for every seed, window and size."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lratlas.data.augment import crop_and_flip
from lratlas.rng import stream
from lratlas.training.batches import augmentation_draws, batch_indices

sizes = st.integers(1, 40).flatmap(lambda samples: st.tuples(st.just(samples), st.integers(1, samples)))
seeds = st.integers(0, 2**40)
quick = settings(max_examples=50)
AUGMENT = crop_and_flip(padding=2)


def order(seed: int, start: int, stop: int, size: tuple[int, int]) -> Tensor:
    return batch_indices(seed=seed, start=start, stop=stop, samples=size[0], batch_size=size[1])


@quick
@given(seeds, sizes)
def test_an_epoch_takes_every_sample_at_most_once_and_drops_an_incomplete_batch(
    seed: int, size: tuple[int, int]
) -> None:
    samples, batch = size
    per_epoch = samples // batch
    drawn = order(seed, 0, 3 * per_epoch, size)
    assert drawn.dtype == torch.int64
    assert drawn.shape == (3 * per_epoch, batch)
    for epoch in drawn.reshape(3, -1).tolist():
        assert len(epoch) == len(set(epoch)) == per_epoch * batch
        assert set(epoch) <= set(range(samples))


@quick
@given(seeds, sizes, st.integers(0, 60), st.integers(1, 60), st.integers(0, 60))
def test_a_window_is_a_slice_of_the_whole(seed: int, size: tuple[int, int], start: int, length: int, more: int) -> None:
    whole = order(seed, 0, start + length + more, size)
    assert torch.equal(order(seed, start, start + length, size), whole[start : start + length])


def test_epochs_and_seeds_differ() -> None:
    first, second = order(0, 0, 8, (40, 10)), order(1, 0, 8, (40, 10))
    assert not torch.equal(first, second)
    assert not torch.equal(first[:4], first[4:])


def test_every_place_of_an_epoch_gets_every_sample_about_as_often() -> None:
    epochs = order(3, 0, 4000, (4, 4))
    counts = torch.stack([torch.bincount(epochs[:, place], minlength=4) for place in range(4)])
    # 1000 expected, standard deviation 27.
    assert ((counts - 1000).abs() < 150).all()


def test_full_batches_are_all_samples_in_their_own_order_at_every_step() -> None:
    drawn = batch_indices(seed=3, start=5, stop=9, samples=7, batch_size=7, full_batch=True)
    assert drawn.tolist() == [list(range(7))] * 4


@quick
@given(seeds, sizes, st.integers(0, 20), st.integers(1, 20), st.integers(0, 20))
def test_draws_of_a_window_are_a_slice_of_the_whole(
    seed: int, size: tuple[int, int], start: int, length: int, more: int
) -> None:
    whole, part = draws(seed, 0, start + length + more, size), draws(seed, start, start + length, size)
    assert set(part) == {"corner", "flip"}
    for name, value in part.items():
        assert value.shape[:2] == (length, size[1])
        assert torch.equal(value, whole[name][start : start + length])


def test_draws_are_those_of_a_stream_for_each_seed_and_epoch() -> None:
    # 22 samples in batches of 10: two steps an epoch; steps 3 to 5 are of the epochs 1 and 2.
    part = draws(4, 3, 6, (22, 10))
    epochs = [AUGMENT.draws(stream(4, "augment", epoch), 20) for epoch in (1, 2)]
    for name, value in part.items():
        expected = [epochs[0][name][10:], epochs[1][name][:10], epochs[1][name][10:]]
        assert torch.equal(value, torch.stack(expected))


def draws(seed: int, start: int, stop: int, size: tuple[int, int]) -> dict[str, Tensor]:
    return augmentation_draws(AUGMENT, seed=seed, start=start, stop=stop, samples=size[0], batch_size=size[1])
