"""ResNet-18 against its definition: parameters by arithmetic, outputs by a forward pass written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from lratlas.models.resnet import Block, ResNet18
from models.helpers import counts, distinct, images, normalised, trained_vector


@settings(max_examples=10)
@given(channels=st.integers(1, 4), classes=st.integers(1, 20), width=st.integers(1, 6))
def test_parameters_follow_from_channels_classes_and_width(channels: int, classes: int, width: int) -> None:
    # In units of width²: stages of two blocks with two 3x3 convolutions each, and a 1x1 shortcut in three of them.
    stages = [4 * 9] + [(9 * 2 + 3 * 9 * 4 + 2) * 4**stage for stage in range(3)]
    convolutions = 9 * channels * width + sum(stages) * width**2
    # Each block has a norm of its input and one between its convolutions, each 1x1 convolution one of its input; a last
    # one follows the last block.
    norms = (4 * 1) + (1 + 3 * 2) + (2 + 3 * 4) + (4 + 3 * 8) + (1 + 2 + 4) + 8
    head = 8 * width * classes
    invariant = ResNet18(channels=channels, classes=classes, width=width, scale_invariant=True)
    assert counts(invariant) == (convolutions, head)
    ordinary = ResNet18(channels=channels, classes=classes, width=width)
    assert counts(ordinary) == (convolutions + 2 * norms * width + head, 0)


def test_the_default_width_is_the_papers() -> None:
    assert counts(ResNet18(channels=3, classes=10, scale_invariant=True)) == (9 * 3 * 32 + 2724 * 32**2, 2560)


def reference_block(block: Block, x: Tensor, *, stride: int) -> Tensor:
    """A block's result by its definition, batch norm with the batch's own statistics."""
    named = {name: value.detach() for name, value in block.named_parameters()}

    def active(name: str, hidden: Tensor) -> Tensor:
        return normalised(hidden, named.get(f"{name}.weight"), named.get(f"{name}.bias")).clamp(min=0)

    first = active("norm1", x)
    inner = functional.conv2d(first, named["conv1.weight"], stride=stride, padding=1)
    result = functional.conv2d(active("norm2", inner), named["conv2.weight"], padding=1)
    shortcut = named.get("shortcut.1.weight")
    if shortcut is None:
        return result + x
    again = normalised(first, named.get("shortcut.0.weight"), named.get("shortcut.0.bias"))
    # A 1x1 convolution with a stride mixes the channels of every stride-th pixel.
    return result + torch.einsum("oi,nihw->nohw", shortcut[:, :, 0, 0], again[..., ::stride, ::stride])


@pytest.mark.parametrize("scale_invariant", [False, True])
@pytest.mark.parametrize(("outputs", "stride", "shortcut"), [(3, 1, False), (3, 2, True), (6, 1, True), (6, 2, True)])
def test_a_block_is_two_preactivated_convolutions_beside_a_shortcut(
    outputs: int, stride: int, shortcut: bool, scale_invariant: bool
) -> None:
    torch.manual_seed(1)
    block, x = Block(3, outputs, stride=stride, scale_invariant=scale_invariant), images(4, 3, 5, 8)
    assert (block.shortcut is not None) == shortcut
    distinct(block)
    torch.testing.assert_close(block(x).detach(), reference_block(block, x, stride=stride))


def test_the_net_is_a_stem_eight_blocks_a_norm_the_mean_and_a_linear_layer() -> None:
    torch.manual_seed(1)
    model = ResNet18(channels=2, classes=3, width=2)
    x = images(4, 2, 11, 16)
    distinct(model)
    hidden = functional.conv2d(x, model.stem.weight.detach(), padding=1)
    sizes = list[tuple[int, ...]]()
    for block, stride in zip(model.blocks, (1, 1, 2, 1, 2, 1, 2, 1), strict=True):
        assert isinstance(block, Block)
        hidden = reference_block(block, hidden, stride=stride)
        sizes.append(tuple(hidden.shape[1:]))
    # Channels, then height and width, halved and rounded up by all stages but the first.
    assert sizes[1::2] == [(2, 11, 16), (4, 6, 8), (8, 3, 4), (16, 2, 2)]
    final = normalised(hidden, model.norm.weight.detach(), model.norm.bias.detach()).clamp(min=0)
    assert model.head.bias is None
    expected = final.flatten(2).mean(2) @ model.head.weight.detach().T
    torch.testing.assert_close(model(x).detach(), expected)


def test_layers_that_add_up_are_scale_invariant_only_together() -> None:
    torch.manual_seed(1)
    model, x = ResNet18(channels=3, classes=4, width=4, scale_invariant=True).double(), images(6, 3, 8, 8)
    before = model(x).detach()
    with torch.no_grad():
        model.stem.weight.mul_(4)
    assert float((model(x).detach() - before).std()) > 0.1 * float(before.std())


def test_the_initial_norm_at_width_32_is_about_the_papers_radius() -> None:
    torch.manual_seed(1)
    size = float(trained_vector(ResNet18(channels=3, classes=10, scale_invariant=True)).norm())
    # A filter's weights are uniform up to 1 / sqrt(their number): an expected squared norm of 1/3 for each.
    filters = 32 + 4 * 32 + (4 + 1) * (64 + 128 + 256)
    assert size == pytest.approx((filters / 3) ** 0.5, rel=0.01)
    assert size == pytest.approx(28, rel=0.02)
