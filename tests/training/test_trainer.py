"""A stack against the same runs trained one by one in a plain PyTorch loop, in float64."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lratlas.models.mlp import MLP
from lratlas.training.batches import batch_indices
from lratlas.training.evaluate import evaluate_stack
from lratlas.training.objective import LOSSES
from lratlas.training.program import build
from lratlas.training.rules import Rule, adam, adamw, sgd, sphere_rsgd, sphere_sgd
from lratlas.training.sphere import Weights
from lratlas.training.state import Samples, start_stack
from lratlas.training.trainer import Trained, train_stack

STEPS, LRS = 50, (3e-3, 3e-2)
Step = Callable[[nn.Module, list[nn.Parameter], float], None]


def small_model(*, scale_invariant: bool) -> MLP:
    torch.manual_seed(3)
    return MLP(6, (8, 8), 3, scale_invariant=scale_invariant).double()


def data(seeds: int = 1, classes: int = 3) -> tuple[Tensor, Tensor]:
    generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    x = [torch.randn(40, 6, generator=generator, dtype=torch.float64) for generator in generators]
    return torch.stack(x), torch.stack([torch.randint(classes, (40,), generator=each) for each in generators])


def trained(
    model: nn.Module, rule: Rule, *, seeds: int = 1, compiled: bool = False, batches: Tensor | None = None
) -> tuple[Trained, Samples, Tensor]:
    named = dict(model.named_parameters())
    x, y = data(seeds)

    def lanes(value: Tensor) -> Tensor:
        return value.detach().expand(seeds, len(LRS), *value.shape).clone()

    weights: Weights = {name: lanes(value) for name, value in named.items() if value.requires_grad}
    frozen = {
        name: value.detach().expand(seeds, *value.shape) for name, value in named.items() if not value.requires_grad
    }
    if batches is None:
        drawn = [batch_indices(seed=seed, start=0, stop=STEPS, samples=40, batch_size=8) for seed in range(seeds)]
        batches = torch.stack(drawn, 1)
    samples = Samples(
        x=x,
        y=y,
        which=torch.arange(seeds),
        shares=torch.full((seeds, 3), 1 / 3, dtype=torch.float64),
        frozen=frozen,
    )
    result = train_stack(
        build(model, LOSSES["cross_entropy"], rule, compiled=compiled),
        start_stack(weights, {}, rule),
        lrs=torch.tensor(LRS, dtype=torch.float64).expand(seeds, -1),
        batches=batches,
        train=samples,
        test=samples,
        trace_every=10,
        snapshots=[20, 50],
    )
    return result, samples, batches


def plain_loop(make: Callable[[], nn.Module], lr: float, batches: Tensor, seed: int, step: Step) -> nn.Module:
    model = make()
    parameters = [value for value in model.parameters() if value.requires_grad]
    x, y = data(int(batches.shape[1]))
    for indices in batches[:, seed]:
        for parameter in parameters:
            parameter.grad = None
        functional.cross_entropy(model(x[seed, indices]), y[seed, indices]).backward()
        step(model, parameters, lr)
    return model


def norm_of(parameters: list[nn.Parameter]) -> Tensor:
    return torch.cat([value.flatten() for value in parameters]).norm()


@torch.no_grad()
def projected_step(_model: nn.Module, parameters: list[nn.Parameter], lr: float) -> None:
    radius = float(norm_of(parameters))
    for value in parameters:
        assert value.grad is not None
        value.sub_(lr * radius**2 * value.grad)
    scale = radius / norm_of(parameters)
    for value in parameters:
        value.mul_(scale)


@torch.no_grad()
def geodesic_step(_model: nn.Module, parameters: list[nn.Parameter], lr: float) -> None:
    w = torch.cat([value.flatten() for value in parameters])
    g = torch.cat([value.grad.flatten() for value in parameters if value.grad is not None])
    g -= (g @ w) / (w @ w) * w
    # An angle lr |g| / |w| on the unit sphere, with the ELR's factor |w|^2 for the norm.
    angle = lr * w.norm() ** 2 * g.norm() / w.norm()
    w_new = torch.cos(angle) * w - torch.sin(angle) * w.norm() * g / g.norm()
    torch.nn.utils.vector_to_parameters(w_new, parameters)


@pytest.mark.parametrize("compiled", [False, True])
def test_two_lrs_stacked_end_where_one_by_one_training_ends(compiled: bool) -> None:
    def make() -> MLP:
        model = small_model(scale_invariant=True)
        radius = norm_of([value for value in model.parameters() if value.requires_grad])
        for value in model.parameters():
            if value.requires_grad:
                value.data *= 1 / radius
        return model

    result, _, batches = trained(make(), sphere_sgd(), seeds=2, compiled=compiled)
    for seed in range(2):
        for lane, lr in enumerate(LRS):
            alone = dict(plain_loop(make, lr, batches, seed, projected_step).named_parameters())
            for name, value in result.stack.weights.items():
                torch.testing.assert_close(value[seed, lane], alone[name].detach(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("radius", [1.0, 3.0])
def test_geodesic_steps_agree_with_a_plain_loop(radius: float) -> None:
    def make() -> MLP:
        model = small_model(scale_invariant=True)
        trained_ones = [value for value in model.parameters() if value.requires_grad]
        size = norm_of(trained_ones)
        for value in trained_ones:
            value.data *= radius / size
        return model

    result, _, batches = trained(make(), sphere_rsgd(radius=radius))
    for lane, lr in enumerate(LRS):
        alone = dict(plain_loop(make, lr, batches, 0, geodesic_step).named_parameters())
        for name, value in result.stack.weights.items():
            torch.testing.assert_close(value[0, lane], alone[name].detach(), rtol=0, atol=1e-9)


TORCH_OPTIMIZERS: dict[str, tuple[Rule, type[torch.optim.Optimizer], dict[str, object]]] = {
    "sgd": (sgd(), torch.optim.SGD, {}),
    "momentum and weight decay": (
        sgd(momentum=0.9, weight_decay=5e-3),
        torch.optim.SGD,
        {"momentum": 0.9, "weight_decay": 5e-3},
    ),
    "nesterov": (sgd(momentum=0.8, nesterov=True), torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
    "adam": (
        adam(betas=(0.8, 0.95), eps=1e-6, weight_decay=1e-2),
        torch.optim.Adam,
        {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 1e-2},
    ),
    "adamw": (adamw(weight_decay=0.1), torch.optim.AdamW, {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_rules_agree_with_torch_optim(name: str) -> None:
    rule, optimizer, settings = TORCH_OPTIMIZERS[name]
    result, _, batches = trained(small_model(scale_invariant=False), rule)
    for lane, lr in enumerate(LRS):
        alone = dict(plain_loop(make_ordinary, lr, batches, 0, stepper(optimizer, settings)).named_parameters())
        for parameter, value in result.stack.weights.items():
            torch.testing.assert_close(value[0, lane], alone[parameter].detach(), rtol=0, atol=1e-9)


def make_ordinary() -> nn.Module:
    return small_model(scale_invariant=False)


def stepper(optimizer: type[torch.optim.Optimizer], settings: dict[str, object]) -> Step:
    made: list[torch.optim.Optimizer] = []

    def step(model: nn.Module, _parameters: list[nn.Parameter], lr: float) -> None:
        if not made:
            made.append(partial(optimizer, lr=lr, **settings)(model.parameters()))
        made[0].step()

    return step


def test_stacking_does_not_change_a_run() -> None:
    model = small_model(scale_invariant=True)
    both, _, batches = trained(model, sphere_sgd(), seeds=2)
    one, _, _ = trained(model, sphere_sgd(), seeds=1, batches=batches[:, :1])
    for name, value in one.stack.weights.items():
        torch.testing.assert_close(both.stack.weights[name][0], value[0], rtol=0, atol=1e-12)


def test_trace_rows_are_means_over_the_mini_batches_since_the_last_row() -> None:
    model = small_model(scale_invariant=False)
    result, _, batches = trained(model, sgd())
    losses: list[float] = []
    norms: list[float] = []
    x, y = data()

    def step(module: nn.Module, parameters: list[nn.Parameter], lr: float) -> None:
        norms.append(float(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm()))
        torch.optim.SGD(module.parameters(), lr).step()

    alone = small_model(scale_invariant=False)
    for indices in batches[:, 0]:
        alone.zero_grad()
        loss = functional.cross_entropy(alone(x[0, indices]), y[0, indices])
        loss.backward()
        losses.append(float(loss.detach()))
        step(alone, list(alone.parameters()), LRS[1])
    assert [row.step for row in result.rows] == [10, 20, 30, 40, 50]
    for index, row in enumerate(result.rows):
        part = slice(10 * index, 10 * index + 10)
        assert float(row.train_loss[0, 1]) == pytest.approx(sum(losses[part]) / 10, abs=1e-12)
        assert float(row.gradient_norm[0, 1]) == pytest.approx(sum(norms[part]) / 10, abs=1e-12)
    with torch.no_grad():
        scores = alone.eval()(x[0])
    assert float(result.rows[-1].test_loss[0, 1]) == pytest.approx(float(functional.cross_entropy(scores, y[0])))
    assert float(result.rows[-1].test_accuracy[0, 1]) == pytest.approx(
        float((scores.argmax(1) == y[0]).double().mean())
    )


def test_training_in_two_parts_is_training_in_one() -> None:
    model = small_model(scale_invariant=False)
    rule = adamw()
    whole, samples, batches = trained(model, rule)
    first, _, _ = trained(model, rule, batches=batches[:20])
    second = train_stack(
        build(model, LOSSES["cross_entropy"], rule, compiled=False),
        first.stack,
        lrs=torch.tensor([LRS], dtype=torch.float64),
        batches=batches[20:],
        train=samples,
        trace_every=10,
    )
    assert [row.step for row in second.rows] == [30, 40, 50]
    for name, value in whole.stack.weights.items():
        assert torch.equal(second.stack.weights[name], value)
        assert torch.equal(whole.snapshots[20][name], first.stack.weights[name])


def test_a_diverged_run_is_frozen_and_the_others_go_on() -> None:
    x, y = data()
    rule, objective = sgd(), LOSSES["mse"]
    linear = nn.Linear(6, 1).double()
    weights = {name: value.detach().expand(1, 3, *value.shape).clone() for name, value in linear.named_parameters()}
    shares = torch.full((1, 1), torch.nan, dtype=torch.float64)
    samples = Samples(x=x, y=y[..., None].double(), which=torch.tensor([0]), shares=shares, frozen={})
    batches = batch_indices(seed=0, start=0, stop=400, samples=40, batch_size=8)[:, None]
    result = train_stack(
        build(linear, objective, rule, compiled=False),
        start_stack(weights, {}, rule),
        lrs=torch.tensor([[0.01, 1e3, 0.02]], dtype=torch.float64),
        batches=batches,
        train=samples,
        trace_every=100,
    )
    assert result.stack.alive.tolist() == [[True, False, True]]
    assert all(torch.isfinite(value).all() for value in result.stack.weights.values())
    last = result.rows[-1].train_loss[0]
    assert torch.isfinite(last[[0, 2]]).all()
    assert not torch.isfinite(last[1])


def test_evaluation_counts_every_sample_once() -> None:
    model = small_model(scale_invariant=False)
    x = torch.randn(1, 301, 6, dtype=torch.float64)
    y = torch.randint(3, (1, 301))
    weights = {name: value.detach().expand(1, 1, *value.shape) for name, value in model.named_parameters()}
    samples = Samples(
        x=x,
        y=y,
        which=torch.tensor([0]),
        shares=torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64),
        frozen={},
    )
    scores = evaluate_stack(build(model, LOSSES["cross_entropy"], sgd(), compiled=False), weights, {}, samples)
    with torch.no_grad():
        outputs = model(x[0])
    predicted = outputs.argmax(1)
    assert float(scores.loss) == pytest.approx(float(functional.cross_entropy(outputs, y[0])), abs=1e-12)
    assert float(scores.accuracy) == pytest.approx(float((predicted == y[0]).double().mean()), abs=1e-12)
    expected = samples.shares[0][predicted].mean()
    assert float(scores.chance_accuracy) == pytest.approx(float(expected), abs=1e-12)
