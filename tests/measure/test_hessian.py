"""Products with Hessians against explicit ones and differences of gradients, and the mini-batches they are made on."""

import pytest
import torch
from torch import Tensor, nn

from lratlas.measure.hessian import mini_batches, seed_samples
from lratlas.training.state import Samples
from measure.cases import MODELS, SIZES, case, cut, explicit_hessian, flat_gradient, mean_loss, prepared
from training.helpers import trained_parameters


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_products_are_those_of_the_explicit_hessian(name: str, sizes: tuple[int, ...]) -> None:
    given = case(name)
    batches = cut(given, *sizes)
    matrix = explicit_hessian(given, batches)
    product, vector = given.product(batches)
    directions = torch.randn(3, len(vector), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = torch.stack([product(each) for each in directions])
    assert matrix.norm() > 1e-3
    torch.testing.assert_close(found, directions @ matrix, rtol=1e-8, atol=1e-10 * float(matrix.norm()))


@pytest.mark.parametrize("name", MODELS)
def test_products_are_differences_of_gradients(name: str) -> None:
    given = case(name)
    batches = cut(given, 5, 5, 3)
    product, vector = given.product(batches)
    direction = torch.randn(len(vector), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends: list[Tensor] = []
    for step in (1e-5, -1e-5):
        module = prepared(given)
        nn.utils.vector_to_parameters(vector + step * direction, trained_parameters(module))
        ends.append(flat_gradient(mean_loss(module, given, batches), module))
    expected = (ends[0] - ends[1]) / 2e-5
    torch.testing.assert_close(product(direction), expected, rtol=1e-6, atol=1e-6 * float(expected.norm()))


def test_mini_batches_hold_every_sample_once() -> None:
    given = case("tanh")
    batches = mini_batches(given.samples, batch_size=4, seed=1)
    assert len(batches) == 4
    sizes = [len(rows) for rows in batches.parts]
    assert max(sizes) - min(sizes) == 1
    assert max(sizes) == 4
    assert sorted(torch.cat(batches.parts).tolist()) == [*range(13)]
    again, other = (mini_batches(given.samples, batch_size=4, seed=seed) for seed in (1, 2))
    assert torch.equal(torch.cat(again.parts), torch.cat(batches.parts))
    assert not torch.equal(torch.cat(other.parts), torch.cat(batches.parts))
    for rows, (x, y) in zip(batches.parts, batches, strict=True):
        assert torch.equal(x, given.samples.x[0, rows])
        assert torch.equal(y, given.samples.y[0, rows])


def test_the_samples_of_one_seed_of_a_stack() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, generator=draws, dtype=torch.float64)
    stack = Samples(
        x=x,
        y=torch.arange(10).reshape(2, 5),
        which=torch.tensor([1, 0, 1]),
        shares=torch.rand(3, 4, generator=draws, dtype=torch.float64),
        frozen={"head": torch.rand(3, 7, generator=draws)},
        transform=lambda inputs: 2 * inputs,
    )
    one = seed_samples(stack, 2)
    (batch,) = mini_batches(one, batch_size=5, seed=0)
    (rows,) = mini_batches(one, batch_size=5, seed=0).parts
    assert torch.equal(batch[0], 2 * x[1, rows])
    assert torch.equal(batch[1], 5 + rows)
    assert torch.equal(one.frozen["head"], stack.frozen["head"][2:])
    assert torch.equal(one.shares, stack.shares[2:])
