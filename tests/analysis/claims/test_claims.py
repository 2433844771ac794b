import math
from collections.abc import Callable
from random import Random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lratlas.analysis.boundaries import boundaries
from lratlas.analysis.claims import CLAIMS, claims
from lratlas.analysis.comparison import Entry, comparison
from lratlas.analysis.regimes import regimes
from lratlas.analysis.scores import GAIN
from lratlas.analysis.summary import summary
from lratlas.tables import SCHEMAS
from lratlas.text import plain, signed_interval

from .conftest import KINDS, PLRS, levels

# Several options on either side are about as good.
SLOPE = [0.70, 0.70, 0.701, 0.702, 0.702, 0.702, 0.703, 0.703, 0.702, 0.701, 0.6, 0.6]
World = Callable[..., dict[str, pl.DataFrame]]
CHANCE = math.log(2)


def located(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    return tables | {
        "regimes": regimes(tables, chance_loss=CHANCE),
        "boundaries": boundaries(tables, chance_loss=CHANCE),
    }


def judged(tables: dict[str, pl.DataFrame]) -> dict[str, dict[str, Any]]:
    table = claims(located(tables), chance_loss=CHANCE)
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


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("claim", "of", "lead"),
    [("best-fine-tuned", "best", "After fine-tuning"), ("best-averaged", "average", "The best weight average")],
)
def test_a_gain_is_the_same_in_claims_summary_and_comparison(
    world: World, seeds: int, claim: str, of: str, lead: str
) -> None:
    tables = located(world(seeds=seeds, tuned=SLOPE, averaged=SLOPE))
    row = judged(tables)[claim]
    (compared,) = comparison([Entry(name="a", tables=tables, elr=False)]).to_dicts()
    ends = [row["effect"], row["low"], row["high"]]
    assert [compared[f"{of}_gain{end}"] for end in ("", "_low", "_high")] == ends
    (sentence,) = [text for text in summary(tables, elr=False) if text.startswith(lead)]
    assert f"{GAIN[1:]} is {plain(100 * row['effect'])} points" in sentence
    assert f"{GAIN} is {plain(100 * row['effect'])} points" in row["statement"]
    if row["low"] is not None:
        assert signed_interval(100 * row["low"], 100 * row["high"]) in sentence


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
        ("best-fine-tuned", {"tuned": [0.7] * 12}),
        ("sparse-features", {"top_feature": [0.75] * 12}),
        ("flr-matters", {"flr_effect": [0.005] * 12}),
    ],
)
def test_an_interval_around_nothing_is_said_to_be_too_small(world: World, name: str, change: dict[str, Any]) -> None:
    row = judged(world(**change))[name]
    assert row["verdict"] == "contradicted"
    assert row["low"] < 0.005
    assert ("negligible (under half a point)" in row["statement"]) == (row["high"] >= 0)
    assert row["high"] >= 0, "the case that is meant"


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
        assert "one seed is too few for an interval; repeat with at least 3 seeds" in row["statement"], row["claim"]


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
            assert row["verdict"] == "not measured"
            assert row["effect"] is None
    assert found["best-averaged"]["statement"] == "Needs averaged weights; add [average] to the spec."


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        (["converged"] * 12, "no learning rate above the threshold stays on a plateau; add larger ones"),
        (["plateau"] * 8 + ["chance"] * 4, "no tested learning rate converges; add smaller ones"),
    ],
)
def test_a_grid_on_one_side_of_the_threshold_cannot_tell(world: World, kinds: list[str], told: str) -> None:
    row = judged(world(kinds=kinds))["best-fine-tuned"]
    assert row["verdict"] == "inconclusive"
    assert told in row["statement"]


def test_a_grid_that_ends_below_divergence_leaves_the_order_open(world: World) -> None:
    row = judged(world(kinds=["converged"] * 6 + ["plateau"] * 6))["three-regimes"]
    assert row["verdict"] == "inconclusive"
    assert "add larger learning rates for divergence" in row["statement"]


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


def diverge(tables: dict[str, pl.DataFrame], plr: float, seeds: list[int]) -> None:
    """Let all models of a PLR diverge; as in a real study, what the weights before the first NaN score is stored."""
    lost = (pl.col("plr") == plr) & pl.col("seed").is_in(seeds)
    tables["runs"] = tables["runs"].with_columns(
        diverged=pl.col("diverged") | lost, test_accuracy=pl.when(lost).then(0.95).otherwise("test_accuracy")
    )
    zero = [pl.when(lost).then(0.0).otherwise(name).alias(name) for name in ("train_barrier", "test_barrier")]
    tables["pairs"] = tables["pairs"].with_columns(zero)


def test_models_that_diverged_do_not_enter(world: World) -> None:
    tables = world()
    diverge(tables, PLRS[11], [0, 1, 2, 3, 4])
    found = judged(tables)
    for name in ("best-fine-tuned", "best-averaged", "flr-matters", "sparse-features", "middle-band"):
        assert found[name]["verdict"] == "supported", found[name]["statement"]


