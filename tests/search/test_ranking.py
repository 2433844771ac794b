import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.search.ranking import Ranked, gain, near_best, projected, ranking, trial
from lratlas.search.segments import SegmentResult, make_segment
from search.find_helpers import STEPS, Valley, a_search, failed, result, searched

METRIC = st.floats(min_value=-100, max_value=100)
LOSS = st.floats(min_value=0.01, max_value=100)


def told(lr: float, stop: int, value: float | None, *, seed: int = 0, start: int = 0, **others: Any) -> SegmentResult:
    parent = "the one before" if start else None
    asked = make_segment(lr=lr, seed=seed, start=start, stop=stop, parent=parent, **others)
    return failed(asked) if value is None else result(asked, value)


def course(*values: float | None, lr: float = 0.1, first: int = 400) -> list[SegmentResult]:
    """A trial whose steps double."""
    return [told(lr, first * 2**rung, value) for rung, value in enumerate(values)]


def standing(lr: float, score: float) -> Ranked:
    return Ranked(lr=lr, score=score, steps=100, seeds=1)


def test_a_trial_is_one_lr_and_seed_in_order_of_its_steps():
    wanted = course(3.0, 2.0, 1.0)
    others = [told(0.2, 400, 1.0), told(0.1, 400, 1.0, seed=1), told(0.1, 2000, 1.0, start=1600, anneal_from=1600)]
    assert trial([*others, wanted[2], wanted[0], wanted[1]], 0.1) == wanted
    assert trial([*others, *wanted], 0.1, seed=1) == [others[1]]
    assert trial(wanted, 0.3) == []


@given(before=METRIC, last=METRIC, doublings=st.integers(0, 8))
def test_each_further_doubling_adds_half_of_what_the_one_before_it_did(before: float, last: float, doublings: int):
    metric, added = last, last - before
    for _ in range(doublings):
        added /= 2
        metric += added
    search = a_search(direction="maximize")
    score = projected(search, course(before, last), doublings=doublings)
    assert search.metric(score) == pytest.approx(metric, abs=1e-9)


@given(before=LOSS, last=LOSS, doublings=st.integers(0, 8))
def test_a_loss_above_zero_falls_by_the_root_of_the_factor_before(before: float, last: float, doublings: int):
    metric, factor = last, last / before
    for _ in range(doublings):
        factor **= 0.5
        metric *= factor
    search = a_search()
    assert search.metric(projected(search, course(before, last), doublings=doublings)) == pytest.approx(metric)


def test_a_loss_at_or_below_zero_changes_by_differences():
    search = a_search()
    assert search.metric(projected(search, course(1.0, -1.0), doublings=1)) == -2.0
    assert search.metric(projected(search, course(1.0, 0.0), doublings=1)) == -0.5


@given(one=st.floats(0, 3), other=st.floats(0, 3))
def test_parts_of_doublings_add_up(one: float, other: float):
    search, results = a_search(direction="maximize"), course(1.0, 2.0)
    start, first, second, both = (
        projected(search, results, doublings=doublings) for doublings in (0, one, other, one + other)
    )
    # After the first part all that is still to come is smaller by what a geometric series says.
    assert both - first == pytest.approx(0.5**one * (second - start))


def test_a_gain_is_what_the_last_doubling_brought():
    assert gain(a_search(), course(5.0, 2.0, 1.5)) == 0.5
    assert gain(a_search(direction="maximize"), course(5.0, 2.0, 1.5)) == -0.5


