"""Threshold, two stages, norms and sharpness in words, against numbers worked out by hand."""

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from lratlas.analysis.minima import at_equal_loss, flatness_correlation
from lratlas.analysis.power_law import power_law
from lratlas.analysis.summary import minima_sentences, norms, sharpness, stages, threshold_sentence
from lratlas.errors import StudyError
from lratlas.tables import SCHEMAS, Tables, empty
from lratlas.text import format_lr

Row = dict[str, Any]


def frame(table: str, rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMAS[table])


def converging(epochs: Mapping[float, Sequence[int | None]]) -> Tables:
    rows = [
        {"plr": plr, "seed": seed, "epochs": count}
        for plr, counts in epochs.items()
        for seed, count in enumerate(counts)
    ]
    table = frame("convergence", rows)
    return {"convergence": table, "power_law": power_law(table)}


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert minima_sentences({}) == []
    assert minima_sentences({name: empty(name) for name in SCHEMAS}) == []


def test_the_threshold_of_the_paper() -> None:
    text = threshold_sentence(
        converging({1e-4: [18], 2.5e-4: [40], 3e-4: [85], 3.5e-4: [400], 3.9e-4: [2600], 4.2e-4: [None]})
    )
    assert text.startswith(
        "Epochs to convergence grow from 18 at 1e-4 to 2,600 at 3.9e-4; at 4.2e-4 at least half of the seeds never "
        "converged. The growth follows a power law in the distance to a threshold of 4.07e-4 (95% interval 3.9"
    )
    assert "with exponent −1.8 (95% interval −" in text


def test_a_threshold_that_is_not_fixed_is_not_given() -> None:
    few = threshold_sentence(converging({1e-4: [30], 2e-4: [18], 3e-4: [40], 4e-4: [90]}))
    assert few == (
        "Epochs to convergence grow from 18 at 2e-4 to 90 at 4e-4. No threshold is fitted: a power law needs 4 "
        "learning rates with rising epochs."
    )
    exponential = {(i + 1) * 1e-4: [round(1000 * math.exp(0.5 * i))] for i in range(8)}
    assert threshold_sentence(converging(exponential)).endswith(
        "No threshold is fitted: the epochs do not determine one."
    )


def test_four_points_are_said_to_have_no_interval() -> None:
    law = {plr: [round(1000 / (5e-4 - plr))] for plr in (1e-4, 2e-4, 3e-4, 4e-4)}
    text = threshold_sentence(converging(law))
    assert "a threshold of 5e-4 (no interval), with exponent −1 (no interval)." in text


def test_no_rise_and_no_convergence_are_said() -> None:
    assert (
        "are fewest at the largest learning rate that converges: 18 at 2e-4; at 3e-4 at least half"
        in threshold_sentence(converging({1e-4: [30], 2e-4: [18], 3e-4: [None]}))
    )
    assert threshold_sentence(converging({1e-4: [None, 3]})).startswith("At no tested learning rate did more than half")


def tuned(way: Sequence[float], accuracies: Sequence[float | None]) -> list[Row]:
    *plrs, flr = way
    plr, plr2 = plrs if len(plrs) == 2 else (plrs[0], None)
    return [
        {"stage": "finetune", "plr": plr, "plr2": plr2, "flr": flr, "seed": seed, "test_accuracy": accuracy}
        for seed, accuracy in enumerate(accuracies)
    ]


def test_the_best_two_stages_against_the_best_direct_ways() -> None:
    both, high, low = [0.88, 0.89, 0.885], [0.78, 0.79, 0.80], [0.884, 0.889, 0.888]
    runs = [
        *tuned([1e-2, 1e-3, 1e-5], both),
        *tuned([1e-2, 1e-3, 1e-4], [0.8, 0.8, 0.8]),
        *tuned([1e-2, 1e-5], [0.5] * 3),
        *tuned([1e-2, 1e-4], high),  # the best FLR from there is another one
        *tuned([1e-3, 1e-5], low),
        *tuned([3e-3, 1e-5], [0.99] * 3),  # from neither of the two
    ]
    text = stages({"runs": frame("runs", runs)})
    assert text.startswith("Two stages: the best path, 1e-2 → 1e-3 → 1e-5, reaches 88.5% test accuracy.")
    for rival, kind, word in ((high, "first", "above"), (low, "second", "below")):
        gains = 100 * (np.array(both) - np.array(rival))
        ends = stats.t.interval(0.95, 2, loc=gains.mean(), scale=stats.sem(gains))
        interval = " to ".join(f"{end:.2g}" for end in ends).replace("-", "−")
        assert f"{abs(gains.mean()):.2g} points {word} the best direct path from a {kind} learning rate" in text
        assert f"(95% interval of the gain over seeds {interval}" in text
    assert text.count("it may be zero") == 1


