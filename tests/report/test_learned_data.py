"""Data of the charts of learned features against sums done by hand."""

from typing import Any

import polars as pl
import pytest

from lratlas.errors import StudyError
from lratlas.report.charts.learned import bands_data, features_data
from lratlas.report.frames import over_seeds
from lratlas.tables import SCHEMAS

Row = dict[str, Any]


def frame(table: str, rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMAS[table])


def features(name: str, accuracies: list[float], **more: Any) -> list[Row]:
    shared = {"run": name, "stage": "pretrain", "plr": 0.01, "seed": 0, **more}
    return [{**shared, "feature": i, "accuracy": accuracy} for i, accuracy in enumerate(accuracies)]


def test_features_are_sorted_in_each_run_before_the_mean() -> None:
    rows = features("a", [0.5, 0.9]) + features("b", [0.7, 0.6], seed=1)
    every = features_data({"features": frame("features", rows)})
    assert every.filter(seed=1)["accuracy"].to_list() == [0.7, 0.6]
    data = over_seeds(every)
    # Sorted they are 0.9, 0.5 and 0.7, 0.6; a mean feature by feature would give 0.75 and 0.6.
    assert data["accuracy"].to_list() == pytest.approx([0.8, 0.55])
    assert data["rank"].to_list() == [1, 2]
    assert data["model"].unique().to_list() == ["pre-trained"]


def test_features_are_of_every_model_in_order_of_stage_and_setting() -> None:
    rows = [
        *features("a", [0.6], stage="finetune", flr=1e-3),
        *features("b", [0.7], stage="finetune", flr=1e-4),
        *features("c", [0.8], stage="average", count=20),
        *features("d", [0.9], stage="average", count=5),
    ]
    data = over_seeds(features_data({"features": frame("features", rows)}))
    names = ["fine-tuned, FLR 1e-4", "fine-tuned, FLR 1e-3", "averaged, SWA-5", "averaged, SWA-20"]
    assert data["model"].to_list() == names
    assert data["accuracy"].to_list() == pytest.approx([0.7, 0.6, 0.9, 0.8])


def test_rank_0_is_the_test_accuracy_of_the_same_runs() -> None:
    rows = features("a", [0.5, 0.9]) + features("b", [0.7, 0.6], seed=1) + features("c", [0.8, 0.7], seed=2)
    accuracies = {"a": 0.95, "b": 0.85, "c": None, "of no features": 0.1}
    shared = {"stage": "pretrain", "plr": 0.01}
    runs = [{"run": name, "test_accuracy": accuracy, **shared} for name, accuracy in accuracies.items()]
    data = over_seeds(features_data({"features": frame("features", rows), "runs": frame("runs", runs)}))
    assert data.select("rank", "seeds").rows() == [(0, 2), (1, 3), (2, 3)]
    assert data["accuracy"].to_list() == pytest.approx([0.9, (0.9 + 0.7 + 0.8) / 3, (0.5 + 0.6 + 0.7) / 3])


def band(low: int, high: int, accuracy: float, **more: Any) -> Row:
    shared = {"run": "a", "stage": "pretrain", "plr": 0.01, "seed": 0, "kept": True}
    return {**shared, **more, "low": low, "high": high, "accuracy": accuracy}


def test_bands_are_means_over_seeds_in_order_of_frequency() -> None:
    rows = [
        band(9, 24, 0.4),
        band(9, 24, 0.8, seed=1, run="b"),
        band(25, 32, 0.1),
        band(0, 0, 0.2),
        band(9, 24, 0.3, kept=False),
    ]
    every = bands_data({"bands": frame("bands", rows)})
    assert every.filter(seed=1).select("band", "accuracy").rows() == [("9-24 (mid)", 0.8)]
    data = over_seeds(every)
    assert data["band"].to_list() == ["0 (background)", "9-24 (mid)", "25-32 (high)", "9-24 (mid)"]
    assert data["kept"].to_list() == [True, True, True, False]
    assert data["accuracy"].to_list() == pytest.approx([0.2, 0.6, 0.1, 0.3])
    assert data["seeds"].to_list() == [1, 2, 1, 1]


def test_bands_with_other_borders_are_lines_of_their_own() -> None:
    rows = [band(1, 8, 0.4), band(1, 12, 0.5), band(13, 24, 0.3), band(25, 32, 0.1)]
    data = over_seeds(bands_data({"bands": frame("bands", rows)}))
    assert data["band"].to_list() == ["1-8 (low)", "1-12", "13-24", "25-32 (high)"]


def test_bands_are_of_every_model_in_order_of_stage_and_setting() -> None:
    rows = [
        band(0, 0, 0.1, stage="average", count=20),
        band(0, 0, 0.2, stage="average", count=5),
        band(0, 0, 0.3, stage="finetune", flr=1e-3),
        band(0, 0, 0.4, stage="finetune", flr=1e-4),
        band(0, 0, 0.5),
    ]
    data = over_seeds(bands_data({"bands": frame("bands", rows)}))
    tuned, averaged = ["fine-tuned, FLR 1e-4", "fine-tuned, FLR 1e-3"], ["averaged, SWA-5", "averaged, SWA-20"]
    assert data["model"].to_list() == ["pre-trained", *tuned, *averaged]
    assert data["accuracy"].to_list() == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])


def test_bands_of_other_stages_are_not_enough() -> None:
    with pytest.raises(StudyError, match="needs pre-trained, fine-tuned or averaged runs in 'bands'"):
        bands_data({"bands": frame("bands", [band(0, 0, 0.1, stage="second")])})
