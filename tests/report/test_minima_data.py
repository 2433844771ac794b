"""Data of the charts of the threshold, two stages, norms and sharpness against sums done by hand."""

import math
from typing import Any

import polars as pl
import pytest

from lratlas.errors import StudyError
from lratlas.report.axes import log_ticks
from lratlas.report.charts.convergence import convergence_data, law_data
from lratlas.report.charts.minima import norms_data, sharpness_data, two_stages_data
from lratlas.report.frames import over_seeds
from lratlas.tables import SCHEMAS, Tables

Row = dict[str, Any]


def frame(table: str, rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMAS[table])


def epochs(plr: float, counts: list[int | None], accuracies: list[float | None]) -> list[Row]:
    return [
        {"plr": plr, "seed": seed, "epochs": count, "test_accuracy": accuracy}
        for seed, (count, accuracy) in enumerate(zip(counts, accuracies, strict=True))
    ]


def test_convergence_has_a_row_per_seed_and_medians_that_count_failures_as_infinite() -> None:
    rows = epochs(2e-3, [7, None, None], [0.7, None, None]) + epochs(1e-3, [4, None, 9], [0.6, None, 0.8])
    data = convergence_data({"convergence": frame("convergence", rows)})
    together, alone = over_seeds(data), data.drop_nulls("seed")
    assert together.select("plr", "epochs").rows() == [(1e-3, 9.0), (2e-3, None)]
    assert alone["seed"].to_list() == [0, 0, 1, 1, 2, 2]
    assert alone["plr"].to_list() == [1e-3, 2e-3] * 3
    assert alone["epochs"].to_list() == [4, 7, None, None, 9, None]
    assert alone["converged"].to_list() == [1, 1, 0, 0, 1, 0]
    assert alone["mean"].to_list() == [0.6, 0.7, None, None, 0.8, None]
    deviation = math.sqrt(2 * 0.1**2)  # two values, each 0.1 from their mean
    columns = ("mean", "low", "high", "seeds", "converged")
    assert together.select(columns).row(0) == pytest.approx((0.7, 0.7 - deviation, 0.7 + deviation, 3, 2))
    assert together.select(columns).row(1) == pytest.approx((0.7, 0.7, 0.7, 3, 1))


def test_the_law_is_a_curve_from_the_first_rising_plr_towards_its_threshold() -> None:
    law = [{"parameter": name, "value": value} for name, value in (("threshold", 5.0), ("exponent", 2), ("scale", 9.0))]
    rows = epochs(1.0, [8], [None]) + epochs(2.0, [1], [None]) + epochs(4.0, [9], [None])
    data = law_data({"power_law": frame("power_law", law), "convergence": frame("convergence", rows)})
    assert data["plr"][0] == pytest.approx(2.0)
    assert data["epochs"][0] == pytest.approx(1.0)
    assert 4.0 < data["plr"][-1] < 5.0
    assert data["plr"].is_sorted()
    assert (data["epochs"] - 9 / (5 - data["plr"]) ** 2).abs().max() == pytest.approx(0, abs=1e-9)
    assert data["threshold"].unique().to_list() == [5.0]


def test_no_law_has_no_curve() -> None:
    rows = epochs(1.0, [8], [None])
    assert law_data({"convergence": frame("convergence", rows)}).is_empty()


def tuned(plr: float, plr2: float | None, accuracies: list[float], flr: float = 1e-5, **more: Any) -> list[Row]:
    shared = {"stage": "finetune", "plr": plr, "plr2": plr2, "flr": flr, **more}
    return [{**shared, "seed": seed, "test_accuracy": accuracy} for seed, accuracy in enumerate(accuracies)]


def test_two_stages_stand_beside_the_direct_ways_from_their_two_plrs() -> None:
    rows = [
        *tuned(1e-2, 1e-3, [0.8, 0.9]),
        *tuned(1e-2, None, [0.5, 0.7]),
        *tuned(1e-3, None, [0.9]),
        *tuned(3e-3, None, [0.99]),  # another PLR
        *tuned(1e-2, None, [0.99], flr=1e-4),  # an FLR without two stages
        *tuned(1e-2, None, [0.99], stage="average", count=5),
    ]
    every = two_stages_data({"runs": frame("runs", rows)})
    assert every.filter(seed=1).select("way", "mean").rows() == [("high", 0.7), ("both", 0.9)]
    data = over_seeds(every)
    assert data["pair"].unique().to_list() == ["1e-2 → 1e-3"]
    assert data["name"].to_list() == ["1e-2 → 1e-5", "1e-3 → 1e-5", "1e-2 → 1e-3 → 1e-5"]
    assert data["way"].to_list() == ["high", "low", "both"]
    assert data["mean"].to_list() == pytest.approx([0.6, 0.9, 0.85])
    assert (data["high"] - data["low"]).to_list() == pytest.approx([2 * math.sqrt(0.02), 0, 2 * math.sqrt(0.005)])
    assert data["seeds"].to_list() == [2, 1, 2]


def test_without_two_stages_there_are_no_bars() -> None:
    with pytest.raises(StudyError, match="runs fine-tuned after a second PLR"):
        two_stages_data({"runs": frame("runs", tuned(1e-2, None, [0.5]))})


def normed(stage: str, plr: float | None, values: list[float], **more: Any) -> list[Row]:
    shared = {"stage": stage, "plr": plr, "seed": 0, "layer": "0", **more}
    return [{**shared, "group": i, "norm": value} for i, value in enumerate(values)]


