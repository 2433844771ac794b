"""Chart data against sums done by hand."""

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.errors import StudyError
from lratlas.report.charts.geometry import geometry_data
from lratlas.report.charts.quality import accuracy_data, last_tenth_data, loss_limit
from lratlas.report.charts.traces import traces_data
from lratlas.report.frames import lr_text, name_models, over_seeds, regime_bands, repeat_by_seed
from lratlas.tables import SCHEMAS, Tables

Row = dict[str, Any]


def frame(table: str, rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMAS[table])


def run(name: str, accuracy: float | None, **more: Any) -> Row:
    return {"run": name, "stage": "pretrain", "plr": 0.01, "seed": 0, "test_accuracy": accuracy, **more}


@pytest.mark.parametrize(
    ("lr", "text"), [(1.0, "1e0"), (1e-4, "1e-4"), (0.0075, "7.5e-3"), (10**-4.5, "3.16e-5"), (20.0, "2e1")]
)
def test_lrs_are_written_short(lr: float, text: str) -> None:
    assert lr_text(lr) == text


def test_bands_meet_half_way_on_the_log_scale() -> None:
    rows = [{"plr": 10.0**-i, "regime": name} for i, name in enumerate(["3", "2A", "1", "1"])]
    bands = regime_bands({"regimes": frame("regimes", rows)})
    assert bands["regime"].to_list() == ["1", "2A", "3"]
    assert bands["low"].to_list() == pytest.approx([10**-3.5, 10**-1.5, 10**-0.5])
    assert bands["high"].to_list() == pytest.approx([10**-1.5, 10**-0.5, 10**0.5])
    assert bands["middle"].to_list() == pytest.approx([10**-2.5, 10**-1, 1])


@given(
    st.lists(st.floats(1e-6, 10), min_size=1, max_size=12, unique_by=lambda lr: round(math.log(lr), 3)),
    st.data(),
)
def test_every_plr_lies_in_the_one_band_of_its_regime(plrs: list[float], data: st.DataObject) -> None:
    names = [data.draw(st.sampled_from(["1", "2A", "2B", "3", "undecided"])) for _ in plrs]
    rows = [{"plr": plr, "regime": name} for plr, name in zip(plrs, names, strict=True)]
    bands = regime_bands({"regimes": frame("regimes", rows)})
    assert bands["high"].to_list()[:-1] == bands["low"].to_list()[1:]
    for plr, name in zip(plrs, names, strict=True):
        assert bands.filter((pl.col("low") < plr) & (plr < pl.col("high")))["regime"].to_list() == [name]


def test_no_regimes_give_no_bands() -> None:
    assert regime_bands({}).is_empty()


def test_accuracy_is_mean_and_deviation_over_seeds_in_legend_order() -> None:
    rows = [
        run("a", 0.9, stage="average", count=5),
        run("b", 0.8, stage="average", count=2),
        run("c", 0.7, stage="finetune", flr=1e-3),
        run("d", 0.7, stage="finetune", flr=1e-4),
        run("e", 0.99, stage="second", plr2=1e-3),
        run("i", 0.99, stage="finetune", plr2=1e-3, flr=1e-4),
        run("f", 0.6, seed=0),
        run("g", 0.8, seed=1),
        run("h", None, seed=2),
    ]
    data = accuracy_data({"runs": frame("runs", rows)})
    means = over_seeds(data)
    assert means["series"].to_list() == ["pre-training", "FLR 1e-4", "FLR 1e-3", "SWA-2", "SWA-5"]
    deviation = math.sqrt(2 * 0.1**2)  # two values, each 0.1 from their mean, one degree of freedom
    assert means.row(0)[4:] == pytest.approx((0.7, 0.7 - deviation, 0.7 + deviation, 2))
    assert means.row(4)[4:] == pytest.approx((0.9, 0.9, 0.9, 1))
    alone = data.filter(series="pre-training").drop_nulls("seed")
    assert alone.select("seed", "mean", "low", "high", "seeds").rows() == [(0, 0.6, 0.6, 0.6, 1), (1, 0.8, 0.8, 0.8, 1)]
    assert data.filter(seed=1)["series"].to_list() == ["pre-training"]


