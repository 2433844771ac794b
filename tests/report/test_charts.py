"""Every chart is valid Vega-Lite, draws, and says what it lacks."""

import json
import re
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from lratlas.config import extras
from lratlas.errors import StudyError
from lratlas.report.charts.catalog import CHARTS, TableChart
from lratlas.report.charts.geometry import geometry_chart
from lratlas.report.charts.learned import bands_chart, features_full_chart
from lratlas.report.charts.quality import accuracy_chart, loss_chart
from lratlas.report.charts.traces import traces_chart
from lratlas.report.figures import figure_pdf, figure_svg
from lratlas.report.theme import REGIME_COLOURS, Drawing, ramp
from lratlas.tables import SCHEMAS, Tables, empty
from report.conftest import PLRS

_ACCURACY = {"runs": "test_accuracy", "features": "accuracy", "bands": "accuracy"}


def found(spec: Any, key: str) -> list[Any]:
    """Every value of ``key`` anywhere in the specification."""
    if isinstance(spec, list):
        return [value for part in spec for value in found(part, key)]
    if not isinstance(spec, dict):
        return []
    return [value for name, part in spec.items() for value in ([part] if name == key else found(part, key))]


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_validates_and_is_described(specs: dict[str, Any], name: str) -> None:
    spec = specs[name]
    assert len(spec["description"]) > 40
    assert json.loads(json.dumps(spec, allow_nan=False)) == spec


def test_no_custom_measurement_can_have_the_name_of_a_chart() -> None:
    assert {*CHARTS, "accuracy_at_loss", "ticks", "band_picture"} == set(extras.CHARTS)


@pytest.mark.parametrize("name", CHARTS)
def test_no_two_views_of_a_chart_share_a_name(specs: dict[str, Any], name: str) -> None:
    spec = specs[name]
    views = [view for params in found(spec, "params") for param in params for view in param.get("views", [])]
    assert views
    assert sorted(set(views)) == sorted(view for view in found(spec, "name") if view.startswith("view_"))


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_names_the_empty_table(name: str) -> None:
    chart, names = name.removesuffix("_full"), "runs|pairs|features|bands|convergence|norms|sharpness"
    with pytest.raises(StudyError, match=f"The {chart} chart needs rows in table '({names})'"):
        CHARTS[name]({table: empty(table) for table in SCHEMAS})


def test_the_traces_chart_names_the_empty_traces(tables: Tables) -> None:
    with pytest.raises(StudyError, match="table 'traces', which is empty"):
        CHARTS["traces"]({**tables, "traces": empty("traces")})


@pytest.mark.parametrize("name", ["accuracy", "geometry", "features", "bands", "convergence"])
def test_regimes_have_the_same_colours_everywhere_and_charts_do_without(
    tables: Tables, specs: dict[str, Any], name: str
) -> None:
    fills = found(specs[name], "fill")
    assert fills
    assert all(dict(zip(*fill["scale"].values(), strict=True)) == REGIME_COLOURS for fill in fills)
    assert not found(CHARTS[name]({**tables, "regimes": empty("regimes")}).to_dict(), "fill")


@pytest.mark.parametrize("name", ["accuracy", "geometry", "features", "bands", "convergence"])
def test_the_axis_says_whether_lrs_are_effective(tables: Tables, specs: dict[str, Any], name: str) -> None:
    assert "pre-training LR (ELR)" in found(CHARTS[name](tables, elr=True).to_dict(), "title")
    plain = found(specs[name], "title")
    assert "pre-training LR" in plain
    assert "pre-training LR (ELR)" not in plain


def test_each_line_has_a_colour_of_its_own(specs: dict[str, Any]) -> None:
    scale = next(c["scale"] for c in found(specs["accuracy"], "color") if "scale" in c)
    assert scale["domain"] == [
        "pre-training",
        "FLR 3.16e-5",
        "FLR 1e-4",
        "FLR 1e-3",
        "SWA-2",
        "SWA-5",
        "SWA-20",
    ]
    assert len(set(scale["range"])) == 7


def test_a_ramp_runs_from_end_to_end() -> None:
    assert ramp(("#000000", "#FF8000"), 3) == ["#000000", "#804000", "#FF8000"]
    assert ramp(("#000000", "#FF8000"), 1) == ["#FF8000"]
    assert ramp(("#000000", "#FF8000"), 0) == []


def test_a_ramp_passes_through_its_stops() -> None:
    stops = ("#000000", "#FF8000", "#FFFFFF")
    assert ramp(stops, 3) == list(stops)
    assert ramp(stops, 5) == ["#000000", "#804000", "#FF8000", "#FFC080", "#FFFFFF"]
    assert ramp(stops, 1) == ["#FFFFFF"]