NORMS = [
    *normed("initial", None, [0.1, 0.1]),
    *normed("pretrain", 1.0, [1e-5, 1e-3, 1e-1, 0.0, math.nan]),
    *normed("pretrain", 2.0, [1e-1]),
    *normed("finetune", 1.0, [1e-2], flr=1e-4),
    *normed("finetune", 1.0, [0.9], flr=1e-3),
    *normed("pretrain", 0.01, [0.05]),
]


def test_norms_are_pooled_over_the_plrs_of_a_regime() -> None:
    regimes = frame("regimes", [{"plr": p, "regime": r} for p, r in ((0.01, "1"), (1.0, "3"), (2.0, "3"))])
    data = over_seeds(norms_data({"norms": frame("norms", NORMS), "regimes": regimes}))
    states = data.unique(["regime", "state"], maintain_order=True)
    assert states.select("regime", "state", "flr", "filters").rows() == [
        ("1", "before training", None, 2),
        ("1", "after pre-training", None, 1),
        ("3", "before training", None, 2),
        ("3", "after pre-training", None, 4),
        ("3", "after fine-tuning", 1e-4, 1),
    ]
    trained = data.filter(regime="3", state="after pre-training")
    # Logs -5, -3, -1, -1: the 5% quantile is 0.15 of the way from -5 to -3, the 95% one is -1.
    assert trained["spread"][0] == pytest.approx(4 - 0.3)
    assert trained["share"].filter(trained["share"] > 0).to_list() == [0.25, 0.25, 0.5]
    for log, share in ((-5, 0.25), (-3, 0.25), (-1, 0.5)):
        (near,) = trained.filter((pl.col("log_norm") - log).abs() < 0.11, pl.col("share") > 0)["share"]
        assert near == share
    ends = data.group_by("regime", "state").agg(pl.col("share").sum(), first=pl.col("share").first())
    assert ends["share"].to_list() == pytest.approx([1.0] * 5)
    assert ends["first"].to_list() == [0.0] * 5


def test_norms_of_one_seed_are_in_the_bins_of_all() -> None:
    rows = [*normed("pretrain", 1.0, [0.1, 0.1]), *normed("pretrain", 1.0, [1e-4, 1e-4, 0.1, 0.1], seed=3)]
    data = norms_data({"norms": frame("norms", rows)})
    drawn = data.filter(pl.col("share") > 0).select("seed", "share", "filters").rows()
    assert drawn == [(None, 2 / 6, 6), (None, 4 / 6, 6), (0, 1.0, 2), (3, 0.5, 4), (3, 0.5, 4)]
    top = data.filter(pl.col("share") > 0).group_by("seed").agg(pl.col("log_norm").max())
    assert top["log_norm"].n_unique() == 1


def test_without_regimes_all_norms_are_together() -> None:
    data = norms_data({"norms": frame("norms", NORMS)})
    assert data["regime"].unique().to_list() == ["all"]
    assert data.filter(state="after pre-training")["filters"][0] == 5


def test_norms_of_initial_models_alone_are_no_chart() -> None:
    with pytest.raises(StudyError, match="norms above zero of pre-trained or fine-tuned models"):
        norms_data({"norms": frame("norms", normed("initial", None, [0.1]))})


def sharpness(*rows: Row) -> Tables:
    shared = {"stage": "finetune", "flr": 1e-5, "seed": 0, "top_eigenvalue": 1.0, "test_error": 0.2, "converged": True}
    return {"sharpness": frame("sharpness", [{**shared, **row} for row in rows])}


def test_sharpness_shows_the_models_near_the_loss_most_plrs_have() -> None:
    tables = sharpness(
        {"plr": 1e-3, "train_loss": 0.010},
        {"plr": 1e-3, "train_loss": 0.014, "seed": 1, "test_error": 0.4},  # mean 0.012
        {"plr": 1e-2, "train_loss": 0.009, "converged": False},
        {"plr": 1e-2, "train_loss": 0.011, "stage": "pretrain", "flr": None},
        {"plr": 1e-1, "train_loss": 0.3},
    )
    every = sharpness_data(tables)
    # Each seed of the models chosen by their means.
    assert every.filter(seed=1).select("plr", "train_loss", "test_error", "seeds").rows() == [(1e-3, 0.014, 0.4, 1)]
    assert every.filter(seed=0)["plr"].to_list() == [1e-2, 1e-3, 1e-2]
    data = over_seeds(every)
    assert data["model"].to_list() == ["pre-trained", "fine-tuned, FLR 1e-5", "fine-tuned, FLR 1e-5"]
    assert data["kind"].to_list() == ["pre-trained", "fine-tuned", "fine-tuned"]
    assert data["plr"].to_list() == [1e-2, 1e-3, 1e-2]
    assert data["converged"].to_list() == [True, True, False]
    assert data["test_error"].to_list() == pytest.approx([0.2, 0.3, 0.2])
    assert data["level"].unique().to_list() == [0.009]
    assert over_seeds(sharpness_data(tables, at_loss=0.25))["plr"].to_list() == [1e-1]


def test_sharpness_without_a_loss_is_no_chart() -> None:
    with pytest.raises(StudyError, match="a training loss above zero"):
        sharpness_data(sharpness({"plr": 1e-3, "train_loss": 0.0}))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(3, 200, [10, 100]), (3, 60, [5, 10, 20, 50]), (1e-4, 1e-2, [1e-4, 1e-3, 1e-2]), (2.1, 4.9, [])],
)
def test_ticks_are_powers_of_ten_where_there_are_two(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)
