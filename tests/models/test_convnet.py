"""The ConvNet against its definition: parameters by arithmetic, outputs by a forward pass written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lratlas.models.convnet import ConvNet
from models.helpers import counts, distinct, images, normalised, trained_vector


@settings(max_examples=20)
@given(channels=st.integers(1, 4), classes=st.integers(1, 20), width=st.integers(1, 12))
def test_parameters_follow_from_channels_classes_and_width(channels: int, classes: int, width: int) -> None:
    widths = [channels, width, 2 * width, 4 * width, 8 * width]
    convolutions = sum(9 * widths[at] * widths[at + 1] for at in range(4))
    head = 8 * width * classes
    assert convolutions == 9 * width * (channels + 42 * width)
    invariant = ConvNet(channels=channels, classes=classes, width=width, scale_invariant=True)
    assert counts(invariant) == (convolutions, head)
    ordinary = ConvNet(channels=channels, classes=classes, width=width)
    assert counts(ordinary) == (convolutions + 2 * 15 * width + head + classes, 0)


def test_the_default_width_is_the_papers() -> None:
    assert counts(ConvNet(channels=3, classes=10, scale_invariant=True)) == (9 * (3 * 32 + 42 * 32**2), 2560)


@pytest.mark.parametrize("size", [(4, 4), (9, 14)])
def test_the_ordinary_form_is_four_convolutions_with_norm_relu_and_pooling(size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    model, x = distinct(ConvNet(channels=2, classes=3, width=3)), images(5, 2, *size)
    parameters = [value.detach() for value in model.parameters()]
    hidden = x
    for at in range(4):
        kernel, scale, shift = parameters[3 * at : 3 * at + 3]
        hidden = normalised(functional.conv2d(hidden, kernel, padding=1), scale, shift).clamp(min=0)
        if at in {1, 2}:
            rows, columns = (side // 2 for side in hidden.shape[2:])
            tiles = hidden[:, :, : 2 * rows, : 2 * columns].reshape(5, -1, rows, 2, columns, 2)
            hidden = tiles.amax((3, 5))
    head, bias = parameters[-2:]
    torch.testing.assert_close(model(x).detach(), hidden.flatten(2).max(2).values @ head.T + bias)


def test_each_convolution_of_the_scale_invariant_form_can_be_scaled_alone() -> None:
    torch.manual_seed(1)
    model, x = ConvNet(channels=3, classes=4, width=4, scale_invariant=True).double(), images(6, 3, 8, 8)
    before = model(x).detach()
    with torch.no_grad():
        for factor, value in zip((0.5, 3.0, 0.4, 5.0), model.layers.parameters(), strict=True):
            value.mul_(factor)
    # Batch norm's eps, 1e-5, next to variances of a hundredth or more.
    torch.testing.assert_close(model(x).detach(), before, rtol=0, atol=1e-2 * float(before.std()))


def test_the_initial_norm_at_width_32_is_about_the_papers_radius() -> None:
    torch.manual_seed(1)
    size = float(trained_vector(ConvNet(channels=3, classes=10, scale_invariant=True)).norm())
    # A filter's weights are uniform up to 1 / sqrt(their number): an expected squared norm of 1/3 for each of 480.
    assert size == pytest.approx((480 / 3) ** 0.5, rel=0.01)
    assert size == pytest.approx(12, rel=0.06)
