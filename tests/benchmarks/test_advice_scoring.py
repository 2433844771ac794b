"""How the advice benchmark judges choices: against values that can be checked by hand."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.advice import no_lr
from benchmarks.advice.choices import Choice, as_table
from benchmarks.advice.coverage import coverages
from benchmarks.advice.cpu import costs
from benchmarks.advice.expected import reached, wilson
from benchmarks.advice.oracle import JUDGES
from benchmarks.advice.problem import chance
from benchmarks.advice.report import chart_data, cost_table, coverage_table, expected_table, standings_table
from benchmarks.advice.resampling import Estimate, resamples
from benchmarks.advice.scoring import judge, kept, kept_on_grid, matters, regret
from benchmarks.advice.standings import Standing, regrets, standings, verdicts
from benchmarks.advice.surface import Surface, surface
from small_problems import LRS, line, oracle_rows, sides

END, ANNEAL, HALF = ("average10", 1.0), ("anneal", 1.0), ("average10", 1 / 2)


def alike(*values: float) -> list[list[float]]:
    """The same values over the LRs for every judge, but for shifts that cancel."""
    return [[value + shift for value in values] for shift in (-1, -0.5, 0, 0.5, 1)]


def judged_surface(*values: float) -> Surface:
    return surface(sides(), oracle_rows(sides(), JUDGES, {END: alike(*values)}), JUDGES)


def choice(lr: float | None, **changes: object) -> Choice:
    given = {"method": "any", "problem": "sides", "seed": 0, "lr": lr} | changes
    return Choice(**given)  # pyright: ignore[reportArgumentType] - fields by name


def test_a_surface_is_linear_in_log_lr_and_at_chance_level_above_the_grid() -> None:
    known = judged_surface(60, 80, 70)
    assert known.test_at(END, 0.1).tolist() == pytest.approx([79, 79.5, 80, 80.5, 81])
    assert known.test_at(END, 0.01 * 10**0.25)[2] == pytest.approx(65)
    assert known.test_at(END, 1e-9)[2] == pytest.approx(60)
    assert known.test_at(END, 1.1).tolist() == [75] * 5  # six of eight, whatever the inputs


def test_a_surface_has_the_seeds_that_it_is_asked_for_or_says_which_it_lacks() -> None:
    rows = oracle_rows(sides(), (0, 1), {END: [[60, 80, 70], [61, 81, 71]]})
    assert surface(sides(), rows, [1]).test[END].tolist() == [[61, 81, 71]]
    with pytest.raises(ValueError, match="no runs of sides with seed 7"):
        surface(sides(), rows, (0, 7))


def test_each_training_keeps_the_model_that_validates_best_in_it() -> None:
    validation = {END: [[50, 90, 50], [50, 60, 50]], HALF: [[50, 80, 50], [50, 70, 50]]}
    test = {END: [[0, 1, 0], [0, 2, 0]], HALF: [[0, 3, 0], [0, 4, 0]]}
    known = surface(sides(), oracle_rows(sides(), (3, 4), test, validation), (3, 4))
    assert kept(known, 0.1).test.tolist() == [1, 4]
    assert kept(known, 0.1).validation.tolist() == [90, 70]
    assert kept_on_grid(known).test[:, 1].tolist() == [1, 4]


def test_the_finish_is_the_one_that_was_advised() -> None:
    values = {END: [[60, 80, 70]], ANNEAL: [[61, 85, 60]], ("constant", 1.0): [[90, 90, 90]]}
    known = surface(sides(), oracle_rows(sides(), (3,), values), (3,))
    tests = {name: kept(known, 0.1, name).test[0] for name in ("average", "anneal", "either", "constant")}
    assert tests == {"average": 80, "anneal": 85, "either": 85, "constant": 90}


def test_a_regret_is_the_best_lr_minus_the_chosen_one() -> None:
    known = judged_surface(60, 80, 70)
    tests = np.stack([kept(known, lr).test for lr in (0.01, 1.0)])
    found = regret(known, tests)
    assert found.whole == pytest.approx(15)  # of 20 and 10
    assert found.estimate is not None
    # The judges shift all LRs alike, so that only the two searches differ; a replicate draws one of them.
    assert found.estimate.error == pytest.approx(5, rel=0.05)
    assert regret(known, kept(known, 0.1).test[None]).estimate == Estimate(value=0, error=0)


def test_losses_are_relative_and_never_above_chance() -> None:
    problem = line()
    floor = chance(problem, problem.split.test)
    values = {END: [[1.5, 1.2, 1e9]] * 5}
    known = surface(problem, oracle_rows(problem, JUDGES, values), JUDGES)
    assert regret(known, kept(known, 0.01).test[None]).whole == pytest.approx(10)  # 25% of the loss
    assert kept(known, 1.0).test.tolist() == pytest.approx([floor] * 5)


@given(
    values=st.lists(st.lists(st.floats(10, 99), min_size=3, max_size=3), min_size=5, max_size=5),
    place=st.integers(0, 2),
)
def test_no_lr_of_the_grid_beats_the_best(values: list[list[float]], place: int) -> None:
    known = surface(sides(), oracle_rows(sides(), JUDGES, {END: values}), JUDGES)
    found = regret(known, kept(known, LRS[place]).test[None])
    assert found.whole >= -1e-9
    assert (found.replicates >= -1e-9).all()


def test_resampled_means_have_the_variance_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=(3, 5))
    only_searches = values[:, :1] + np.zeros((3, 5))
    means = resamples("any", searches=3, judges=5).means(only_searches)
    assert means.std() == pytest.approx(values[:, 0].std(ddof=1) / math.sqrt(3), rel=0.05)
    assert resamples("any", searches=3, judges=5).means(np.ones((3, 5))).std() == 0


def test_a_declined_choice_is_judged_at_the_customary_lr() -> None:
    known = {"sides": judged_surface(60, 80, 70)}
    declined = judge([choice(None, finish="constant", verdict="tie")], known)
    assert declined["test"].to_list() == judge([choice(0.1)], known)["test"].to_list()
    assert declined["judge"].to_list() == list(JUDGES)
    assert judge([choice(0.1, problem="another")], known).is_empty()


def test_the_lr_matters_where_lrs_differ_by_more_than_two_points() -> None:
    assert matters(judged_surface(60, 80, 70))
    assert not matters(judged_surface(79, 80, 78.5))


def ranked() -> list[Standing]:
    known = {"sides": judged_surface(60, 80, 70)}
    known["line"] = surface(line(), oracle_rows(line(), JUDGES, {END: [[1.5, 1.2, 1.8]] * 5}), JUDGES)
    chosen = [
        choice(0.1, method="good", cost=1.0),
        choice(0.1, method="good", seed=1, cost=2.0),
        choice(0.01, method="good", problem="line"),
        choice(0.01, method="bad", cost=3.0),
        choice(None, method="bad", seed=1),
        choice(1.0, method="bad", problem="line"),
    ]
    judged = judge(chosen, known)
    found = regrets(judged, known)
    assert chart_data(found, standings(found, judged, as_table(chosen), known))["points"].to_list() == pytest.approx(
        [10, 0, 20, 10]
    )
    return standings(found, judged, as_table(chosen), known)


def test_standings_are_medians_and_worsts_over_problems() -> None:
    good, bad = ranked()
    assert (good.method, bad.method) == ("good", "bad")
    assert good.median is not None
    assert bad.worst is not None
    assert good.median.value == pytest.approx(5)  # of 0 and 25% of the loss
    assert (good.cost, good.problems, good.worst_problem) == (1, 2, "line")
    assert bad.worst.value == pytest.approx(20)  # 50% of the loss
    assert bad.worst_search == pytest.approx(20)
    assert bad.declined == pytest.approx(1 / 3)
    first = standings_table([good, bad]).splitlines()[2]
    assert [cell.strip() for cell in first.split("|")][1:5] == ["good", "2", "1.00", "5.00 ± 0.00"]


def advised(lr: float | None, low: float | None, high: float | None, **changes: object) -> Choice:
    timed = {"cost": 1.5, "seconds": 3.0, "training_seconds": 2.0}
    return choice(lr, method="search", low=low, high=high, **timed, **changes)


def test_coverage_compares_ranges_with_the_lrs_within_a_point() -> None:
    known = {"sides": judged_surface(79.5, 80, 70)}  # 0.01 and 0.1 are good
    searches = [
        advised(0.1, 0.1, 0.1),
        advised(0.1, 0.1, 1.0, seed=1),
        advised(None, 0.01, 1.0, seed=2, verdict="tie"),
        advised(None, None, None, seed=3, verdict="not_learned"),
    ]
    one, pooled = coverages(searches, known)
    assert (one.searches, one.without) == (3, 1)
    assert one.found is not None
    assert one.right is not None
    assert one.found.value == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert one.right.value == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)
    assert pooled.found == one.found
    assert "**all**" in coverage_table([one, pooled])
    (nothing, _) = coverages(searches[3:], known)
    assert (nothing.found, nothing.right) == (None, None)


def test_a_range_between_two_lrs_of_the_grid_finds_none() -> None:
    one, _ = coverages([advised(0.05, 0.04, 0.06)], {"sides": judged_surface(79.5, 80, 70)})
    assert one.found is not None
    assert (one.found.value, one.right) == (0, None)


def test_expected_intervals_are_compared_with_the_judges_validation() -> None:
    known = {"sides": judged_surface(60, 80, 70)}
    inside = {"expected": 80.0, "expected_low": 79.4, "expected_high": 81.5}  # 79 is outside
    one, pooled = reached([advised(0.1, 0.1, 0.1, **inside), advised(None, None, None, verdict="diverged")], known)
    assert (one.intervals, one.share, one.low) == (1, pytest.approx(4 / 5), None)
    assert one.width == pytest.approx(2.1)
    assert one.off == pytest.approx(0)
    assert (pooled.low, pooled.high) == pytest.approx(wilson(4 / 5, 1))
    assert "80%" in expected_table([one, pooled])


def test_wilsons_interval_is_that_of_scipy() -> None:
    from scipy.stats import binomtest

    expected = binomtest(14, 16).proportion_ci(method="wilson")
    assert wilson(14 / 16, 16) == pytest.approx((expected.low, expected.high))


def test_costs_and_verdicts_are_counted_by_method_and_problem() -> None:
    searches = [advised(0.1, 0.1, 0.1), advised(None, None, None, seed=1, verdict="tie")]
    cost, total = costs([*searches, advised(0.1, 0.1, 0.1, problem="line")])[1:]
    assert (cost.problem, cost.trainings, cost.seconds, cost.ratio) == ("sides", 1.5, 3, 1.5)
    assert (total.problem, total.trainings, total.seconds, total.ratio) == (None, 1.5, 6, 1.5)
    assert "1.50" in cost_table([cost])
    assert costs([choice(0.1)]) == []
    counts = verdicts(searches)
    assert counts.select("verdict", "searches").rows() == [("found", 1), ("tie", 1)]


def test_trainings_without_an_lr_are_judged_by_their_own_test_metric() -> None:
    known = {"sides": judged_surface(60, 80, 70)}
    rows = pl.DataFrame(
        [
            {"method": "Prodigy", "problem": "sides", "seed": seed, "validation": 0.0, "test": 70.0 + seed}
            | {"diverged": False, "seconds": 1.0}
            for seed in JUDGES
        ],
        schema=no_lr.ROWS,
    )
    judged = no_lr.judge(rows, known)
    assert regrets(judged, known)["Prodigy", "sides"].whole == pytest.approx(5)
    assert no_lr.judge(rows[1:], known).is_empty()
