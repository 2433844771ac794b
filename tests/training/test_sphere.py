"""Norms and projections of stacked vectors against flat ones, and who is to blame for a scale."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from lratlas.models.mlp import MLP
from lratlas.training.sphere import Weights, dot, expand, norm, project, scale_dependent

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def stacked(seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"matrix": (2, 3, 4, 5), "vector": (2, 3, 6), "number": (2, 3)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def flat(weights: Weights) -> Tensor:
    return torch.cat([value.reshape(2, 3, -1) for value in weights.values()], -1)


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_each_run_has_a_vector_of_its_own(seed: int, radius: float) -> None:
    a, b = stacked(seed), stacked(seed + 1)
    torch.testing.assert_close(dot(a, b), (flat(a) * flat(b)).sum(-1))
    torch.testing.assert_close(norm(a), flat(a).norm(dim=-1))
    on_sphere = project(a, radius)
    expected = radius * flat(a) / flat(a).norm(dim=-1, keepdim=True)
    torch.testing.assert_close(flat(on_sphere), expected)
    torch.testing.assert_close(flat(project(on_sphere, radius)), expected)


def test_expand_broadcasts_runs_over_parameters() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert expand(values, torch.zeros(2, 3, 4, 5)).shape == (2, 3, 1, 1)
    assert expand(values, values).shape == (2, 3)
    product = expand(values, torch.ones(2, 3, 4)) * torch.ones(2, 3, 4)
    assert torch.equal(product, values[..., None].expand(2, 3, 4))


def at_fault(model: nn.Module) -> set[str]:
    model = model.double().eval()

    def function(point: Mapping[str, Tensor]) -> Tensor:
        return functional_call(model, dict(point), (X,))

    trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    return set(scale_dependent(function, trained))


def normed(*, affine: bool = False) -> nn.Module:
    return nn.LayerNorm(5, eps=1e-9, elementwise_affine=affine)


def test_a_scale_invariant_model_has_no_layer_at_fault() -> None:
    torch.manual_seed(0)
    assert at_fault(MLP(4, (5, 6), 3, scale_invariant=True)) == set()
    # Weight and bias before a norm are invariant together though neither is alone.
    head = nn.Linear(5, 2).requires_grad_(requires_grad=False)
    assert at_fault(nn.Sequential(nn.Linear(4, 5), normed(), head)) == set()


def test_the_layers_at_fault_are_named() -> None:
    torch.manual_seed(0)
    trained_head = nn.Sequential(nn.Linear(4, 5), normed(), nn.Linear(5, 2))
    assert at_fault(trained_head) == {"2.weight", "2.bias"}
    affine = nn.Sequential(nn.Linear(4, 5), normed(affine=True), nn.Linear(5, 2))
    affine[2].requires_grad_(requires_grad=False)
    assert at_fault(affine) == {"1.weight", "1.bias"}


def test_a_parameter_that_starts_at_zero_is_seen() -> None:
    torch.manual_seed(0)
    head = nn.Linear(5, 2)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model = nn.Sequential(nn.Linear(4, 5), normed(), head)
    assert at_fault(model) == {"2.weight", "2.bias"}


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_function_that_is_not_finite_when_scaled_is_at_fault(factor: float) -> None:
    def function(point: Mapping[str, Tensor]) -> Tensor:
        value = point["w"]
        return torch.where((value / 3 - factor).abs() < 1e-9, torch.nan, 1.0)

    assert scale_dependent(function, {"w": torch.tensor([3.0], dtype=torch.float64)}) == ["w"]
