"""Where quality is best, against the best of regime 1, and how wide the good range is."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lratlas.analysis.scores import (
    best_averaged,
    best_fine_tuned,
    complete_seeds,
    converging,
    fine_tuned_runs,
    good_range,
    means,
    options,
    score_of,
)
from lratlas.tables import SCHEMAS, Tables, empty

PLRS = [1e-4, 1e-3, 1e-2, 1e-1]
Scores = Mapping[float, Sequence[float | None]]


def made(scores: Scores, *, stage: str = "finetune", column: str = "test_accuracy", **keys: float) -> pl.DataFrame:
    """Runs of one stage: PLR to score per seed."""
    rows = [
        {"run": f"{plr}-{seed}", "stage": stage, "plr": plr, "seed": seed, column: value} | keys
        for plr, values in scores.items()
        for seed, value in enumerate(values)
    ]
    return pl.DataFrame(rows, schema=SCHEMAS["runs"])


def regimes(*names: str) -> pl.DataFrame:
    rows = [{"plr": plr, "regime": name} for plr, name in zip(PLRS, names, strict=False)]
    return pl.DataFrame(rows, schema=SCHEMAS["regimes"])


REGIMES = regimes("1", "1", "2A", "2B")
THRESHOLD = {"boundary": "convergence", "below": PLRS[1], "above": PLRS[2], "value": 3e-3}


def study(runs: pl.DataFrame) -> Tables:
    return {"runs": runs, "regimes": REGIMES, "boundaries": pl.DataFrame([THRESHOLD], schema=SCHEMAS["boundaries"])}


def test_accuracy_is_the_score_where_there_is_any() -> None:
    both = pl.concat([made({1e-3: [None]}, flr=1e-5), made({1e-2: [0.5]}, flr=1e-5)])
    assert score_of(both).column == "test_accuracy"
    assert score_of(made({1e-3: [0.3]}, column="test_loss", flr=1e-5)).column == "test_loss"
    assert score_of(empty("runs")).column == "test_loss"


def test_means_leave_out_what_lacks_a_seed_or_is_not_finite() -> None:
    runs = made({1e-4: [0.1, 0.3], 1e-3: [0.9, None], 1e-2: [0.9, float("nan")], 1e-1: [0.9, float("inf")]}, flr=1e-5)
    assert means(runs, score_of(runs), "plr").to_dicts() == [{"plr": 1e-4, "value": pytest.approx(0.2), "seeds": 2}]


def test_only_the_lowest_flr_and_straight_ways_count() -> None:
    wanted = made({1e-3: [0.8]}, flr=1e-5)
    runs = pl.concat([wanted, made({1e-3: [0.9]}, flr=1e-4), made({1e-2: [0.9]}, flr=1e-5, plr2=1e-3)])
    assert fine_tuned_runs(runs).equals(wanted)


def test_the_gain_is_of_the_best_just_above_the_threshold_over_the_best_below() -> None:
    worse, better = [0.80, 0.84, 0.76], [0.83, 0.86, 0.80]
    runs = made({1e-4: [0.7] * 3, 1e-3: worse, 1e-2: better, 1e-1: [0.9] * 3}, flr=1e-5)
    best = best_fine_tuned(study(runs), score_of(runs))
    assert best is not None
    assert best.gain is not None
    # The best of all is of 2B, but that is another question.
    assert (best.plr, best.flr, best.count, best.gain.seeds) == (1e-1, 1e-5, None, 3)
    gains = np.array(better) - np.array(worse)
    low, high = stats.t.interval(0.95, 2, loc=gains.mean(), scale=stats.sem(gains))
    assert (best.gain.mean, best.gain.low, best.gain.high) == pytest.approx((gains.mean(), low, high))


def test_a_lower_loss_is_a_positive_gain() -> None:
    runs = made({1e-3: [0.5, 0.6, 0.7], 1e-2: [0.4, 0.4, 0.4]}, column="test_loss", flr=1e-5)
    best = best_fine_tuned(study(runs), score_of(runs))
    assert best is not None
    assert best.gain is not None
    assert best.gain.low is not None
    assert best.gain.high is not None
    assert best.plr == 1e-2
    assert best.gain.mean == pytest.approx(0.2)
    assert best.gain.low < 0.2 < best.gain.high


def test_where_a_converging_plr_is_best_the_gain_is_negative() -> None:
    runs = made({1e-3: [0.9, 0.8, 0.9], 1e-2: [0.7, 0.7, 0.7]}, flr=1e-5)
    best = best_fine_tuned(study(runs), score_of(runs))
    assert best is not None
    assert best.gain is not None
    assert best.plr == 1e-3
    assert best.gain.mean == pytest.approx(-0.5 / 3)


def test_without_a_threshold_there_is_no_gain() -> None:
    runs = made({1e-3: [0.9], 1e-2: [0.95]}, flr=1e-5)
    best = best_fine_tuned({"runs": runs, "regimes": regimes("2A", "2A", "2A")}, score_of(runs))
    assert best is not None
    assert (best.plr, best.gain) == (1e-2, None)


def test_averages_compete_over_plr_and_count() -> None:
    runs = pl.concat(
        [
            made({1e-3: [0.80, 0.80], 1e-2: [0.85, 0.85]}, stage="average", count=2),
            made({1e-3: [0.78, 0.78], 1e-2: [0.90, 0.92]}, stage="average", count=10),
        ]
    )
    best = best_averaged(study(runs), score_of(runs))
    assert best is not None
    assert best.gain is not None
    assert (best.plr, best.count, best.flr) == (1e-2, 10, None)
    assert best.gain.mean == pytest.approx(0.11)
    assert best.gain.low is None  # two seeds


def test_options_that_lack_a_seed_are_left_out() -> None:
    runs = made({1e-4: [0.1, 0.2], 1e-3: [0.9, None], 1e-2: [0.8, float("nan")], 1e-1: [0.3, 0.4]}, flr=1e-5)
    assert options(runs, "test_accuracy", "plr", seeds=[0, 1]).tolist() == [[0.1, 0.2], [0.3, 0.4]]
    assert options(runs.reverse(), "test_accuracy", "plr", seeds=[1]).tolist() == [[0.2], [0.4]]
    assert complete_seeds(runs) == [0, 1]
    assert complete_seeds(runs.slice(1)) == [1]


def test_nothing_is_best_where_nothing_was_made() -> None:
    runs = made({1e-3: [0.8]}, stage="pretrain")
    score = score_of(runs)
    assert best_fine_tuned(study(runs), score) is None
    assert best_averaged(study(runs), score) is None
    assert good_range(fine_tuned_runs(runs), score) is None


def test_regime_1_alone_converges() -> None:
    assert converging(regimes("1", "undecided", "2A", "1")) == [1e-4, 1e-1]


@pytest.mark.parametrize(
    ("scores", "low", "high"),
    [
        ([0.5, 0.79, 0.80, 0.795], 1e-3, 1e-1),  # exactly a point below is as good
        ([0.80, 0.78, 0.80, 0.795], 1e-4, 1e-4),  # of equal ones the lowest PLR; a gap ends the range
        ([0.5, 0.789, 0.80, 0.789], 1e-2, 1e-2),
        ([0.80, None, 0.80, 0.80], 1e-4, 1e-4),  # a PLR that failed ends it too
    ],
)
def test_the_good_range_is_around_the_best_without_a_gap(scores: list[float | None], low: float, high: float) -> None:
    runs = made({plr: [score] for plr, score in zip(PLRS, scores, strict=True)}, flr=1e-5)
    found = good_range(fine_tuned_runs(runs), score_of(runs))
    assert found is not None
    assert (found.low, found.high) == (low, high)
    assert found.factor == pytest.approx(high / low)


def test_a_loss_within_one_per_cent_is_as_good() -> None:
    runs = made({1e-4: [20.3], 1e-3: [20.1], 1e-2: [20.0], 1e-1: [20.21]}, column="test_loss", flr=1e-5)
    found = good_range(fine_tuned_runs(runs), score_of(runs))
    assert found is not None
    assert (found.low, found.high) == (1e-3, 1e-2)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_the_good_range_holds_the_best_and_nothing_worse(scores: list[float]) -> None:
    runs = made({10.0**-i: [score] for i, score in enumerate(scores)}, flr=1e-9)
    score = score_of(runs)
    found, best = good_range(fine_tuned_runs(runs), score), best_fine_tuned(study(runs), score)
    assert found is not None
    assert best is not None
    assert found.low <= best.plr <= found.high
    inside = [value for i, value in enumerate(scores) if found.low <= 10.0**-i <= found.high]
    assert min(inside) >= max(scores) - 0.01 - 1e-6
