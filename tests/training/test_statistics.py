"""Pooled batch-norm statistics against a pass in float64 over the same batches with hooks on the layers."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from lratlas.models.convnet import ConvNet
from lratlas.models.mlp import MLP
from lratlas.rng import stream
from lratlas.training.batch_norm import batch_dependent, norm_names, other_statistics
from lratlas.training.evaluate import pool_buffers
from lratlas.training.objective import LOSSES
from lratlas.training.program import Strategy, build
from lratlas.training.rules import sgd
from lratlas.training.sphere import Weights
from training.helpers import lane, point_of, same, samples_of


class Nested(nn.Module):
    """A batch norm inside a module, after another one, without an affine part."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 6))
        self.last = nn.BatchNorm1d(6, affine=False, eps=1e-3)
        self.register_buffer("shift", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x))[:, :3] + self.shift


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vectors, affine and not": (Nested, (4,)),
    "images": (lambda: ConvNet(channels=2, classes=3, width=2), (2, 8, 8)),
    "scale-invariant images": (lambda: ConvNet(channels=1, classes=3, width=2, scale_invariant=True), (1, 5, 6)),
    "a batch norm itself": (lambda: nn.BatchNorm1d(3), (3,)),
}


def model(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    made = MODELS[name][0]().double()
    for module in made.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:  # pyright: ignore[reportPrivateUsage] - the base class
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
    return made


def data(name: str, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, *MODELS[name][1], generator=generator, dtype=torch.float64)
    # A drift, so that the batches' means lie apart.
    x += torch.linspace(0, 2, count, dtype=torch.float64).reshape(-1, *(1,) * (x.dim() - 1))
    return x, torch.randint(3, (count,), generator=generator)


def pooled(models: list[nn.Module], x: Tensor, y: Tensor, size: int, strategy: Strategy = "stack") -> Weights:
    point = point_of(models)
    program = build(models[0], LOSSES["cross_entropy"], sgd(), compiled=False, strategy=strategy)
    return pool_buffers(program, point.weights, point.buffers, samples_of(x, y, point), batch_size=size)


def shuffled(x: Tensor) -> Tensor:
    """In the order in which the samples are passed."""
    return x[torch.from_numpy(stream(0, "statistics").permutation(len(x)))]


def even_batches(x: Tensor, size: int) -> list[Tensor]:
    """As few batches as the size allows, their sizes differing by one at most."""
    x = shuffled(x)
    count = -(-len(x) // size)
    short, longer = divmod(len(x), count)
    return list(x.split([short + 1] * longer + [short] * (count - longer)))


@torch.no_grad()
def by_hooks(module: nn.Module, batches: list[Tensor]) -> Weights:
    """Mean and unbiased variance of all inputs that each batch norm saw, put together and taken at once."""
    module = copy.deepcopy(module).train()
    seen: dict[str, list[Tensor]] = {name: [] for name in norm_names(module)}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _module, inputs: seen[name].append(inputs[0].transpose(0, 1).flatten(1))

    for name in seen:
        module.get_submodule(name).register_forward_pre_hook(keep(name))
    for batch in batches:
        module(batch)
    result: Weights = {}
    for name, parts in seen.items():
        values, prefix = torch.cat(parts, 1), f"{name}." if name else ""
        result[f"{prefix}running_mean"] = values.mean(1)
        result[f"{prefix}running_var"] = values.var(1, unbiased=True)
    return result


@pytest.mark.parametrize("strategy", ["stack", "single"])
@pytest.mark.parametrize("name", MODELS)
def test_the_statistics_are_those_of_all_values_a_layer_sees(name: str, strategy: Strategy) -> None:
    models = [model(name, seed) for seed in range(1 if strategy == "single" else 2)]
    x, y = data(name, 29)
    found = pooled(models, x, y, 8, strategy)
    for at, each in enumerate(models):
        expected = by_hooks(each, even_batches(x, 8))
        assert expected
        same({key: lane(found, at)[key] for key in expected}, expected, atol=1e-11)


@settings(max_examples=20)
@given(st.integers(4, 40), st.integers(3, 45))  # no batch of one, which batch norm refuses
def test_any_number_of_samples_in_batches_of_any_size(count: int, size: int) -> None:
    name = "vectors, affine and not"
    each, (x, y) = model(name), data(name, count)
    found, batches = lane(pooled([each], x, y, size), 0), even_batches(x, size)
    assert max(map(len, batches)) <= size
    expected = by_hooks(each, batches)
    same({key: found[key] for key in expected}, expected, atol=1e-11)


@pytest.mark.parametrize("name", ["images", "vectors, affine and not"])
def test_with_equal_batches_the_mean_is_that_of_update_bn(name: str) -> None:
    each, (x, y) = model(name), data(name, 24)
    found = lane(pooled([each], x, y, 8), 0)
    update_bn(list(shuffled(x).split(8)), each)
    means = {key: value for key, value in each.named_buffers() if key.endswith("running_mean")}
    assert means
    same({key: found[key] for key in means}, means, atol=1e-12)


def test_data_sorted_by_class_give_nearly_the_statistics_of_one_pass_over_all_of_them() -> None:
    """Passes over one class at a time do not: the layers after the first would see every class at the same place."""
    each, (x, y) = model("vectors, affine and not"), data("vectors, affine and not", 240)
    labels = torch.arange(240) // 80
    x = x + 3.0 * labels[:, None]
    key = "last.running_var"
    whole, by_class = by_hooks(each, [x])[key], by_hooks(each, list(x.split(40)))[key]
    found = lane(pooled([each], x, y, 40), 0)[key]
    assert (found - whole).norm() < 0.2 * (by_class - whole).norm()


def test_everything_else_stays_as_it_was() -> None:
    name = "vectors, affine and not"
    each, (x, y) = model(name), data(name, 20)
    point = point_of([each, model(name, 1)])
    given = copy.deepcopy(point)
    program = build(each, LOSSES["cross_entropy"], sgd(), compiled=False)
    generator = torch.get_rng_state()
    found = pool_buffers(program, point.weights, point.buffers, samples_of(x, y, point), batch_size=6)
    assert torch.equal(torch.get_rng_state(), generator)
    for one, other in ((point.weights, given.weights), (point.buffers, given.buffers)):
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert set(found) == set(given.buffers)
    # Neither counts of batches nor other buffers are statistics.
    for key in ("shift", "last.num_batches_tracked", "body.1.num_batches_tracked"):
        assert torch.equal(found[key], given.buffers[key])
    assert not torch.equal(found["last.running_mean"], given.buffers["last.running_mean"])
    assert each.training


def test_statistics_of_float32_runs_are_pooled_in_float64() -> None:
    # A mean large next to the spread: sums of squares in float32 would lose the variance.
    each, (x, y) = nn.BatchNorm1d(3), data("a batch norm itself", 40)
    x = (x + 3000).float()
    found = lane(pooled([each], x, y, 8), 0)
    assert found["running_var"].dtype == torch.float32
    torch.testing.assert_close(found["running_var"].double(), x.double().var(0), rtol=1e-3, atol=0)


def test_a_model_without_batch_norm_gets_its_buffers_back() -> None:
    plain = MLP(4, (5,), 3).double()
    plain.register_buffer("kept", torch.ones((), dtype=torch.float64))
    x, y = data("vectors, affine and not", 10)
    assert norm_names(plain) == []
    assert {key: value.tolist() for key, value in pooled([plain], x, y, 4).items()} == {"kept": [[1.0]]}


def test_names_of_norms_and_of_statistics_that_are_not_theirs() -> None:
    assert norm_names(Nested()) == ["body.1", "last"]
    changed = ["body.1.running_mean", "last.num_batches_tracked", "shift"]
    assert other_statistics(Nested(), changed) == ["shift"]
    assert norm_names(nn.BatchNorm1d(3)) == [""]
    assert other_statistics(nn.BatchNorm1d(3), ["running_var", "num_batches_tracked"]) == []


def test_norms_that_depend_on_the_batch_or_on_all_batches_so_far_are_named() -> None:
    layers = nn.Sequential(
        nn.BatchNorm1d(3),
        nn.BatchNorm1d(3, track_running_stats=False),
        nn.BatchNorm1d(3, momentum=None),
        nn.LayerNorm(3),
    )
    assert batch_dependent(layers) == ["1", "2"]
    assert norm_names(layers) == ["0", "2"]