def test_accuracy_at_a_loss_is_that_of_the_first_row_below_it() -> None:
    runs = [run("a", 0.9), run("b", 0.5, seed=1), run("c", 0.8, seed=2)]
    trace = [
        ("a", 20, 0.4, 0.62), ("a", 30, 0.1, 0.7), ("a", 10, 0.9, 0.5),
        ("b", 10, 0.9, 0.5), ("b", 20, 0.6, 0.5),
        ("c", 10, 0.5, None), ("c", 20, 0.3, 0.66),
    ]  # fmt: skip
    names = ("run", "step", "train_loss", "test_accuracy")
    traces = frame("traces", [dict(zip(names, row, strict=True)) for row in trace])
    data = accuracy_data({"runs": frame("runs", runs), "traces": traces}, at_loss=0.5)
    assert data["seed"].to_list() == [None, 0, 2]
    assert data["mean"].to_list() == pytest.approx([0.64, 0.62, 0.66])
    assert data["seeds"].to_list() == [2, 1, 1]


def test_the_last_tenth_is_the_mean_and_the_deviation_over_its_rows() -> None:
    rows = [
        *(("a", step, accuracy) for step, accuracy in [(800, 0.1), (900, 0.2), (901, 0.5), (950, 0.6), (1000, 0.7)]),
        *(("b", step, accuracy) for step, accuracy in [(920, 0.9), (1000, 0.7), (1100, 0.0)]),
        *(("c", step, 0.4) for step in (950, 1000)),
        *(("d", step, 0.3) for step in (950, 1000)),
    ]
    runs = [
        run("a", 0.7, steps=1000),
        run("b", 0.7, steps=1000, seed=1),
        run("c", 0.4, steps=1000, seed=2, diverged=True),
        run("d", 0.3, steps=1000, stage="finetune", flr=1e-3),
    ]
    traces: list[Row] = [{"run": name, "step": step, "test_accuracy": accuracy} for name, step, accuracy in rows]
    data = last_tenth_data({"runs": frame("runs", runs), "traces": frame("traces", traces)})
    # Variances with one degree of freedom less: a (0.1² + 0.1²) / 2, b 2 · 0.1² / 1.
    deviations = {0: 0.1, 1: math.sqrt(0.02), None: math.sqrt((0.01 + 0.02) / 2)}
    means = {0: 0.6, 1: 0.8, None: 0.7}
    assert data["seed"].to_list() == [None, 0, 1]
    for seed, mean, low, high in data.select("seed", "mean", "low", "high").rows():
        assert mean == pytest.approx(means[seed])
        assert (mean - low, high - mean) == pytest.approx((deviations[seed],) * 2)
    assert data["seeds"].to_list() == [2, 1, 1]


def test_one_row_in_the_last_tenth_has_no_deviation_and_none_is_refused() -> None:
    runs = frame("runs", [run("a", 0.7, steps=1000)])
    at = {step: frame("traces", [{"run": "a", "step": step, "test_accuracy": 0.7}]) for step in (900, 1000)}
    data = last_tenth_data({"runs": runs, "traces": at[1000]})
    assert set(data.select("mean", "low", "high").rows()) == {(0.7, 0.7, 0.7)}
    with pytest.raises(StudyError, match="needs test accuracies in the last tenth of a run"):
        last_tenth_data({"runs": runs, "traces": at[900]})


@pytest.mark.parametrize(
    ("starts", "limit"), [([0.7, 2.3, 5.0, None], 230), ([None], math.inf), ([-1.0], math.inf), ([], math.inf)]
)
def test_charts_of_losses_end_at_a_hundred_times_the_loss_before_training(
    starts: list[float | None], limit: float
) -> None:
    runs = [run(str(i), None, seed=i, start_loss=start) for i, start in enumerate(starts)]
    assert loss_limit({"runs": frame("runs", runs)}) == pytest.approx(limit)


