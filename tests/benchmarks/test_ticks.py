"""The benchmark of the ticks study runs and prints what it promises; no timing is judged."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.long
def test_quick_json_has_both_worker_counts_beside_the_plain_loop(quick: Callable[..., Any]) -> None:
    data = quick("ticks.py")
    assert data["operations"] == 165_888
    assert {"processor", "system", "python", "torch", "cores", "sgemm GFLOP/s"} <= set(data["machine"])
    assert [(row["runs"], row["workers"], row["compiled"]) for row in data["rows"]] == [
        (23, 1, False),
        (23, 2, False),
    ]
    for row in data["rows"]:
        rounds = row["rounds"]
        assert len(rounds) == 2
        assert all(value > 0 for each in rounds for value in each.values())
        # The median of two is their mean.
        assert row["microseconds"] == pytest.approx(sum(each["stack"] for each in rounds) / 2)
        assert row["microseconds_min"] == min(each["stack"] for each in rounds)
        assert row["ratio"] == pytest.approx(sum(each["plain"] / each["stack"] for each in rounds) / 2)
        assert row["share"] == pytest.approx(
            sum(165_888 / (each["stack"] * 1e-6) / (each["peak"] * 1e9) for each in rounds) / 2
        )
        assert row["compile_seconds"] > 0
    assert data["rows"][0]["gain"] == 1
