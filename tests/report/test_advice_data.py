"""What the chart of a search shows: curves, their scale, signs next to them, and regimes."""

import math
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.report.charts.advice import (
    curves_data,
    errors_data,
    expected_data,
    kinds_of_weights,
    lr_range,
    part_text,
    regimes_data,
    rungs_data,
    signs_data,
)
from lratlas.report.charts.metric_scale import more_is_better, window
from lratlas.search.advice import Advice
from lratlas.search.regimes import Bracket
from report.search_helpers import advice, annealed, compared, row, searched, without_lr

METRICS = st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=12)


def on_one_rung(metrics: list[float], *, more_is_better: bool) -> Advice:
    """An advice on one LR for each metric."""
    rows = [row(10.0 ** (number / 4 - 4), 100, metric) for number, metric in enumerate(metrics)]
    return advice(*rows, more_is_better=more_is_better)


@pytest.mark.parametrize("steps", [64, 95, 96, 100, 1000, 6400, 12_345])
def test_rungs_are_named_by_the_share_they_were_meant_to_be(steps: int) -> None:
    found = [part_text(max(1, round(share * steps)), of=steps) for share in (1 / 64, 1 / 32, 1 / 8, 1 / 2, 1.0)]
    assert found == ["1/64", "1/32", "1/8", "1/2", "1"]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_direction_follows_from_the_best(direction: str) -> None:
    assert more_is_better(searched(direction=direction)) == (direction == "maximize")


def test_the_direction_holds_where_the_two_qualities_of_a_branch_differ() -> None:
    odd = annealed(0.1, 125, 0.9) | {"averaged": 0.8}
    assert more_is_better(advice(row(0.1, 100, 0.7), odd))
    assert not more_is_better(advice(row(0.1, 100, 0.85), odd, more_is_better=False))


@given(METRICS, st.booleans())
def test_the_scale_holds_the_best_and_half_of_all(metrics: list[float], more: bool) -> None:
    made = on_one_rung(metrics, more_is_better=more)
    shown, curve = window(made), curves_data(made).filter(seed=0)
    assert shown.low < shown.high
    assert 0 < shown.height(shown.edge) < 1
    best = max(metrics) if more else min(metrics)
    assert not curve.filter(metric=best)["outside"].any()
    assert 2 * curve["outside"].sum() <= len(metrics)


def test_a_few_awful_values_do_not_flatten_the_scale() -> None:
    good = [2.0, 1.9, 1.8, 1.75, 1.9]
    shown = window(on_one_rung([*good, 3e7, 1e300], more_is_better=False))
    assert shown.high < 3
    assert shown.low > 1.5
    # Marks for them stand at the top, where the worse losses are.
    assert shown.edge > 2.0


def test_values_that_are_all_near_are_all_shown() -> None:
    shown = window(on_one_rung([0.81, 0.84, 0.87, 0.9], more_is_better=True))
    assert shown.low < 0.81
    assert shown.high > 0.9
    assert shown.edge < 0.81


def test_equal_values_have_a_scale_too() -> None:
    for metric in (0.0, 0.5, -3.0):
        shown = window(on_one_rung([metric] * 3, more_is_better=True))
        assert shown.low <= metric < shown.high


def test_curves_are_means_over_seeds_and_the_seeds() -> None:
    found = curves_data(advice(row(0.1, 100, 0.8), row(0.1, 100, 0.9, seed=1), row(0.2, 100, 0.7)))
    at = found.filter(lr=0.1).select("seed", "metric", "seeds", "part").rows()
    assert at == [(None, pytest.approx(0.85), 2, "1/64"), (0, 0.8, 1, "1/64"), (1, 0.9, 1, "1/64")]
    assert found.filter(lr=0.2)["seeds"].to_list() == [1, 1]


def test_averaged_weights_rank_and_last_ones_can_be_chosen() -> None:
    both = advice(row(0.1, 100, 0.8, value=0.6), row(0.2, 100, None, value=0.7))
    assert kinds_of_weights(both) == ("averaged", "last")
    found = curves_data(both).filter(seed=0).select("weights", "lr", "metric").rows()
    # An LR without a reported average is ranked by its last weights, as in the search.
    assert found == [("averaged", 0.1, 0.8), ("averaged", 0.2, 0.7), ("last", 0.1, 0.6), ("last", 0.2, 0.7)]
    assert kinds_of_weights(advice(row(0.1, 100, 0.8))) == ("averaged",)
    assert kinds_of_weights(advice(row(0.1, 100, None, value=0.8))) == ("averaged",)


def test_failures_and_branches_are_no_part_of_curves() -> None:
    found = curves_data(advice(row(0.1, 100, 0.8), annealed(0.1, 125, 0.9), row(1.0, 100, None, failure="it broke")))
    assert found["lr"].unique().to_list() == [0.1]
    assert found["steps"].unique().to_list() == [100]


