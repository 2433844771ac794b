"""The charts of the threshold, two stages, norms and sharpness draw whatever part of the data there is."""

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from lratlas.errors import StudyError
from lratlas.report.charts.catalog import CHARTS
from lratlas.report.charts.convergence import convergence_chart
from lratlas.report.charts.minima import norms_chart, sharpness_chart, two_stages_chart
from lratlas.report.figures import figure_svg
from lratlas.tables import Tables, empty

NEW = ("convergence", "two_stages", "norms", "sharpness")


def without(tables: Tables, *names: str) -> Tables:
    return {**tables, **{name: empty(name) for name in names}}


@pytest.mark.parametrize("name", NEW)
def test_one_seed_without_regimes_and_law_still_draws(
    make_study: Callable[..., dict[str, pl.DataFrame]], name: str
) -> None:
    assert figure_svg(CHARTS[name](without(make_study(seeds=1), "regimes", "power_law"))).startswith("<svg")


def test_the_law_has_a_panel_and_a_place_in_the_legend_only_where_there_is_one(tables: Tables) -> None:
    with_law, bare = (figure_svg(convergence_chart(t)) for t in (tables, without(tables, "power_law")))
    assert [">power law<" in svg for svg in (with_law, bare)] == [True, False]
    assert [svg.count(">the rise, on a linear axis<") for svg in (with_law, bare)] == [1, 0]


def test_nothing_converged_still_draws(tables: Tables) -> None:
    never = tables["convergence"].with_columns(epochs=pl.lit(None, pl.Int64), test_accuracy=pl.lit(None, pl.Float64))
    assert figure_svg(convergence_chart({**without(tables, "power_law"), "convergence": never})).startswith("<svg")


def test_a_panel_per_pair_of_plrs_with_its_numbers(tables: Tables) -> None:
    chart = two_stages_chart(tables)
    svg, spec = figure_svg(chart), chart.to_dict()
    runs = tables["runs"].filter(pl.col("plr2").is_not_null())
    assert [panel["title"] for panel in spec["concat"]] == ["PLR 2.2e-2 → 7.39e-3", "PLR 3.79e-2 → 7.39e-3"]
    means = runs.group_by("plr", "flr").agg(pl.col("test_accuracy").mean())["test_accuracy"]
    assert all(f">{100 * mean:.1f}<" in svg for mean in means)


def test_many_bars_have_no_numbers(tables: Tables) -> None:
    again = [tables["runs"].filter(pl.col("plr2").is_not_null()).with_columns(pl.col("flr") / 3**i) for i in range(4)]
    spec: dict[str, Any] = two_stages_chart({**tables, "runs": pl.concat([tables["runs"], *again])}).to_dict()
    assert [layer["mark"]["type"] for layer in spec["concat"][0]["layer"]] == ["bar", "rule"]


def test_a_panel_per_regime_in_order(tables: Tables) -> None:
    spec: dict[str, Any] = norms_chart(tables).to_dict()
    assert [panel["title"] for panel in spec["concat"]] == ["regime 1", "regime 2A", "regime 2B", "regime 3"]
    assert norms_chart(without(tables, "regimes")).to_dict()["concat"][0]["title"] == "all PLRs"


def test_only_eigenvalues_that_did_not_converge_are_hollow(tables: Tables) -> None:
    spec: dict[str, Any] = sharpness_chart(tables).to_dict()
    assert [len(panel["layer"]) for panel in spec["hconcat"]] == [2, 1, 1]
    filled, hollow = spec["hconcat"][0]["layer"]
    assert [layer["mark"]["filled"] for layer in (filled, hollow)] == [True, False]
    assert "datum.converged" in [step.get("filter") for step in filled["transform"]]
    assert "!datum.converged" in [step.get("filter") for step in hollow["transform"]]
    whole = {**tables, "sharpness": tables["sharpness"].with_columns(converged=pl.lit(value=True))}
    assert [len(panel["layer"]) for panel in sharpness_chart(whole).to_dict()["hconcat"]] == [1, 1, 1]


def test_a_trace_below_zero_has_a_plain_axis(tables: Tables) -> None:
    bent = {**tables, "sharpness": tables["sharpness"].with_columns(trace=-pl.col("trace"))}
    axes = [
        [panel["layer"][0]["encoding"]["x"]["scale"]["type"] for panel in sharpness_chart(t).to_dict()["hconcat"]]
        for t in (tables, bent)
    ]
    assert axes == [["log", "log", "log"], ["log", "linear", "log"]]


def test_the_loss_is_named_and_can_be_chosen(tables: Tables) -> None:
    assert "at a training loss of about 0.015" in figure_svg(sharpness_chart(tables, at_loss=0.015))
    with pytest.raises(StudyError, match=r"within a factor of 1\.5 of 7"):
        sharpness_chart(tables, at_loss=7.0)
