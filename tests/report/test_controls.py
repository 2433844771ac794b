"""What can be chosen below each chart, and what choosing it draws."""

import json
import re
from collections.abc import Callable
from typing import Any

import altair as alt
import polars as pl
import pytest
import vl_convert

from lratlas.report.charts.catalog import CHARTS
from lratlas.report.charts.controls import short
from lratlas.report.charts.quality import accuracy_chart
from lratlas.report.theme import POINTED
from lratlas.tables import Tables

# The panels of the other one are many; those of single seeds are in the chart of features.
CHOSEN_FROM = [name for name in CHARTS if name != "features_full"]
SEEDS = ["0", "1", "2", "3"]
Spec = dict[str, Any]


def selects(spec: Spec) -> dict[str, list[str]]:
    """The labels of each select element by the name that readers see."""
    bound = [param["bind"] for param in spec["params"] if "bind" in param and isinstance(param["bind"], dict)]
    return {bind["name"].strip(): bind["labels"] for bind in bound if bind.get("input") == "select"}


def chosen(spec: Spec, **values: str) -> str:
    """The picture after choices, by the names of parameters."""
    assert values.keys() <= {param["name"] for param in spec["params"]}
    params = [
        {**param, "value": values[param["name"]]} if param["name"] in values else param for param in spec["params"]
    ]
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    svg = vl_convert.vegalite_to_svg({**spec, "params": params}, vl_version=version)
    return re.sub(r"(clip|gradient_)\d+", "", svg)  # counted on from drawing to drawing


def shown(svg: str, series: str) -> list[float]:
    """The accuracies that a line of the accuracy chart goes through, in percent."""
    return sorted({float(value) for value in re.findall(rf"test accuracy: ([\d.]+)%; series: {series};", svg)})


def accuracies(tables: Tables, **which: Any) -> list[float]:
    rows = tables["runs"].filter(pl.col("plr2").is_null()).filter(**which)
    return sorted(100 * rows["test_accuracy"])


def found(spec: Any, key: str) -> list[Any]:
    if isinstance(spec, list):
        return [value for part in spec for value in found(part, key)]
    if not isinstance(spec, dict):
        return []
    return [value for name, part in spec.items() for value in ([part] if name == key else found(part, key))]


@pytest.mark.parametrize("name", CHOSEN_FROM)
def test_every_chart_over_seeds_lets_one_be_chosen(specs: dict[str, Spec], name: str) -> None:
    first, *others = selects(specs[name])["seed"]
    assert first in {"mean over seeds", "median over seeds", "all seeds"}
    assert others == SEEDS


def test_flr_and_k_are_chosen_where_models_differ_by_them(tables: Tables, specs: dict[str, Spec]) -> None:
    more = tables["features"].filter(stage="finetune").with_columns(flr=pl.lit(1e-3))
    offered = {name: selects(spec) for name, spec in specs.items()}
    assert offered["accuracy"]["FLR"] == ["all", "none", "3.16e-5", "1e-4", "1e-3"]
    assert offered["accuracy"]["k"] == ["all", "none", "2", "5", "20"]
    assert offered["features"]["k"] == ["2", "5", "20"]
    assert offered["bands"]["k"] == ["2", "5", "20"]
    assert "k" in offered["sharpness"]
    assert "FLR" not in offered["features"]
    two = selects(CHARTS["features"]({**tables, "features": pl.concat([tables["features"], more])}).to_dict())
    assert two["FLR"] == ["3.16e-5", "1e-3"]


def test_parameters_have_names_of_their_own_within_a_page(tables: Tables, specs: dict[str, Spec]) -> None:
    charts = [*specs.values(), accuracy_chart(tables, at_loss=0.3).to_dict()]
    names = [
        param["name"] for spec in charts for param in spec["params"] if "value" in param and param["name"] != POINTED
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", CHARTS)
def test_one_seed_leaves_no_choice_and_is_not_stored_twice(
    make_study: Callable[..., dict[str, pl.DataFrame]], name: str
) -> None:
    spec = CHARTS[name](make_study(seeds=1)).to_dict()
    assert "seed" not in selects(spec)
    packed = [json.loads(rows) for rows in spec["datasets"].values() if isinstance(rows, str)]
    assert packed
    # The dots of the convergence chart are single seeds.
    assert {row["seed"] for rows in packed for row in rows if "seed" in row} == (
        {"0", "all"} if name == "convergence" else {"all"}
    )


def test_a_seed_draws_its_own_accuracies(tables: Tables, specs: dict[str, Spec]) -> None:
    svg = chosen(specs["accuracy"], seed_accuracy="2", k_accuracy="all")
    assert shown(svg, "pre-training") == pytest.approx(accuracies(tables, stage="pretrain", seed=2), rel=1e-5)
    assert shown(svg, "SWA-5") == pytest.approx(accuracies(tables, stage="average", count=5, seed=2), rel=1e-5)


def test_an_flr_and_no_k_draw_that_one_line_beside_pre_training(specs: dict[str, Spec]) -> None:
    svg = chosen(specs["accuracy"], flr_accuracy="FLR 1e-4", k_accuracy="none")
    assert shown(svg, "FLR 1e-4")
    assert shown(svg, "pre-training")
    assert not any(shown(svg, series) for series in ("FLR 3.16e-5", "FLR 1e-3", "SWA-2", "SWA-5", "SWA-20"))


def test_the_panel_of_averages_shows_the_k_chosen_and_says_so(tables: Tables, specs: dict[str, Spec]) -> None:
    spec = specs["bands"]
    first, then = chosen(spec), chosen(spec, k_bands="averaged, SWA-5")
    assert [svg.count(">averaged, SWA-20<") for svg in (first, then)] == [2, 0]
    assert [svg.count(">averaged, SWA-5<") for svg in (first, then)] == [0, 2]
    top = (
        tables["bands"]
        .filter(stage="average", count=5, low=9, kept=True)
        .group_by("plr")
        .agg(pl.col("accuracy").mean())
    )
    drawn = {float(value) for value in re.findall(r"accuracy: ([\d.]{5,})%", then)}
    assert {float(f"{100 * accuracy:.4f}") for accuracy in top["accuracy"]} <= {round(value, 4) for value in drawn}


@pytest.mark.parametrize("name", CHOSEN_FROM)
def test_every_choice_draws_something_else(specs: dict[str, Spec], name: str) -> None:
    spec = specs[name]
    before = chosen(spec)
    assert chosen(spec, **{f"seed_{name}": "1"}) != before
    assert chosen(spec, **{f"seed_{name}": "all"}) == before


@pytest.mark.parametrize("name", CHARTS)
def test_every_mark_that_shows_a_value_can_be_read(specs: dict[str, Spec], name: str) -> None:
    spec = specs[name]
    panels = spec.get("hconcat") or spec.get("concat") or [spec]
    for panel in panels:
        read = [{tip["field"] for tip in tips} - {"regime", "low", "high"} for tips in found(panel, "tooltip")]
        assert any(read)


@pytest.mark.parametrize(
    ("name", "text"), [("fine-tuned, FLR 1e-4", "1e-4"), ("averaged, SWA-20", "20"), ("FLR 3.16e-5", "3.16e-5")]
)
def test_options_are_as_short_as_their_label_allows(name: str, text: str) -> None:
    assert short(name) == text
