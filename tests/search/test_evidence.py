"""What a search knows of its LRs, on results whose noise is known."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import studentized_range

from lratlas.search.choice import forecast, gain
from lratlas.search.evidence import CONFIDENCE, Evidence, Level, critical, is_tie, largest_range
from lratlas.search.regimes import alike, learners, levels, restarted_segments, trusted_results, undecided_lrs
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search
from search.find_helpers import STEPS, Valley, a_search, searched, trained

LRS = (0.01, 0.02, 0.04, 0.08, 0.16)
METRIC = st.floats(0.001, 1000)

Scores = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def table(scores: Scores, *, steps: int = 400) -> list[SegmentResult]:
    """Results with one row per LR and one column per seed."""
    places = [(row, seed) for row in range(scores.shape[0]) for seed in range(scores.shape[1])]
    return [trained(LRS[row], steps, float(scores[row, seed]), seed=seed) for row, seed in places]


def a_level(search: Search, scores: Scores) -> Level:
    return Evidence(search, table(scores)).level(400)


def learned(search: Search, results: Sequence[SegmentResult]) -> list[float]:
    """The LRs that have learned something after 100 steps."""
    return learners(known := Evidence(search, results), known.level(100))


def draws(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def test_a_trial_is_one_lr_and_seed_in_order_of_its_steps():
    wanted = [trained(0.1, steps, 1.0) for steps in (400, 800, 1600)]
    others = [trained(0.2, 400, 1.0), trained(0.1, 400, 1.0, seed=1)]
    others += [trained(0.1, 1600, 1.0, start=800, anneal_from=1280)]
    assert Evidence(a_search(), [*others, wanted[2], wanted[0], wanted[1]]).trial(0.1) == wanted
    assert Evidence(a_search(), [*others, *wanted]).trial(0.1, seed=1) == [others[1]]
    assert Evidence(a_search(), wanted).trial(0.3) == []


def test_a_level_is_a_length_at_which_lrs_were_compared():
    results = [trained(lr, 100, 2 + lr) for lr in LRS] + [trained(lr, 200, 1 + lr, start=100) for lr in LRS[:3]]
    results += [trained(0.01, 200, 0.1, start=100, anneal_from=160)]
    found = levels(Evidence(a_search(), results[::-1]))
    assert [level.steps for level in found] == [100, 200]
    assert [level.lrs for level in found] == [LRS, LRS[:3]]
    assert found[0].scores == pytest.approx([-2 - lr for lr in LRS])
    assert found[1].lrs[found[1].best] == 0.01


def test_what_failed_is_no_competitor_but_is_known():
    results = [trained(lr, 100, None if lr > 0.05 else lr) for lr in LRS] + [trained(0.02, 100, None, seed=1)]
    (level,) = levels(Evidence(a_search(), results))
    assert level.lrs == (0.01, 0.04)
    assert level.failed == {0.02, 0.08, 0.16}


@pytest.mark.parametrize(("others", "counts"), [((0.01, 0.02), True), ((0.01,), False), ((0.16,), False)])
def test_a_length_compares_the_best_lr_of_the_one_before_with_another(others: tuple[float, ...], counts: bool):
    results = [trained(lr, 100, 1 + 50 * lr) for lr in LRS] + [trained(lr, 200, 0.5) for lr in others]
    assert [level.steps for level in levels(Evidence(a_search(), results))] == ([100, 200] if counts else [100])


def test_two_lrs_are_compared_where_none_had_learned_before():
    # At first all three are at chance; the largest one then diverges.
    search = a_search(direction="maximize", chance=0.1, limit=1.0, samples=1000)
    results = [trained(lr, 100, 0.1) for lr in (0.01, 0.1, 1.0)]
    results += [trained(0.01, 200, 0.1), trained(0.1, 200, 0.6)]
    assert [level.steps for level in levels(Evidence(search, results))] == [100, 200]


def test_of_equal_lrs_the_smallest_is_the_best():
    level = a_level(a_search(), np.array([[2.0], [1.0], [1.0]]))
    assert level.lrs[level.best] == 0.02
    assert level.behind(0) == 1.0
    assert level.behind(2) == 0.0


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), effects=st.lists(st.floats(-1, 1), min_size=2, max_size=4))
def test_what_a_seed_does_to_all_lrs_alike_is_no_noise(seed: int, effects: list[float]):
    search = a_search(direction="maximize", limit=10.0)
    scores = draws(5, 1 + len(effects), seed=seed)
    plain, shifted = a_level(search, scores), a_level(search, scores + np.array([0.0, *effects]))
    assert shifted.scores == pytest.approx(plain.scores)
    assert shifted.noise == pytest.approx(plain.noise)
    assert shifted.near() == plain.near()


def residual(scores: Scores) -> float:
    """The standard deviation of one value in a two-way analysis of variance without replication."""
    rest = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    return math.sqrt(float((rest**2).sum()) / ((len(scores) - 1) * (scores.shape[1] - 1)))


@pytest.mark.parametrize("spread", [0.001, 0.1, 10.0])
def test_with_many_seeds_the_noise_is_that_of_an_analysis_of_variance(spread: float):
    scores = 5 + spread * draws(5, 200) + draws(200)
    level = a_level(a_search(direction="maximize", limit=6.0), scores)
    # The distance to the limit makes a small spread a little larger: the prior counts as a few seeds do.
    assert level.noise == pytest.approx(residual(scores), rel=0.05, abs=0.01)
    assert level.seeds == (200,) * 5


@given(spread=st.floats(0.001, 10), seeds=st.integers(2, 6))
def test_the_noise_lies_between_what_was_expected_and_what_was_seen(spread: float, seeds: int):
    search = a_search(direction="maximize", limit=100.0)
    scores = spread * draws(5, seeds)
    level = a_level(search, scores)
    # The same means, from one seed that shows no noise.
    prior = a_level(search, np.array(level.scores)[:, None]).noise
    low, high = sorted((prior, residual(scores)))
    assert low * (1 - 1e-9) <= level.noise <= high * (1 + 1e-9)


def test_more_seeds_tell_smaller_differences():
    scores = np.array([[1.0, 1.1], [1.05, 1.15], [2.0, 2.1]])
    search = a_search(limit=0.0)
    one, two = a_level(search, scores[:, :1]), a_level(search, scores)
    assert two.noise <= one.noise  # seeds agree on the order
    assert two.error(1) == pytest.approx(two.noise)  # sqrt(1/2 + 1/2)
    assert one.error(1) == pytest.approx(one.noise * math.sqrt(2))


@given(scores=st.lists(METRIC, min_size=1, max_size=5))
def test_near_are_those_behind_by_less_than_the_noise(scores: list[float]):
    level = a_level(a_search(), np.array(scores)[:, None])
    best = min(scores)
    most = critical(len(scores) - 1, CONFIDENCE) * level.noise * math.sqrt(2)
    expected = [lr for lr, score in zip(LRS, scores, strict=False) if score - best <= most]
    assert level.near() == expected
    assert level.lrs[level.best] in expected
    assert set(level.near(margin=1.0)) >= set(expected)
    assert level.near(margin=math.inf) == list(level.lrs)


@pytest.mark.parametrize("limit", [1.0, 100.0])
def test_the_error_of_an_accuracy_is_binomial(limit: float):
    search = a_search(direction="maximize", limit=limit, samples=10_000)
    nothing = Evidence(search, [])
    error = nothing.validation_error([], 0.8 * limit)
    assert error == pytest.approx(limit * math.sqrt(0.8 * 0.2 / 10_000), rel=1e-3)
    # All right or all wrong among n does not prove that the next one is, too.
    assert 0 < nothing.validation_error([], limit) < error
    assert nothing.validation_error([], limit) == pytest.approx(nothing.validation_error([], 0.0))


def test_errors_that_were_told_are_the_noise_of_validation():
    results = [trained(lr, 100, 0.5, error=error) for lr, error in zip(LRS, (0.1, 0.2, 0.3, 0.4, None), strict=True)]
    assert Evidence(a_search(), results).validation_error(results, -0.5) == pytest.approx(0.25)
    assert Evidence(a_search(), []).validation_error([trained(0.1, 100, 0.5)], -0.5) == 0


@pytest.mark.parametrize(
    ("direction", "metrics", "limit"),
    [
        ("minimize", (0.5, 3.0), 0.0),
        ("minimize", (-0.5, 3.0), None),
        ("maximize", (0.5, 0.9), 1.0),
        ("maximize", (0.5, 90.0), 100.0),
        ("maximize", (0.5, 1000.0), None),
        ("maximize", (-0.5, 0.9), None),
    ],
)
def test_the_best_possible_metric_follows_from_those_seen(
    direction: str, metrics: tuple[float, float], limit: float | None
):
    results = [trained(lr, 100, metric) for lr, metric in zip(LRS, metrics, strict=False)]
    assert Evidence(a_search(direction=direction), results).limit == limit
    assert Evidence(a_search(direction=direction, limit=0.25), results).limit == 0.25
    assert Evidence(a_search(direction=direction), []).limit is None


def test_the_distance_is_to_the_best_possible_metric_or_from_the_worst_seen():
    results = [trained(lr, 100, metric) for lr, metric in zip(LRS, (0.2, 0.5, 0.6), strict=False)]
    assert Evidence(a_search(direction="maximize"), results).distance(0.6) == pytest.approx(0.4)
    assert Evidence(a_search(limit=0.1), results).distance(-0.2) == pytest.approx(0.1)
    negative = [*results, trained(0.3, 100, -0.4)]
    assert Evidence(a_search(direction="maximize"), negative).distance(0.6) == pytest.approx(1.0)


def test_at_chance_hardly_any_lr_has_learned():
    search = a_search(direction="maximize", chance=0.1, limit=1.0, samples=1000)
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        shares = rng.binomial(1000, 0.1, size=21) / 1000
        results = [trained(lr, 100, float(share)) for lr, share in zip(search.lrs, shares, strict=True)]
        wrong += bool(learned(search, results))
    assert wrong < 0.15 * 200


@pytest.mark.parametrize(("direction", "good", "bad"), [("maximize", 0.5, 0.1), ("minimize", 0.1, 0.5)])
def test_what_is_far_better_than_chance_has_learned(direction: str, good: float, bad: float):
    search = a_search(direction=direction, chance=0.2, samples=1000 if direction == "maximize" else None)
    metrics = (bad, good, 0.2, good, bad)
    results = [trained(lr, 100, metric) for lr, metric in zip(LRS, metrics, strict=True)]
    assert learned(search, results) == [0.02, 0.08]


def test_without_chance_the_median_stands_for_it():
    metrics = (0.9, 0.9, 0.2, 0.9, 0.9)
    results = [trained(lr, 100, metric) for lr, metric in zip(LRS, metrics, strict=True)]
    assert learned(a_search(), results) == [0.04]
    same = [trained(lr, 100, 0.9) for lr in LRS]
    assert learned(a_search(), same) == []


def test_without_chance_a_loss_that_fell_shows_learning():
    results = [trained(lr, 100, 0.9, losses=(2.0, 2.0 if lr < 0.03 else 1.0)) for lr in LRS]
    assert learned(a_search(), results) == [0.04, 0.08, 0.16]
    # With chance it is the metric that counts, whatever the loss.
    known = a_search(chance=0.9)
    assert learned(known, results) == []


def test_nothing_was_learned_where_nothing_was_compared():
    failures = [trained(lr, 100, None) for lr in LRS]
    assert learned(a_search(), failures) == []


def test_alike_are_lrs_whose_metrics_and_losses_are_the_same():
    same = [trained(lr, 100, 0.5 + seed, seed=seed, losses=(2.0, 1.0 + seed)) for lr in LRS for seed in (0, 1)]
    assert alike(same, 100)
    rounded = [*same, trained(0.3, 100, 0.5, losses=(2.0, 1.0 + 1e-9))]
    assert alike(rounded, 100)
    assert not alike([*same, trained(0.3, 100, 0.5, losses=(2.0, 1.01))], 100)
    assert not alike([*same, trained(0.3, 100, 0.50001, losses=(2.0, 1.0))], 100)


def test_undecided_are_lrs_whose_losses_moved_but_not_up():
    ends = {0.01: 2.0, 0.02: 2.0 + 1e-9, 0.04: 1.9, 0.08: 1.5, 0.16: 4.0}
    results = [trained(lr, 100, 0.5, losses=(2.0, end)) for lr, end in ends.items()]
    assert undecided_lrs(results) == {0.04, 0.08}
    assert undecided_lrs([trained(0.1, 100, 0.5)]) == set()


def test_harder_batches_do_not_count_against_an_lr():
    # All losses are higher in the last batches; a larger LR learns a little there.
    ends = {0.01: 2.5, 0.02: 2.4, 0.04: 2.9}
    results = [trained(lr, 100, 0.5, losses=(2.0, end)) for lr, end in ends.items()]
    assert undecided_lrs(results) == {0.02}


def resumed(lr: float, after: float) -> list[SegmentResult]:
    """A training whose loss fell from 2 to 1, and another segment whose loss begins where ``after`` says."""
    first = trained(lr, 100, 0.5, losses=np.linspace(2.0, 1.0, 64).tolist())
    return [first, trained(lr, 200, 0.4, start=100, losses=[after] * 64)]


def test_a_loss_that_begins_again_shows_a_state_that_was_not_loaded():
    lost = [each for lr in LRS for each in resumed(lr, 2.0)]
    assert restarted_segments(lost) == [f"lr{lr:g}-seed0-to200" for lr in LRS]
    assert [each.segment.parent for each in trusted_results(lost)] == [None] * 5
    loaded = [each for lr in LRS for each in resumed(lr, 1.0)]
    assert restarted_segments(loaded) == []
    assert trusted_results(loaded) == loaded


def test_one_segment_that_begins_high_is_an_accident():
    mixed = [*resumed(0.01, 2.0), *(each for lr in LRS[1:] for each in resumed(lr, 1.0))]
    assert restarted_segments(mixed) == ["lr0.01-seed0-to200"]
    assert trusted_results(mixed) == mixed


def test_where_the_loss_had_not_fallen_nothing_can_be_said():
    flat = [
        each
        for lr in LRS
        for each in (trained(lr, 100, 0.5, losses=[2.0] * 9), trained(lr, 200, 0.4, start=100, losses=[2.0] * 9))
    ]
    assert restarted_segments(flat) == []


def courses(metrics: Sequence[float], *, first: int = STEPS // 16) -> list[SegmentResult]:
    """Three LRs with the same metrics at lengths that double."""
    return [
        trained(lr, first * 2**at, metric, start=first * 2**at // 2 if at else 0)
        for at, metric in enumerate(metrics)
        for lr in LRS[:3]
    ]


@settings(max_examples=200)
@given(
    metrics=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    samples=st.none() | st.integers(1, 10**6),
    steps=st.sampled_from([STEPS, 100 * STEPS]),
)
def test_a_forecast_of_an_accuracy_is_an_accuracy(metrics: list[float], samples: int | None, steps: int):
    search = a_search(steps=steps, direction="maximize", limit=1.0, samples=samples)
    results = courses(metrics)
    found = forecast(known := Evidence(search, results), LRS[0], level=levels(known)[-1])
    assert found is None or 0 <= found.low <= found.value <= found.high <= 1


@settings(max_examples=200)
@given(metrics=st.lists(st.floats(0, 1e6), min_size=1, max_size=5), limit=st.sampled_from([None, 0.0]))
def test_a_forecast_of_a_loss_is_never_negative(metrics: list[float], limit: float | None):
    search = a_search(limit=limit)
    results = courses(metrics)
    found = forecast(known := Evidence(search, results), LRS[0], level=levels(known)[-1])
    assert found is None or 0 <= found.low <= found.value <= found.high < math.inf


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@given(metrics=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5))
def test_a_forecast_without_a_limit_is_an_interval_around_a_number(metrics: list[float], direction: str):
    search = a_search(direction=direction)
    results = [*courses(metrics), trained(0.5, STEPS // 16, -1.0)]
    found = forecast(known := Evidence(search, results), LRS[0], level=levels(known)[-1])
    assert found is None or -math.inf < found.low <= found.value <= found.high < math.inf


@given(metric=st.floats(0.05, 0.9), more=st.integers(1, 4))
def test_a_forecast_widens_with_the_steps_that_were_not_seen(metric: float, more: int):
    results = courses([metric, metric])
    widths = list[float]()
    for doublings in (0, more):
        search = a_search(steps=STEPS // 8 * 2**doublings, direction="maximize", limit=1.0, samples=1000)
        found = forecast(known := Evidence(search, results), LRS[0], level=levels(known)[-1])
        assert found is not None
        assert found.value == pytest.approx(metric)  # there was no gain
        widths.append(found.high - found.low)
    assert widths[1] > widths[0] > 0


def test_nothing_is_expected_where_most_is_still_to_come():
    # No doubling was seen; and the metric is nearer to chance than to the best possible one.
    search = a_search(direction="maximize", limit=1.0, samples=1000, chance=0.1)
    for metrics, said in (([0.8], False), ([0.3, 0.5], False), ([0.5, 0.6], True), ([0.7, 0.8], True)):
        results = courses(metrics)
        found = forecast(known := Evidence(search, results), LRS[0], level=levels(known)[-1])
        assert (found is not None) == said


def test_a_forecast_expects_less_of_every_further_doubling():
    # The distance to zero halves with every doubling up to a quarter.
    results, expected = courses([0.4, 0.2, 0.1]), list[float]()
    for steps in (STEPS // 4, STEPS // 2, STEPS, 2 * STEPS):
        search = a_search(steps=steps, limit=0.0)
        found = forecast(known := Evidence(search, results), LRS[0], level=levels(known)[-1])
        assert found is not None
        expected.append(found.value)
    assert expected[0] == pytest.approx(0.1)
    factors = [after / before for before, after in pairwise(expected)]
    assert 0.5 < factors[0] < factors[1] < factors[2] < 1


@pytest.mark.parametrize(
    ("metrics", "log"),
    [((0.8, 0.4), math.log(2)), ((0.4, 0.4), 0.0), ((0.4, 0.8), -math.log(2))],
)
def test_a_gain_is_how_far_the_last_doubling_brought_the_logarithm_of_the_distance(
    metrics: tuple[float, ...], log: float
):
    search, results = a_search(limit=0.0), courses(metrics)
    known = Evidence(search, results)
    assert gain(known, LRS[0], level=levels(known)[-1]) == pytest.approx(log)


def test_gains_of_a_beginning_do_not_count():
    search, results = a_search(limit=0.0), courses([0.8, 0.4], first=STEPS // 128)
    known = Evidence(search, results)
    assert gain(known, LRS[0], level=levels(known)[-1]) is None


@pytest.mark.parametrize("count", [2, 4, 21])
def test_ranges_of_equal_lrs_are_those_of_tukey(count: int):
    assert largest_range(count, 0.99) == pytest.approx(studentized_range.ppf(0.99, count, 1e6), abs=2e-3)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_the_best_of_equal_lrs_is_near_as_often_as_stated(count: int):
    # Simulated: one of several equal LRs is behind the best one by no more than is allowed.
    scores = draws(40_000, count + 1)
    allowed = critical(count, CONFIDENCE) * math.sqrt(2)
    assert float((scores[:, 0] >= scores.max(1) - allowed).mean()) == pytest.approx(CONFIDENCE, abs=0.01)


def test_the_noise_of_the_validation_set_does_not_shrink_with_seeds():
    search = a_search(direction="maximize", limit=1.0, samples=100)
    scores = np.tile(np.array([[0.8], [0.7], [0.6]]), (1, 16))
    one, many = a_level(search, scores[:, :1]), a_level(search, scores)
    assert many.own < one.own
    assert many.error(1) >= many.shared * math.sqrt(2)
    assert many.shared == pytest.approx(one.shared)


def test_lrs_tie_where_none_is_behind_by_more_than_the_noise():
    search = a_search(direction="maximize", limit=1.0, samples=100)
    close = [trained(lr, 100, 0.8 + lr / 10) for lr in LRS]
    assert is_tie(levels(Evidence(search, close)))
    assert not is_tie(levels(Evidence(search, [*close, trained(0.3, 100, 0.1)])))
    assert not is_tie(levels(Evidence(search, [*close, trained(0.3, 100, None)])))


def test_the_order_of_results_does_not_matter():
    search = a_search(budget=3.0)
    results = searched(search, Valley(noise=0.1, shared=0.1))
    assert levels(Evidence(search, results[::-1])) == levels(Evidence(search, results))