def test_signs_stand_where_they_can_be_seen() -> None:
    rows = [row(10.0**power, 100, metric) for power, metric in ((-4, -1.0), (-3, 0.8), (-2, 0.85), (-1, 0.9))]
    made = advice(*rows, annealed(0.1, 125, 0.95), row(1.0, 100, None, failure="it broke"))
    shown, found = window(made), signs_data(made)
    signs = {sign["sign"]: sign for sign in found.to_dicts()}
    assert set(signs) == {"failed", "annealed", "off the scale"}
    assert (signs["failed"]["lr"], signs["failed"]["reason"], signs["failed"]["metric"]) == (1.0, "it broke", None)
    assert signs["failed"]["drawn"] == signs["off the scale"]["drawn"] == shown.edge
    assert (signs["off the scale"]["lr"], signs["off the scale"]["metric"]) == (1e-4, -1.0)
    assert signs["annealed"]["drawn"] == 0.95
    assert shown.low < shown.edge < shown.high


def test_an_lr_that_failed_twice_has_one_cross() -> None:
    broken = [row(1.0, 100, None, failure="it broke", seed=seed) for seed in (0, 1)]
    assert signs_data(advice(row(0.1, 100, 0.8), *broken)).filter(sign="failed").height == 1


def test_an_awful_branch_stays_inside() -> None:
    made = advice(row(0.1, 100, 1.0), row(0.2, 100, 1.1), annealed(0.1, 125, 1e9), more_is_better=False)
    sign = signs_data(made).row(by_predicate=pl.col("sign") == "annealed", named=True)
    assert sign["drawn"] == window(made).high
    assert sign["metric"] == 1e9


def test_lines_to_what_is_awful_stay_drawable() -> None:
    metrics = [1.0, 1.1, 1.2, 1e300]
    found = curves_data(on_one_rung(metrics, more_is_better=False)).filter(seed=0)
    shown = window(on_one_rung(metrics, more_is_better=False))
    assert found["outside"].to_list() == [False, False, False, True]
    assert found["metric"].to_list() == metrics
    assert shown.high < found["drawn"][-1] < shown.high + 4 * (shown.high - shown.low)


def test_regimes_leave_gaps_for_their_thresholds() -> None:
    rows = [row(10.0**power, 100, 0.5) for power in range(-4, 1)]
    first, last = Bracket(below=1e-3, above=1e-2), Bracket(below=0.1, above=1.0)
    whole = advice(*rows, convergence=first, divergence=last)
    low, high = lr_range(whole)
    assert low < 1e-4
    assert high > 1.0
    bands = regimes_data(whole).drop("middle").rows()
    assert bands == [("1", low, 1e-3), ("2", 1e-2, 0.1), ("3", 1.0, high)]
    assert regimes_data(advice(*rows, convergence=first)).drop("middle").rows() == [("1", low, 1e-3), ("2", 1e-2, high)]
    # Without the lower threshold nothing is known of what lies below the upper one.
    assert regimes_data(advice(*rows, divergence=last))["regime"].to_list() == ["3"]
    assert regimes_data(advice(*rows)).is_empty()


def test_a_search_is_shown_as_it_was() -> None:
    found = searched()
    curves = curves_data(found).filter(pl.col("seed").is_null(), weights="averaged")
    rungs = rungs_data(found)
    assert rungs["part"].unique(maintain_order=True).to_list() == ["1/64", "1/32", "1/16", "1/8", "1/4"]
    well = found.evidence.filter(~pl.col("annealed") & pl.col("failure").is_null())
    assert set(curves.select("lr", "steps").rows()) == set(well.select("lr", "steps").rows())
    assert set(curves["part"]) - set(rungs["part"]) == {"1/5"}
    failed = signs_data(found).filter(sign="failed")["lr"].to_list()
    assert failed == pytest.approx([1e-5, 1.0])
    middles = regimes_data(found)
    assert all(math.isclose(low * high, middle**2) for _, low, high, middle in middles.rows())


@pytest.mark.parametrize(
    ("metrics", "more", "ends"),
    [
        ([0.2, 0.9, 0.97, 0.99], True, (0, 1)),
        ([20.0, 90.0, 97.0], True, (0, 100)),
        ([1e-4, 1e-3, 0.1, 2.0], False, (0, math.inf)),
        ([-1.0, 0.5, 0.9], True, (-math.inf, math.inf)),
        ([0.5, 0.9, 12.0, 120.0], True, (0, math.inf)),
    ],
)
def test_the_scale_stays_within_what_is_possible(metrics: list[float], more: bool, ends: tuple[float, float]) -> None:
    shown = window(on_one_rung(metrics, more_is_better=more))
    assert ends[0] <= shown.low < shown.high <= ends[1]


