import math
from collections.abc import Callable
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lratlas.analysis.regimes import regimes
from lratlas.errors import SpecError, StudyError
from lratlas.tables import SCHEMAS, empty
from lratlas.thresholds import Thresholds

Study = Callable[..., dict[str, pl.DataFrame]]
CHANCE = math.log(2)
KINDS = ["converged", "descending", "creeping", "plateau", "lucky", "chance", "diverged"]


def labels(tables: dict[str, pl.DataFrame], *, chance_loss: float = CHANCE) -> list[str]:
    return regimes(tables, chance_loss=chance_loss)["regime"].to_list()


def by_hand(accuracies: list[list[float]], *, chance: float = 0.5) -> dict[str, pl.DataFrame]:
    """A study of plateaus with the given mean accuracy per PLR and seed."""
    cells = [(place, seed, a) for place, row in enumerate(accuracies) for seed, a in enumerate(row)]
    runs = [
        {"run": f"{place}-{seed}", "stage": "pretrain", "plr": 0.1 * (place + 1), "seed": seed, "steps": 100}
        for place, seed, _ in cells
    ]
    traces = [
        {"run": f"{place}-{seed}", "step": step, "train_loss": 1 + step % 3, "train_accuracy": a}
        | {"chance_accuracy": chance}
        for place, seed, a in cells
        for step in range(5, 101, 5)
    ]
    return {
        "runs": pl.DataFrame(runs, schema=SCHEMAS["runs"]),
        "traces": pl.DataFrame(traces, schema=SCHEMAS["traces"]),
    }


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("accuracies", [True, False])
@pytest.mark.parametrize(
    ("kind", "regime"),
    [
        ("converged", "1"),
        ("descending", "undecided"),
        ("creeping", "2"),
        ("plateau", "2"),
        ("chance", "3"),
        ("diverged", "3"),
    ],
)
def test_each_kind_of_training_has_its_regime(
    study: Study, kind: str, regime: str, seeds: int, *, accuracies: bool
) -> None:
    assert labels(study([[kind] * seeds], accuracies=accuracies)) == [regime]


def test_a_training_set_fitted_by_luck_on_a_plateau_is_not_convergence(study: Study) -> None:
    assert labels(study([["lucky"] * 3])) == ["2"]


@pytest.mark.parametrize("kind", ["descending", "creeping", "barely"])
def test_any_descent_below_a_converging_plr_is_convergence_not_finished(study: Study, kind: str) -> None:
    assert labels(study([[kind] * 3, ["converged"] * 3])) == ["1", "1"]
    assert labels(study([["converged"] * 3, ["plateau"] * 3, [kind] * 3]))[2] != "1"


def test_chance_level_below_a_converging_plr_is_not_called_divergence(study: Study) -> None:
    assert labels(study([["chance"], ["converged"], ["chance"]])) == ["undecided", "1", "3"]


@pytest.mark.parametrize("kind", ["creeping", "chance"])
def test_rest_below_a_larger_plr_that_has_come_further_and_still_falls_is_slowness(study: Study, kind: str) -> None:
    assert labels(study([[kind] * 3, ["descending"] * 3])) == ["undecided", "undecided"]
    assert labels(study([["descending"] * 3, [kind] * 3]))[1] == {"creeping": "2", "chance": "3"}[kind]


def test_a_plateau_below_a_larger_plr_at_a_higher_loss_stays_one(study: Study) -> None:
    assert labels(study([["plateau"] * 3, ["descending"] * 3])) == ["2", "undecided"]


def test_majorities_decide_over_seeds(study: Study) -> None:
    rows = [
        ["converged", "converged", "plateau"],
        ["plateau", "plateau", "converged"],
        ["plateau", "plateau", "diverged"],
        ["plateau", "diverged", "diverged"],
    ]
    table = regimes(study(rows), chance_loss=CHANCE)
    assert table["regime"].to_list() == ["1", "2", "2", "3"]
    assert table["diverged"].to_list() == pytest.approx([0, 0, 1 / 3, 2 / 3])
    assert table["fitted"].to_list() == pytest.approx([2 / 3, 1 / 3, 0, 0])


