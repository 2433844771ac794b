"""Measurements of a user's: from Python and by name, in worker processes, added later, wrong, and read without them."""

import importlib.util
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import lratlas
from cheaper import undrawn, unfigured, workerless
from lratlas.errors import JobsFailed, MeasurementError, SpecError, StudyError
from lratlas.study.store import Store
from lratlas.study.verify import faults
from study.running import printed_by

Made = Callable[..., lratlas.Task]

MODEL = ["run", "stage", "plr", "flr", "count", "seed"]
MODULE = """
import polars
import torch
import lratlas


def right(model, data):
    assert not model.training
    inputs, labels = data.test
    with torch.no_grad():
        return {"right": (model(inputs).argmax(1) == labels).double().mean()}


RIGHT = lratlas.Measurement(
    name="right", columns={"right": polars.Float64}, function=right, chart=lratlas.Chart(y="right", title="Hits")
)
"""
TASK = """
import torch
from lratlas.models.mlp import MLP


def model():
    return MLP(4, (6,), 2, scale_invariant=True)


def data():
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    return (x[:40], y[:40]), (x[40:], y[40:])
"""
SPEC = """
[task]
model = "own_task:model"
data = "own_task:data"
batch_size = 8
rule = { name = "sphere_sgd" }
[pretrain]
lrs = [1e-2, 1e-1]
steps = 20
[finetune]
lrs = [1e-3]
steps = 8
[measure]
interpolation = 3
extra = ["own_measurement:RIGHT"]
[training]
compile = false
"""


def layers(model: torch.nn.Module, _data: object) -> list[dict[str, object]]:
    """A row for each trained weight, with a number that is not finite."""
    weights = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return [
        {"layer": name, "size": value.numel(), "norm": value.norm(), "unknown": float("nan")}
        for name, value in weights.items()
    ]


LAYERS = lratlas.Measurement(
    name="layers",
    columns={"layer": pl.String, "size": pl.Int64, "norm": pl.Float64, "unknown": pl.Float64},
    function=layers,
    chart=lratlas.Chart(y="norm", series="layer"),
)


def named(function: Callable[..., object], **changes: Any) -> lratlas.Measurement:
    fields: dict[str, Any] = {"name": "toy", "columns": {"value": pl.Float64}, "function": function}
    return lratlas.Measurement(**(fields | changes))


def one(_model: object, _data: object) -> dict[str, float]:
    return {"value": 1.0}


def explored(folder: Path, task: lratlas.Task, sections: dict[str, Any], measure: Any, **given: Any) -> Any:
    shorter = {name: value for name, value in sections.items() if name != "measure"}
    with undrawn():
        return lratlas.explore(task, folder=folder, measure=measure, notice=lambda _: None, **shorter, **given)


def weights(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "checkpoints").iterdir()}


def test_rows_from_worker_processes_are_of_the_trained_models(
    small_task: Made, sections: dict[str, Any], tmp_path: Path
) -> None:
    task = small_task()
    asked = {"interpolation": 3, "extra": [LAYERS]}
    atlas = explored(tmp_path / "study", task, sections, asked)
    found = atlas.table("layers")
    assert found.columns == [*MODEL, "layer", "size", "norm", "unknown"]
    # Every model but those by way of a second PLR, with its own facts.
    runs = atlas.tables["runs"].select(MODEL)
    assert_frame_equal(found.select(MODEL).unique(), runs, check_row_order=False)
    assert found["unknown"].null_count() == len(found)
    for run in ("pretrain", "finetune", "average"):
        name = runs.filter(stage=run)["run"][-1]
        parameters = dict(atlas.model(name, task).named_parameters())
        rows = found.filter(run=name)
        assert [parameters[layer].numel() for layer in rows["layer"]] == rows["size"].to_list()
        assert [parameters[layer].norm().item() for layer in rows["layer"]] == rows["norm"].to_list()


def test_a_measurement_by_name_is_read_where_its_module_is_not(tmp_path: Path) -> None:
    here, folder = tmp_path / "here", tmp_path / "study"
    here.mkdir()
    for name, text in (("own_measurement.py", MODULE), ("own_task.py", TASK), ("study.toml", SPEC)):
        (here / name).write_text(text)
    with unfigured():
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(here)
            printed_by("explore", here / "study.toml", "--folder", folder)
        assert sys.modules.pop("own_measurement")
        assert not importlib.util.find_spec("own_measurement")
        assert re.search(r"right (\d+) of \1$", printed_by("status", folder), re.MULTILINE)
        assert printed_by("verify", folder) == "OK: all files match their checksums.\n"
        right, runs = (
            pl.read_json(printed_by("show", folder, table, "--format", "json").encode()) for table in ("right", "runs")
        )
        joined = right.join(runs, on="run", suffix="_of_run")
        assert joined["right"].to_list() == joined["test_accuracy"].to_list()
        assert len(joined) == len(runs) > 2
        (folder / "report.html").unlink()
        printed_by("report", folder)
    assert ">Hits<" in (folder / "report.html").read_text(encoding="utf-8")
    shown = pl.read_csv(folder / "figures" / "right.csv")
    assert shown.columns[:2] == ["series", "stage"]


