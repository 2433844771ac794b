"""Laws of angles and barriers, and paths against models interpolated by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lratlas.measure.paths import Path, angular_distance, arc, barrier, interpolate, path_errors
from lratlas.models.mlp import MLP
from lratlas.training.objective import LOSSES
from lratlas.training.program import Program, build
from lratlas.training.rules import Rule, sgd, sphere_sgd
from lratlas.training.sphere import Weights, norm
from lratlas.training.state import Samples
from measure.helpers import drawn, model_between, turned

seeds = st.integers(0, 2**31)
quick = settings(max_examples=25)
paths = pytest.mark.parametrize("path", [interpolate, arc], ids=["line", "arc"])
POINTS = 11


@quick
@given(seeds, seeds)
def test_the_angle_is_symmetric_and_ignores_norms(one: int, other: int) -> None:
    a, b = drawn(one), drawn(other)
    angle = angular_distance(a, b)
    assert angle.shape == (2, 3)
    assert angle.dtype == torch.float64
    torch.testing.assert_close(angular_distance(b, a), angle, rtol=0, atol=1e-15)
    rescaled = {name: 30 * value for name, value in b.items()}
    torch.testing.assert_close(angular_distance(a, rescaled), angle, rtol=0, atol=1e-14)


@pytest.mark.parametrize("angle", [0, 1e-12, 1e-7, 1e-3, 1.0, math.pi / 2, math.pi - 1e-7, math.pi])
def test_a_known_rotation_is_measured_exactly(angle: float) -> None:
    a = drawn(0)
    measured = angular_distance(a, turned(a, drawn(1), angle))
    torch.testing.assert_close(measured, torch.full_like(measured, angle), rtol=1e-7, atol=1e-14)


def test_a_rescaled_model_is_at_angle_0_and_the_opposite_one_at_pi() -> None:
    a = drawn(0)
    for factor, expected in ((1.0, 0.0), (0.3, 0.0), (-2.0, math.pi)):
        other = {name: factor * value for name, value in a.items()}
        measured = angular_distance(a, other)
        torch.testing.assert_close(measured, torch.full_like(measured, expected), rtol=0, atol=1e-14)


def test_float32_weights_are_measured_in_float64() -> None:
    a = {name: value.float() for name, value in drawn(0).items()}
    b = {name: value.float() for name, value in turned(drawn(0), drawn(1), 1e-2).items()}
    exact = angular_distance(
        {name: value.double() for name, value in a.items()},
        {name: value.double() for name, value in b.items()},
    )
    assert torch.equal(angular_distance(a, b), exact)


@quick
@given(seeds, seeds, seeds)
def test_angles_obey_the_triangle_inequality(one: int, two: int, three: int) -> None:
    a, b, c = drawn(one), drawn(two), drawn(three)
    detour = angular_distance(a, b) + angular_distance(b, c)
    assert (angular_distance(a, c) <= detour + 1e-12).all()


@quick
@given(st.lists(st.floats(0, 1), min_size=3, max_size=30))
def test_a_barrier_is_the_largest_excess_over_the_chord_and_within_0_and_1(errors: list[float]) -> None:
    last = len(errors) - 1
    excess = [e - (errors[0] + (errors[-1] - errors[0]) * i / last) for i, e in enumerate(errors)]
    found = float(barrier(torch.tensor(errors, dtype=torch.float64)))
    assert 0 <= found <= 1
    assert found == pytest.approx(max(*excess[1:-1], 0) if last > 2 else max(excess[1], 0), abs=1e-12)


def test_barriers_by_hand() -> None:
    errors = torch.tensor(
        [[0.1, 0.1, 0.4], [0.3, 0.0, 0.3], [0.9, 0.1, 0.2], [0.5, 0.0, 0.1], [0.1, 0.1, 0.0]]
    ).double()
    # A bump, a valley, and a straight slope.
    torch.testing.assert_close(barrier(errors), torch.tensor([0.8, 0.0, 0.0]).double(), rtol=0, atol=1e-7)


def test_a_barrier_is_the_same_from_both_ends() -> None:
    errors = torch.rand(21, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(barrier(errors), barrier(errors.flip(0)), rtol=0, atol=1e-15)


@paths
@quick
@given(seeds, st.floats(0, 1), st.floats(0.1, 30))
def test_on_a_sphere_every_point_of_a_path_has_the_radius(path: Path, seed: int, alpha: float, radius: float) -> None:
    point = path(drawn(seed), drawn(seed + 1), alpha, rule=sphere_sgd(radius=radius))
    torch.testing.assert_close(norm(point), torch.full((2, 3), radius, dtype=torch.float64))


def test_the_ends_of_a_line_are_the_models_and_its_middle_their_mean() -> None:
    a, b = drawn(0), drawn(1)
    for alpha, expected in ((0.0, a), (1.0, b), (0.5, {name: (a[name] + b[name]) / 2 for name in a})):
        point = interpolate(a, b, alpha, rule=sgd())
        for name, value in expected.items():
            torch.testing.assert_close(point[name], value, rtol=0, atol=1e-15)


def models() -> tuple[list[list[list[MLP]]], Weights, Weights, Weights]:
    """Modules [end][seed][lane] with one frozen head for each seed, both ends stacked, and the heads."""
    torch.manual_seed(0)
    heads = [MLP(5, (6, 6), 3, scale_invariant=True).double().layers[6] for _ in range(2)]

    def model(seed: int) -> MLP:
        made = MLP(5, (6, 6), 3, scale_invariant=True).double()
        made.layers[6] = heads[seed]
        return made

    ends = [[[model(seed) for _ in range(2)] for seed in range(2)] for _ in range(2)]

    def stacked(grid: list[list[MLP]]) -> Weights:
        return {
            name: torch.stack([torch.stack([m.get_parameter(name).detach() for m in row]) for row in grid])
            for name, value in grid[0][0].named_parameters()
            if value.requires_grad
        }

    frozen = torch.stack([head.get_parameter("weight") for head in heads])
    return ends, stacked(ends[0]), stacked(ends[1]), {"layers.6.weight": frozen}


def problem(heads: Weights, rule: Rule) -> tuple[Program, Samples]:
    generator = torch.Generator().manual_seed(1)
    samples = Samples(
        x=torch.randn(2, 150, 5, generator=generator, dtype=torch.float64),
        y=torch.randint(3, (2, 150), generator=generator),
        which=torch.tensor([0, 1]),
        shares=torch.full((2, 3), 1 / 3, dtype=torch.float64),
        frozen=heads,
    )
    model = MLP(5, (6, 6), 3, scale_invariant=True)
    return build(model, LOSSES["cross_entropy"], rule, compiled=False), samples


def errors_of(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) != y).double().mean())


@paths
@pytest.mark.parametrize("rule", [sgd(), sphere_sgd(radius=3.0)], ids=["free", "sphere"])
def test_errors_on_a_path_are_those_of_models_made_by_hand(rule: Rule, path: Path) -> None:
    ends, a, b, heads = models()
    program, samples = problem(heads, rule)
    errors = path_errors(program, a, b, {}, {"train": samples}, points=POINTS, batch_size=50, path=path)["train"]
    assert errors.shape == (POINTS, 2, 2)
    for seed in range(2):
        for lane in range(2):
            first, last = (ends[end][seed][lane] for end in range(2))
            for index in range(POINTS):
                between = model_between(first, last, index / (POINTS - 1), turning=path is arc)
                # The model is scale-invariant: whether the point is put back on the sphere changes nothing.
                by_hand = errors_of(between, samples.x[seed], samples.y[seed])
                assert float(errors[index, seed, lane]) == pytest.approx(by_hand, abs=1e-12)
    # The comparison means something only where the errors differ.
    assert errors.std(0).min() > 0.01


@paths
def test_a_path_begins_and_ends_at_the_models_errors(path: Path) -> None:
    ends, a, b, heads = models()
    program, samples = problem(heads, sgd())
    errors = path_errors(program, a, b, {}, {"train": samples}, points=3, batch_size=50, path=path)["train"]
    for index, grid in ((0, ends[0]), (2, ends[1])):
        for seed, row in enumerate(grid):
            for lane, model in enumerate(row):
                alone = errors_of(model, samples.x[seed], samples.y[seed])
                assert float(errors[index, seed, lane]) == pytest.approx(alone, abs=1e-12)


@paths
def test_a_path_to_oneself_has_no_barrier(path: Path) -> None:
    _, a, _, heads = models()
    for rule in (sgd(), sphere_sgd(radius=2.0)):
        program, samples = problem(heads, rule)
        errors = path_errors(program, a, a, {}, {"train": samples}, points=5, batch_size=50, path=path)["train"]
        assert torch.equal(barrier(errors), torch.zeros(2, 2, dtype=torch.float64))
