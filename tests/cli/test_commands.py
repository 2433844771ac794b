import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cli.helpers import NAMED, Explored, Ran, contents
from lratlas.atlas import load
from lratlas.tables import SCHEMAS

pytestmark = pytest.mark.usefixtures("without_figures")

Run = Callable[..., Ran]
ODD = ["a b", "[red]x[/red]", "[/]", ":smile:", "größe 学", "#%&'\"$HOME"]


def test_explore_prints_its_result_as_json_alone(explored: Explored):
    # The data print their own message, which must not get into the result.
    assert "a message of the data's own" in explored.terminal
    result = json.loads(explored.out)
    assert list(result) == ["folder", "boundaries", "regimes", "summary"]
    assert result["folder"] == str(explored.folder)
    assert [row["boundary"] for row in result["boundaries"]] == ["convergence", "subregime", "divergence"]
    assert [row["plr"] for row in result["regimes"]] == [1e-3, 1e-1]
    assert all(isinstance(each, str) for each in result["summary"])


def test_a_terminal_shows_the_progress_with_its_rate(explored: Explored):
    assert "pre-training" in explored.terminal
    assert "of 3 jobs" in explored.terminal
    assert re.search(r"elapsed · [\d,]+ steps/s", explored.terminal)


@pytest.mark.parametrize("table", SCHEMAS)
def test_show_gives_every_table_in_every_format(table: str, study: Path, run: Run):
    wanted = load(study).table(table)
    printed = run("show", study, table, "--format", "json")
    assert (printed.code, printed.err) == (0, "")
    found: Any = json.loads(printed.out)
    assert all(list(row) == list(SCHEMAS[table]) for row in found)
    assert_frame_equal(pl.DataFrame(found, SCHEMAS[table]), wanted)

    printed = run("show", study, table, "--format", "csv")
    assert (printed.code, printed.err) == (0, "")
    assert_frame_equal(pl.read_csv(io.StringIO(printed.out), schema=SCHEMAS[table]), wanted)

    printed = run("show", study, table)
    assert (printed.code, "table is empty" in printed.err) == (0, wanted.is_empty())
    header, _rule, *rows = printed.out.splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == list(SCHEMAS[table])
    assert len(rows) == len(wanted)


def test_show_without_a_table_shows_the_boundaries(study: Path, run: Run):
    assert run("show", study) == run("show", study, "boundaries")


def test_status_tells_how_far_a_study_is(study: Path, run: Run):
    ran = run("status", study)
    assert (ran.code, ran.err) == (0, "")
    assert f"\ntiny in {study}: finished, 3 of 3 jobs done\n" in ran.out
    for part in (study / "tables" / "runs").glob("finetune-*"):
        part.unlink()
    assert ": unfinished, 2 of 3 jobs done\n" in run("status", study).out
    state = json.loads(run("status", study, "--json").out)
    assert (state["state"], state["jobs"], state["done"]) == ("unfinished", 3, 2)
    assert state["kinds"]["finetune"] == {"done": 0, "total": 1}
    # Two PLRs for 100 steps, each fine-tuned with two FLRs for 8.
    assert (state["steps"], state["steps_done"]) == (232, 200)
    assert state["seconds_left"] == pytest.approx(32 / state["rate"])
    assert len(state["regimes"]) == 2


def test_status_of_a_study_that_is_not_planned_yet(explored: Explored, tmp_path: Path, run: Run):
    (tmp_path / "spec.toml").write_bytes((explored.folder / "spec.toml").read_bytes())
    assert run("status", tmp_path) == Ran(
        code=0, out=f"→ Nothing is trained yet.\ntiny in {tmp_path}: not planned yet\n", err=""
    )
    state = json.loads(run("status", tmp_path, "--json").out)
    assert (state["state"], state["jobs"], state["done"]) == ("not planned yet", 0, 0)
    assert state["boundaries"] == []
    assert json.loads(run("show", tmp_path, "runs", "--format", "json").out) == []


