"""The perceptrons: shapes, counts by arithmetic, and scale invariance."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lratlas.models.mlp import MLP, make_scale_invariant

X = torch.randn(20, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def ticks_model() -> MLP:
    torch.manual_seed(1)
    return MLP(32, (32, 32), 1, scale_invariant=True)


def counts(model: MLP) -> tuple[int, int]:
    """Numbers of trained and of frozen parameters."""
    sizes = [(value.numel(), value.requires_grad) for value in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, trained in sizes if not trained)


def test_the_ticks_model_has_2048_trained_and_32_frozen_parameters() -> None:
    assert counts(ticks_model()) == (2048, 32)


def test_the_ordinary_form_trains_everything_biases_and_norms_included() -> None:
    model = MLP(6, (5, 4), 3)
    layers = (6 * 5 + 5) + 2 * 5 + (5 * 4 + 4) + 2 * 4 + (4 * 3 + 3)
    assert counts(model) == (layers, 0)


def test_outputs_and_flattening() -> None:
    images = torch.zeros(7, 4, 8)
    assert MLP(32, (5,), 1)(images).shape == (7,)
    assert MLP(32, (5,), 3)(images).shape == (7, 3)
    assert MLP(32, (), 3)(images).shape == (7, 3)


def test_the_scale_invariant_form_is_linear_norm_relu_and_a_frozen_head() -> None:
    model = ticks_model().double()
    values = [value.detach().numpy() for value in model.parameters()]
    hidden = X.numpy()
    for weight in values[:-1]:
        hidden = hidden @ weight.T
        hidden = hidden - hidden.mean(1, keepdims=True)
        hidden = np.maximum(hidden / np.sqrt((hidden**2).mean(1, keepdims=True) + 1e-7), 0)
    np.testing.assert_allclose(model(X).detach().numpy(), (hidden @ values[-1].T)[:, 0], atol=1e-12)


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_scaling_all_trained_weights_changes_the_scale_invariant_form_alone(factor: float) -> None:
    def change(model: MLP) -> float:
        before: Tensor = model(X).detach()
        with torch.no_grad():
            for value in model.parameters():
                if value.requires_grad:
                    value.mul_(factor)
        return float((model(X).detach() - before).abs().max() / before.abs().max())

    assert change(ticks_model().double()) < 1e-6
    torch.manual_seed(1)
    assert change(MLP(32, (32, 32), 1).double()) > 0.1


def test_the_head_is_frozen_at_norm_10() -> None:
    head = list(ticks_model().parameters())[-1]
    assert not head.requires_grad
    assert float(head.norm()) == pytest.approx(10, rel=1e-6)


def test_trained_weights_start_in_a_uniform_direction() -> None:
    drawn = torch.cat([value.flatten() for value in ticks_model().parameters() if value.requires_grad]).detach()
    # A normal vector: mean 0 and fourth moment 3, with standard errors of 0.02 and 0.2 for 2,048 numbers.
    assert abs(float(drawn.mean() / drawn.std())) < 0.1
    assert float((drawn / drawn.std()).pow(4).mean()) == pytest.approx(3, abs=1)


def test_the_head_is_the_uniform_draw_of_a_linear_layer_rescaled() -> None:
    model = ticks_model()
    torch.manual_seed(1)
    layers = [torch.nn.Linear(32, outputs, bias=False).weight.detach() for outputs in (32, 32, 1)]
    *trained, head = (value.detach() for value in model.parameters())
    torch.testing.assert_close(head, layers[-1] * (10 / layers[-1].norm()))
    assert all(not torch.equal(value, layer) for value, layer in zip(trained, layers, strict=False))


def test_make_scale_invariant_redraws_all_but_the_head() -> None:
    model = MLP(4, (3,), 2)
    head = model.layers[-1]
    assert isinstance(head, torch.nn.Linear)
    before = {name: value.detach().clone() for name, value in model.layers[:-1].named_parameters()}
    kept = head.weight.detach().clone()
    make_scale_invariant(model, head)
    assert all(not torch.equal(before[name], value) for name, value in model.layers[:-1].named_parameters())
    torch.testing.assert_close(head.weight.detach(), kept * (10 / kept.norm()))
    assert not head.weight.requires_grad