def test_2a_goes_up_from_the_threshold_without_a_gap(study: Study) -> None:
    rows = [["converged"] * 3, *[["plateau"] * 3] * 5, ["chance"] * 3]
    tables = study(rows, barriers={0: 0.3, 1: 0.01, 2: 0.04, 3: 0.041, 4: 0.01, 5: 0.2, 6: 0.5})
    table = regimes(tables, chance_loss=CHANCE)
    assert table["regime"].to_list() == ["1", "2A", "2A", "2B", "2B", "2B", "3"]
    assert table["barrier"].to_list() == pytest.approx([0.3, 0.01, 0.04, 0.041, 0.01, 0.2, 0.5])


def test_a_plr_without_barriers_is_plain_2_and_no_gap(study: Study) -> None:
    tables = study([["converged"], *[["plateau"]] * 4], barriers={1: 0.0, 3: 0.0, 4: 0.1})
    assert labels(tables) == ["1", "2A", "2", "2A", "2B"]


def test_every_pair_must_be_connected(study: Study) -> None:
    tables = study([["plateau"] * 3], barriers={0: 0.01})
    apart = pl.when((pl.col("a") == "high") & (pl.col("seed") > 0)).then(0.05).otherwise("test_barrier")
    tables["pairs"] = tables["pairs"].with_columns(apart.alias("test_barrier"))
    assert labels(tables) == ["2B"]


def test_the_p_value_is_scipys_one_sample_t_test_against_a_trace_above_chance() -> None:
    # The second is above chance beyond doubt, but by a trace that nobody would call learning.
    accuracies = [[0.515, 0.512, 0.514, 0.516], [0.5012, 0.5015, 0.5011, 0.5013]]
    table = regimes(by_hand(accuracies), chance_loss=1.0)
    tests = [stats.ttest_1samp(np.array(row), 0.505, alternative="greater") for row in accuracies]
    expected = [float(np.asarray(test)[1]) for test in tests]
    assert table["above_chance_p"].to_list() == pytest.approx(expected, rel=1e-9)
    assert expected[0] < Thresholds().chance_level < expected[1]
    assert table["regime"].to_list() == ["2", "3"]
    assert table["train_accuracy"].to_list() == pytest.approx([np.mean(row) for row in accuracies])


def test_one_seed_must_exceed_chance_by_the_margin() -> None:
    table = regimes(by_hand([[0.33], [0.31]], chance=0.3), chance_loss=1.0)
    assert table["regime"].to_list() == ["2", "3"]
    assert table["above_chance_p"].to_list() == [None, None]


def test_equal_seeds_count_as_one() -> None:
    table = regimes(by_hand([[0.53] * 3, [0.51] * 3]), chance_loss=1.0)
    assert table["regime"].to_list() == ["2", "3"]
    assert table["above_chance_p"].to_list() == [None, None]


def test_a_second_seed_does_not_weaken_what_each_shows_alone() -> None:
    assert labels(by_hand([[0.6, 0.8]])) == ["2"]
    assert labels(by_hand([[0.51, 0.8]])) == ["3"]


def test_means_weight_rows_by_the_steps_they_cover() -> None:
    tables = by_hand([[0.8]])
    steps = [10, 50, 70, 80, 100]  # the last quarter, after step 75, holds only the last row wholly
    accuracies = [0.1, 0.2, 0.3, 0.6, 0.9]
    trace = {"run": ["0-0"] * 5, "step": steps, "train_accuracy": accuracies, "chance_accuracy": [0.5] * 5}
    tables["traces"] = pl.DataFrame(trace | {"train_loss": [1.0] * 5})
    assert regimes(tables, chance_loss=1.0)["train_accuracy"].item() == pytest.approx(0.9)
    tables["traces"] = tables["traces"].with_columns(pl.Series("step", [10, 50, 75, 80, 100]))
    assert regimes(tables, chance_loss=1.0)["train_accuracy"].item() == pytest.approx((5 * 0.6 + 20 * 0.9) / 25)


def test_a_trace_too_short_for_a_trend_is_undecided(study: Study) -> None:
    tables = study([["plateau"]])
    tables["traces"] = tables["traces"].filter(pl.col("step") % 200 == 0)
    table = regimes(tables, chance_loss=CHANCE)
    assert table.select("regime", "falling", "trend_p").row(0) == ("undecided", None, None)
    assert table["reason"].to_list() == ["trace too short"]