def test_geometry_is_the_median_over_seeds_whatever_the_order_of_the_ends() -> None:
    measured = [
        (0, "high", "swa", 1.0),
        (0, "low", "high", 0.1),
        (1, "high", "low", 0.9),
        (2, "low", "high", 0.2),
        (0, "swa", "low", 0.5),
    ]
    rows = [
        {
            "plr": 0.1,
            "seed": seed,
            "a": a,
            "b": b,
            "angle": angle,
            "train_barrier": angle / 10,
            "test_barrier_arc": angle / 5,
        }
        for seed, a, b, angle in measured
    ]
    every = geometry_data({"pairs": frame("pairs", rows)})
    alone = every.filter(seed=0).select("pair", "angle").rows()
    assert alone == [("low FLR – high FLR", 0.1), ("low FLR – SWA", 0.5), ("high FLR – SWA", 1.0)]
    data = over_seeds(every)
    assert data["pair"].to_list() == ["low FLR – high FLR", "low FLR – SWA", "high FLR – SWA"]
    assert data["angle"].to_list() == pytest.approx([0.2, 0.5, 1.0])
    assert data["train_barrier"].to_list() == pytest.approx([0.02, 0.05, 0.1])
    assert data["test_barrier_arc"].to_list() == pytest.approx([0.04, 0.1, 0.2])
    assert data["train_barrier_arc"].null_count() == 3
    assert data["seeds"].to_list() == [3, 1, 1]


def traces_of(losses: dict[str, list[float]]) -> Tables:
    runs = [run(name, None, seed=i) for i, name in enumerate(losses)]
    rows = [
        {"run": name, "step": 10 * (i + 1), "train_loss": loss, "gradient_norm": 2 * loss}
        for name, values in losses.items()
        for i, loss in enumerate(values)
    ]
    return {"runs": frame("runs", runs), "traces": frame("traces", rows)}


def test_traces_are_means_over_seeds_without_what_a_log_axis_cannot_show() -> None:
    every = traces_data(traces_of({"a": [1.0, 0.0, math.inf], "b": [3.0, 0.2, math.nan]}))
    assert every.filter(seed=0)["train_loss"].to_list() == [1.0, None, None]
    assert every.filter(seed=1)["train_loss"].to_list() == [3.0, 0.2, None]
    data = over_seeds(every)
    assert data["step"].to_list() == [10, 20, 30]
    assert data["train_loss"].to_list() == pytest.approx([2.0, 0.2, None])
    assert data["gradient_norm"].to_list() == pytest.approx([4.0, 0.4, None])


def test_long_traces_are_thinned_to_means_and_keep_their_end() -> None:
    every = traces_data(traces_of({"a": [float(i + 1) for i in range(600)]}))
    alone = every.filter(seed=0)
    assert alone["step"].to_list() == [150 * (i + 1) for i in range(40)]
    assert alone["train_loss"].to_list() == pytest.approx([15 * i + 8 for i in range(40)])
    data = over_seeds(every)
    assert data["step"].to_list() == [40 * (i + 1) for i in range(150)]
    assert data["train_loss"].to_list() == pytest.approx([4 * i + 2.5 for i in range(150)])


def test_fine_tuning_is_not_among_the_traces() -> None:
    tables = traces_of({"a": [1.0]})
    runs = tables["runs"].with_columns(stage=pl.lit("finetune"))
    with pytest.raises(StudyError, match="traces of pre-training runs"):
        traces_data({**tables, "runs": runs})


def test_a_loss_that_no_run_reaches_is_named() -> None:
    with pytest.raises(StudyError, match=r"training loss of 0\.01 or less; no run has one"):
        accuracy_data(traces_of({"a": [1.0]}), at_loss=0.01)


def test_models_are_named_by_what_makes_them_differ() -> None:
    rows = pl.DataFrame(
        {
            "stage": ["average", "finetune", "pretrain", "finetune"],
            "flr": [None, 1e-3, None, 1e-4],
            "count": [5, None, None, None],
        }
    )
    names = ["averaged, SWA-5", "fine-tuned, FLR 1e-3", "pre-trained", "fine-tuned, FLR 1e-4"]
    assert name_models(rows)["model"].to_list() == names


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=8))
def test_what_is_over_seeds_has_the_rows_of_every_seed(rows: list[tuple[int, float]]) -> None:
    data = repeat_by_seed(pl.DataFrame(rows, schema={"seed": pl.Int64, "value": pl.Float64}, orient="row"))
    together = over_seeds(data)
    assert together.select("one", "value").rows() == rows
    assert data.drop_nulls("seed").select("seed", "value").rows() == rows
    assert (data.drop_nulls("seed")["seed"] == data.drop_nulls("seed")["one"]).all()