def test_a_finished_study_takes_another_measurement_and_trains_nothing(
    finished: Path, small_task: Made, sections: dict[str, Any]
) -> None:
    before = weights(finished)
    with workerless():
        atlas = explored(finished, small_task(), sections, {"interpolation": 3, "extra": [LAYERS]})
        assert weights(finished) == before
        assert len(atlas.table("layers").select("run").unique()) == len(atlas.tables["runs"])
        assert "layers" in atlas.charts
        assert atlas.chart("layers").to_dict()
        parts = {path: path.stat().st_mtime_ns for path in (finished / "tables" / "layers").iterdir()}
        more = explored(finished, small_task(), sections, {"interpolation": 3, "extra": [LAYERS, named(one)]})
        assert set(more.table("toy")["value"]) == {1.0}
        assert {path: path.stat().st_mtime_ns for path in (finished / "tables" / "layers").iterdir()} == parts
        with pytest.raises(StudyError, match=r"`measure\.extra` holds 'layers' in the study, but not in the new spec"):
            explored(finished, small_task(), sections, {"interpolation": 3, "extra": [named(one)]})
        other = named(one, columns={"value": pl.Int64})
        with pytest.raises(
            StudyError, match=r"has the measurement toy with the columns value \(Float64\), but its columns are now"
        ):
            explored(finished, small_task(), sections, {"interpolation": 3, "extra": [LAYERS, other]})


def test_a_damaged_description_is_found_and_written_again(
    finished: Path, small_task: Made, sections: dict[str, Any]
) -> None:
    measure = {"interpolation": 3, "extra": [LAYERS]}
    path = finished / "measurements" / "layers.json"
    with workerless():
        table = explored(finished, small_task(), sections, measure).table("layers")
        for damage in (lambda: path.write_text(path.read_text().replace("Int64", "Float64")), path.unlink):
            damage()
            assert [fault.path for fault in faults(Store.open(finished))] == ["measurements/layers.json"]
            assert_frame_equal(explored(finished, small_task(), sections, measure).table("layers"), table)
            assert faults(Store.open(finished)) == []


def test_one_that_fails_costs_nothing_else(small_task: Made, sections: dict[str, Any], tmp_path: Path) -> None:
    def broken(_model: object, _data: object) -> dict[str, float]:
        raise ZeroDivisionError("no such ratio")

    folder = tmp_path / "study"
    words = r"Measurement toy failed on run \w+: ZeroDivisionError: no such ratio"
    with ThreadPoolExecutor(1) as executor, pytest.raises(JobsFailed, match=words):
        explored(folder, small_task(), sections, [named(broken)], executor=executor)
    before, runs = weights(folder), lratlas.load(folder).tables["runs"]  # pyright: ignore[reportAttributeAccessIssue] - of a study
    assert len(runs) > 10
    with workerless():
        atlas = explored(folder, small_task(), sections, [named(one)])
    assert weights(folder) == before
    assert len(atlas.table("toy")) == len(runs)


@pytest.mark.parametrize(
    ("returned", "wrong"),
    [
        ({"other": 1.0}, "returned the columns other; they must be value"),
        ({}, "returned the columns none; they must be value"),
        ([], "returned no row"),
        (1.0, "returned float; it must return a mapping"),
        ({"value": "high"}, "returned 'high' in the column value, which has the type Float64"),
        ({"value": True}, "returned True in the column value"),
        ({"value": [1.0, 2.0]}, r"returned \[1\.0, 2\.0\] in the column value"),
    ],
)
def test_wrong_rows_are_named(returned: object, wrong: str, finished: Path, small_task: Made, sections: Any) -> None:
    def function(_model: object, _data: object) -> object:
        return returned

    with workerless(), pytest.raises(MeasurementError, match=rf"^Measurement toy on run \w+ {wrong}"):
        explored(finished, small_task(), sections, {"interpolation": 3, "extra": [named(function)]})


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"name": "My name"}, "has the name 'My name', but names must start with a lower-case letter"),
        ({"columns": {}}, "must name at least one column"),
        ({"columns": {"seed": pl.Int64}}, "cannot have the column 'seed'"),
        (
            {"columns": {"value": pl.Int8}},
            "column 'value' has the type Int8, but must have one of the Polars types Float64",
        ),
        ({"chart": lratlas.Chart(y="other")}, r"chart\.y is 'other', but must be one of run, stage"),
        ({"chart": lratlas.Chart(y="value", x="stage")}, r"chart\.x is 'stage', but must be a numeric column"),
        ({"function": 3}, "function is 3"),
    ],
)
def test_what_cannot_be_one_is_refused(changes: dict[str, Any], wrong: str) -> None:
    with pytest.raises(SpecError, match=wrong):
        named(**({"function": one} | changes))


@pytest.mark.parametrize("name", ["runs", "pairs", "geometry", "accuracy", "claims"])
def test_names_of_the_package_are_refused_before_anything_is_made(name: str, small_task: Made, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"the name '{name}' is taken by a table, chart or measurement of the"):
        explored(tmp_path / "study", small_task(), {"pretrain": {"lrs": [0.1], "steps": 1}}, [named(one, name=name)])
    assert not (tmp_path / "study").exists()


def test_extra_holds_measurements_of_different_names(small_task: Made, tmp_path: Path) -> None:
    sections = {"pretrain": {"lrs": [0.1], "steps": 1}}
    for measure, wrong in (
        ([named(one), named(one)], "two measurements have the name 'toy'"),
        ([one], r"holds <function one .*>; it must be a lratlas\.Measurement"),
        (["no_such_module:TOY"], r"no_such_module:TOY cannot be imported"),
        (["math:pi"], r"module math has no lratlas\.Measurement 'pi'"),
        (["toy"], "holds 'toy'; it must be a lratlas.Measurement or \"module:name\""),
    ):
        with pytest.raises(SpecError, match=wrong):
            explored(tmp_path / "study", small_task(), sections, measure)
    assert not (tmp_path / "study").exists()