def test_fine_tuning_gives_the_spread_over_flrs(study: Study) -> None:
    tables = study([["plateau"] * 2, ["plateau"] * 2])
    for seed, low, middle in ((0, 0.7, 0.6), (1, 0.8, 0.6)):
        finished(tables, 0, seed, low=low, middle=middle, high=None)
    assert regimes(tables, chance_loss=CHANCE)["flr_spread"].to_list() == [pytest.approx(0.15), None]


def finished(tables: dict[str, pl.DataFrame], place: int, seed: int, **accuracies: float | None) -> None:
    """Add the solutions made from a run: low, middle and high by their FLRs, swa4, swa5 and swa20 by their counts."""
    flrs = {"low": 1e-5, "middle": 1e-4, "high": 1e-3}
    plr = tables["runs"]["plr"].unique().sort()[place]
    rows = [
        {"run": f"{place}-{seed}-{name}", "plr": plr, "seed": seed, "test_accuracy": value}
        | (
            {"stage": "finetune", "flr": flrs[name]}
            if name in flrs
            else {"stage": "average", "count": int(name.removeprefix("swa"))}
        )
        for name, value in accuracies.items()
    ]
    tables["runs"] = pl.concat([tables["runs"], pl.DataFrame(rows, schema=SCHEMAS["runs"])])


def test_2a_ends_where_solutions_differ_in_quality_though_no_barrier_is_between_them(study: Study) -> None:
    tables = study([["converged"] * 3, *[["plateau"] * 3] * 3], barriers={1: 0.0, 2: 0.0, 3: 0.0})
    for seed, low in enumerate([0.78, 0.77, 0.5]):  # at most 0.04 in most seeds
        finished(tables, 1, seed, low=low, high=0.79, swa5=0.8)
    for seed in range(3):
        finished(tables, 2, seed, low=0.8, high=0.79, swa5=0.5)
        finished(tables, 3, seed, low=0.8, high=0.8, swa5=0.8)
    table = regimes(tables, chance_loss=CHANCE)
    assert table["regime"].to_list() == ["1", "2A", "2B", "2B"]
    assert table["spread"].to_list() == pytest.approx([None, 0.03, 0.3, 0.0])


def test_the_spread_is_of_the_lowest_and_the_highest_flr_and_of_five_averaged_checkpoints(study: Study) -> None:
    tables = study([["plateau"] * 2] * 3)
    finished(tables, 0, 0, low=0.7, middle=0.1, high=0.72, swa4=0.2, swa5=0.75, swa20=0.9)
    finished(tables, 0, 1, low=0.7, high=0.71, swa5=None)
    finished(tables, 1, 0, low=0.7, high=float("nan"))
    finished(tables, 1, 1, low=0.7)
    finished(tables, 2, 0, low=0.7, high=0.72, swa4=0.73, swa20=0.9)
    assert regimes(tables, chance_loss=CHANCE)["spread"].to_list() == pytest.approx([0.03, None, 0.03])


