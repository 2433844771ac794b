from math import pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import cdist

from lratlas.data.shapes import (
    SHAPES,
    boundary_distance,
    boundary_points,
    check_margin,
    informative_points,
    margin_limit,
)
from lratlas.errors import TaskError

STEP = 0.02
every_shape = pytest.mark.parametrize("name", list(SHAPES))


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def halves(count: int) -> NDArray[np.bool_]:
    return np.arange(count) % 2 == 1


def grid(half_width: float) -> NDArray[np.float64]:
    # Shifted off the round numbers, where a grid point would lie on a curve.
    axis = np.arange(-half_width, half_width, STEP) + 0.00317
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)


def class_changes(name: str) -> NDArray[np.float64]:
    """Points between neighbours of different class: within STEP of the true boundary and dense along it."""
    points = grid(2.6)
    one = SHAPES[name].is_one(points.reshape(-1, 2)).reshape(points.shape[:2])
    across = ((points[1:] + points[:-1]) / 2)[one[1:] != one[:-1]]
    along = ((points[:, 1:] + points[:, :-1]) / 2)[one[:, 1:] != one[:, :-1]]
    return np.concatenate([across, along])


def distance_to(curve: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    return cdist(points.astype(np.float64), curve).min(axis=1)


def tick_curves() -> NDArray[np.float64]:
    first = np.linspace(-3, 3, 6001)
    return np.concatenate([np.stack([first, np.abs(first) - shift], axis=1) for shift in (0, 2)])


def test_all_shapes_are_there():
    assert set(SHAPES) == {
        "tick",
        "circles",
        "sectors",
        "stripe",
        "diamond",
        "peaks",
        "cross",
        "union_jack",
    }
    assert all(shape.name == name for name, shape in SHAPES.items())


@every_shape
def test_the_classes_have_equal_areas(name: str):
    assert SHAPES[name].is_one(grid(2.0).reshape(-1, 2)).mean() == pytest.approx(0.5, abs=0.01)


@every_shape
def test_the_curves_are_exactly_where_the_class_changes(name: str):
    points = generator().uniform(-2, 2, (400, 2))
    brute = distance_to(class_changes(name), points)
    # The grid cannot see into the last STEP or so of a sharp corner.
    np.testing.assert_allclose(boundary_distance(SHAPES[name], points), brute, atol=2 * STEP)


def test_the_tick_is_the_one_of_the_paper():
    points = generator().uniform(-2, 2, (300, 2))
    first, second = points.T
    between = (np.abs(first) - 2 < second) & (second < np.abs(first))
    np.testing.assert_array_equal(SHAPES["tick"].is_one(points), ~between)
    brute = distance_to(tick_curves(), points)
    np.testing.assert_allclose(boundary_distance(SHAPES["tick"], points), brute, atol=1e-3)


@every_shape
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.4])
def test_informative_points_keep_class_margin_and_square(name: str, margin: float):
    shape, one = SHAPES[name], halves(600)
    points = informative_points(shape, one, margin=margin, generator=generator())
    assert points.dtype == np.float32
    assert np.abs(points).max() <= 2
    np.testing.assert_array_equal(shape.is_one(points), one)
    assert boundary_distance(shape, points).min() >= margin
    assert distance_to(class_changes(name), points).min() >= margin - STEP


def test_the_tick_margin_against_dense_curves():
    points = informative_points(SHAPES["tick"], halves(2000), margin=0.1, generator=generator())
    nearest = distance_to(tick_curves(), points).min()
    # The margin is used to the full: with 2,000 points some are hardly farther away than it asks.
    assert 0.1 - 1e-7 <= nearest < 0.102


def test_informative_points_are_uniform_in_their_class():
    # Between the curves |x1| and the height above the lower curve are uniform on [0, 2] and independent.
    inside = np.zeros(2000, dtype=np.bool_)
    first, second = informative_points(SHAPES["tick"], inside, margin=0.0, generator=generator()).T
    height = second - np.abs(first) + 2
    uniform = stats.uniform(0, 2).cdf
    assert stats.kstest(np.abs(first), uniform).pvalue > 1e-3
    assert stats.kstest(height, uniform).pvalue > 1e-3
    assert stats.binomtest(int((first > 0).sum()), len(first)).pvalue > 1e-3
    assert abs(np.corrcoef(first, height)[0, 1]) < 0.08


