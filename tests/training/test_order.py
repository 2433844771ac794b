"""The order of mini-batches, for every seed, window and size."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lratlas.training.order import batch_indices

sizes = st.integers(1, 40).flatmap(lambda samples: st.tuples(st.just(samples), st.integers(1, samples)))
seeds = st.integers(0, 2**40)
quick = settings(deadline=None, max_examples=50)


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
