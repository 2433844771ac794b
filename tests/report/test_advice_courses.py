"""What the chart of eliminations shows: lines, where they end, and where their names stand."""

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.report.charts.course import branches_data, courses_data, names_data
from lratlas.report.charts.metric_scale import window
from lratlas.report.labels import spread
from report.search_helpers import advice, annealed, row, searched

STEPS = (100, 200, 400)
MADE = advice(
    row(1e-3, 100, 0.5),
    *(row(1e-2, steps, 0.6) for steps in STEPS[:2]),
    *(row(1e-1, steps, 0.7) for steps in STEPS),
    *(row(2e-1, steps, 0.7) for steps in STEPS),
    row(3e-1, 100, 0.65),
    row(3e-1, 200, None, failure="it broke"),
    annealed(1e-1, 400, 0.75),
)


def test_lines_end_where_an_lr_was_dropped() -> None:
    ends = courses_data(MADE).filter("is_last")
    assert ends.select("lr", "share", "fate", "went_on").rows() == [
        (1e-3, 1 / 64, "dropped after 1/64", False),
        (1e-2, 1 / 32, "dropped after 1/32", True),
        (1e-1, 1 / 16, "trained the longest", True),
        (2e-1, 1 / 16, "trained the longest", True),
        (3e-1, 1 / 64, "failed after 1/64", False),
    ]


def test_only_the_first_seed_has_a_line() -> None:
    again = advice(row(0.1, 100, 0.5), row(0.1, 200, 0.6), row(0.1, 200, 0.9, seed=1))
    assert courses_data(again)["metric"].to_list() == [0.5, 0.6]


def test_a_branch_leaves_the_line_before_its_end() -> None:
    found = branches_data(MADE).select("lr", "steps", "share", "metric", "end").rows()
    assert found == [(0.1, 200, 1 / 32, 0.7, False), (0.1, 400, 1 / 16, 0.75, True)]
    assert branches_data(advice(row(0.1, 100, 0.5))).is_empty()


def test_names_stand_apart() -> None:
    found = names_data(MADE)
    assert found["name"].sort().to_list() == ["1e-1", "1e-2", "2e-1"]
    last = found.filter(share=1 / 16)
    first, second = (window(MADE).height(each) for each in last["drawn"])
    assert abs(second - first) >= 0.04


def test_the_name_of_the_better_one_stands_higher_on_any_scale() -> None:
    metrics = {0.1: 0.99, 0.2: 0.96, 0.3: 0.9}
    for best in (1, 200):  # a share, which has a log scale, and a metric without a limit
        made = advice(*(row(lr, steps, best * metric) for lr, metric in metrics.items() for steps in (100, 200)))
        assert (window(made).limit is None) == (best == 200)
        names = names_data(made).with_columns(height=pl.col("drawn").map_elements(window(made).height, pl.Float64))
        assert names.sort("height")["name"].to_list() == ["3e-1", "2e-1", "1e-1"]


def test_names_of_equal_ends_do_not_touch() -> None:
    found = names_data(advice(*(row(lr, steps, 0.7) for lr in (0.1, 0.2, 0.3) for steps in (100, 200))))
    assert found.height == 3
    assert found["drawn"].n_unique() == 3


@given(st.lists(st.floats(-100, 100), max_size=12), st.floats(0.01, 10))
def test_spread_places_keep_their_order_distance_and_mean(places: list[float], gap: float) -> None:
    places = sorted(places)
    found = spread(places, gap=gap)
    assert len(found) == len(places)
    assert all(b - a >= gap * (1 - 1e-6) - 1e-9 for a, b in pairwise(found))
    assert sum(found) == pytest.approx(sum(places), abs=1e-6)
    if all(b - a >= gap for a, b in pairwise(places)):
        assert found == pytest.approx(places)


def test_a_search_ends_with_fewer_lrs_than_it_began_with() -> None:
    found = courses_data(searched()).filter(weights="averaged")
    counts = found.group_by("steps").len().sort("steps")["len"].to_list()
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]
    assert found.filter("is_last", fate="trained the longest").height == counts[-1]
