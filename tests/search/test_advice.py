import math
import random
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lratlas.errors import SearchError
from lratlas.search.advice import EVIDENCE, Advice, advise, peak
from lratlas.search.regimes import Bracket
from lratlas.search.segments import Segment, SegmentResult, make_segment
from lratlas.search.settings import Search
from search.find_helpers import STEPS, Answer, Valley, a_search, cost, failed, result, searched

DECADES = st.lists(st.floats(-6, 2), min_size=3, max_size=12, unique_by=lambda place: round(place, 1)).map(sorted)


@given(places=DECADES, within=st.floats(0.02, 0.98), width=st.floats(0.01, 100), height=st.floats(-100, 100))
def test_the_peak_of_a_parabola_is_exact(places: list[float], within: float, width: float, height: float):
    # Somewhere between the ends of the grid, however uneven it is.
    top = places[0] + within * (places[-1] - places[0])
    scores = [height - width * (place - top) ** 2 for place in places]
    lrs = [10**place for place in places]
    found = math.log10(peak(lrs, scores))
    if max(scores) in {scores[0], scores[-1]}:
        assert found == pytest.approx(places[0] if scores[0] > scores[-1] else places[-1])
    else:
        assert found == pytest.approx(top, abs=1e-4)


@settings(max_examples=50)
@given(places=DECADES, data=st.data())
def test_a_peak_lies_between_the_neighbours_of_the_best(places: list[float], data: st.DataObject):
    lrs = [10**place for place in places]
    number = st.floats(-100, 100) | st.just(-math.inf)
    scores = data.draw(st.lists(number, min_size=len(lrs), max_size=len(lrs)).filter(lambda of: max(of) > -math.inf))
    found = peak(lrs, scores)
    best = max(range(len(lrs)), key=lambda place: (scores[place], place))
    assert lrs[max(best - 1, 0)] * (1 - 1e-9) <= found <= lrs[min(best + 1, len(lrs) - 1)] * (1 + 1e-9)


@pytest.mark.parametrize(
    ("scores", "lr"),
    [
        ([3.0, 2.0, 1.0], 0.01),
        ([1.0, 2.0, 3.0], 1.0),
        ([2.0, 3.0, -math.inf], 0.1),
        ([-math.inf, 3.0, 2.0], 0.1),
        ([2.0, 2.0, 2.0], 1.0),
        ([1.0, 2.0, 1.0], 0.1),
        ([2.0, 2.0, 1.0], 10**-1.5),
    ],
    ids=["at the left end", "at the right end", "before a failure", "after a failure", "flat", "even", "two alike"],
)
def test_peaks_of_three(scores: list[float], lr: float):
    assert peak([0.01, 0.1, 1.0], scores) == pytest.approx(lr)


def test_the_peak_of_one_or_two_is_the_better_one():
    assert peak([0.1], [1.0]) == 0.1
    assert peak([0.1, 0.2], [1.0, 2.0]) == 0.2


def advised(search: Search, answer: Answer) -> Advice:
    return advise(search, searched(search, answer))


def test_an_advice_has_what_the_search_found():
    search, valley = a_search(tolerance=0.05), Valley(best=0.0125, width=0.1)
    results = searched(search, valley)
    advice = advise(search, results)
    assert advice.lr == pytest.approx(0.0125, rel=1e-3)
    assert advice.steps == STEPS
    assert advice.cost == cost(results) / STEPS
    # The nearest LR of the grid is 0.01; from a quarter there are two doublings to go.
    expected = {
        lr: valley.loss(lr, 1600) * (valley.loss(lr, 1600) / valley.loss(lr, 800)) ** (1 / 2 + 1 / 4)
        for lr in search.lrs
    }
    assert advice.expected == pytest.approx(expected[0.01])
    # Here the branch is like any other training that long.
    assert advice.best_steps == 2000
    assert advice.best == valley.loss(0.01, 2000)
    # Those within a twentieth of the best: a distance d costs 0.1 d², and the floor is about 0.45.
    near = [lr for lr in search.lrs if expected[lr] <= 1.05 * min(expected.values())]
    assert len(near) > 1
    assert (advice.low, advice.high) == (near[0], near[-1])
    assert (advice.convergence, advice.divergence) == (None, None)


