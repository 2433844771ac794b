"""Laws of the great circle between two solutions, against the straight line and rotations built by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lratlas.measure.paths import angular_distance, arc, interpolate
from lratlas.training.rules import Rule, sgd, sphere_sgd
from lratlas.training.sphere import Weights, norm
from measure.helpers import drawn, flat, turned

seeds = st.integers(0, 2**31)
alphas = st.floats(0, 1)
angles = st.floats(1e-6, math.pi - 1e-3)
quick = settings(max_examples=25)
rules = pytest.mark.parametrize("rule", [sgd(), sphere_sgd(radius=3.0)], ids=["free", "sphere"])


def two_ends(seed: int, angle: float) -> tuple[Weights, Weights]:
    """Two ends of norms 2 and 5, at an angle."""
    a, towards = drawn(seed), drawn(seed + 1)
    return scaled(turned(a, towards, 0), 2), scaled(turned(a, towards, angle), 5)


def scaled(weights: Weights, factor: float) -> Weights:
    return {name: factor * value for name, value in weights.items()}


def close(got: Weights, expected: Weights, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(flat(got), flat(expected), rtol=0, atol=tolerance)


def everywhere(value: float) -> Tensor:
    return torch.full((2, 3), value, dtype=torch.float64)


@rules
@quick
@given(seeds, angles)
def test_the_path_begins_and_ends_at_its_ends(rule: Rule, seed: int, angle: float) -> None:
    a, b = (rule.constrain(end) for end in two_ends(seed, angle))
    close(arc(a, b, 0.0, rule=rule), a)
    close(arc(a, b, 1.0, rule=rule), b)


@rules
@quick
@given(seeds, angles, alphas)
def test_it_turns_evenly_in_the_plane_of_its_ends(rule: Rule, seed: int, angle: float, alpha: float) -> None:
    a, b = (rule.constrain(end) for end in two_ends(seed, angle))
    point = arc(a, b, alpha, rule=rule)
    torch.testing.assert_close(angular_distance(a, point), everywhere(alpha * angle), rtol=1e-9, atol=1e-12)
    # What is left of the angle leads to the other end: the shortest way, so in the plane of both.
    torch.testing.assert_close(angular_distance(point, b), everywhere((1 - alpha) * angle), rtol=1e-9, atol=1e-12)


@quick
@given(seeds, angles, alphas)
def test_the_norm_goes_evenly_from_one_end_to_the_other(seed: int, angle: float, alpha: float) -> None:
    a, b = two_ends(seed, angle)
    torch.testing.assert_close(norm(arc(a, b, alpha, rule=sgd())), everywhere(2 + 3 * alpha))
    torch.testing.assert_close(norm(arc(a, b, alpha, rule=sphere_sgd(radius=7.0))), everywhere(7))


@quick
@given(seeds, angles, alphas)
def test_on_a_sphere_its_points_are_those_of_the_line(seed: int, angle: float, alpha: float) -> None:
    rule = sphere_sgd(radius=3.0)
    a, b = (rule.constrain(end) for end in two_ends(seed, angle))
    # Where the rescaled chord meets the circle, by the angle it makes with the first end.
    share = math.atan2(alpha * math.sin(angle), 1 - alpha + alpha * math.cos(angle)) / angle
    close(arc(a, b, share, rule=rule), interpolate(a, b, alpha, rule=rule), 1e-8)


@rules
@quick
@given(seeds, angles | st.just(math.pi), alphas)
def test_it_is_the_same_from_both_ends(rule: Rule, seed: int, angle: float, alpha: float) -> None:
    a, b = two_ends(seed, angle)
    if angle == math.pi:
        b = scaled(a, -2.5)
    close(arc(a, b, alpha, rule=rule), arc(b, a, 1 - alpha, rule=rule))


@quick
@given(seeds, alphas)
def test_weights_that_are_not_on_the_sphere_go_straight(seed: int, alpha: float) -> None:
    rule = sphere_sgd(radius=3.0, other_lr=0.1, free=["b"])
    a, b = (rule.constrain(drawn(each)) for each in (seed, seed + 1))
    point = arc(a, b, alpha, rule=rule)
    assert list(point) == list(a)
    torch.testing.assert_close(point["b"], (1 - alpha) * a["b"] + alpha * b["b"])
    torch.testing.assert_close(norm({"a": point["a"]}), everywhere(3))
    # The others have no part in the angle.
    angle = angular_distance({"a": a["a"]}, {"a": b["a"]})
    torch.testing.assert_close(angular_distance({"a": a["a"]}, {"a": point["a"]}), alpha * angle, rtol=1e-6, atol=1e-7)


@rules
@quick
@given(seeds, alphas)
def test_between_equal_ends_there_is_one_point(rule: Rule, seed: int, alpha: float) -> None:
    a = rule.constrain(drawn(seed))
    point = arc(a, a, alpha, rule=rule)
    close(point, a, 1e-14)
    # To the last bit the same all the way, so that nothing that is measured changes.
    assert torch.equal(flat(point), flat(arc(a, a, 0.0, rule=rule)))


@rules
@quick
@given(seeds, alphas)
def test_between_antiparallel_ends_it_is_a_half_circle(rule: Rule, seed: int, alpha: float) -> None:
    a = rule.constrain(drawn(seed))
    b = rule.constrain(scaled(a, -2.5))
    before = torch.get_rng_state()
    point = arc(a, b, alpha, rule=rule)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(angular_distance(a, point), everywhere(alpha * math.pi), rtol=0, atol=1e-7)
    torch.testing.assert_close(norm(point), (1 - alpha) * norm(a) + alpha * norm(b))


def test_antiparallel_ends_of_one_run_leave_the_others_as_they_are() -> None:
    a, b = two_ends(0, 1.0)
    mixed = {name: value.clone() for name, value in b.items()}
    for name, value in mixed.items():
        value[1, 2] = -a[name][1, 2]
    alone, together = (flat(arc(a, end, 0.3, rule=sgd())) for end in (b, mixed))
    changed = (alone != together).any(-1)
    assert changed.tolist() == [[False, False, False], [False, False, True]]
    assert together.isfinite().all()


def test_weights_keep_their_number_format() -> None:
    a, b = two_ends(0, 1.0)
    first, last = ({name: value.float() for name, value in end.items()} for end in (a, b))
    rough = arc(first, last, 0.3, rule=sgd())
    assert all(value.dtype == torch.float32 for value in rough.values())
    close({name: value.double() for name, value in rough.items()}, arc(a, b, 0.3, rule=sgd()), 1e-6)