def test_the_matched_loss_is_on_the_axis(tables: Tables) -> None:
    assert "test accuracy at training loss 0.3" in found(accuracy_chart(tables, at_loss=0.3).to_dict(), "title")


def test_one_seed_and_pairs_never_measured_still_draw(
    make_study: Callable[..., dict[str, pl.DataFrame]],
) -> None:
    tables = make_study(seeds=1)
    unmeasured = tables["pairs"].with_columns(train_barrier=pl.lit(None, dtype=pl.Float64))
    assert figure_pdf(accuracy_chart(tables)).startswith(b"%PDF")
    assert figure_pdf(geometry_chart({**tables, "pairs": unmeasured})).startswith(b"%PDF")


def test_barriers_along_the_great_circle_are_dashed_where_measured(tables: Tables, specs: dict[str, Any]) -> None:
    dashes = [mark["strokeDash"] for mark in found(specs["geometry"], "mark") if "strokeDash" in mark]
    assert dashes.count([4, 3]) == 2
    straight = tables["pairs"].with_columns(
        pl.lit(None, pl.Float64).alias(f"{a}_barrier_arc") for a in ("train", "test")
    )
    assert [4, 3] not in found(geometry_chart({**tables, "pairs": straight}).to_dict(), "strokeDash")


def labels_of(svg: str) -> list[float]:
    """The percentages on the axes of a picture."""
    return [float(text) for text in re.findall(r">(-?[\d.]+)%</text>", svg)]


@pytest.mark.parametrize("top", [0.55, 0.93, 0.98, 1.0])
@pytest.mark.parametrize("chart", [accuracy_chart, features_full_chart, bands_chart])
def test_no_axis_of_accuracies_goes_past_100_per_cent(
    make_study: Callable[..., Tables], chart: TableChart, top: float
) -> None:
    tables = make_study(seeds=1)
    raised = {
        name: rows.with_columns(pl.col(column) + (top - pl.col(column).max()))
        for name, column, rows in ((name, _ACCURACY.get(name), rows) for name, rows in tables.items())
        if column
    }
    labels = labels_of(figure_svg(chart({**tables, **raised})))
    assert len(labels) >= 2
    assert max(labels) <= 100


def test_losses_out_of_proportion_are_drawn_at_the_limit(tables: Tables) -> None:
    far = pl.when(pl.col("plr") > 0.1).then(1e30).otherwise(pl.col("test_loss"))
    runs = tables["runs"].with_columns(start_loss=pl.lit(0.7), test_loss=far)
    drawn = [row for row in rows_of(loss_chart({**tables, "runs": runs})) if "seed" in row]
    assert {max(row["mean"]) for row in drawn} == {70.0}
    whole = (
        tables["runs"].filter(pl.col("plr") <= 0.1, stage="pretrain").group_by("plr").agg(pl.col("test_loss").mean())
    )
    (pretrain,) = (row for row in drawn if row["series"] == "pre-training" and row["seed"] == "all")
    assert sorted(value for value in pretrain["mean"] if value < 70) == pytest.approx(
        sorted(whole["test_loss"]), rel=1e-5
    )


def test_traces_out_of_proportion_end_at_the_limit_with_their_gradients_left_out(tables: Tables) -> None:
    runs = tables["runs"].with_columns(start_loss=pl.lit(0.7))
    (wild,) = runs.filter(stage="pretrain", seed=0, plr=PLRS[-1])["run"]
    far = pl.when((pl.col("run") == wild) & (pl.col("step") > 20_000))
    traces = tables["traces"].with_columns(
        far.then(1e30).otherwise(pl.col(name)).alias(name) for name in ("train_loss", "gradient_norm")
    )
    rows = [row for row in rows_of(traces_chart({**tables, "runs": runs, "traces": traces})) if row["seed"] == "0"]
    (bent,) = (row for row in rows if row["plr"] == pytest.approx(PLRS[-1]))
    assert [loss == 70 for loss in bent["train_loss"]] == [step > 20_000 for step in bent["step"]]
    assert [norm is None for norm in bent["gradient_norm"]] == [step > 20_000 for step in bent["step"]]
    assert all(None not in row["gradient_norm"] for row in rows if row is not bent)


def rows_of(chart: Drawing) -> list[dict[str, Any]]:
    """The packed rows of a chart's lines."""
    return [row for data in chart.to_dict()["datasets"].values() if isinstance(data, str) for row in json.loads(data)]


def test_every_model_has_a_small_panel_of_its_features(tables: Tables) -> None:
    titles = [panel["title"] for panel in features_full_chart(tables).to_dict()["concat"]]
    assert titles == ["pre-trained", "FLR 3.16e-5", "SWA-2", "SWA-5", "SWA-20"]
