import math
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lratlas.analysis.boundaries import boundaries
from lratlas.analysis.regimes import regimes
from lratlas.tables import SCHEMAS, empty

Study = Callable[..., dict[str, pl.DataFrame]]
Row = dict[str, Any]
CHANCE = math.log(2)


def found(tables: dict[str, pl.DataFrame]) -> dict[str, Row]:
    table = boundaries(tables, chance_loss=CHANCE)
    assert table.schema == SCHEMAS["boundaries"]
    assert table["boundary"].to_list() == ["convergence", "subregime", "divergence"]
    return {row.pop("boundary"): row for row in table.iter_rows(named=True)}


def plr(place: float) -> float:
    return 10 ** (-4 + place / 4)


def whole(study: Study, *, seeds: int = 3) -> dict[str, pl.DataFrame]:
    """Ten PLRs: four converge (one unfinished), two of 2A, two of 2B, two diverge."""
    kinds = ["descending", *["converged"] * 3, *["plateau"] * 4, "chance", "diverged"]
    barriers = {4: 0.01, 5: 0.02, 6: 0.08, 7: 0.1}
    return study([[kind] * seeds for kind in kinds], barriers=barriers)


def test_a_whole_study(study: Study) -> None:
    rows = found(whole(study, seeds=6))
    for name, place in [("convergence", 4), ("subregime", 6), ("divergence", 8)]:
        below, above = plr(place - 1), plr(place)
        middle = math.sqrt(below * above)
        expected = {"below": below, "above": above, "value": middle, "low": below, "high": above}
        assert rows[name] == pytest.approx(expected)


def test_one_seed_has_no_interval(study: Study) -> None:
    for row in found(whole(study, seeds=1)).values():
        assert row["value"] is not None
        assert (row["low"], row["high"]) == (None, None)


@pytest.mark.parametrize("kinds", [["converged"] * 3, ["chance"] * 3, ["diverged"] * 3, ["plateau"] * 3, []])
def test_what_is_not_reached_is_null(study: Study, kinds: list[str]) -> None:
    for row in found(study([[kind] * 2 for kind in kinds])).values():
        assert set(row.values()) == {None}


def test_no_runs_at_all() -> None:
    tables = {"runs": empty("runs"), "traces": empty("traces")}
    assert all(row["value"] is None for row in found(tables).values())


def test_an_undecided_plr_widens_the_bracket_of_convergence_and_is_not_diverged(study: Study) -> None:
    rows = found(study([["converged"] * 2, ["descending"] * 2, ["plateau"] * 2, ["chance"] * 2]))
    assert (rows["convergence"]["below"], rows["convergence"]["above"]) == pytest.approx((plr(0), plr(2)))
    rows = found(study([["converged"] * 2, ["descending"] * 2, ["chance"] * 2]))
    assert (rows["convergence"]["below"], rows["convergence"]["above"]) == pytest.approx((plr(0), plr(2)))
    assert (rows["divergence"]["below"], rows["divergence"]["above"]) == pytest.approx((plr(1), plr(2)))


def test_a_lone_outlier_does_not_move_a_boundary(study: Study) -> None:
    kinds = [*["converged"] * 2, *["plateau"] * 2, *["chance"] * 2, "plateau", *["chance"] * 2]
    rows = found(study([[kind] for kind in kinds]))
    assert (rows["divergence"]["below"], rows["divergence"]["above"]) == pytest.approx((plr(3), plr(4)))


def test_of_equal_cuts_the_lower_is_taken(study: Study) -> None:
    rows = found(study([["plateau"], ["chance"], ["plateau"], ["chance"]]))
    assert (rows["divergence"]["below"], rows["divergence"]["above"]) == pytest.approx((plr(0), plr(1)))


def thresholds_of_seeds(study: Study, places: list[int], *, grid: int) -> dict[str, pl.DataFrame]:
    """Each seed converges below its own place and is on a plateau from there on."""
    return study([["converged" if row < place else "plateau" for place in places] for row in range(grid)])


