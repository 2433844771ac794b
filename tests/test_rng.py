"""Random streams: functions of their key, unlike for unlike keys."""

import random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lratlas.rng import (
    generator_states,
    pack_generators,
    preserve_generators,
    set_seed,
    stream,
    torch_seed,
    unpack_generators,
)

keys = st.tuples(st.integers(0, 2**40), st.text(max_size=8), st.integers(0, 2**40))


@settings(max_examples=50)
@given(keys, keys)
def test_a_stream_is_its_key(one: tuple[int, str, int], other: tuple[int, str, int]) -> None:
    drawn = stream(*one).integers(2**63, size=4)
    assert (drawn == stream(*one).integers(2**63, size=4)).all()
    # Four equal draws of 63 bits from different keys would be a chance of 2^-252.
    assert (one == other) == bool((drawn == stream(*other).integers(2**63, size=4)).all())


def test_drawing_from_one_stream_leaves_the_others_alone() -> None:
    first, second = stream(1, "order"), stream(2, "order")
    expected = stream(2, "order").random(3)
    first.random(1000)
    assert (second.random(3) == expected).all()


def test_neighbouring_keys_are_uncorrelated() -> None:
    drawn = np.stack([stream(seed, "order", epoch).standard_normal(10_000) for seed in (0, 1) for epoch in range(4)])
    correlations = np.abs(np.asarray(np.corrcoef(drawn)) - np.eye(8))
    # Each coefficient has standard deviation 0.01.
    assert correlations.max() < 0.05


@settings(max_examples=50)
@given(st.integers(0, 2**63), st.text(max_size=8))
def test_torch_seeds_are_reproducible_and_in_range(seed: int, purpose: str) -> None:
    made = torch_seed(seed, purpose)
    assert 0 <= made < 2**63
    assert made == torch_seed(seed, purpose)
    assert made != torch_seed(seed + 1, purpose)
    assert made != torch_seed(seed, purpose + "x")


def test_packed_states_resume_all_generators_where_they_were() -> None:
    def draw() -> tuple[float, ...]:
        return float(torch.rand(())), float(np.random.normal()), random.gauss()  # noqa: NPY002

    with preserve_generators():
        set_seed(3)
        draw()  # NumPy and Python now hold the second of two normal numbers
        packed = pack_generators()
        expected = [draw(), draw()]
        set_seed(4)
        unpack_generators({name: state.clone() for name, state in packed.items()})
        assert [draw(), draw()] == expected


def test_a_file_with_the_state_of_one_generator_sets_only_that() -> None:
    with preserve_generators():
        set_seed(1)
        before = generator_states()
        set_seed(2)
        others = generator_states()[1:]
        unpack_generators({"cpu": torch.Generator().manual_seed(1).get_state()})
        assert generator_states() == (before[0], *others)