def test_two_seeds_or_no_direct_way_are_borne() -> None:
    two = tuned([1e-2, 1e-3, 1e-5], [0.8, 0.9]) + tuned([1e-3, 1e-5], [0.8, 0.8])
    assert stages({"runs": frame("runs", two)}) == (
        "Two stages: the best path, 1e-2 → 1e-3 → 1e-5, reaches 85.0% test accuracy. The best two-stage path is 5 "
        "points above the best direct path from a second learning rate."
    )
    assert stages({"runs": frame("runs", two[:2])}).startswith("Two stages: the best path, 1e-2 → 1e-3 → 1e-5, reaches")
    assert stages({"runs": frame("runs", two[2:])}) == ""


def normed(stage: str, plr: float | None, decades: float, flr: float | None = None) -> list[Row]:
    """Norms evenly spaced over the decades below 1, on the log axis."""
    return [
        {
            "stage": stage,
            "plr": plr,
            "flr": flr,
            "seed": 0,
            "layer": "0",
            "group": i,
            "norm": 10 ** (-decades * i / 100),
        }
        for i in range(101)
    ]


def test_norms_are_those_of_regime_3_where_there_is_one() -> None:
    rows = [
        *normed("initial", None, 0.1),
        *normed("pretrain", 1e-2, 0.5),
        *normed("pretrain", 1.0, 5.0),
        *normed("finetune", 1.0, 4.0, flr=1e-5),
        *normed("finetune", 1.0, 3.0, flr=1e-4),
    ]
    regimes = frame("regimes", [{"plr": 1e-2, "regime": "1"}, {"plr": 1.0, "regime": "3"}])
    # 5% to 95% is nine tenths of the decades.
    assert norms({"norms": frame("norms", rows), "regimes": regimes}) == (
        "Norms: 90% of the filters of regime 3 span 0.09 decades before training, 4.5 decades after "
        "pre-training and 3.6 decades after fine-tuning with 1e-5."
    )
    assert "filters of regime 1 span 0.09 decades before training and 0.45 decades after" in norms(
        {"norms": frame("norms", rows[:202]), "regimes": regimes}
    )
    assert "filters span" in norms({"norms": frame("norms", rows)})


def sharp(plr: float, eigenvalue: float, error: float, loss: float = 0.01, **more: Any) -> Row:
    shared = {"run": f"{plr}", "stage": "finetune", "flr": 1e-5, "seed": 0, "converged": True}
    return {**shared, "plr": plr, "top_eigenvalue": eigenvalue, "train_loss": loss, "test_error": error, **more}


def test_few_plrs_have_the_p_of_all_orders() -> None:
    pairs = [(1.0, 0.3), (2.0, 0.1), (3.0, 0.35), (4.0, 0.4), (5.0, 0.5), (6.0, 0.45)]
    table = frame("sharpness", [sharp(10.0**-i, *pair) for i, pair in enumerate(pairs)])
    found = flatness_correlation(at_equal_loss({"sharpness": table}))
    first, second = zip(*pairs, strict=True)
    coefficient, _ = stats.spearmanr(first, second)
    assert found.coefficient == pytest.approx(coefficient)
    strengths = np.abs(np.array([stats.spearmanr(order, second)[0] for order in permutations(first)], dtype=float))
    assert found.p == pytest.approx(np.mean(strengths >= abs(found.coefficient or 0) - 1e-9))
    text = sharpness({"sharpness": table})
    assert text.startswith(
        "Sharpness at a training loss of about 0.01 (within a factor of 1.5): the test error rises with"
    )
    assert "over 6 learning rates" in text


