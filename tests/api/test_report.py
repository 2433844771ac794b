"""What is written about a study: the page as text, and the facts in it."""

from pathlib import Path

import pytest

from browser.made_up import Shape, write_study
from cheaper import unfigured
from lratlas.api.report import Drawn, draw_charts, facts, page_of, progress
from lratlas.atlas import Atlas, load
from lratlas.config.presets import preset
from lratlas.config.spec import spec_text
from lratlas.errors import StudyError
from lratlas.study.store import Store

SMALL = Shape(plrs=14, seeds=2, flrs=2, counts=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    folder = tmp_path_factory.mktemp("whole")
    write_study(folder / "a study", SMALL)
    return load(folder / "a study")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """Of which only pre-training is done."""
    folder = tmp_path_factory.mktemp("running")
    write_study(folder / "study", SMALL, stages=("pretrain",))
    return load(folder / "study")


def test_the_page_as_text_writes_nothing(running: Atlas) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(running.folder).rglob("*")}
    html = running.report_html(live=True)
    assert {path: path.stat().st_mtime_ns for path in Path(running.folder).rglob("*")} == before
    assert html.startswith("<!doctype html>")
    assert "connect-src" in html
    assert progress(running) in html


def test_what_is_written_is_the_page_that_asks_nobody(running: Atlas) -> None:
    with unfigured():
        path = running.write_report()
    assert path == f"{running.folder}/report.html"
    html = Path(path).read_text(encoding="utf-8")
    assert html == running.report_html()
    assert "connect-src" not in html


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("{}/a study", "lratlas explore '{0}/a study/spec.toml' --folder '{0}/a study'"),
        ("memory://a/study", "lratlas resume memory:///a/study"),
    ],
)
def test_the_command_of_the_page_is_one_that_can_be_given(folder: str, command: str, tmp_path: Path) -> None:
    store = Store.create(folder.format(tmp_path), spec_text(preset("digits")))
    assert facts(Atlas(store))["Command"] == command.format(tmp_path)


@pytest.fixture(scope="module")
def part(running: Atlas) -> Drawn:
    """Its charts."""
    return draw_charts(running)


def test_a_study_shows_the_charts_it_asks_for(whole: Atlas, running: Atlas, part: Drawn) -> None:
    found = draw_charts(whole)
    assert tuple(found.charts) == whole.charts == running.charts
    assert not found.missing
    assert {*part.charts, *part.missing} == {*running.charts}
    assert "traces" in part.charts
    assert "pairs" in part.missing["geometry"]
    recommended = whole.recommendation
    assert recommended is not None
    assert recommended.statement in page_of(whole, Drawn(charts={}, missing={}))


def test_accuracies_at_a_loss_are_shown_too(running: Atlas) -> None:
    highest = running.table("traces")["train_loss"].sort(descending=True)[0]
    assert tuple(draw_charts(running, at_loss=highest).charts)[-1] == "accuracy_at_loss"
    with pytest.raises(StudyError, match="no run has one"):
        draw_charts(running, at_loss=1e-30)


def test_how_far_a_study_is(whole: Atlas, running: Atlas, tmp_path: Path) -> None:
    assert progress(whole) == ""
    assert running.plan is not None
    jobs = len(running.plan.jobs)
    words = progress(running)
    assert words.startswith("unfinished: ")
    assert words.endswith(f" of {jobs} jobs done")
    assert 0 < int(words.split()[1]) < jobs
    (tmp_path / "spec.toml").write_text(spec_text(preset("digits")))
    begun = load(tmp_path)
    assert progress(begun) == "unfinished: not planned yet"
    assert "No learning rate can be recommended yet." in begun.report_html()


def test_the_facts_are_those_of_the_study(whole: Atlas) -> None:
    found = facts(whole)
    runs = whole.table("runs")
    assert found["Command"] == f"lratlas explore '{whole.folder}/spec.toml' --folder '{whole.folder}'"
    assert found["Runs"].startswith(f"{len(runs):,}, ")
    assert found["Spec"] == Path(whole.folder, "spec.toml").read_text(encoding="utf-8").strip()
    assert whole.plan is not None
    prints = {seed.fingerprint for job in whole.plan.trainings for seed in job.seeds}
    assert set(found["Data fingerprint"].split(", ")) == prints
    assert "torch 2" in found["Versions"]
