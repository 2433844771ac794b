"""The benchmark of intervals draws studies whose truth is as it says, and small cells of it reach what is asked."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lratlas.analysis.claims import CLAIMS
from lratlas.analysis.claims.evidence import Evidence
from lratlas.thresholds import DEFAULTS

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
STUDIES = 80


@pytest.fixture
def intervals(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("intervals")


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("interval_studies")


@pytest.mark.parametrize(
    "only",
    [
        "boundary, normal, 1.5 steps of the grid, median at an end",
        "gain, flat, one against eight",
        "gain, half clear, one against eight",
        "effect, middle band, paired, skewed",
    ],
)
def test_intervals_of_three_seeds_hold_the_truth_in_nine_studies_of_ten(intervals: ModuleType, only: str) -> None:
    cells = list(intervals.cells(studies=STUDIES, seeds=(3,), only=only))
    assert {cell.seeds for cell in cells} == {3}
    for cell in cells:
        held = round(cell.covered * STUDIES)
        assert stats.binomtest(held, STUDIES, 0.9, alternative="less").pvalue > 0.01, cell
        assert cell.width > 0


def one_error(_seeds: int) -> float:
    return 1.0


def test_an_interval_that_is_too_narrow_would_be_seen(intervals: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lratlas.analysis.estimates.student", one_error)
    (cell,) = intervals.cells(studies=STUDIES, seeds=(3,), only="gain, one against one")
    # P(|t| < 1) is 0.58 with two degrees of freedom.
    assert stats.binomtest(round(cell.covered * STUDIES), STUDIES, 0.9, alternative="less").pvalue < 0.01


def test_a_seed_s_boundaries_are_where_they_were_drawn(drawing: ModuleType) -> None:
    tables = drawing.boundary_study([0, 1, -2])
    for seed, cell in enumerate([0, 1, -2]):
        runs = tables["runs"].filter(seed=seed)
        fitted = runs.filter(train_accuracy=1.0)["plr"].max()
        lost = runs.filter("diverged")["plr"].min()
        truth = drawing.true_boundaries(cell + 0.5)
        assert fitted < truth["convergence"] < fitted * 10 ** (1 / drawing.PER_DECADE)
        assert lost > truth["divergence"] > lost / 10 ** (1 / drawing.PER_DECADE)


@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_the_median_of_many_seeds_is_the_true_place(drawing: ModuleType, shape: str) -> None:
    draws = getattr(drawing, shape)
    cells = drawing.cells_of_seeds(np.random.default_rng(0), 20_001, place=0.5, spread=20, draws=draws)
    assert abs(np.median(cells)) <= 1  # of 20 steps


def test_the_true_share_of_pairs_in_order_is_that_of_many_seeds(drawing: ModuleType) -> None:
    for strays in (0, 3):
        tables = drawing.order_study(3, strays=strays)
        evidence = Evidence(tables=tables, thresholds=DEFAULTS, chance_loss=drawing.LOSS)
        assert CLAIMS["three-regimes"].judge(evidence).effect == pytest.approx(drawing.true_order(strays / 3))


def test_all_cells_are_printed(quick: Callable[..., Any]) -> None:
    found = quick("intervals.py", "--only", "effect, middle")
    assert [cell["seeds"] for cell in found] == [3, 3, 3]
    assert all(0 <= cell["covered"] <= 1 and cell["studies"] == 20 for cell in found)