def test_report_is_written_anew(study: Path, run: Run):
    before = contents(study)
    (study / "report.html").unlink()
    (study / "figures" / "traces.pdf").unlink()
    ran = run("report", study)
    assert ran == Ran(code=0, out=f"Report: {study}/report.html\n", err="")
    assert contents(study).keys() == before.keys()


@pytest.mark.parametrize("words", [["resume"], ["explore", "spec.toml", "--folder"]])
def test_a_finished_study_is_left_as_it_is(words: list[str], study: Path, run: Run):
    kept = {
        path: path.stat().st_mtime_ns for part in ("runs", "traces") for path in (study / "tables" / part).iterdir()
    }
    ran = run(*words, study, "--workers", "1")
    assert (ran.code, ran.err) == (0, f"{NAMED}\n")
    assert ran.out.endswith(f"Report: {study}/report.html\n")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    result = json.loads(run(*words, study, "--json").out)
    assert result["folder"] == str(study)


def test_a_spec_can_be_put_right_until_the_study_is_planned(home: Path, tmp_path: Path, run: Run):
    folder, spec = tmp_path / "study", tmp_path / "spec.toml"
    text = (home / "spec.toml").read_text()
    spec.write_text(text.replace("batch_size = 16", "batch_size = 1600"))
    assert run("explore", spec, "--folder", folder).code == 2
    assert sorted(path.name for path in folder.iterdir()) == ["driver.lock", "spec.toml"]
    # Not planned, so its spec is all that it holds; the right one takes its place.
    spec.write_text(text.replace("lrs = [1e-3, 1e-1]", "lrs = [1e-3]").replace("cli_own:data", "cli_own:data_with_nan"))
    assert "NaN" in run("explore", spec, "--folder", folder).err
    assert "data_with_nan" in (folder / "spec.toml").read_text()
    # Another study is another study, even so.
    spec.write_text(text.replace('"tiny"', '"huge"'))
    assert "holds another study: `name` is 'tiny'" in run("explore", spec, "--folder", folder).err


@pytest.mark.parametrize("name", ODD)
def test_folders_may_have_any_name(name: str, study: Path, tmp_path: Path, run: Run):
    folder = tmp_path / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    study.rename(folder)
    assert f"\ntiny in {folder}: finished" in run("status", folder).out
    assert run("show", folder).code == 0
    missing = "; `lratlas explore` and `lratlas reproduce` create studies, `lratlas find` creates searches."
    for command in ("status", "show", "report"):
        assert run(command, tmp_path / f"{name} absent").err == (
            f"lratlas: There is no folder {tmp_path / name} absent{missing}\n"
        )


def test_a_folder_may_be_a_url(study: Path, run: Run):
    assert run("show", f"file://{study}") == run("show", study)


def test_the_demo_names_the_study_before_it_starts(tmp_path: Path, run: Run):
    (tmp_path / "file").touch()
    ran = run("demo", "--folder", tmp_path / "file")
    assert (ran.code, ran.out) == (2, "ticks: 3 repeats, 23 pre-training LRs\n")
    assert ran.err == f"lratlas: {tmp_path}/file/ticks cannot be written: {tmp_path}/file is a file, not a folder.\n"


def test_doctor_says_what_the_machine_offers(run: Run):
    ran = run("doctor")
    assert (ran.code, ran.err) == (0, "")
    facts = json.loads(run("doctor", "--json").out)
    assert facts["cores"] >= 1
    assert facts["sgemm GFLOP/s"] > 0
    # Every fact has a line, with its value behind its name; the measured one differs.
    lines = dict(line.strip().split("  ", 1) for line in ran.out.splitlines())
    assert {name: str(value) for name, value in facts.items() if "GFLOP" not in name}.items() <= lines.items()
    assert facts.keys() == lines.keys()