def test_many_plrs_agree_with_scipy() -> None:
    pairs = np.random.default_rng(0).normal(size=(2, 12))
    rows = [sharp(10.0**-i, a, b) for i, (a, b) in enumerate(zip(*pairs.tolist(), strict=True))]
    found = flatness_correlation(at_equal_loss({"sharpness": frame("sharpness", rows)}))
    assert (found.coefficient, found.p) == pytest.approx(tuple(stats.spearmanr(*pairs)))


def test_what_did_not_converge_is_counted_and_not_ranked() -> None:
    rows = [sharp(10.0**-i, i + 1.0, 0.1 + 0.1 * i) for i in range(4)]
    rows += [sharp(10.0**-4, 99.0, 0.0, converged=False), sharp(10.0**-5, 98.0, 0.0, converged=None)]
    assert sharpness({"sharpness": frame("sharpness", rows)}).endswith(
        "too few different models (4 learning rates) to relate it to the test error. "
        "The eigenvalue did not converge for 2 of these 6 models."
    )
    assert "p below 0.001" in sharpness(
        {"sharpness": frame("sharpness", [sharp(10.0**-i, 9.0 - i, 0.1 * i) for i in range(9)])}
    )


def test_no_relation_is_claimed_by_chance() -> None:
    rows = [sharp(10.0**-i, a, 0.1 * i) for i, a in enumerate([2.0, 5.0, 1.0, 4.0, 3.0])]
    assert "no clear relation" in sharpness({"sharpness": frame("sharpness", rows)})


def test_the_level_is_the_one_that_most_plrs_have_and_each_plr_gives_its_nearest_model() -> None:
    rows = [
        *(sharp(10.0**-i, i + 1.0, 0.1 * i, loss=0.010) for i in range(4)),
        sharp(10.0**-4, 9.0, 0.9, loss=0.0149),
        sharp(1.0, 50.0, 0.5, loss=0.0145, flr=1e-4),  # a second model of the first PLR, further from the level
        *(sharp(10.0**-i, 1.0, 0.5, loss=0.6, stage="pretrain", flr=None) for i in range(5, 12)),  # chance, regime 3
        *(sharp(10.0**-i, 1.0, 0.5, loss=0.1, stage="average", count=2) for i in range(9)),
    ]
    regimes = frame("regimes", [{"plr": 10.0**-i, "regime": "3"} for i in range(5, 12)])
    models = at_equal_loss({"sharpness": frame("sharpness", rows), "regimes": regimes})
    assert models["level"].unique().to_list() == [0.010]
    assert models.height == 6
    assert flatness_correlation(models).plrs == 5
    assert flatness_correlation(models).coefficient == pytest.approx(1.0)


def test_a_level_is_taken_as_given_or_refused_where_nothing_is_near() -> None:
    table = frame("sharpness", [sharp(1e-2, 1.0, 0.3, loss=0.1), sharp(1e-3, 1.0, 0.3, loss=0.01)])
    assert at_equal_loss({"sharpness": table}, at_loss=0.08)["plr"].to_list() == [1e-2]
    with pytest.raises(StudyError, match=r"within a factor of 1\.5 of 0\.03; the losses are 0\.01 to 0\.1"):
        at_equal_loss({"sharpness": table}, at_loss=0.03)


def test_models_are_means_over_seeds_and_converged_in_all() -> None:
    rows = [sharp(1e-2, 1.0, 0.2), sharp(1e-2, 3.0, 0.4, seed=1, converged=False), sharp(1e-3, 1.0, 0.2, loss=0.0)]
    (model,) = at_equal_loss({"sharpness": frame("sharpness", rows)}).to_dicts()
    assert (model["top_eigenvalue"], model["seeds"], model["converged"]) == (2.0, 2, False)
    assert model["test_error"] == pytest.approx(0.3)


def test_lrs_may_have_more_digits() -> None:
    assert [format_lr(value) for value in (1, 0.0316227766, 7.5e-3, 20)] == ["1e0", "3.2e-2", "7.5e-3", "2e1"]
    assert [format_lr(value, digits=3) for value in (3.942e-4, 0.1)] == ["3.94e-4", "1e-1"]
    assert format_lr(0.036, digits=1) == "4e-2"
