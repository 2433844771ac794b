"""Update rules as geometry says they move; training loops and torch.optim are compared elsewhere."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lratlas.errors import TaskError
from lratlas.training.rules import RULES, Rule, adamw, rule_from, sgd, sphere_rsgd, sphere_sgd
from lratlas.training.sphere import Weights, norm, project

SPHERES = {"sphere_sgd": sphere_sgd, "sphere_rsgd": sphere_rsgd}
every_sphere = pytest.mark.parametrize("name", SPHERES)
LRS = torch.tensor([[0.01, 0.1, 0.5]], dtype=torch.float64)


def drawn(seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (1, 3, 4, 2), "b": (1, 3, 5)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def flat(weights: Mapping[str, Tensor]) -> Tensor:
    """One row per lane."""
    return torch.cat([value.reshape(3, -1) for value in weights.values()], -1)


def gradient(weights: Weights) -> Weights:
    """Of a scale-invariant function: the sum of the cubes of the unit vector's coordinates, in turns of 1, 2, 3."""
    points = {name: value.clone().requires_grad_() for name, value in weights.items()}
    vectors = flat(points)
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    factors = 1 + torch.arange(unit.shape[1], dtype=torch.float64) % 3
    (factors * unit**3).sum().backward()
    return {name: value.grad for name, value in points.items() if value.grad is not None}


def steps(rule: Rule, weights: Weights, count: int) -> Weights:
    state = rule.start(weights)
    for _ in range(count):
        weights, state = rule.update(weights, gradient(weights), state, LRS)
    return weights


@every_sphere
@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(0.1, 50))
def test_any_gradient_leaves_the_norm_at_the_radius(name: str, seed: int, radius: float) -> None:
    rule, weights = SPHERES[name](radius=radius), project(drawn(seed), radius)
    new, _ = rule.update(weights, drawn(seed + 1), rule.start(weights), LRS)
    torch.testing.assert_close(norm(new), torch.full((1, 3), radius, dtype=torch.float64))


@every_sphere
def test_the_radius_does_not_change_the_directions_visited(name: str) -> None:
    small, large = (
        flat(steps(SPHERES[name](radius=radius), project(drawn(0), radius), 30)) / radius for radius in (1.0, 5.0)
    )
    torch.testing.assert_close(small, large, rtol=0, atol=1e-10)
    # The runs did move, each as far as its LR says.
    start = flat(project(drawn(0), 1.0))
    assert ((small - start).norm(dim=1) > 0.05).all()


@pytest.mark.parametrize("radius", [1.0, 4.0])
def test_a_step_turns_the_weights_against_the_gradient_by_the_stated_angle(radius: float) -> None:
    weights = project(drawn(0), radius)
    w, g = flat(weights), flat(gradient(weights))
    # With the optimiser's LR = ELR radius²: an angle LR |g| / |w| on the great circle, its arctangent projected.
    stated = LRS[0] * radius**2 * g.norm(dim=1) / w.norm(dim=1)
    for make, angle in ((sphere_rsgd, stated), (sphere_sgd, stated.atan())):
        new, _ = make(radius=radius).update(weights, gradient(weights), {}, LRS)
        against = -g / g.norm(dim=1, keepdim=True)
        expected = angle.cos()[:, None] * w + radius * angle.sin()[:, None] * against
        torch.testing.assert_close(flat(new), expected, rtol=0, atol=1e-12)


@every_sphere
def test_without_a_gradient_nothing_moves(name: str) -> None:
    weights = project(drawn(0), 2.0)
    nothing = {name: torch.zeros_like(value) for name, value in weights.items()}
    new, _ = SPHERES[name](radius=2.0).update(weights, nothing, {}, LRS)
    torch.testing.assert_close(flat(new), flat(weights), rtol=0, atol=1e-14)


def test_a_geodesic_step_takes_the_tangent_part_of_a_gradient() -> None:
    weights = project(drawn(0), 1.0)
    tangent = gradient(weights)
    tilted = {name: value + 0.7 * weights[name] for name, value in tangent.items()}
    rule = sphere_rsgd()
    straight, _ = rule.update(weights, tangent, {}, LRS)
    same, _ = rule.update(weights, tilted, {}, LRS)
    torch.testing.assert_close(flat(straight), flat(same), rtol=0, atol=1e-12)


