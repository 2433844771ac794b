"""One step of a stack: its gradient, its buffers, and runs that are dead; all in float64."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lratlas.models.mlp import MLP
from lratlas.training.compiling import why_not_compiled
from lratlas.training.objective import LOSSES
from lratlas.training.program import SUMS, Batch, Program, build
from lratlas.training.rules import Rule, State, sgd, sphere_sgd
from lratlas.training.sphere import Weights, norm
from lratlas.training.state import Samples, start_stack
from lratlas.training.trainer import train_stack

CROSS_ENTROPY = LOSSES["cross_entropy"]
SEEDS, LANES = 2, 3
LRS = torch.tensor([[0.01, 0.1, 1.0]], dtype=torch.float64).expand(SEEDS, -1)
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(SEEDS, 8, 4, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(3, (SEEDS, 8), generator=GENERATOR)
SHARES = torch.full((SEEDS, 3), 1 / 3, dtype=torch.float64)


def models(make: Callable[[], nn.Module], *, apart: bool) -> list[list[nn.Module]]:
    """Modules [seed][lane]; those of a seed are copies of one, with their own trained weights if ``apart``."""
    torch.manual_seed(1)
    grid = [[copy.deepcopy(one) for one in [make().double()] * LANES] for _ in range(SEEDS)]
    for module in (each for row in grid for each in row if apart):
        for value in module.parameters():
            if value.requires_grad:
                nn.init.normal_(value)
    return grid


def stacked(grid: list[list[nn.Module]]) -> tuple[Weights, Weights, Weights]:
    """Weights, buffers and frozen parameters of the modules as a stack."""
    points = [[{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in row] for row in grid]
    joined = {
        name: torch.stack([torch.stack([point[name].detach().clone() for point in row]) for row in points])
        for name in points[0][0]
    }
    named = dict(grid[0][0].named_parameters())
    weights = {name: joined[name] for name, value in named.items() if value.requires_grad}
    frozen = {name: joined[name][:, 0] for name, value in named.items() if not value.requires_grad}
    return weights, {name: value for name, value in joined.items() if name not in named}, frozen


def one_step(
    program: Program, rule: Rule, weights: Weights, buffers: Weights, frozen: Weights
) -> tuple[Weights, Weights, State, Tensor, Tensor]:
    batch = Batch(x=X, y=Y, shares=SHARES, frozen=frozen)
    alive = torch.ones((SEEDS, LANES), dtype=torch.bool)
    sums = torch.zeros((SUMS, SEEDS, LANES), dtype=torch.float64)
    return program.step(weights, buffers, rule.start(weights), alive, sums, LRS, batch)


class Tempered(nn.Module):
    """Trained and frozen layers, and a trained parameter that is a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.temperature = MLP(4, (5,), 3, scale_invariant=True), nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return self.temperature * self.layers(x)


def test_a_step_follows_the_gradient_found_by_finite_differences() -> None:
    grid, rule = models(Tempered, apart=True), sgd()
    weights, buffers, frozen = stacked(grid)
    program = build(grid[0][0], CROSS_ENTROPY, rule, compiled=False)
    new, _, _, _, sums = one_step(program, rule, weights, buffers, frozen)
    seed, lane, width = 1, 2, 1e-6
    module = grid[seed][lane]

    def loss(name: str, index: tuple[int, ...], shift: float) -> float:
        point = {key: value.detach().clone() for key, value in module.named_parameters()}
        point[name][index] += shift
        return float(functional.cross_entropy(functional_call(module, point, (X[seed],)), Y[seed]))

    squares = 0.0
    for name, weight in weights.items():
        taken = (weight - new[name])[seed, lane] / LRS[seed, lane]
        for index in np.ndindex(*taken.shape):
            slope = (loss(name, index, width) - loss(name, index, -width)) / (2 * width)
            assert abs(float(taken[index]) - slope) < 1e-7
            squares += slope**2
    assert abs(float(sums[0, seed, lane]) - loss("temperature", (), 0.0)) < 1e-12
    assert abs(float(sums[3, seed, lane]) - squares**0.5) < 1e-6