@pytest.mark.parametrize(("seeds", "first"), [(6, 1), (9, 2), (20, 6), (50, 18)])
def test_with_six_seeds_or_more_the_interval_has_the_ranks_of_the_sign_test(
    study: Study, seeds: int, first: int
) -> None:
    """Ranks from a table of the sign test at 5%, such as Conover's: of 20 seeds the 6th and the 15th."""
    places = sorted(1 + seed * 12 // seeds for seed in range(seeds))
    row = found(thresholds_of_seeds(study, places, grid=14))["convergence"]
    assert (row["low"], row["high"]) == pytest.approx((plr(places[first - 1] - 1), plr(places[-first])))


@pytest.mark.parametrize("places", [[4, 4], [3, 4, 6], [2, 4, 4, 7, 7]])
def test_with_fewer_seeds_the_interval_is_students_t(study: Study, places: list[int]) -> None:
    row = found(thresholds_of_seeds(study, places, grid=9))["convergence"]
    # In steps of the grid: the seeds' values, half a step below their places, each with a uniform error of a step.
    error = math.sqrt((np.var(places, ddof=1) + 1 / 12) / len(places))
    low, high = stats.t.interval(0.95, len(places) - 1, loc=np.mean(places) - 0.5, scale=error)
    assert (row["low"], row["high"]) == pytest.approx((plr(max(low, 0)), plr(min(high, 8))))


def test_a_seed_without_the_boundary_counts_at_the_end_of_the_grid(study: Study) -> None:
    row = found(thresholds_of_seeds(study, [1, 1, 1, 1, 1, 3], grid=3))["convergence"]
    assert (row["below"], row["above"]) == pytest.approx((plr(0), plr(1)))
    assert row["high"] == pytest.approx(plr(2))


def test_without_a_second_seed_at_a_boundary_it_has_no_interval(study: Study) -> None:
    tables = study([[kind] * 3 for kind in ["converged", "plateau", "plateau", "chance"]], barriers={1: 0.01, 2: 0.1})
    row = found(tables | {"pairs": tables["pairs"].filter(seed=0)})["subregime"]
    assert row["value"] is not None
    assert (row["low"], row["high"]) == (None, None)


@settings(max_examples=20)
@given(
    ends=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=4),
    barriers=st.dictionaries(st.integers(0, 5), st.sampled_from([0.01, 0.1]), max_size=6),
)
def test_boundaries_agree_with_the_regimes_and_intervals_hold_the_brackets(
    study: Study, ends: list[tuple[int, int]], barriers: dict[int, float]
) -> None:
    def kind(place: int, pair: tuple[int, int]) -> str:
        return ["converged", "plateau", "chance"][sum(place >= end for end in pair)]

    tables = study([[kind(place, pair) for pair in ends] for place in range(6)], barriers=barriers)
    rows = found(tables)
    regime = dict(regimes(tables, chance_loss=CHANCE).select("plr", "regime").iter_rows())

    def wrong(name: str, cut: float) -> int:
        if name == "convergence":
            return sum((label == "1") != (place < cut) for place, label in regime.items())
        return sum((label == "3") != (place > cut) for place, label in regime.items())

    for name, row in rows.items():
        if row["value"] is None:
            continue
        assert row["below"] < row["value"] < row["above"]
        # Where seeds disagree, too few of them may have PLRs in regime 2 for an interval of the boundary within it.
        if len(ends) > 1 and (name != "subregime" or row["low"] is not None):
            assert row["low"] <= row["below"]
            assert row["high"] >= row["above"]
        if name == "subregime":
            assert (regime[row["below"]], regime[row["above"]]) == ("2A", "2B")
        else:
            assert wrong(name, row["value"]) == min(wrong(name, cut) for cut in [0, *(1.01 * p for p in regime)])


def test_rows_in_any_order_give_the_same(study: Study) -> None:
    tables = thresholds_of_seeds(study, [2, 3, 3, 4, 5], grid=6)
    reordered = {name: frame.reverse() for name, frame in tables.items()}
    assert boundaries(tables, chance_loss=CHANCE).equals(boundaries(reordered, chance_loss=CHANCE))
