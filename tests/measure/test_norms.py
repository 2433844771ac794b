"""Norms of filters against numpy, and the laws of shares of a whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lratlas.measure.norms import group_norms
from lratlas.models.convnet import ConvNet
from lratlas.training.sphere import Weights
from training.helpers import point_of

SHAPES = {"convolution": (2, 3, 4, 5, 3, 2), "linear": (2, 3, 6, 7), "bias": (2, 3, 6), "scale": (2, 3)}


def drawn(seed: int, *names: str) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(SHAPES[name], generator=generator, dtype=torch.float64) for name in names}


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64]))
def test_each_filter_is_measured_against_the_whole_of_its_run(seed: int, dtype: torch.dtype) -> None:
    weights = {name: value.to(dtype) for name, value in drawn(seed, *SHAPES).items()}
    found = group_norms(weights)
    assert list(found) == ["convolution", "linear"]
    arrays = {name: value.numpy().astype(np.float64) for name, value in weights.items()}
    for run in np.ndindex(2, 3):
        whole = np.linalg.norm(np.concatenate([array[run].ravel() for array in arrays.values()]))
        for name in found:
            expected = [np.linalg.norm(group.ravel()) / whole for group in arrays[name][run]]
            assert found[name].dtype == torch.float64
            np.testing.assert_allclose(found[name][run].numpy(), expected, rtol=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_squares_add_up_to_one_and_ignore_the_scale(seed: int, factor: float) -> None:
    weights = drawn(seed, "convolution", "linear")
    found = group_norms(weights)
    assert {name: value.shape for name, value in found.items()} == {"convolution": (2, 3, 4), "linear": (2, 3, 6)}
    total = torch.stack([value.square().sum(-1) for value in found.values()]).sum(0)
    torch.testing.assert_close(total, torch.ones(2, 3, dtype=torch.float64))
    rescaled = group_norms({name: factor * value for name, value in weights.items()})
    for name, value in found.items():
        torch.testing.assert_close(rescaled[name], value)


def test_vectors_take_their_part_of_the_whole() -> None:
    weights = {"matrix": torch.tensor([[[[3.0, 0.0], [0.0, 0.0]]]]), "bias": torch.tensor([[[4.0]]])}
    assert group_norms(weights)["matrix"].tolist() == [[[pytest.approx(0.6), 0.0]]]


def test_weights_of_float32_whose_squares_overflow_are_measured() -> None:
    weights = {"matrix": torch.full((1, 1, 4, 1), 1e30)}
    assert group_norms(weights)["matrix"].tolist() == [[[pytest.approx(0.5)] * 4]]


def test_a_convolution_has_a_group_for_each_channel_it_makes() -> None:
    models = [ConvNet(channels=1, classes=3, width=2, scale_invariant=True) for _ in range(2)]
    found = group_norms(point_of(models).weights)
    assert [value.shape for value in found.values()] == [(1, 2, channels) for channels in (2, 4, 8, 16)]
