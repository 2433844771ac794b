"""The PLRs below, just above and beyond the convergence threshold."""

import polars as pl

from lratlas.analysis.scores import Sides, sides_of
from lratlas.tables import SCHEMAS, Tables

THRESHOLD = {"boundary": "convergence", "below": 2.0, "above": 3.0, "value": 6**0.5}


def study(*names: str) -> Tables:
    """PLRs 1, 2, 3, … of these regimes, with the threshold between 2 and 3."""
    rows = [{"plr": float(place), "regime": name} for place, name in enumerate(names, start=1)]
    bounds = pl.DataFrame([THRESHOLD], schema=SCHEMAS["boundaries"])
    return {"regimes": pl.DataFrame(rows[::-1], schema=SCHEMAS["regimes"]), "boundaries": bounds}


def three(sides: Sides) -> tuple[list[float], list[float], list[float]]:
    return sides.below, sides.near, sides.beyond


def test_just_above_is_2a_and_beyond_what_is_left() -> None:
    assert three(sides_of(study("1", "1", "2A", "2A", "2B", "3"))) == ([1, 2], [3, 4], [5, 6])


def test_without_2a_the_lowest_on_the_plateau_is_just_above() -> None:
    assert three(sides_of(study("1", "1", "2", "2", "3"))) == ([1, 2], [3], [4, 5])
    assert three(sides_of(study("1", "1", "2B", "2B"))) == ([1, 2], [3], [4])


def test_strays_on_the_wrong_side_and_undecided_plrs_are_left_out() -> None:
    assert three(sides_of(study("2A", "1", "undecided", "2A", "1", "3"))) == ([2], [4], [6])


def test_without_a_threshold_there_are_no_sides() -> None:
    for tables in ({"regimes": study("1", "1")["regimes"]}, {}):
        sides = sides_of(tables)
        assert three(sides) == ([], [], [])
        assert sides.threshold["value"] is None
