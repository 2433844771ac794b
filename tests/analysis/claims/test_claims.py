import math
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from lratlas.analysis.boundaries import boundaries
from lratlas.analysis.claims import CLAIMS, claims
from lratlas.analysis.regimes import regimes
from lratlas.tables import SCHEMAS

from .conftest import PLRS, levels

World = Callable[..., dict[str, pl.DataFrame]]
CHANCE = math.log(2)


def judged(tables: dict[str, pl.DataFrame]) -> dict[str, dict[str, Any]]:
    found = {
        "regimes": regimes(tables, chance_loss=CHANCE),
        "boundaries": boundaries(tables, chance_loss=CHANCE, resamples=100),
    }
    table = claims({**tables, **found}, chance_loss=CHANCE)
    assert table.schema == SCHEMAS["claims"]
    return {row["claim"]: row for row in table.iter_rows(named=True)}


def test_where_all_findings_hold_all_are_supported(world: World) -> None:
    found = judged(world())
    assert list(found) == list(CLAIMS)
    assert {name: row["verdict"] for name, row in found.items()} == dict.fromkeys(CLAIMS, "supported")
    for row in found.values():
        assert row["low"] <= row["effect"] <= row["high"]


def test_effects_are_the_true_ones(world: World) -> None:
    found = judged(world())
    truth = {
        "best-fine-tuned": 0.1,
        "best-averaged": 0.1,
        "flr-matters": 0.075,
        "connected-basin": 0.19,
        "high-flr-leaves": 0.2,
        "sparse-features": 0.75 - 0.52,
        "middle-band": 0.25,
        "two-stages": 0.15,
    }
    for name, effect in truth.items():
        assert found[name]["effect"] == pytest.approx(effect, abs=0.01), name
        assert found[name]["low"] < effect + 0.005, name
        assert found[name]["high"] > effect - 0.005, name
    assert found["epochs-diverge"]["effect"] == pytest.approx(3.0**6, rel=0.2)


FALSE: dict[str, dict[str, Any]] = {
    "three-regimes": {"kinds": ["converged"] * 3 + ["diverged"] * 5 + ["plateau"] * 4},
    "best-fine-tuned": {"tuned": [0.7, 0.7, 0.8] + [0.7] * 9},
    "best-averaged": {"averaged": [0.7] * 12},
    "flr-matters": {"flr_effect": [0.08] * 12},
    "connected-basin": {"test_barrier": [0.01] * 12},
    "high-flr-leaves": {"train_barrier": [0.0] * 12},
    "sparse-features": {"top_feature": [0.75] * 12},
    "middle-band": {"middle": levels(0.15, 0.15, 0.4)},
    "epochs-diverge": {"epochs": [10.0] * 12},
    "two-stages": {"two_stages": [0.65] * 12},
    "sharpness": {"eigenvalue": list(range(1, 13))},
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_false_claim_is_contradicted(world: World, name: str) -> None:
    found = judged(world(**FALSE[name]))
    assert found[name]["verdict"] == "contradicted", found[name]["statement"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("best-fine-tuned", {"tuned": levels(0.7, 0.8, 0.9)}),
        ("flr-matters", {"flr_effect": levels(0.05, 0.05, 0.15)}),
        ("two-stages", {"two_stages": [0.75] * 12}),
        ("connected-basin", {"test_barrier": [0.2] * 12}),
    ],
)
def test_every_part_of_a_claim_must_hold(world: World, name: str, change: dict[str, Any]) -> None:
    assert judged(world(**change))[name]["verdict"] == "contradicted"


def test_one_seed_leaves_everything_open_and_asks_for_more(world: World) -> None:
    found = judged(world(seeds=1))
    for row in found.values():
        assert row["verdict"] == "inconclusive", row["claim"]
        assert row["effect"] is not None
        assert row["low"] is None
        assert row["high"] is None
        assert "one seed is too few for an interval; repeat with at least 3" in row["statement"], row["claim"]


