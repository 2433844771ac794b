"""Studies that earlier versions made are read as they are; one of a later version is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.helpers import Ran, contents

pytestmark = pytest.mark.usefixtures("without_figures")

Run = Callable[..., Ran]

STUDIES = Path(__file__).parents[1] / "data" / "studies"
NOTHING = {"below": None, "above": None, "value": None, "low": None, "high": None}
# Two seeds tell nothing of an interval, which ends with the grid: 1e-3, 0.1 and 1000.
FOUND = {"below": 0.1, "above": 1000.0, "value": 10.0, "low": 0.001, "high": 1000.0}
BOUNDARIES = [
    {"boundary": "convergence", **FOUND},
    {"boundary": "subregime", **NOTHING},
    {"boundary": "divergence", **FOUND},
]
"""What is found in both, as by the versions that made them, but for the ends of the intervals."""
OTHER = "check whether the task is unchanged. The study can be read but not continued; use another folder."


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A function that copies a kept study; the module that its spec names is found."""
    monkeypatch.syspath_prepend(STUDIES)
    return lambda name: Path(shutil.copytree(STUDIES / name, tmp_path / "study"))


@pytest.mark.parametrize(("name", "unchecked"), [("format-1", ["plan.json", "spec.toml"]), ("format-2", ["spec.toml"])])
def test_a_study_of_an_earlier_format_opens(name: str, unchecked: list[str], kept: Callable[[str], Path], run: Run):
    study = kept(name)
    before = contents(study)
    assert json.loads(run("show", study, "--format", "json").out) == BOUNDARIES
    pairs = json.loads(run("show", study, "pairs", "--format", "json").out)
    assert len(pairs) == 18
    assert {pair["train_barrier_arc"] for pair in pairs} == {None}
    assert None not in {pair["train_barrier"] for pair in pairs}
    assert len(json.loads(run("show", study, "runs", "--format", "json").out)) == 24
    status = json.loads(run("status", study, "--json").out)
    assert (status["state"], status["format"]) == ("finished", int(name[-1]))
    assert status["made_with"][0]["lratlas"] == "0.1.0"
    checked = run("verify", study)
    assert checked.code == 0
    assert checked.out.splitlines() == [
        *(f"{path}: has no checksum" for path in unchecked),
        "OK: all other files match their checksums.",
    ]
    assert contents(study) == before, "reading changes nothing"


@pytest.mark.parametrize("name", ["format-1", "format-2"])
def test_a_finished_study_of_an_earlier_format_is_left_as_it_is(name: str, kept: Callable[[str], Path], run: Run):
    study = kept(name)
    assert run("report", study).code == 0
    assert "lratlas 0.1.0 (format" in (study / "report.html").read_text(encoding="utf-8")
    before = contents(study)
    resumed = run("resume", study, "--workers", "1")
    assert resumed.code == 0, resumed.err
    after = contents(study)
    assert {path for path in before | after if before.get(path) != after.get(path)} <= {"plan.json", "driver.lock"}
    assert "stays unchanged" in resumed.err
    assert before["plan.json"] == after["plan.json"]
    assert run("verify", study).code == 0
    assert json.loads(run("status", study, "--json").out)["format"] == int(name[-1])


@pytest.mark.parametrize("name", ["format-1", "format-2"])
def test_an_unfinished_study_of_an_earlier_format_cannot_be_continued(
    name: str, kept: Callable[[str], Path], run: Run, refused: Callable[..., str]
):
    study = kept(name)
    next((study / "tables" / "runs").glob("finetune-*")).unlink()
    before = contents(study)
    said = refused("resume", study, "--workers", "1")
    assert said.rstrip().endswith(OTHER)
    assert contents(study) == before | {"driver.lock": b""}
    assert run("show", study).code == 0


@pytest.mark.parametrize("name", ["format-1", "format-2"])
def test_a_finished_study_of_an_earlier_format_cannot_be_extended(
    name: str, kept: Callable[[str], Path], refused: Callable[..., str], tmp_path: Path
):
    study, larger = kept(name), tmp_path / "larger.toml"
    spec = (study / "spec.toml").read_text()
    larger.write_text(spec.replace("lrs = [", "lrs = [1e-5, ", 1))
    before = contents(study)
    assert refused("explore", larger, "--folder", study, "--workers", "1").rstrip().endswith(OTHER)
    assert contents(study) == before | {"driver.lock": b""}
    shutil.copy(larger, study / "spec.toml")
    assert refused("resume", study, "--workers", "1").rstrip().endswith(OTHER)


@pytest.mark.parametrize("command", ["show", "status", "report", "resume", "verify"])
def test_a_study_of_a_later_format_is_refused(command: str, kept: Callable[[str], Path], refused: Callable[..., str]):
    study = kept("format-2")
    (study / "plan.json").write_text('{"format": 99, "needs": "7.5", "sealed": "in another way"}')
    (study / "spec.toml").write_text("fields = 'that nobody knows yet'")
    before = contents(study)
    said = refused(command, study)
    assert said.startswith(f"plan.json in {study} has format 99, which needs lratlas 7.5 or later; lratlas ")
    assert {path: data for path, data in contents(study).items() if path != "driver.lock"} == before
