import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl
import pytest
from scipy import stats

from lratlas.analysis.boundaries import boundaries
from lratlas.analysis.regimes import regimes
from lratlas.analysis.sparsity import sparsity
from lratlas.analysis.summary import summary
from lratlas.report.page import boundary_rows
from lratlas.tables import SCHEMAS, empty
from lratlas.text import format_lr

Study = Callable[..., dict[str, pl.DataFrame]]
CHANCE = math.log(2)
KINDS = ["converged", "converged", "plateau", "plateau", "chance"]
BARRIERS = {2: 0.01, 3: 0.1}


def finished(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    features = tables.get("features", empty("features"))
    return tables | {
        "sparsity": sparsity(features, chance=0.5),
        "regimes": regimes(tables, chance_loss=CHANCE),
        "boundaries": boundaries(tables, chance_loss=CHANCE),
    }


def with_second_stage(
    tables: dict[str, pl.DataFrame], stage: str, scores: Mapping[int, Sequence[float | None]], **keys: float
) -> dict[str, pl.DataFrame]:
    """Add runs of a second stage: place in the grid to test accuracy per seed."""
    plrs = tables["runs"]["plr"].unique().sort()
    rows = [
        {"run": f"{stage}{keys}{place}{seed}", "stage": stage, "plr": plrs[place], "seed": seed}
        | {"test_accuracy": accuracy, "test_loss": None if accuracy is None else 1 - accuracy}
        | keys
        for place, accuracies in scores.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    return tables | {"runs": pl.concat([tables["runs"], pl.DataFrame(rows, schema=SCHEMAS["runs"])])}


def sentence(sentences: list[str], start: str) -> str:
    (one,) = [text for text in sentences if text.startswith(start)]
    return one


def test_the_boundaries_in_words(study: Study) -> None:
    text = summary(finished(study([[kind] * 6 for kind in KINDS], barriers=BARRIERS)), elr=True)
    assert len(text) == 3
    assert "effective learning rate of about 2.4e-4 (between the tested 1.8e-4 and 3.2e-4" in text[0]
    assert "95% interval over seeds 1.8e-4 to 3.2e-4" in text[0]
    assert "up to about 4.2e-4" in text[1]
    assert text[2].startswith("Training diverges above about 7.5e-4")


def test_one_seed_has_no_interval(study: Study) -> None:
    tables = study([[kind] for kind in KINDS], barriers=BARRIERS)
    tables = with_second_stage(tables, "finetune", {1: [0.8], 2: [0.9]}, flr=1e-5)
    text = summary(finished(tables), elr=False)
    assert "effective" not in " ".join(text)
    assert " ".join(text).count("no interval with one seed") == 4


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("converged", ["converges at every tested learning rate", "diverges at no tested learning rate"]),
        ("chance", ["converges at no tested learning rate", "diverges at every tested learning rate"]),
        ("plateau", ["converges at no tested learning rate", "diverges at no tested learning rate"]),
        ("descending", ["Undecided: 1e-4, 1.8e-4"]),
    ],
)
def test_what_was_not_reached_is_said(study: Study, kind: str, words: list[str]) -> None:
    text = " ".join(summary(finished(study([[kind] * 2] * 2)), elr=False))
    assert all(word in text for word in words)
    assert "about" not in text


def test_a_threshold_beside_undecided_learning_rates_cannot_be_told(study: Study) -> None:
    tables = finished(study([["descending"] * 2, ["plateau"] * 2]))
    assert summary(tables, elr=False)[0].startswith("The convergence threshold is unclear between 1e-4 and 1.8e-4")
    rows = {name: value for name, value, *_ in boundary_rows(tables["boundaries"], tables["regimes"])}
    assert list(rows.values()) == ["unclear", "unclear", "not reached"]


def test_at_chance_below_a_learning_rate_that_converges_is_too_small(study: Study) -> None:
    tables = finished(study([["chance"] * 2, ["converged"] * 2, ["plateau"] * 2]))
    text = summary(tables, elr=False)
    assert "Smaller ones, down to 1.8e-4, bring the training loss close to zero" in text[0]
    assert sentence(text, "Too small").startswith("Too small: 1e-4; predictions are still at chance")
    assert not any(each.startswith("Undecided") for each in text)
    assert [row[1] for row in boundary_rows(tables["boundaries"], tables["regimes"])][1:] == ["not reached"] * 2