def test_two_seeds_are_too_few(world: World) -> None:
    assert {row["verdict"] for row in judged(world(seeds=2)).values()} == {"inconclusive"}


def test_what_was_not_measured_is_said_with_what_to_add(world: World) -> None:
    tables = world()
    stages = pl.col("stage").is_in(["pretrain"])
    bare = {"runs": tables["runs"].filter(stages), "traces": tables["traces"]}
    found = judged(bare)
    assert found["three-regimes"]["verdict"] == "supported"
    for name, row in found.items():
        if name != "three-regimes":
            assert row["verdict"] == "inconclusive"
            assert row["effect"] is None
            assert row["statement"].startswith("Not measured: ")


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        (["converged"] * 12, "no learning rate tested stays on a plateau; add larger ones"),
        (["plateau"] * 8 + ["chance"] * 4, "no learning rate tested converges; add smaller ones"),
    ],
)
def test_a_grid_on_one_side_of_the_threshold_cannot_tell(world: World, kinds: list[str], told: str) -> None:
    row = judged(world(kinds=kinds))["best-fine-tuned"]
    assert row["verdict"] == "inconclusive"
    assert told in row["statement"]


def test_a_grid_that_ends_below_divergence_leaves_the_order_open(world: World) -> None:
    row = judged(world(kinds=["converged"] * 6 + ["plateau"] * 6))["three-regimes"]
    assert row["verdict"] == "inconclusive"
    assert "add larger ones for divergence" in row["statement"]


@pytest.mark.parametrize(("gap", "verdict"), [(1, "inconclusive"), (0, "contradicted")])
def test_convergence_next_to_divergence_is_judged_where_plrs_are_close(world: World, gap: int, verdict: str) -> None:
    tables = world(kinds=["converged"] * 6 + ["chance"] * 6)
    if not gap:  # the first PLR that diverges, moved next to the last that converges
        near = pl.when(pl.col("plr") == PLRS[6]).then(1.2 * PLRS[5]).otherwise("plr").alias("plr")
        tables["runs"] = tables["runs"].with_columns(near)
    assert judged(tables)["three-regimes"]["verdict"] == verdict


def test_a_high_flr_far_below_the_threshold_is_no_test(world: World) -> None:
    tables = world(train_barrier=[0.0] * 12)
    slow = pl.when(pl.col("flr") == 2e-3).then(2e-4).otherwise("flr").alias("flr")
    tables["runs"] = tables["runs"].with_columns(slow)
    row = judged(tables)["high-flr-leaves"]
    assert row["verdict"] == "inconclusive"
    assert "add one near 2.4e-3" in row["statement"]


def test_a_steep_rise_is_not_missed_where_plrs_are_far_apart(world: World) -> None:
    tables = world(epochs=[10.0] * 12)
    apart = pl.when(pl.col("epochs").is_null()).then(3e-3).otherwise("plr").alias("plr")
    tables["convergence"] = tables["convergence"].with_columns(apart)
    row = judged(tables)["epochs-diverge"]
    assert row["verdict"] == "inconclusive"
    assert "bisect the boundary between 1.3e-3 and 3e-3" in row["statement"]


def test_models_that_diverged_do_not_enter(world: World) -> None:
    tables = world()
    lost = (pl.col("plr") == PLRS[11]) & (pl.col("seed") == 0) & (pl.col("stage") != "pretrain")
    tables["runs"] = tables["runs"].with_columns(
        diverged=lost, test_accuracy=pl.when(lost).then(None).otherwise("test_accuracy")
    )
    assert judged(tables)["flr-matters"]["verdict"] == "supported"


def test_an_empty_study_has_no_verdicts() -> None:
    tables = {name: pl.DataFrame(schema=schema) for name, schema in SCHEMAS.items()}
    found = claims(tables, chance_loss=CHANCE)
    assert found["verdict"].to_list() == ["inconclusive"] * len(CLAIMS)
    assert found["effect"].null_count() == len(CLAIMS)
