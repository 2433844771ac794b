"""The examples, run as a user would: in their folder, by the commands that they name."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import tomli_w
from polars.testing import assert_frame_equal

import lratlas
from lratlas.study.spec import read_spec, spec_from
from lratlas.study.tasks import tasks_from
from lratlas.task import Task, fingerprint

EXAMPLES = Path(__file__).parents[1] / "examples"
FEW = [0.01, 0.03]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the examples."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__")))


def ran(folder: Path, *words: str) -> str:
    """What a Python command printed in this folder."""
    process = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-1000:]
    return process.stdout


def shorten_spec(path: Path) -> None:
    """Cut the spec down to seconds: two LRs, few epochs, few points on a path."""
    spec = tomllib.loads(path.read_text(encoding="utf-8"))
    spec["pretrain"] |= {"lrs": FEW, "epochs": 6}
    spec["finetune"] |= {"epochs": 1}
    spec["measure"] = {"interpolation": 3}
    path.write_text(tomli_w.dumps(spec), encoding="utf-8")


def shorten_script(path: Path) -> None:
    """The same for the script."""
    script = path.read_text(encoding="utf-8")
    for old, new in {
        "lratlas.lr_grid(1e-3, 1.0, per_decade=2)": str(FEW),
        '"epochs": 40': '"epochs": 6',
        '"epochs": 5': '"epochs": 1',
        'training={"compile": False}': 'training={"compile": False}, measure={"interpolation": 3}',
    }.items():
        assert script.count(old) == 1
        script = script.replace(old, new)
    path.write_text(script, encoding="utf-8")


def runs_of(folder: Path) -> pl.DataFrame:
    """The runs of a study, without the time they took."""
    return lratlas.load(folder).table("runs").drop("seconds").sort("run")


def test_the_spec_and_the_script_train_the_same_runs_well_above_chance(folder: Path) -> None:
    shorten_spec(folder / "own_model.toml")
    shorten_script(folder / "own_model.py")
    explored = ran(folder, "-m", "lratlas", "explore", "own_model.toml", "--folder", "own-study", "--workers", "1")
    assert "own-study/report.html" in explored
    runs = runs_of(folder / "own-study")
    # Two PLRs, each fine-tuned with two FLRs and averaged over two counts.
    assert runs["stage"].value_counts().sort("stage").rows() == [("average", 4), ("finetune", 4), ("pretrain", 2)]
    assert all(accuracy > 0.5 for accuracy in runs.filter(stage="finetune")["test_accuracy"])
    bands = lratlas.load(folder / "own-study").table("bands")
    assert {*bands["low"], *bands["high"]} >= {0, 8}  # images of 8 x 8 have the bands 0 to 8
    printed = ran(folder, "own_model.py")
    assert (folder / "own-study-from-python" / "report.html").is_file()
    assert "own-study-from-python/report.html" in printed
    assert_frame_equal(runs_of(folder / "own-study-from-python"), runs)


def test_the_spec_and_the_script_ask_for_the_same_study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    spec = read_spec(folder / "own_model.toml")
    asked: dict[str, Any] = {}

    def explore(task: Task, *, folder: str, **sections: Any) -> SimpleNamespace:
        asked.update(task=task, sections=sections)
        return SimpleNamespace(folder=folder, summary=list)

    monkeypatch.setattr(lratlas, "explore", explore)
    own_task = tasks_from(spec.task).of(0)
    sys.modules.pop("own_model").main()
    assert fingerprint(asked["task"]) == fingerprint(own_task)
    same = {"name": spec.name, "task": spec.task.model_dump(exclude_none=True)}
    assert spec_from(same | asked["sections"]) == spec
