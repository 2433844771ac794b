"""Every chart is valid Vega-Lite, draws, and says what it lacks."""

import json
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from lratlas.errors import StudyError
from lratlas.report.charts import CHARTS, accuracy_chart, geometry_chart, ticks_chart
from lratlas.report.figures import figure_pdf
from lratlas.report.look import REGIME_COLOURS, ramp
from lratlas.tables import SCHEMAS, Tables, empty

POINTS = pl.DataFrame({"x1": [0.0, 1.0, -1.5], "x2": [0.5, -1.0, 2.0], "label": [0, 1, 1]})


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


@pytest.mark.parametrize("name", CHARTS)
def test_no_two_views_of_a_chart_share_a_name(specs: dict[str, Any], name: str) -> None:
    spec = specs[name]
    views = [view for params in found(spec, "params") for param in params for view in param.get("views", [])]
    assert views
    assert sorted(set(views)) == sorted(view for view in found(spec, "name") if view.startswith("view_"))


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_names_the_empty_table(name: str) -> None:
    with pytest.raises(
        StudyError,
        match=f"The {name} chart needs rows in table '(runs|pairs|features|bands|convergence|norms|sharpness)'",
    ):
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
    assert len(dashes) == 2
    straight = tables["pairs"].with_columns(
        pl.lit(None, pl.Float64).alias(f"{a}_barrier_arc") for a in ("train", "test")
    )
    assert not found(geometry_chart({**tables, "pairs": straight}).to_dict(), "strokeDash")


def test_ticks_are_dots_by_class() -> None:
    spec = ticks_chart(POINTS).to_dict()
    (rows,) = spec["datasets"].values()
    assert sorted((row["x1"], row["label"]) for row in rows) == [(-1.5, "1"), (0.0, "0"), (1.0, "1")]


@pytest.mark.parametrize("points", [POINTS.drop("label"), POINTS.clear()])
def test_ticks_without_points_are_refused(points: pl.DataFrame) -> None:
    with pytest.raises(StudyError, match="needs rows with columns x1, x2 and label, not"):
        ticks_chart(points)