def test_the_gain_is_paired_by_seed(study: Study) -> None:
    worse, better = [0.80, 0.84, 0.76], [0.83, 0.86, 0.80]
    tables = study([[kind] * 3 for kind in KINDS], barriers=BARRIERS)
    tables = with_second_stage(tables, "finetune", {0: [0.7] * 3, 1: worse, 2: better}, flr=1e-5)
    tables = with_second_stage(tables, "finetune", {3: [0.99] * 3}, flr=1e-4)  # not the lowest FLR
    text = sentence(summary(finished(tables), elr=False), "After fine-tuning")
    assert "lowest learning rate (1e-5), the best initial one is 3.2e-4, with test accuracy 83.0%." in text
    gains = 100 * (np.array(better) - np.array(worse))
    low, high = stats.t.interval(0.95, 2, loc=gains.mean(), scale=stats.sem(gains))
    assert f"over the best one that converges is {gains.mean():.3g} points" in text
    assert text.endswith(f"(95% interval over seeds {low:.2g} to {high:.2g}).")
    assert "may be zero" not in text


def test_an_uncertain_gain_is_called_so(study: Study) -> None:
    tables = study([[kind] * 3 for kind in KINDS])
    tables = with_second_stage(tables, "finetune", {1: [0.8, 0.8, 0.8], 2: [0.79, 0.9, 0.82]}, flr=1e-5)
    assert "it may be zero" in sentence(summary(finished(tables), elr=False), "After fine-tuning")


def test_two_seeds_make_no_interval(study: Study) -> None:
    tables = study([[kind] * 2 for kind in KINDS])
    tables = with_second_stage(tables, "finetune", {1: [0.8, 0.8], 2: [0.81, 0.9]}, flr=1e-5)
    assert "no interval with two seeds" in sentence(summary(finished(tables), elr=False), "After fine-tuning")


def test_a_loss_is_said_where_a_converging_plr_is_best(study: Study) -> None:
    tables = study([[kind] * 2 for kind in KINDS])
    tables = with_second_stage(tables, "finetune", {1: [0.9, 0.9], 2: [0.8, 0.8]}, flr=1e-5)
    text = sentence(summary(finished(tables), elr=False), "After fine-tuning")
    assert "90.0%. Training already converges there. The gain" in text
    assert "over the best one that converges is −10 points" in text


def test_plrs_with_a_failed_seed_do_not_compete(study: Study) -> None:
    tables = study([[kind] * 2 for kind in KINDS])
    tables = with_second_stage(tables, "finetune", {1: [0.8, 0.8], 2: [None, 0.99]}, flr=1e-5)
    assert "1.8e-4, with test accuracy 80.0%" in " ".join(summary(finished(tables), elr=False))


def test_without_accuracies_losses_are_compared(study: Study) -> None:
    tables = study([[kind] * 2 for kind in KINDS], accuracies=False)
    tables = with_second_stage(tables, "finetune", {1: [0.8, 0.8], 2: [0.85, 0.86]}, flr=1e-5)
    tables["runs"] = tables["runs"].with_columns(pl.lit(None, pl.Float64).alias("test_accuracy"))
    text = sentence(summary(finished(tables), elr=False), "After fine-tuning")
    assert "3.2e-4, with test loss 0.145." in text
    assert "is 0.055 (no interval" in text


def test_the_best_average(study: Study) -> None:
    tables = study([[kind] * 2 for kind in KINDS])
    tables = with_second_stage(tables, "average", {1: [0.8, 0.8], 2: [0.9, 0.8]}, count=5)
    tables = with_second_stage(tables, "average", {2: [0.9, 0.9]}, count=20)
    text = sentence(summary(finished(tables), elr=False), "The best weight average")
    assert text.startswith(
        "The best weight average is over 20 checkpoints at 3.2e-4, with test accuracy 90.0%. The gain"
    )


def test_features(study: Study) -> None:
    tables = study([[kind] for kind in KINDS])
    plrs = tables["runs"]["plr"]
    rows = [
        {"run": str(place), "stage": "pretrain", "plr": plrs[place], "seed": 0, "feature": f, "accuracy": a}
        for place, accuracies in [(0, [0.52, 0.54]), (1, [0.55, 0.5]), (2, [0.7, 0.5])]
        for f, a in enumerate(accuracies)
    ]
    tables["features"] = pl.DataFrame(rows, schema_overrides=SCHEMAS["features"]).with_columns(
        pl.lit(None, pl.Float64).alias("flr"), pl.lit(None, pl.Int64).alias("count")
    )
    text = sentence(summary(finished(tables), elr=False), "Features")
    assert text == (
        "Features: accuracy on the strongest one is 70.0% at 3.2e-4, on the others 50.0% on average; "
        "at the learning rates where training converges, it is at most 55.0%."
    )


def test_an_empty_study() -> None:
    tables = {"runs": empty("runs"), "regimes": empty("regimes"), "boundaries": empty("boundaries")}
    assert summary(tables, elr=True) == ["No pre-training run has finished yet."]


def test_lrs_are_short() -> None:
    assert [format_lr(value) for value in (1, 0.0316227766, 7.5e-3, 1e-5, 20)] == [
        "1e0",
        "3.2e-2",
        "7.5e-3",
        "1e-5",
        "2e1",
    ]