def test_accuracies_are_told_as_accuracies():
    def accuracy(asked: Segment) -> SegmentResult:
        return result(asked, averaged=0.9 - 0.1 * math.log10(asked.lr / 0.01) ** 2 - 0.01 * STEPS / asked.stop)

    search = a_search(direction="maximize")
    advice = advised(search, accuracy)
    assert advice.lr == pytest.approx(0.01)
    # 0.86 after a quarter and 0.82 after an eighth.
    assert advice.expected == pytest.approx(0.86 + 0.04 * (1 / 2 + 1 / 4))
    assert advice.best == pytest.approx(0.9 - 0.01 * STEPS / 2000)


@pytest.mark.parametrize(("best", "low", "high"), [(0.013, 0.01, 0.013), (0.0085, 0.0085, 0.01)])
def test_the_good_range_holds_the_advised_lr_between_two_of_the_grid(best: float, low: float, high: float):
    advice = advised(a_search(tolerance=0.0), Valley(best=best))
    assert (advice.lr, advice.low, advice.high) == pytest.approx((best, low, high), rel=1e-3)


def test_the_evidence_has_a_row_for_each_segment():
    search = a_search()
    results = searched(search, Valley())
    evidence = advise(search, results).evidence
    assert evidence.schema == EVIDENCE
    assert evidence.height == len(results)
    keys = evidence.select("lr", "seed", "steps", "annealed").rows()
    assert keys == sorted(
        (each.segment.lr, each.segment.seed, each.segment.stop, each.segment.annealed) for each in results
    )
    told = {(each.segment.lr, each.segment.stop): each.averaged for each in results if not each.segment.annealed}
    for row in evidence.filter(~pl.col("annealed")).iter_rows(named=True):
        assert row["averaged"] == told[row["lr"], row["steps"]]