@pytest.mark.parametrize(
    "results",
    [[], course(1.0), course(2.0, 1.0, first=STEPS // 64), course(None, 1.0), course(1.0, None)],
    ids=["nothing", "one length", "a beginning", "failed before", "failed at last"],
)
def test_without_two_good_lengths_no_gain_is_known(results: Sequence[SegmentResult]):
    assert gain(a_search(), results) == 0


def test_gains_count_from_a_32nd_of_the_steps_on():
    assert gain(a_search(), course(2.0, 1.0, first=STEPS // 32)) == 1


def test_what_failed_or_was_not_trained_is_expected_to_reach_nothing():
    search = a_search()
    assert projected(search, [], doublings=1) == -math.inf
    assert projected(search, course(1.0, None), doublings=1) == -math.inf


def test_averaged_weights_are_ranked_where_they_were_told():
    asked = make_segment(lr=0.1, seed=0, start=0, stop=400, parent=None)
    assert projected(a_search(), [result(asked, 0.5, averaged=0.25)], doublings=2) == -0.25


def test_nothing_stands_before_anything_was_told():
    assert ranking(a_search(), []) == []
    assert ranking(a_search(), [failed(make_segment(lr=0.1, seed=0, start=0, stop=100, parent=None))]) == []


def test_the_longest_rung_with_three_lrs_is_compared():
    results = [each for lr in (0.4, 0.1, 0.2, 0.3) for each in course(1 + lr, lr=lr)]
    results += [told(lr, 800, 0.5 + lr) for lr in (0.3, 0.1, 0.2)]
    results += [told(lr, 1600, 0.25 + lr) for lr in (0.1, 0.2)]
    found = ranking(a_search(), results)
    assert [(each.lr, each.steps, each.seeds) for each in found] == [(0.1, 1600, 1), (0.2, 1600, 1), (0.3, 800, 1)]
    # Two doublings are left from 1,600 steps to 6,400, and three from 800.
    two, three = 1 / 2 + 1 / 4, 1 / 2 + 1 / 4 + 1 / 8
    expected = [0.35 * (0.35 / 0.6) ** two, 0.45 * (0.45 / 0.7) ** two, 0.8 * (0.8 / 1.3) ** three]
    assert [-each.score for each in found] == pytest.approx(expected)


def test_without_three_lrs_on_a_rung_the_fullest_one_is_compared():
    results = [told(lr, 100, lr) for lr in (0.1, 0.2)] + [told(0.2, 200, 0.1)]
    assert [each.lr for each in ranking(a_search(), results)] == [0.1, 0.2]
    results += [told(0.1, 200, 0.05)]
    assert {each.steps for each in ranking(a_search(), results)} == {200}


def test_failures_and_branches_make_no_rung():
    results = [told(lr, 100, lr) for lr in (0.1, 0.2, 0.3)]
    results += [told(lr, 200, None) for lr in (0.1, 0.2, 0.3)]
    results += [told(lr, 125, 0.0, start=100, anneal_from=100) for lr in (0.1, 0.2, 0.3)]
    found = ranking(a_search(), results)
    assert [each.lr for each in found] == [0.1, 0.2, 0.3]
    assert {each.score for each in found} == {-math.inf}  # they failed when they went on


def test_other_seeds_enter_as_a_mean_on_the_rung_that_is_compared():
    seeds = {0: 1.0, 1: 0.8, 2: 0.3}
    results = [told(lr, 400, lr + value, seed=seed) for lr in (0.1, 0.2, 0.4) for seed, value in seeds.items()]
    found = ranking(a_search(), results)
    assert [each.seeds for each in found] == [3, 3, 3]
    assert [-each.score for each in found] == pytest.approx([0.8, 0.9, 1.1])
    results.append(told(0.1, 800, 0.9))
    # The first seed fell from 1.1 to 0.9 and has three doublings to go; all seeds are at 0.8 on average, it at 1.1.
    expected = 0.9 * (0.9 / 1.1) ** (1 / 2 + 1 / 4 + 1 / 8) * 0.8 / 1.1
    assert -ranking(a_search(), results)[0].score == pytest.approx(expected)


def test_an_lr_that_fails_with_another_seed_is_not_relied_on():
    results = [told(lr, 400, lr) for lr in (0.1, 0.2, 0.4)] + [told(0.2, 400, None, seed=1)]
    scores = {each.lr: each.score for each in ranking(a_search(), results)}
    assert scores == {0.1: -0.1, 0.2: -math.inf, 0.4: -0.4}


def test_the_order_of_telling_does_not_matter():
    search = a_search()
    results = searched(search, Valley())
    expected = ranking(search, results)
    assert len(expected) == 4
    assert ranking(search, results[::-1]) == expected


def test_what_is_near_the_best_is_within_the_tolerance_of_it():
    ranked = [standing(lr, -score) for lr, score in ((1, 110), (2, 104), (3, 100), (4, 105), (5, 105.1))]
    near = near_best(a_search(tolerance=0.05), ranked)
    assert [each.lr for each in near] == [2, 3, 4]
    assert near_best(a_search(tolerance=0.0), ranked) == [ranked[2]]


def test_a_gap_ends_what_is_near():
    ranked = [standing(lr, score) for lr, score in ((1, 1.0), (2, 0.5), (3, 0.999), (4, 1.0))]
    # Of equal ones the larger LR counts as the best.
    assert [each.lr for each in near_best(a_search(), ranked)] == [3, 4]


@given(
    scores=st.lists(st.floats(-10, 10) | st.just(-math.inf), min_size=1, max_size=12).filter(
        lambda scores: max(scores) > -math.inf
    ),
    tolerance=st.floats(0, 0.99),
)
def test_near_ones_are_all_those_around_the_best_without_a_gap(scores: list[float], tolerance: float):
    ranked = [standing(float(place), score) for place, score in enumerate(scores)]
    near = near_best(a_search(tolerance=tolerance), ranked)
    places = [int(each.lr) for each in near]
    assert places == list(range(places[0], places[-1] + 1))
    best = max(scores)
    assert best in {scores[place] for place in places}
    within = [score >= best - tolerance * abs(best) for score in scores]
    assert all(within[place] for place in places)
    assert not any(within[place] for place in (places[0] - 1, places[-1] + 1) if 0 <= place < len(scores))


def test_an_lr_that_failed_stands_between_its_neighbours():
    results = [told(lr, 100, value) for lr, value in ((0.1, 1.0), (0.2, None), (0.4, 1.0), (0.8, 1.0))]
    found = ranking(a_search(), results)
    assert [(each.lr, each.score) for each in found] == [(0.1, -1.0), (0.2, -math.inf), (0.4, -1.0), (0.8, -1.0)]
    assert [each.lr for each in near_best(a_search(), found)] == [0.4, 0.8]
