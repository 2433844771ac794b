from collections.abc import Sequence
from random import Random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.analysis import sparsity as indices
from lratlas.analysis.sparsity import sparsity
from lratlas.tables import SCHEMAS, empty

shares = st.lists(st.floats(0.001, 1), min_size=1, max_size=20)


def gini(excess: Sequence[float]) -> float:
    return pl.select(indices.gini(pl.lit(pl.Series(excess, dtype=pl.Float64)))).item()


def top_share(excess: Sequence[float]) -> float:
    return pl.select(indices.top_share(pl.lit(pl.Series(excess, dtype=pl.Float64)))).item()


def table(runs: list[tuple[str, float, int, list[float | None]]]) -> pl.DataFrame:
    """A features table from (stage, plr, seed, accuracy of each feature)."""
    rows = [
        {
            "run": f"{stage}-{plr}-{seed}",
            "stage": stage,
            "plr": plr,
            "seed": seed,
            "feature": f,
            "accuracy": a,
        }
        for stage, plr, seed, accuracies in runs
        for f, a in enumerate(accuracies)
    ]
    return pl.DataFrame(rows, schema_overrides=SCHEMAS["features"]).select(
        pl.col(n) if n in ("run", "stage", "plr", "seed", "feature", "accuracy") else pl.lit(None, kind).alias(n)
        for n, kind in SCHEMAS["features"].items()
    )


@given(shares)
def test_gini_is_the_mean_absolute_difference(values: list[float]) -> None:
    n = len(values)
    differences = sum(abs(a - b) for a in values for b in values)
    assert gini(values) == pytest.approx(differences / (2 * n * sum(values)), abs=1e-12)


@given(shares, st.floats(0.01, 100), st.randoms(use_true_random=False))
def test_indices_do_not_depend_on_scale_or_order(values: list[float], scale: float, order: Random) -> None:
    scaled = [scale * value for value in order.sample(values, len(values))]
    assert gini(scaled) == pytest.approx(gini(values), abs=1e-9)
    assert top_share(scaled) == pytest.approx(top_share(values))
    assert 1 / len(values) - 1e-12 <= top_share(values) <= 1


@pytest.mark.parametrize("size", [1, 2, 16])
def test_the_extremes(size: int) -> None:
    assert gini([0.1] * size) == pytest.approx(0, abs=1e-12)
    assert top_share([0.1] * size) == pytest.approx(1 / size)
    alone = [0.2] + [0.0] * (size - 1)
    assert gini(alone) == pytest.approx(1 - 1 / size)
    assert top_share(alone) == pytest.approx(1)


def test_negative_excess_counts_as_none() -> None:
    features = table([("pretrain", 0.1, 0, [0.2, 0.6, 0.8]), ("pretrain", 1.0, 0, [0.5, 0.6, 0.8])])
    below, at_chance = sparsity(features, chance=0.5).iter_rows(named=True)
    assert below["gini"] == pytest.approx(at_chance["gini"])
    assert below["top_share"] == pytest.approx(0.75)
    for nothing in ([], [0.0, 0.0]):
        assert gini(nothing) == 0
        assert top_share(nothing) == 0


def test_sparsity_averages_the_indices_of_runs() -> None:
    features = table([("pretrain", 0.1, 0, [0.5, 0.9, 0.5, 0.5]), ("pretrain", 0.1, 1, [0.7, 0.6, 0.6, 0.6])])
    row = sparsity(features, chance=0.5).row(0, named=True)
    assert row["seeds"] == 2
    assert row["top_accuracy"] == pytest.approx((0.9 + 0.7) / 2)
    assert row["rest_accuracy"] == pytest.approx((0.5 + 0.6) / 2)
    assert row["top_share"] == pytest.approx((1 + 0.2 / 0.5) / 2)
    assert row["gini"] == pytest.approx((0.75 + (3 * 0.1 * 2) / (2 * 4 * 0.5)) / 2)


def test_the_excess_is_over_the_accuracy_of_a_guess() -> None:
    features = table([("pretrain", 0.1, 0, [0.1, 0.2])])
    assert sparsity(features, chance=0.5)["top_share"].item() == 0
    assert sparsity(features, chance=0.1)["top_share"].item() == pytest.approx(1)


def test_every_stage_and_lr_has_its_row_and_unmeasured_runs_none() -> None:
    features = table(
        [
            ("pretrain", 0.2, 0, [0.75, 0.5]),
            ("pretrain", 0.1, 0, [0.75, 0.5]),
            ("finetune", 0.1, 0, [0.7]),
            ("pretrain", 0.4, 0, [None, None]),
        ]
    )
    rows = sparsity(features, chance=0.5).select("stage", "plr", "rest_accuracy").rows()
    assert rows == [("finetune", 0.1, None), ("pretrain", 0.1, 0.5), ("pretrain", 0.2, 0.5)]


def test_no_features_give_no_rows() -> None:
    assert sparsity(empty("features"), chance=0.5).is_empty()
