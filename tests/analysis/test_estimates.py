"""Means over seeds, and the gain of the best of some options over the best of others."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from lratlas.analysis.estimates import best_over_best, cross_validate_choice, over_seeds

Scores = np.ndarray
SEEDS = st.integers(1, 8)


def scores(seeds: int) -> st.SearchStrategy[Scores]:
    return st.integers(1, 4).flatmap(
        lambda count: arrays(np.float64, (count, seeds), elements=st.floats(0, 1, width=16))
    )


def test_one_option_against_one_is_the_paired_t_test() -> None:
    ours, theirs = np.array([[0.8, 0.9, 0.7, 0.8]]), np.array([[0.7, 0.9, 0.5, 0.6]])
    gain = best_over_best(ours, theirs)
    expected = stats.ttest_rel(ours[0], theirs[0])
    low, high = expected.confidence_interval(0.95)
    assert (gain.mean, gain.low, gain.high, gain.seeds) == pytest.approx((0.125, low, high, 4))


@given(st.data(), SEEDS)
def test_the_two_sides_change_the_sign(data: st.DataObject, seeds: int) -> None:
    ours, theirs = data.draw(scores(seeds)), data.draw(scores(seeds))
    one, other = best_over_best(ours, theirs), best_over_best(theirs, ours)
    assert one.mean == pytest.approx(-other.mean)
    assert (one.low is None) == (seeds < 3)
    if one.low is not None and other.high is not None:
        assert one.low == pytest.approx(-other.high)


@given(SEEDS.flatmap(scores), st.floats(-1, 1))
def test_what_all_options_of_a_seed_share_cancels(ours: Scores, shift: float) -> None:
    theirs = ours[:, ::-1] - 0.25
    shared = np.linspace(0, shift, ours.shape[1])
    assert best_over_best(ours + 2, theirs + 2).mean == pytest.approx(best_over_best(ours, theirs).mean)
    assert best_over_best(ours[:1] + shared, theirs[:1] + shared).mean == pytest.approx(
        best_over_best(ours[:1], theirs[:1]).mean
    )


@given(SEEDS.flatmap(scores), st.integers(0, 3))
def test_an_option_that_is_best_in_every_seed_is_taken(others: Scores, at: int) -> None:
    best = np.linspace(2, 3, others.shape[1])
    options = np.insert(others, min(at, len(others)), best, axis=0)
    assert cross_validate_choice(options) == pytest.approx(best.mean() if others.shape[1] > 1 else best.max())


def test_a_seed_has_no_say_in_the_choice_that_it_judges() -> None:
    """The first option is best by one seed alone: where that seed chooses it, only others judge it."""
    assert cross_validate_choice(np.array([[1.0, 0.0, 0.0], [0.4, 0.4, 0.4]])) == pytest.approx((0 + 0 + 0.4) / 3)


def test_one_seed_takes_its_best_on_both_sides() -> None:
    gain = best_over_best(np.array([[0.5], [0.9]]), np.array([[0.7], [0.6]]))
    assert (gain.mean, gain.low, gain.high) == (pytest.approx(0.2), None, None)


def best_mean(table: Scores) -> float:
    return float(table.mean(axis=1).max())


@pytest.mark.parametrize(("pick", "error"), [(best_mean, 0.8), (cross_validate_choice, 0.0)])
def test_choosing_among_equals(pick: Callable[[Scores], float], error: float) -> None:
    """The best of 20 equal options by its own 5 scores looks 1.87 / sqrt(5) = 0.84 better; by others it is not."""
    rng = np.random.default_rng(0)
    gains = [pick(rng.normal(size=(20, 5))) for _ in range(300)]
    assert abs(np.mean(gains) - error) < 0.1


def test_the_mean_over_seeds_has_students_interval() -> None:
    values = np.array([1.0, 2.0, 4.0])
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert (found.mean, found.low, found.high, found.seeds) == pytest.approx((7 / 3, low, high, 3))
    assert over_seeds(values[:2]).low is None