def test_on_a_sphere_the_gradient_norm_is_the_one_at_unit_weight_norm() -> None:
    grid, reported = models(lambda: MLP(4, (5,), 3, scale_invariant=True), apart=False), list[Tensor]()
    weights, buffers, frozen = stacked(grid)
    for radius in (1.0, 4.0):
        rule = sphere_sgd(radius=radius)
        start = {name: value * (radius / norm(weights))[..., None, None] for name, value in weights.items()}
        program = build(grid[0][0], CROSS_ENTROPY, rule, compiled=False)
        reported.append(one_step(program, rule, start, buffers, frozen)[4][3])
    torch.testing.assert_close(*reported, rtol=1e-4, atol=0)
    assert (reported[0] > 1e-3).all()


def batch_normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def test_batch_norm_in_a_stack_is_batch_norm_alone() -> None:
    grid, rule = models(batch_normed, apart=False), sgd()
    weights, buffers, frozen = stacked(grid)
    given = {name: value.clone() for name, value in buffers.items()}
    program = build(grid[0][0], CROSS_ENTROPY, rule, compiled=False)
    state, alive = rule.start(weights), torch.ones((SEEDS, LANES), dtype=torch.bool)
    sums = torch.zeros((SUMS, SEEDS, LANES), dtype=torch.float64)
    first = buffers
    for step in range(5):
        batch = Batch(x=X + step, y=Y, shares=SHARES, frozen=frozen)
        weights, buffers, state, alive, sums = program.step(weights, buffers, state, alive, sums, LRS, batch)
    assert all(torch.equal(first[name], given[name]) for name in given)
    batch = Batch(x=X, y=Y, shares=SHARES, frozen=frozen)
    scores = program.evaluate(weights, buffers, batch, torch.ones(8, dtype=torch.float64))
    for seed, row in enumerate(grid):
        for lane, module in enumerate(row):
            optimizer = torch.optim.SGD(module.parameters(), float(LRS[seed, lane]))
            for step in range(5):
                optimizer.zero_grad()
                functional.cross_entropy(module(X[seed] + step), Y[seed]).backward()
                optimizer.step()
            for name, value in module.named_buffers():
                torch.testing.assert_close(buffers[name][seed, lane], value, rtol=0, atol=1e-10)
            for name, value in module.named_parameters():
                torch.testing.assert_close(weights[name][seed, lane], value.detach(), rtol=0, atol=1e-10)
            with torch.no_grad():
                alone = functional.cross_entropy(module.eval()(X[seed]), Y[seed], reduction="sum")
            torch.testing.assert_close(scores[0, seed, lane], alone, rtol=0, atol=1e-9)


def test_dead_runs_keep_weights_buffers_and_state_and_the_others_go_on() -> None:
    grid, rule = models(batch_normed, apart=False), sgd(momentum=0.9)
    weights, buffers, frozen = stacked(grid)
    healthy = {name: value.clone() for name, value in weights.items()}
    weights["3.weight"][0, 1, 0, 0] = torch.inf
    program = build(grid[0][0], CROSS_ENTROPY, rule, compiled=False)
    new, statistics, state, alive, _ = one_step(program, rule, weights, buffers, frozen)
    expected, _, _, _, _ = one_step(program, rule, healthy, buffers, frozen)
    assert alive.tolist() == [[True, False, True], [True, True, True]]
    for name, value in new.items():
        assert torch.equal(value[0, 1], weights[name][0, 1])
        assert torch.equal(value[alive], expected[name][alive])
        assert torch.equal(state[f"momentum/{name}"][0, 1], torch.zeros_like(value[0, 1]))
    assert not torch.equal(new["3.weight"][0, 0], weights["3.weight"][0, 0])
    assert torch.equal(statistics["1.running_mean"][0, 1], buffers["1.running_mean"][0, 1])
    assert not torch.equal(statistics["1.running_mean"][0, 0], buffers["1.running_mean"][0, 0])