def test_the_longest_trainings_are_one_row_per_lr():
    search = a_search()
    results = searched(search, Valley())
    longest = advise(search, results).longest()
    assert longest["lr"].to_list() == sorted({each.segment.lr for each in results})
    row = longest.row(by_predicate=pl.col("lr") == 0.01, named=True)
    assert (row["steps"], row["value"]) == (STEPS // 4, Valley().loss(0.01, STEPS // 4))


@settings(max_examples=10)
@given(seed=st.integers())
def test_the_order_of_telling_changes_nothing(seed: int):
    search = a_search()
    results = searched(search, lambda asked: result(asked, averaged=0.5))
    plain = advise(search, results)
    random.Random(seed).shuffle(results)
    mixed = advise(search, results)
    assert mixed.evidence.equals(plain.evidence)
    assert str(mixed) == str(plain)
    assert (mixed.lr, mixed.best_steps) == (plain.lr, plain.best_steps)


def with_branch(factor: float, *, averaged: bool = True) -> Answer:
    """A search whose annealed branch comes to a factor times what its averaged weights were expected to reach then."""
    valley = Valley()

    def answer(asked: Segment) -> SegmentResult:
        if not asked.annealed:
            told = valley(asked)
            return told if averaged else result(asked, told.value)
        eighth, quarter = valley.loss(asked.lr, 800), valley.loss(asked.lr, 1600)
        # A doubling is expected to bring half the last fall, and 1.25 times the steps the share 2 (1 - 1 / 1.25) of it.
        return result(asked, factor * quarter * (quarter / eighth) ** (0.5 * 2 * (1 - 1 / 1.25)))

    return answer


@pytest.mark.parametrize(
    ("factor", "finish"), [(1.1, "average"), (1.0, "average"), (0.996, "average"), (0.994, "anneal"), (0.5, "anneal")]
)
def test_annealing_is_advised_where_it_was_better_by_more_than_the_tolerance(factor: float, finish: str):
    assert advised(a_search(), with_branch(factor)).finish == finish


def test_an_annealed_lr_goes_linearly_to_zero_over_the_last_fifth():
    advice = advised(a_search(), with_branch(0.5))
    shares = [advice.lr_at(step) / advice.lr for step in (0, 4 * STEPS // 5, 9 * STEPS // 10, STEPS - STEPS // 100)]
    assert shares == pytest.approx([1, 1, 0.5, 0.05])


def test_an_lr_that_is_not_annealed_stays():
    advice = advised(a_search(), with_branch(2.0))
    assert {advice.lr_at(step) for step in range(0, STEPS, 100)} == {advice.lr}


@pytest.mark.parametrize(("factor", "finish"), [(1.004, "average"), (1.006, "anneal")])
def test_annealing_is_better_where_an_accuracy_is_higher(factor: float, finish: str):
    def accuracy(asked: Segment) -> SegmentResult:
        plain = 0.8 - 0.1 * math.log10(asked.lr / 0.01) ** 2
        return result(asked, factor * plain) if asked.annealed else result(asked, plain, averaged=plain)

    assert advised(a_search(direction="maximize"), accuracy).finish == finish


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_without_averaged_weights_annealing_is_advised_where_it_was_tried(factor: float):
    assert advised(a_search(), with_branch(factor, averaged=False)).finish == "anneal"


def test_without_averaged_weights_and_annealing_the_lr_stays_constant():
    assert advised(a_search(anneal=False), with_branch(1.0, averaged=False)).finish == "constant"


def test_without_a_branch_averaging_is_advised():
    assert advised(a_search(anneal=False), Valley()).finish == "average"
    assert advised(a_search(budget=0.1), Valley()).finish == "average"


def test_a_branch_that_failed_says_nothing():
    assert advised(a_search(), lambda asked: failed(asked) if asked.annealed else Valley()(asked)).finish == "average"


def test_a_threshold_of_divergence_lies_above_the_advised_lr():
    def breaking(asked: Segment) -> SegmentResult:
        if asked.lr > 0.05:
            return result(asked, losses=(2.3, math.nan), failure="loss 2 of 2 is not finite")
        return Valley()(asked)

    search = a_search()
    advice = advised(search, breaking)
    below = max(lr for lr in search.lrs if lr <= 0.05)
    above = min(lr for lr in search.lrs if lr > 0.05)
    assert advice.divergence == Bracket(below=below, above=above)


def test_the_threshold_of_convergence_follows_from_the_losses():
    def answer(asked: Segment) -> SegmentResult:
        steps = np.linspace(asked.start, asked.stop, 64)
        noise = np.random.default_rng([asked.stop, round(1e9 * asked.lr)]).normal(0, 0.02, 64)
        level = 0.5 if asked.lr > 0.02 else 0.0
        losses = (level + (2.3 - level) * np.exp(-steps / (400 if level == 0 else 30))) * (1 + noise)
        return result(asked, Valley(best=0.02)(asked).value, losses=losses.tolist())

    search = a_search()
    advice = advised(search, answer)
    below, above = max(lr for lr in search.lrs if lr <= 0.02), min(lr for lr in search.lrs if lr > 0.02)
    assert advice.convergence == Bracket(below=below, above=above)


def test_one_lr_that_can_be_trained_is_enough():
    search = a_search()
    advice = advised(search, lambda asked: Valley()(asked) if asked.lr == 0.1 else failed(asked))
    assert (advice.lr, advice.low, advice.high) == (0.1, 0.1, 0.1)


def test_without_results_there_is_no_advice():
    with pytest.raises(SearchError, match="Nothing has been told yet"):
        advise(a_search(), [])


def test_where_all_fail_the_first_failure_is_named():
    search = a_search()
    with pytest.raises(SearchError, match=r"None of the LRs could be trained\. The first failure: no disk, lr1e-05\.$"):
        advised(search, lambda asked: failed(asked, f"no disk, {asked.name.split('-seed')[0]}."))


def test_an_lr_that_breaks_on_its_way_is_not_advised():
    search = a_search()
    first = make_segment(lr=0.01, seed=0, start=0, stop=1600, parent=None).name

    def breaking(asked: Segment) -> SegmentResult:
        return failed(asked, "loss 1 of 2 is not finite") if asked.name == first else Valley(width=0.01)(asked)

    advice = advised(search, breaking)
    assert advice.lr != pytest.approx(0.01)
    assert not advice.low <= 0.01 <= advice.high


def test_metrics_of_the_last_weights_do_for_an_advice():
    advice = advised(a_search(), lambda asked: result(asked, Valley().loss(asked.lr, asked.stop)))
    assert advice.lr == pytest.approx(0.01)
    assert advice.best == Valley().loss(0.01, 2000)


def test_advices_are_compared_by_what_they_say():
    search = a_search()
    one, same = (advised(search, Valley()) for _ in range(2))
    other, poorer = advised(search, Valley(best=0.02)), replace(one, evidence=one.evidence.head(3))
    assert one == same
    assert hash(one) == hash(same)
    assert {one, same, other, poorer} == {one, other, poorer}
    assert len({other, one, poorer}) == 3
    assert one != "advice"


def test_an_advice_is_one_line_for_developers_and_sentences_for_people():
    advice = advised(a_search(), Valley(best=0.01))
    pattern = r"Advice\(lr=0\.01, low=\S+, high=\S+, finish='\w+', expected=\S+, cost=\S+\)"
    assert re.fullmatch(pattern, repr(advice))
    assert str(advice).startswith("Use an initial LR of ")
