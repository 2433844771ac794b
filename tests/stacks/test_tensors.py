"""What is shared in a stack, and what differs."""

import pytest
import torch
from torch import nn

from lratlas import Task
from lratlas.models.mlp import MLP
from lratlas.stacks.tensors import initial_tensors, samples, single_feature_samples
from lratlas.training.prepared import Prepared, make_model

CPU = torch.device("cpu")
LANES = 3


def task(data_seed: int = 0, *, rule: object = None, singles: bool = False) -> Prepared:
    generator = torch.Generator().manual_seed(data_seed)
    x = torch.randn(24, 4, generator=generator)
    # Every third label is 1, in one more sample for each data seed.
    y = (torch.arange(24) % 3 == 0).long()
    y[1 : 1 + data_seed] = 1
    single = torch.randn(2, 10, 4, generator=generator), (torch.arange(20) % 2).reshape(2, 10)
    return Task(
        model=lambda: MLP(4, (5,), 2, scale_invariant=True),
        train=(x, y),
        test=(x[:8], y[:8]),
        batch_size=4,
        rule=rule or {"name": "sphere_sgd", "radius": 2.0},  # pyright: ignore[reportArgumentType] - any rule
        singles=single if singles else None,
    ).prepared


class Counting(nn.Module):
    """Layers with buffers of two types."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_lanes_of_a_seed_start_at_one_point_and_seeds_differ() -> None:
    shared = task()
    weights, _, frozen = initial_tensors([shared, shared], [1, 2], LANES, dtype=torch.float64, device=CPU)
    weight = weights["layers.0.weight"]
    assert weight.shape == (2, LANES, 5, 4)
    assert weight.dtype == torch.float64
    assert torch.equal(weight, weight[:, :1].expand_as(weight))
    assert not torch.equal(weight[0], weight[1])
    for place, seed in enumerate((1, 2)):
        alone = dict(make_model(shared, seed).named_parameters())
        direction = alone["layers.0.weight"].detach().double()
        torch.testing.assert_close(
            weight[place, 0], 2 * direction / direction.norm(), rtol=0, atol=1e-14
        )  # on the sphere
        assert torch.equal(frozen["layers.3.weight"][place].float(), alone["layers.3.weight"])


def test_lanes_can_be_written_one_by_one() -> None:
    weights, _, _ = initial_tensors([task(rule="sgd")], [1], LANES, dtype=torch.float32, device=CPU)
    weight = weights["layers.0.weight"]
    before = weight[0, 1].clone()
    weight[0, 0] += 1
    assert torch.equal(weight[0, 1], before)


def test_frozen_parameters_have_no_lanes_and_are_not_trained() -> None:
    weights, buffers, frozen = initial_tensors([task()], [1], LANES, dtype=torch.float32, device=CPU)
    assert set(weights) == {"layers.0.weight"}
    assert {name: tuple(value.shape) for name, value in frozen.items()} == {"layers.3.weight": (1, 2, 5)}
    assert buffers == {}


def test_without_a_sphere_the_initial_weights_are_the_models_own() -> None:
    plain = task(rule="sgd")
    weights, _, _ = initial_tensors([plain], [7], LANES, dtype=torch.float32, device=CPU)
    for name, value in make_model(plain, 7).named_parameters():
        if value.requires_grad:
            assert torch.equal(weights[name][0, 2], value)


def test_buffers_are_per_run_and_keep_their_types() -> None:
    x, y = torch.randn(12, 4), torch.arange(12) % 2
    counting = Task(model=Counting, train=(x, y), test=(x, y), batch_size=4).prepared
    _, buffers, _ = initial_tensors([counting] * 2, [1, 2], LANES, dtype=torch.float64, device=CPU)
    assert {name: (tuple(value.shape), value.dtype) for name, value in buffers.items()} == {
        "layers.1.running_mean": ((2, LANES, 5), torch.float64),
        "layers.1.running_var": ((2, LANES, 5), torch.float64),
        "layers.1.num_batches_tracked": ((2, LANES), torch.int64),
    }


def test_data_that_seeds_share_are_held_once() -> None:
    one, other = task(1), task(4)
    held = samples([one, other, one], "train", {}, dtype=torch.float64, device=CPU)
    assert held.x.shape == (2, 24, 4)
    assert held.x.dtype == torch.float64
    assert held.y.dtype == torch.int64
    for place, owner in enumerate((one, other, one)):
        at = held.which[place]
        assert torch.equal(held.x[at].float(), owner.train[0])
        assert torch.equal(held.y[at], owner.train[1])
        positive = int(owner.train[1].sum())
        assert held.shares[place].tolist() == pytest.approx([(24 - positive) / 24, positive / 24])
    # Chance follows the training labels on the test set too.
    test = samples([one, other], "test", {}, dtype=torch.float64, device=CPU)
    assert test.x.shape == (2, 8, 4)
    assert torch.equal(test.shares, held.shares[:2])


def test_single_feature_sets_are_one_per_feature_or_none() -> None:
    with_them = task(singles=True)
    sets = single_feature_samples([with_them] * 3, {}, dtype=torch.float32, device=CPU)
    assert len(sets) == 2
    assert with_them.singles is not None
    for feature, held in enumerate(sets):
        assert held.x.shape == (1, 10, 4)
        assert torch.equal(held.x[0], with_them.singles[0][feature])
        assert torch.equal(held.y[0], with_them.singles[1][feature])
        assert held.which.tolist() == [0, 0, 0]
    assert single_feature_samples([task()], {}, dtype=torch.float32, device=CPU) == []