def test_a_dead_run_stays_dead() -> None:
    grid, rule = models(lambda: MLP(4, (5,), 3), apart=False), sgd()
    weights, buffers, frozen = stacked(grid)
    program = build(grid[0][0], CROSS_ENTROPY, rule, compiled=False)
    dead = torch.tensor([[True, False, True], [True, True, False]])
    sums = torch.zeros((SUMS, SEEDS, LANES), dtype=torch.float64)
    batch = Batch(x=X, y=Y, shares=SHARES, frozen=frozen)
    new, _, _, alive, _ = program.step(weights, buffers, {}, dead, sums, LRS, batch)
    assert torch.equal(alive, dead)
    for name, value in new.items():
        assert torch.equal(value[~dead], weights[name][~dead])


def test_samples_that_are_not_counted_do_not_enter_even_if_not_finite() -> None:
    grid, rule = models(lambda: MLP(4, (5,), 3), apart=True), sgd()
    weights, buffers, frozen = stacked(grid)
    program = build(grid[0][0], CROSS_ENTROPY, rule, compiled=False)
    x = X.clone()
    x[:, 5:] = torch.nan
    counted = (torch.arange(8) < 5).double()
    batch = Batch(x=x, y=Y, shares=SHARES, frozen=frozen)
    loss, accuracy, chance = program.evaluate(weights, buffers, batch, counted)
    for seed, row in enumerate(grid):
        for lane, module in enumerate(row):
            with torch.no_grad():
                outputs = module(X[seed, :5])
            alone = functional.cross_entropy(outputs, Y[seed, :5], reduction="sum")
            torch.testing.assert_close(loss[seed, lane], alone, rtol=0, atol=1e-12)
            assert accuracy[seed, lane] == (outputs.argmax(1) == Y[seed, :5]).sum()
    torch.testing.assert_close(chance, torch.full_like(chance, 5 / 3))


def test_the_models_own_weights_and_mode_play_no_part() -> None:
    grid, rule = models(batch_normed, apart=False), sgd()
    weights, buffers, frozen = stacked(grid)
    model = grid[0][0].eval()
    before = copy.deepcopy(model.state_dict())
    expected = one_step(
        build(batch_normed().double(), CROSS_ENTROPY, rule, compiled=False), rule, weights, buffers, frozen
    )
    got = one_step(build(model, CROSS_ENTROPY, rule, compiled=False), rule, weights, buffers, frozen)
    assert all(torch.equal(got[0][name], value) for name, value in expected[0].items())
    assert not model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_compiler_is_found_where_one_is_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert why_not_compiled(torch.device("cpu")) == "there is no C++ compiler here"
    compiler = tmp_path / "clang++"
    compiler.touch(mode=0o755)
    assert not why_not_compiled(torch.device("cpu"))


@pytest.mark.long
def test_any_number_of_stack_sizes_can_be_compiled_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, compiling = list[torch.fx.GraphModule](), torch.compile

    def kept(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    def compiling_quickly(
        function: Callable[..., Any], *, fullgraph: bool, dynamic: bool, options: object
    ) -> Callable[..., Any]:
        assert options
        return compiling(function, fullgraph=fullgraph, dynamic=dynamic, backend=kept)

    # All but the making of machine code, which takes seconds.
    monkeypatch.setattr(torch, "compile", compiling_quickly)
    model, rule = nn.Linear(2, 2), sgd()
    program = build(model, LOSSES["cross_entropy"], rule, compiled=True)
    for lanes in range(1, 11):
        before = len(graphs)
        weights = {
            name: value.detach().expand(1, lanes, *value.shape).clone() for name, value in model.named_parameters()
        }
        samples = Samples(
            x=torch.ones(1, 4, 2),
            y=torch.tensor([[0, 1, 0, 1]]),
            which=torch.tensor([0]),
            shares=torch.full((1, 2), 0.5),
            frozen={},
        )
        batches = torch.tensor([[[0, 1]], [[2, 3]]])
        lrs = torch.full((1, lanes), 0.1)
        trained = train_stack(program, start_stack(weights, {}, rule), lrs=lrs, batches=batches, train=samples)
        assert trained.stack.step == 2
        assert len(graphs) > before  # beyond a limit PyTorch would run it uncompiled, without a word