def test_a_plr_where_some_seeds_diverge_is_left_out(world: World) -> None:
    tables = world()
    diverge(tables, PLRS[10], [1, 2])
    found = judged(tables)
    assert found["best-fine-tuned"]["verdict"] == "supported"
    assert found["flr-matters"]["effect"] == pytest.approx(0.075, abs=0.005)


def test_seeds_that_are_not_finished_do_not_count_yet(world: World) -> None:
    tables = world()
    late = pl.col("seed") == 4
    tables["runs"] = tables["runs"].filter(~late | (pl.col("stage") == "pretrain"))
    for name in ("pairs", "features", "bands", "sharpness"):
        tables[name] = tables[name].filter(~late)
    found = judged(tables)
    for name, row in found.items():
        assert row["verdict"] == "supported", row["statement"]
        if name not in ("three-regimes", "epochs-diverge"):
            assert "Based on the 4 of 5 seeds that are complete." in row["statement"]


@given(st.randoms(use_true_random=False))
@settings(max_examples=15)
def test_whatever_is_missing_there_are_verdicts(world: World, random: Random) -> None:
    tables = world(seeds=random.choice([1, 3]))
    for name, table in tables.items():
        if name == "traces" or table.is_empty():
            continue
        share = random.choice([0.2, 0.9, 1.0])
        kept = [random.random() < share for _ in range(table.height)]
        if name == "runs":
            pretrained = (table["stage"] == "pretrain").to_list()
            kept = [keep or always for keep, always in zip(kept, pretrained, strict=True)]
        tables[name] = table.filter(pl.Series(kept, dtype=pl.Boolean))
    for row in judged(tables).values():
        assert "nan" not in row["statement"]
        assert row["verdict"] in {"inconclusive", "not measured"} or (row["low"] <= row["effect"] <= row["high"])


def test_many_epochs_at_small_steps_are_no_divergence(world: World) -> None:
    row = judged(world(epochs=[300, 100, 40, 20, 12, 10, 10, 10, 10, 10, 10, 10]))["epochs-diverge"]
    assert row["verdict"] == "contradicted"
    assert row["effect"] == pytest.approx(1, abs=0.2)


def test_sharper_minima_that_are_better_are_ordered_too(world: World) -> None:
    assert judged(world(eigenvalue=list(range(12, 0, -1))))["sharpness"]["verdict"] == "contradicted"


def test_a_stray_plateau_far_below_the_threshold_is_not_just_above_it(world: World) -> None:
    found = judged(world(kinds=["lucky", *KINDS[1:]]))
    assert found["best-fine-tuned"]["verdict"] == "supported"
    assert found["connected-basin"]["verdict"] == "supported"


def test_a_connected_plateau_that_the_grid_cuts_off_is_open(world: World) -> None:
    kinds = ["converged"] * 6 + ["plateau"] * 6
    row = judged(world(kinds=kinds, test_barrier=[0.01] * 12))["connected-basin"]
    assert row["verdict"] == "inconclusive"
    assert "the plateau may extend further; add learning rates above 5.6e-2" in row["statement"]


def test_a_coarse_grid_may_have_jumped_the_good_range(world: World) -> None:
    tables = world(tuned=levels(0.8, 0.7, 0.6))
    far = pl.when(pl.col("plr") > 2e-3).then(10 * pl.col("plr")).otherwise("plr").alias("plr")
    for name in ("runs", "pairs", "features", "bands", "sharpness"):
        tables[name] = tables[name].with_columns(far)
    row = judged(tables)["best-fine-tuned"]
    assert row["verdict"] == "inconclusive"
    assert "add learning rates between 1.8e-3 and 3.2e-2" in row["statement"]


def test_two_stages_compare_the_same_pairs(world: World) -> None:
    tables = world()
    other = (
        tables["runs"]
        .filter(pl.col("plr2").is_not_null(), pl.col("seed") < 4)
        .with_columns(run=pl.lit("other-") + pl.col("run"), plr=pl.lit(PLRS[8]), test_accuracy=pl.lit(0.2))
    )
    tables["runs"] = pl.concat([tables["runs"], other])
    row = judged(tables)["two-stages"]
    # On the seeds that have both pairs: one gains 0.15, the other loses 0.45
    assert row["effect"] == pytest.approx(-0.15, abs=0.01)
    assert "Based on the 4 of 5 seeds that are complete." in row["statement"]


def test_an_empty_study_has_no_verdicts() -> None:
    tables = {name: pl.DataFrame(schema=schema) for name, schema in SCHEMAS.items()}
    found = claims(tables, chance_loss=CHANCE)
    assert found["verdict"].to_list() == ["inconclusive"] + ["not measured"] * (len(CLAIMS) - 1)
    assert found["effect"].null_count() == len(CLAIMS)