@pytest.mark.parametrize(("metrics", "more"), [([0.1, 0.9, 0.99], True), ([1e-3, 1e-2, 1.0], False)])
def test_distances_over_decades_have_a_log_scale(metrics: list[float], more: bool) -> None:
    shown = window(on_one_rung(metrics, more_is_better=more))
    limit = 1.0 if more else 0.0
    assert shown.limit == limit
    heights = [shown.height(abs(limit - metric)) for metric in metrics]
    assert heights == sorted(heights)
    assert shown.height(shown.at(0.3)) == pytest.approx(0.3)
    assert shown.ticks
    assert window(on_one_rung([0.7, 0.75, 0.8], more_is_better=more)).limit is None


@pytest.mark.parametrize(
    ("metrics", "more", "limit"), [([1.0, 2.9, 2.99], True, 3.0), ([0.301, 0.31, 1.0], False, 0.3)]
)
def test_the_limit_is_that_of_the_search(metrics: list[float], more: bool, limit: float) -> None:
    found = window(replace(on_one_rung(metrics, more_is_better=more), limit=limit))
    assert found.limit == limit
    assert (found.high <= limit) if more else (found.low >= limit)


def test_the_best_possible_metric_is_shown_on_a_log_scale() -> None:
    found = curves_data(on_one_rung([0.1, 0.9, 0.99, 1.0], more_is_better=True)).filter(seed=0)
    assert not found["outside"][-1]
    assert found["drawn"].min() > 0  # pyright: ignore[reportOptionalOperand, reportOperatorIssue] - floats


def test_errors_are_those_of_every_comparison_and_the_best_of_each_has_none() -> None:
    levels = [
        *(compared(lr, 100, metric, 0.1) for lr, metric in ((0.1, 0.5), (0.2, 0.4))),
        compared(0.1, 200, 0.80, 0.02, near=True),
        compared(0.2, 200, 0.82, 0.02, seeds=2),
        compared(0.3, 200, 0.70, 0.02, near=False),
    ]
    every = errors_data(advice(*(row(lr, 200, 0.8) for lr in (0.1, 0.2, 0.3)), levels=levels))
    first, found = every.filter(~pl.col("longest")), every.filter("longest")
    assert first["low"].to_list() == [None, pytest.approx(0.4 - 1.645 * 0.1)]
    assert set(first["best"]) == {0.5}
    assert found.select("lr", "seeds", "near").rows() == [(0.1, 1, True), (0.2, 2, True), (0.3, 1, False)]
    assert set(found["best"]) == {0.82}
    reaches = found.filter(pl.col("high") >= pl.col("best"))["lr"].to_list()
    assert reaches == [0.1]  # as ``near`` says; the best one has no bar
    assert found["low"].to_list() == [pytest.approx(0.8 - 1.645 * 0.02), None, pytest.approx(0.7 - 1.645 * 0.02)]


def test_means_over_seeds_are_those_that_were_compared() -> None:
    rows = [row(0.1, 100, 0.8), row(0.1, 100, 0.9, seed=1), row(0.2, 100, 0.7)]
    found = curves_data(advice(*rows, levels=[compared(0.1, 100, 0.82, seeds=2), compared(0.2, 100, 0.7)]))
    assert found.filter(pl.col("seed").is_null())["metric"].to_list() == [0.82, 0.7]
    assert found.filter(pl.col("seed").is_not_null(), lr=0.1)["metric"].to_list() == [0.8, 0.9]


def test_under_a_schedule_the_last_weights_rank() -> None:
    made = advice(row(0.1, 100, 0.8, value=0.9), row(0.2, 100, 0.7, value=0.6), finish="schedule")
    assert kinds_of_weights(made) == ("averaged",)
    assert curves_data(made).filter(seed=0)["metric"].to_list() == [0.9, 0.6]


def test_what_is_expected_lies_on_the_scale() -> None:
    rows = [row(0.1, 100, 0.8), row(0.2, 100, 0.7)]
    made = advice(*rows, expected=0.9, expected_low=0.85, expected_high=0.95)
    (found,) = expected_data(made).to_dicts()
    assert (found["lr"], found["metric"], found["low"], found["high"]) == (0.1, 0.9, 0.85, 0.95)
    assert window(made).low < 0.7
    assert window(made).high >= 0.95
    assert expected_data(advice(*rows, **without_lr("tie"))).is_empty()
    assert expected_data(advice(*rows, expected=math.nan)).is_empty()


def test_lrs_that_are_advised_but_were_not_tried_are_on_the_axis() -> None:
    low, high = lr_range(advice(row(0.1, 100, 0.8), row(1.0, 100, 0.7), lr=0.05, low=0.01, high=3.0))
    assert low < 0.01
    assert high > 3.0


def test_nothing_is_drawn_of_a_search_whose_lrs_all_failed() -> None:
    made = advice(row(0.1, 100, None, failure="the loss is not finite"), best=math.nan, **without_lr("diverged"))
    assert curves_data(made).is_empty()
    assert errors_data(made).is_empty()
    assert signs_data(made)["sign"].to_list() == ["failed"]
