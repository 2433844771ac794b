"""The tests for a falling and for a settled loss."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.analysis.regimes import falling_p
from lratlas.errors import SpecError
from lratlas.monitor.history import block_means, correlation_excess, trend
from monitor.watch_helpers import ar1

LOSSES = st.lists(st.integers(1, 10**6), min_size=5, max_size=12, unique=True)


def pairs_that_rise(values: tuple[int, ...]) -> int:
    return sum(values[i] < values[j] for j in range(len(values)) for i in range(j))


@pytest.mark.parametrize("order", [(5, 4, 3, 2, 1), (5, 3, 4, 2, 1), (3, 1, 5, 2, 4), (1, 2, 3, 4, 5)])
def test_the_p_value_is_the_share_of_orders_that_fall_as_much(order: tuple[int, ...]) -> None:
    every = list(permutations(order))
    as_much = sum(pairs_that_rise(other) <= pairs_that_rise(order) for other in every)
    assert falling_p(np.array(order, dtype=np.float64)) == pytest.approx(as_much / len(every))


@given(LOSSES)
def test_the_p_value_depends_on_the_order_alone(losses: list[int]) -> None:
    values = np.array(losses, dtype=np.float64)
    assert falling_p(np.log(values)) == falling_p(values)


def test_a_constant_loss_does_not_fall() -> None:
    assert falling_p(np.full(8, 0.3)) == 1.0


def test_four_blocks_are_too_few() -> None:
    assert falling_p(np.array([4.0, 3.0, 2.0, 1.0])) is None


@given(st.integers(8, 300), st.integers(1, 20))
def test_block_means_drop_the_oldest_values(count: int, length: int) -> None:
    values = np.arange(count, dtype=np.float64)
    means = block_means(values, length)
    assert len(means) == count // length
    if len(means):
        assert means[-1] == pytest.approx(values[-length:].mean())


@pytest.mark.parametrize(("correlation", "expected"), [(0.0, 0.0), (0.5, 1.0), (0.8, 4.0)])
def test_the_excess_of_ar1_noise_is_about_its_sum_of_correlations(correlation: float, expected: float) -> None:
    found = [correlation_excess(ar1(256, correlation, seed)) for seed in range(60)]
    assert np.median(found) == pytest.approx(expected, rel=0.3, abs=0.05)


@pytest.mark.parametrize("losses", [np.exp(-np.arange(200) / 40), 1 / np.arange(200.0, 400.0), np.full(200, 0.7)])
def test_a_smooth_course_leaves_no_correlated_noise(losses: np.ndarray) -> None:
    assert correlation_excess(losses) == 0.0


@pytest.mark.parametrize("scale", [1e-4, 7.0])
def test_trends_do_not_depend_on_the_loss_scale(scale: float) -> None:
    losses = 1 / np.arange(100.0, 200.0) + 0.001 * ar1(100, 0.0, 0)
    one, other = trend(losses), trend(scale * losses)
    assert (other.blocks, other.falling_p, other.settled_p) == (one.blocks, one.falling_p, one.settled_p)
    assert other.fall / other.height == pytest.approx(one.fall / one.height)
    assert other.level == pytest.approx(scale * one.level)


def test_a_steady_fall_is_seen_and_not_taken_for_settled() -> None:
    found = trend(np.linspace(2.0, 1.0, 160))
    # The halves' means are 1.75 and 1.25
    assert found.fall == pytest.approx(0.5, rel=0.01)
    assert found.height == pytest.approx(1.75, rel=0.01)
    assert found.falling_p is not None
    assert found.settled_p is not None
    assert found.falling_p < 1e-10
    assert found.settled_p > 0.9


def test_a_plateau_is_settled() -> None:
    found = trend(0.5 + 0.02 * ar1(160, 0.3, 1))
    assert found.falling_p is not None
    assert found.settled_p is not None
    assert found.falling_p > 0.01
    assert found.settled_p < 1e-6


def test_noise_slower_than_the_stretch_gives_no_test() -> None:
    found = trend(10 + np.sin(np.arange(128) / 10))
    assert found.blocks == 0
    assert found.falling_p is None
    assert found.settled_p is None


def test_seven_losses_are_too_few() -> None:
    with pytest.raises(SpecError, match="7 losses"):
        trend(np.ones(7))


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 20))
def test_with_a_start_trends_depend_on_neither_zero_nor_unit(offset: float, unit: float, seed: int) -> None:
    losses = 1 / np.arange(1.0, 1.8, 0.005) + 0.1 * ar1(160, 0.3, seed)
    one, other = trend(losses, start=2.0), trend(offset + unit * losses, start=offset + unit * 2.0)
    assert (other.blocks, other.length) == (one.blocks, one.length)
    assert (other.falling_p, other.settled_p) == (pytest.approx(one.falling_p), pytest.approx(one.settled_p))
    for name in ("fall", "height", "spread"):
        assert getattr(other, name) == pytest.approx(unit * getattr(one, name), rel=1e-4)


@pytest.mark.parametrize("correlation", [0.0, 0.5])
@pytest.mark.parametrize("inside", [1, 8])
def test_the_spread_is_that_of_single_losses(correlation: float, inside: int) -> None:
    singles = (3.0 + 0.2 * ar1(128 * inside, correlation, 0)).reshape(128, inside)
    found = trend(singles.mean(axis=1), variances=singles.var(axis=1), start=5.0)
    assert found.spread == pytest.approx(0.2, rel=0.35)


def test_a_slow_pace_counts_smaller_falls() -> None:
    losses = 2.0 + 0.1 * ar1(160, 0.0, 0)
    full, slow = trend(losses), trend(losses, pace=0.02)
    assert slow.height == pytest.approx(0.02 * full.height)
    assert full.settled_p is not None
    assert slow.settled_p is not None
    assert full.settled_p < 0.05 < slow.settled_p
