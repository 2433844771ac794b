"""The benchmark of watching runs and counts rightly; no timing is judged."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "watch.py"


@pytest.fixture
def replaying(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("watch_replay")


def test_a_trace_is_judged_up_to_the_step_asked_for(replaying: ModuleType) -> None:
    steps = np.arange(1, 41) * 100
    rng = np.random.default_rng(0)
    losses = np.where(steps <= 2000, 2.0 * np.exp(-steps / 1000), 0.4) * np.exp(0.05 * rng.normal(size=40))
    trace = pl.DataFrame(
        {"step": [0, *steps], "train_loss": [None, *losses], "train_accuracy": 0.8, "chance_accuracy": 0.1}
    )
    for accuracies in (False, True):
        assert replaying.verdict(trace, 2000, 2.3, accuracies=accuracies) == "converging"
        assert replaying.verdict(trace, 4000, 2.3, accuracies=accuracies) == "equilibrium"


def test_quick_costs_are_ratios_of_both_loops(quick: Callable[..., Any]) -> None:
    data = quick("watch.py")
    assert {"processor", "system", "torch"} <= set(data["machine"])
    assert [(row["model"], row["average"], row["steps"]) for row in data["rows"]] == [
        ("MLP", False, 40),
        ("MLP", True, 40),
    ]
    # 784 to 256 to 256 to 10, with biases
    assert {row["weights"] for row in data["rows"]} == {785 * 256 + 257 * 256 + 257 * 10}
    assert all(0 < row["low"] <= row["ratio"] <= row["high"] for row in data["rows"])


def test_quick_alarms_cover_all_courses(quick: Callable[..., Any]) -> None:
    rows = quick("watch.py", "--alarms")["rows"]
    assert {row["course"] for row in rows} == {"flat", "to a plateau", "t^-1/2", "t^-1"}
    assert all(row["last_converging"] <= row["ever_converging"] <= 1 for row in rows)
    assert all(row["last_equilibrium"] <= row["ever_equilibrium"] <= 1 for row in rows)


def test_quick_schedules_cover_all_courses_declared_and_not(quick: Callable[..., Any]) -> None:
    rows = quick("watch.py", "--schedules")["rows"]
    assert len({(row["course"], row["schedule"], row["declared"]) for row in rows}) == len(rows) == 4 * 4 * 2
    assert all(row["moving_equilibrium"] == 0 for row in rows if not row["declared"])
    assert all(sum(row["last"].values()) == pytest.approx(1) for row in rows)