@settings(max_examples=20)
@given(
    rows=st.lists(st.lists(st.sampled_from(KINDS), min_size=2, max_size=2), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_rows_does_not_matter(study: Study, rows: list[list[str]], order: Random) -> None:
    tables = study(rows, barriers={0: 0.01})
    seed = order.random()
    shuffled = {name: frame.sample(fraction=1, shuffle=True, seed=int(seed * 1000)) for name, frame in tables.items()}
    expected = regimes(tables, chance_loss=CHANCE)
    found = regimes(shuffled, chance_loss=CHANCE)
    exact = ["plr", "regime", "seeds", "barrier"]
    assert found.select(exact).equals(expected.select(exact))
    assert found.schema == SCHEMAS["regimes"]


@settings(max_examples=20)
@given(
    rows=st.lists(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3), min_size=1, max_size=5),
    scale=st.floats(0.01, 100),
)
def test_the_unit_of_the_loss_does_not_matter(study: Study, rows: list[list[str]], scale: float) -> None:
    for accuracies in (True, False):
        plain = study(rows, accuracies=accuracies)
        scaled = study(rows, accuracies=accuracies, scale=scale)
        assert labels(plain) == labels(scaled, chance_loss=scale * CHANCE)


def test_chance_is_told_by_accuracy_not_by_loss(study: Study) -> None:
    tables = study([["plateau"] * 3, ["chance"] * 3], scale=10.0)
    assert labels(tables) == ["2", "3"]
    assert labels(study([["plateau"] * 3, ["chance"] * 3], scale=0.1)) == ["2", "3"]


def noisy(memory: float, spread: float, *, runs: int = 300) -> dict[str, pl.DataFrame]:
    """Plateaus of loss 1 with noise that is remembered from row to row; 100 rows in the last half."""
    rng = np.random.default_rng(7)
    noise = rng.normal(size=(runs, 200))
    for row in range(1, 200):
        noise[:, row] = memory * noise[:, row - 1] + math.sqrt(1 - memory**2) * noise[:, row]
    names = [str(i) for i in range(runs)]
    trace = {
        "run": np.repeat(names, 200),
        "step": np.tile(np.arange(1, 201), runs),
        "train_loss": (1 + spread * noise).ravel(),
    }
    cells = [{"run": name, "stage": "pretrain", "plr": 1 + i, "seed": 0, "steps": 200} for i, name in enumerate(names)]
    accuracies = [pl.lit(0.8).alias("train_accuracy"), pl.lit(0.5).alias("chance_accuracy")]
    return {
        "runs": pl.DataFrame(cells, schema=SCHEMAS["runs"]),
        "traces": pl.DataFrame(trace).with_columns(accuracies),
    }


@pytest.mark.parametrize(("memory", "spread"), [(0.0, 0.5), (0.8, 0.02), (0.8, 0.1)])
def test_noisy_plateaus_are_rarely_called_falling(memory: float, spread: float) -> None:
    table = regimes(noisy(memory, spread), chance_loss=10.0)
    assert table["falling"].mean() == pytest.approx(0, abs=0.05)


def test_no_runs_give_an_empty_table() -> None:
    table = regimes({"runs": empty("runs"), "traces": empty("traces")}, chance_loss=1.0)
    assert table.equals(empty("regimes"))


@pytest.mark.parametrize("chance_loss", [0.0, -1.0, math.inf, math.nan])
def test_the_chance_loss_must_be_positive_where_losses_decide(study: Study, chance_loss: float) -> None:
    with pytest.raises(SpecError, match="chance_loss"):
        regimes(study([["plateau"]], accuracies=False), chance_loss=chance_loss)


def shifted(tables: dict[str, pl.DataFrame], by: float) -> dict[str, pl.DataFrame]:
    """The same study with another constant in its loss."""
    moved = pl.col("train_loss") + by
    return tables | {name: tables[name].with_columns(moved) for name in ("runs", "traces")}


def test_where_accuracies_decide_losses_may_be_negative(study: Study) -> None:
    tables = shifted(study([[kind] * 2 for kind in ("converged", "plateau", "chance", "diverged")]), -2.0)
    assert labels(tables, chance_loss=CHANCE - 2) == ["1", "2", "3", "3"]
    falling = shifted(study([["descending"]]), -0.8)  # 0.4 t^(-1/2): from -0.234 in step 500 on to -0.4
    assert labels(falling, chance_loss=CHANCE - 0.8) == ["undecided"]
    assert regimes(falling, chance_loss=CHANCE - 0.8)["falling"].to_list() == [1.0]


def test_rest_at_a_loss_without_a_lowest_value_is_undecided(study: Study) -> None:
    tables = shifted(study([["plateau"], ["chance"], ["diverged"]], accuracies=False), -0.5)
    table = regimes(tables, chance_loss=CHANCE - 0.5)
    assert table["regime"].to_list() == ["undecided", "3", "3"]
    assert table["reason"][0].startswith("losses below 0")


def started(
    tables: dict[str, pl.DataFrame], tests: list[float], *, start: float = 0.7, gradient: float = 1.0
) -> dict[str, pl.DataFrame]:
    """The same study with its loss before training, and the test losses of each PLR in the last half."""
    place = tables["runs"].select("run", pl.col("plr").rank("dense").cast(pl.Int64) - 1)
    late = pl.col("step") > 500
    traces = (
        tables["traces"]
        .join(place, on="run")
        .with_columns(
            test_loss=pl.when(late).then(pl.col("plr").replace_strict(list(range(len(tests))), tests)).otherwise(5.0),
            gradient_norm=gradient,
        )
    )
    return tables | {
        "runs": tables["runs"].with_columns(start_loss=pl.lit(start)),
        "traces": traces.select(SCHEMAS["traces"].names()),
    }


@pytest.mark.parametrize("accuracies", [True, False])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_loss_that_has_not_moved_is_too_small_and_not_divergence(
    study: Study, seeds: int, *, accuracies: bool
) -> None:
    kinds = [["chance"] * seeds, ["barely"] * seeds, ["converged"] * seeds, ["chance"] * seeds]
    tables = started(study(kinds, accuracies=accuracies), [0.7, 0.706, 0.1, 1.5])
    table = regimes(tables, chance_loss=CHANCE)
    assert table["regime"].to_list() == ["undecided", "undecided", "1", "3"]
    assert table["reason"].to_list() == ["has not moved", "has not moved", None, None]


@pytest.mark.parametrize(("test_loss", "regime"), [(0.7069, "undecided"), (0.7071, "3"), (0.6929, "3")])
def test_a_loss_has_not_moved_within_one_per_cent_of_its_start(study: Study, test_loss: float, regime: str) -> None:
    assert labels(started(study([["chance"]]), [test_loss])) == [regime]
    assert labels(started(study([["chance"]]), [-test_loss], start=-0.7)) == [regime]
    assert labels(started(study([["plateau"], ["plateau"]]), [0.4, test_loss])) == ["2", "2"], "a smaller LR has moved"
    assert labels(started(study([["diverged"]]), [test_loss])) == ["3"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_an_untrained_network_above_chance_has_not_moved(study: Study, seeds: int) -> None:
    kinds = [["plateau"] * seeds, ["plateau"] * seeds, ["plateau"] * seeds, ["chance"] * seeds]
    table = regimes(started(study(kinds), [0.7, 0.7, 0.4, 1.5]), chance_loss=CHANCE)
    assert table["regime"].to_list() == ["undecided", "undecided", "2", "3"]
    assert table["reason"].to_list() == ["has not moved", "has not moved", None, None]


@pytest.mark.parametrize("accuracies", [True, False])
def test_a_model_that_starts_fitted_is_of_regime_1(study: Study, *, accuracies: bool) -> None:
    tables = started(study([["converged"], ["converged"], ["chance"]], accuracies=accuracies), [0.0, 0.0, 1.5], start=0)
    assert labels(tables) == ["1", "1", "3"]


def test_a_dead_network_is_regime_3_though_its_loss_is_that_of_the_start(study: Study) -> None:
    assert labels(started(study([["chance"]]), [0.7], gradient=0.0)) == ["3"]
    assert labels(started(study([["plateau"], ["chance"]]), [0.4, 0.7])) == ["2", "3"], "a smaller LR has moved"
    assert labels(started(study([["chance"], ["chance"]]), [0.9, 0.7])) == ["3", "3"]


def test_without_the_loss_before_training_no_plr_counts_as_too_small(study: Study) -> None:
    tables = started(study([["chance"]]), [0.7])
    tables["runs"] = tables["runs"].with_columns(start_loss=pl.lit(None, pl.Float64))
    assert labels(tables) == ["3"]


@pytest.mark.parametrize(
    ("kinds", "reasons"),
    [
        (["descending"], ["still falling"]),
        (["chance", "converged"], ["at chance below a learning rate that converges", None]),
        (["creeping", "descending"], ["a larger learning rate has a lower loss that still falls", "still falling"]),
    ],
)
def test_the_reason_why_a_plr_is_undecided(study: Study, kinds: list[str], reasons: list[str | None]) -> None:
    assert regimes(study([[kind] for kind in kinds]), chance_loss=CHANCE)["reason"].to_list() == reasons


def test_thresholds_must_be_shares() -> None:
    with pytest.raises(SpecError, match=r"barrier is 1\.5"):
        Thresholds(barrier=1.5)


def test_a_finite_run_needs_a_trace(study: Study) -> None:
    tables = study([["plateau"]]) | {"traces": empty("traces")}
    with pytest.raises(StudyError, match="seed 0"):
        regimes(tables, chance_loss=CHANCE)
    assert labels(study([["diverged"]]) | {"traces": empty("traces")}) == ["3"]


def test_two_runs_of_one_seed_are_refused(study: Study) -> None:
    tables = study([["plateau"]])
    tables["runs"] = pl.concat([tables["runs"], tables["runs"].with_columns(pl.lit("again").alias("run"))])
    with pytest.raises(StudyError, match="more than one"):
        regimes(tables, chance_loss=CHANCE)