@every_shape
def test_boundary_points_lie_on_the_curves_inside_the_square(name: str):
    points = boundary_points(SHAPES[name], 600, generator=generator())
    assert points.shape == (600, 2)
    assert np.abs(points).max() <= 2
    assert boundary_distance(SHAPES[name], points).max() < 1e-6
    changes = class_changes(name)
    assert distance_to(changes, points).max() < STEP
    # Every stretch of the boundary is visited.
    inside = changes[np.abs(changes).max(axis=1) < 2]
    assert cdist(inside, points.astype(np.float64)).min(axis=1).max() < 0.5


def test_boundary_points_of_the_tick_are_uniform_on_either_curve():
    first, second = boundary_points(SHAPES["tick"], 4000, generator=generator()).T
    upper = np.abs(second - np.abs(first)) < 1e-5
    assert np.abs(second[~upper] - np.abs(first[~upper]) + 2).max() < 1e-5
    assert stats.binomtest(int(upper.sum()), len(upper)).pvalue > 1e-3
    for curve in (upper, ~upper):
        assert stats.kstest(first[curve], stats.uniform(-2, 4).cdf).pvalue > 1e-3


def test_boundary_points_of_circles_follow_the_length_and_the_angle():
    points = boundary_points(SHAPES["circles"], 4000, generator=generator())
    inner, outer = 0.8, sqrt(0.8**2 + 8 / pi)
    small = np.hypot(*points.T) < 1
    assert stats.binomtest(int(small.sum()), len(points), inner / (inner + outer)).pvalue > 1e-3
    angles = np.arctan2(points[:, 1], points[:, 0])
    assert stats.kstest(angles, stats.uniform(-pi, 2 * pi).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("name", "farthest"),
    # In closed form: the point of the tighter class that is farthest from every curve.
    [
        ("circles", (sqrt(0.8**2 + 8 / pi) - 0.8) / 2),
        ("stripe", (4 - 2 * sqrt(2)) / sqrt(2)),
        ("diamond", sqrt(2)),
        ("cross", sqrt(2) * (2 - sqrt(2))),
    ],
)
def test_the_margin_limit_is_just_below_the_farthest_point(name: str, farthest: float):
    assert 0.9 * farthest < margin_limit(SHAPES[name]) <= farthest + 1e-9


@every_shape
def test_a_margin_near_its_limit_works_and_one_at_it_does_not(name: str):
    shape, limit = SHAPES[name], margin_limit(SHAPES[name])
    points = informative_points(shape, halves(10), margin=0.98 * limit, generator=generator())
    assert boundary_distance(shape, points).min() >= 0.98 * limit
    with pytest.raises(TaskError, match=f"margin.*{name}"):
        informative_points(shape, halves(10), margin=limit, generator=generator())


@given(
    margin=st.floats(max_value=0, exclude_max=True)
    | st.floats(min_value=2)
    | st.sampled_from([float("nan"), float("inf")])
)
def test_margins_out_of_range_are_refused(margin: float):
    with pytest.raises(TaskError, match=r"margin must be at least 0 and below 0\.78 for shape 'tick'"):
        check_margin(SHAPES["tick"], margin)


@every_shape
def test_samplers_take_no_or_few_points_and_repeat_themselves(name: str):
    shape = SHAPES[name]
    assert boundary_points(shape, 0, generator=generator()).shape == (0, 2)
    few = boundary_points(shape, 5, generator=generator(3))
    # More points start with the same ones.
    np.testing.assert_array_equal(few, boundary_points(shape, 9000, generator=generator(3))[:5])
    assert not np.array_equal(few, boundary_points(shape, 5, generator=generator(4)))
