"""Packed rows come out of a chart as they went in."""

import json
import math
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from lratlas.report.rows import Source, source

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]), st.none() | st.integers(0, 2), st.floats(0.001, 1).map(lambda x: round(x, 3))
    ),
    min_size=1,
)


def unpacked(made: Source) -> list[dict[str, Any]]:
    """What Vega's flatten makes of it."""
    entries: list[dict[str, Any]] = json.loads(made.data.to_dict()["values"])
    return [
        {**entry, **dict(zip(made.lists, values, strict=True))}
        for entry in entries
        for values in zip(*(entry[name] for name in made.lists), strict=True)
    ]


@given(ROWS)
def test_rows_come_back_grouped_in_order(rows: list[tuple[str, int | None, float]]) -> None:
    frame = pl.DataFrame(rows, schema={"line": pl.String, "seed": pl.Int64, "value": pl.Float64}, orient="row")
    back = [(row["line"], row["seed"], row["value"]) for row in unpacked(source(frame, by=["line", "seed"]))]
    named = [(line, "all" if seed is None else str(seed), value) for line, seed, value in rows]
    keys = list(dict.fromkeys((line, seed) for line, seed, _ in named))
    assert back == [row for key in keys for row in named if row[:2] == key]


def test_numbers_are_cut_to_six_digits_and_nan_is_null() -> None:
    frame = pl.DataFrame({"line": ["a", "a"], "value": [1 / 3, math.nan]})
    assert [row["value"] for row in unpacked(source(frame, by=["line"]))] == [0.333333, None]


def test_filters_come_before_the_rows_are_unpacked() -> None:
    made = source(pl.DataFrame({"line": ["a"], "value": [1.0]}), by=["line"])
    steps = made.chart("datum.line === 'a'").mark_point().to_dict()["transform"]
    assert steps == [{"filter": "datum.line === 'a'"}, {"flatten": ["value"]}]