def test_each_lane_moves_by_its_own_learning_rate() -> None:
    weights, gradients = drawn(0), drawn(1)
    new, _ = sgd().update(weights, gradients, {}, LRS)
    moved = (flat(weights) - flat(new)) / flat(gradients)
    torch.testing.assert_close(moved, LRS[0][:, None].expand_as(moved), rtol=1e-9, atol=0)


def test_rules_from_names_mappings_and_themselves() -> None:
    for name in RULES:
        assert rule_from(name).name == name
    made = rule_from({"name": "sgd", "momentum": 0.9, "nesterov": True})
    assert made.settings == {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0}
    assert rule_from({"name": "sphere_sgd", "radius": 28.0}).radius == 28
    assert rule_from("adamw").settings["weight_decay"] == adamw().settings["weight_decay"] == 0.01
    assert rule_from(made) is made
    assert made.radius is None


REFUSED: dict[str, tuple[str | dict[str, object], str]] = {
    "unknown rule": ("lion", "no update rule 'lion'; choose one of sgd"),
    "no name": ({"momentum": 0.9}, "no update rule ''"),
    "unknown setting": ({"name": "sgd", "radius": 1.0}, "sgd does not accept.*radius"),
    "momentum 1": ({"name": "sgd", "momentum": 1.0}, "momentum is 1; it must be at least 0 and below 1"),
    "negative decay": (
        {"name": "sgd", "weight_decay": -0.1},
        r"weight_decay is -0\.1; it must be at least 0\.",
    ),
    "nesterov alone": ({"name": "sgd", "nesterov": True}, "nesterov needs a momentum above 0"),
    "beta 1": ({"name": "adam", "betas": (0.9, 1.0)}, "adam: betas is 1"),
    "negative eps": ({"name": "adamw", "eps": -1e-8}, "adamw: eps"),
    "no sphere": ({"name": "sphere_sgd", "radius": 0.0}, "radius is 0; it must be above 0"),
    "inverted sphere": ({"name": "sphere_rsgd", "radius": -1.0}, "sphere_rsgd: radius is -1"),
    "not a number": ({"name": "sphere_sgd", "radius": float("nan")}, "radius is nan"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_settings_are_refused_by_name(case: str) -> None:
    given_rule, words = REFUSED[case]
    with pytest.raises(TaskError, match=words):
        rule_from(given_rule)


@every_sphere
@pytest.mark.parametrize("other_lr", [0.3, 0.0])
def test_weights_that_are_not_on_the_sphere_follow_plain_sgd_with_their_own_lr(name: str, other_lr: float) -> None:
    on_sphere, free = project(drawn(0), 2.0), torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)[..., None]
    slope = torch.tensor([[1.0, 10.0, -3.0]], dtype=torch.float64)[..., None]
    gradients = gradient(on_sphere)
    alone, _ = SPHERES[name](radius=2.0).update(on_sphere, gradients, {}, LRS)
    rule = SPHERES[name](radius=2.0, other_lr=other_lr, free=["c"])
    new, _ = rule.update({"c": free, **on_sphere}, {"c": slope, **gradients}, {}, LRS)
    assert list(new) == ["c", "a", "b"]
    assert torch.equal(new["c"], free - other_lr * slope)
    for key, value in alone.items():
        torch.testing.assert_close(new[key], value, rtol=0, atol=1e-14)
    # What is measured and put back on the sphere is what lives on it.
    assert list(rule.vector(new)) == ["a", "b"]
    rescaled = rule.constrain({key: 3 * value for key, value in new.items()})
    assert torch.equal(rescaled["c"], 3 * new["c"])
    torch.testing.assert_close(rescaled["a"], new["a"], rtol=0, atol=1e-14)
    assert rule.settings["other_lr"] == other_lr


def test_without_another_lr_the_settings_are_those_of_the_radius() -> None:
    assert sphere_sgd(radius=3.0).settings == {"radius": 3.0}
    with pytest.raises(TaskError, match=r"sphere_sgd: other_lr is -1; it must be at least 0\."):
        rule_from({"name": "sphere_sgd", "other_lr": -1.0})
