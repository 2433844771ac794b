"""The atlas of a study: finished, running, hardly begun."""

import re
import shutil
from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lratlas
from cheaper import workerless
from lratlas import Task
from lratlas.atlas import Atlas, load
from lratlas.config.presets import preset
from lratlas.config.spec import spec_text
from lratlas.errors import MissingLibrary, SpecError, StudyError
from lratlas.models.mlp import MLP
from lratlas.tables import SCHEMAS

CHARTS = ("accuracy", "geometry", "features", "traces")


def blobs(seed: int = 0) -> Task:
    """Two noisy classes and two single-feature sets."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 4, generator=draw)
    y = (x[:, 0] + 0.3 * torch.randn(64, generator=draw) > 0).long()
    return Task(
        name="blobs",
        model=partial(MLP, 4, (6,), 2, scale_invariant=True),
        train=(x[:40], y[:40]),
        test=(x[40:], y[40:]),
        batch_size=8,
        rule="sphere_sgd",
        singles=(torch.randn(2, 10, 4, generator=draw), torch.arange(20).reshape(2, 10) % 2),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """A finished study with generated data."""
    with workerless():
        return lratlas.explore(
            blobs,
            folder=tmp_path_factory.mktemp("atlas") / "study",
            pretrain={"lrs": [1e-3, 1e-2, 1e-1], "steps": 24, "repeats": 2},
            finetune={"lrs": [1e-3, 1e-2], "steps": 10},
            average={"counts": [2, 3], "every": 3, "extend": True},
            trace={"points": 6},
            training={"compile": False, "strategy": "stack"},
        )


@pytest.fixture
def running(whole: Atlas, tmp_path: Path) -> Path:
    """A study whose pre-training alone is done."""
    folder = shutil.copytree(whole.folder, tmp_path / "running")
    for path in (folder / "tables").rglob("*.parquet"):
        if not path.name.startswith("pretrain"):
            path.unlink()
    (folder / "report.html").unlink()
    return folder


def test_an_atlas_loads_as_it_was_made(whole: Atlas):
    again = lratlas.load(whole.folder)
    assert isinstance(again, Atlas)
    assert again == whole
    assert again.spec.name == "blobs"
    assert again.elr
    for name, schema in SCHEMAS.items():
        assert again.table(name).equals(whole.table(name))
        assert again.table(name).schema == schema
        # Its inputs are no images, and the others are not asked for.
        asked = name not in {"bands", "sharpness", "norms", "convergence", "power_law"}
        assert (len(again.table(name)) > 0) == asked
    assert again.boundaries.equals(again.table("boundaries"))
    assert again.regimes["plr"].to_list() == [1e-3, 1e-2, 1e-1]


def test_a_summary_is_a_list_of_sentences(whole: Atlas, running: Path):
    for atlas in (whole, load(running)):
        sentences = atlas.summary
        assert len(sentences) >= 3
        assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_of_a_finished_study_can_be_drawn(name: str, whole: Atlas):
    drawn = whole.chart(name).to_dict()
    assert drawn["$schema"].startswith("https://vega.github.io/schema/vega-lite/")


def test_options_reach_the_chart(whole: Atlas):
    highest = whole.table("traces")["train_loss"].max()
    assert "at training loss" in str(whole.chart("accuracy", at_loss=highest).to_dict())
    with pytest.raises(StudyError, match="no run has one"):
        whole.chart("accuracy", at_loss=1e-9)


def test_unknown_names_are_answered_with_what_there_is(whole: Atlas):
    with pytest.raises(StudyError, match=r"no table 'run' .did you mean runs.{2}; choose one of runs, traces, regimes"):
        whole.table("run")
    with pytest.raises(StudyError, match=r"no chart 'barriers'; choose one of accuracy, last_tenth, loss, features"):
        whole.chart("barriers")
    with pytest.raises(StudyError, match=r"no finished run 'abc'; the table of runs lists the ids"):
        whole.model("abc", blobs)


def test_a_model_has_the_accuracies_of_its_run(whole: Atlas):
    """Of pre-trained, fine-tuned and averaged runs of either data seed, by a plain forward pass."""
    runs = whole.table("runs")
    assert set(runs["stage"]) == {"pretrain", "finetune", "average"}
    for run in runs.iter_rows(named=True):
        model, task = whole.model(run["run"], blobs), blobs(run["data_seed"])
        assert not model.training
        for part, (x, y) in (("train", task.train), ("test", task.test)):
            with torch.no_grad():
                outputs = model(x)
            accuracy = (outputs.argmax(1) == y).double().mean()
            assert run[f"{part}_accuracy"] == pytest.approx(float(accuracy), abs=1e-12)
            loss = torch.nn.functional.cross_entropy(outputs, y)
            assert run[f"{part}_loss"] == pytest.approx(float(loss), rel=1e-4)


def test_a_model_is_not_made_of_a_task_that_has_changed(whole: Atlas):
    run = whole.table("runs")["run"][0]
    with pytest.raises(StudyError, match=rf"The weights of run {run} do not fit the task: its model or data, or"):
        whole.model(run, lambda seed: blobs(seed + 1))


def test_a_model_of_a_study_from_python_needs_its_task(whole: Atlas):
    with pytest.raises(StudyError, match=r"was started from Python with a custom task; pass it: model\(run, task\)"):
        whole.model(whole.table("runs")["run"][0])


def test_a_running_study_shows_what_it_has(running: Path):
    atlas = load(running)
    assert set(atlas.table("runs")["stage"]) == {"pretrain"}
    assert len(atlas.regimes) == 3
    assert not set(atlas.regimes["regime"]) & {"2A", "2B"}
    assert atlas.table("pairs").is_empty()
    assert atlas.chart("traces").to_dict()
    with pytest.raises(StudyError, match="geometry"):
        atlas.chart("geometry")
    page = Path(atlas.write_report())
    assert page == running / "report.html"
    assert {path.stem for path in (running / "figures").glob("*.pdf")} >= {"accuracy", "traces"}


def test_a_study_that_is_hardly_begun_has_empty_tables(tmp_path: Path):
    (tmp_path / "spec.toml").write_text(spec_text(preset("digits")))
    atlas = load(tmp_path)
    assert atlas.plan is None
    assert {name: table.schema for name, table in atlas.tables.items()} == SCHEMAS
    assert all(table.is_empty() for table in atlas.tables.values())
    assert atlas.summary == ["Nothing is trained yet."]
    assert not atlas.elr
    with pytest.raises(StudyError, match="no finished run"):
        atlas.model("abc")
    for name in CHARTS:
        with pytest.raises(StudyError):
            atlas.chart(name)


def test_a_report_is_one_page_with_the_facts(whole: Atlas):
    text = Path(whole.folder, "report.html").read_text(encoding="utf-8")
    assert "blobs" in text
    assert torch.__version__.split("+")[0] in text
    assert all(sentence.split(",")[0] in text for sentence in whole.summary if "'" not in sentence)
    assert {path.stem for path in Path(whole.folder, "figures").glob("*.pdf")} >= set(CHARTS)
    assert all(path.read_bytes().startswith(b"%PDF") for path in Path(whole.folder, "figures").glob("*.pdf"))


@pytest.mark.parametrize("folder", ["absent", "empty", "file"])
def test_what_is_no_study_is_not_loaded(folder: str, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StudyError, match=folder):
        load(tmp_path / folder)


def test_a_study_from_python_is_not_resumed_from_its_folder(whole: Atlas):
    from lratlas.api.explore import resume

    with pytest.raises(StudyError, match=r"was started from Python.*run the same explore\(\) call again"):
        resume(whole.folder)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({}, "`pretrain` is missing"),
        (
            {"pretrain": {"lrs": [0.1], "steps": 1}, "finetunes": {}},
            r"^There is no section `finetunes` \(did you mean `finetune`\?\); allowed are ",
        ),
        ({"pretrian": {"lrs": [0.1], "steps": 1}}, r"^There is no section `pretrian` \(did you mean `pretrain`\?\)"),
        ({"pretrain": {"lr": [0.1], "steps": 1}}, r"^`pretrain\.lr` is not a field \(did you mean `lrs`\?\)"),
        (
            {"pretrain": {"lrs": [0.1], "steps": 1}, "worker": 2},
            r"^`worker` is not an argument \(did you mean `workers`\?\)",
        ),
        ({"pretrain": {"lrs": [-0.1], "steps": 1}}, r"`pretrain\.lrs` holds -0\.1"),
    ],
)
def test_wrong_sections_are_named_before_anything_is_made(sections: dict[str, Any], words: str, tmp_path: Path):
    with pytest.raises(SpecError, match=words):
        lratlas.explore(blobs(), folder=tmp_path / "study", **sections)
    assert not (tmp_path / "study").exists()


def test_a_spec_file_is_read_and_checked(tmp_path: Path):
    explore: Callable[..., Atlas] = lratlas.explore
    with pytest.raises(SpecError, match=r"There is no spec .*absent\.toml"):
        explore(tmp_path / "absent.toml", folder=tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_an_atlas_is_equal_to_another_of_the_same_folder(whole: Atlas, running: Path):
    again, other = load(whole.folder), load(running)
    assert again.tables["runs"].height  # tables that were read make no difference
    assert again == whole
    assert {again, whole, other} == {whole, other}
    assert other != whole


def test_an_atlas_says_its_answer_and_its_regimes(whole: Atlas):
    assert whole.recommendation is not None
    assert repr(whole).splitlines() == [
        f"Atlas of {whole.spec.name} in {whole.folder}",
        whole.recommendation.statement,
        f"Regimes: {whole.regimes_in_short}",
    ]


def test_an_unfinished_atlas_says_how_far_it_is(whole: Atlas, tmp_path: Path):
    folder = Path(shutil.copytree(whole.folder, tmp_path / "study"))
    for part in (folder / "tables" / "runs").glob("finetune-*"):
        part.unlink()
    assert " (unfinished: " in repr(load(folder)).splitlines()[0]
    assert " (unfinished: " in str(load(folder)._repr_html_())  # pyright: ignore[reportPrivateUsage]


def test_a_notebook_shows_answer_strip_and_chart_without_scripts(whole: Atlas):
    html = str(whole._repr_html_())  # pyright: ignore[reportPrivateUsage]
    assert whole.recommendation is not None
    assert escape(whole.recommendation.statement) in html
    regimes = whole.regimes["regime"].unique().to_list()
    assert 'role="img" aria-label="Regimes along the pre-training learning rate: ' in html
    assert html.count("background: #") == len(regimes)  # each of them lies in one piece here
    assert html.count('src="data:image/svg+xml;base64,') == 1
    assert not re.search(r"<script|https?:", html)


def test_where_the_chart_cannot_be_drawn_a_notebook_says_why(whole: Atlas, monkeypatch: pytest.MonkeyPatch):
    def missing() -> None:
        raise MissingLibrary("vl_convert is not installed; <this> installs it")

    monkeypatch.setattr("lratlas.api.notebook.load_converter", missing)
    html = str(whole._repr_html_())  # pyright: ignore[reportPrivateUsage]
    assert "No chart: vl_convert is not installed; &lt;this&gt; installs it" in html
    assert "<img" not in html


def test_a_damaged_atlas_can_be_shown(whole: Atlas, tmp_path: Path):
    folder = Path(shutil.copytree(whole.folder, tmp_path / "study"))
    part = next((folder / "tables" / "runs").iterdir())
    part.write_bytes(part.read_bytes()[:-9])
    assert repr(load(folder)) == f"Atlas({str(folder)!r})"
    assert load(folder)._repr_html_() is None  # pyright: ignore[reportPrivateUsage]


def test_numpys_numbers_make_the_same_study(whole: Atlas):
    workers: Any = np.int64(1)
    sections: dict[str, Any] = {
        "pretrain": {"lrs": np.array([1e-3, 1e-2, 1e-1]), "steps": np.int32(24), "repeats": np.uint8(2)},
        "finetune": {"lrs": torch.tensor([1e-3, 1e-2], dtype=torch.float64), "steps": torch.tensor(10)},
        "average": {"counts": np.array([2, 3]), "every": 3, "extend": True},
        "trace": {"points": np.float64(6).astype(int)},
        "training": {"compile": np.bool_(False), "strategy": "stack"},
    }
    again = lratlas.explore(blobs, folder=whole.folder, workers=workers, notice=pytest.fail, **sections)
    assert again == whole
