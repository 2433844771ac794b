"""What the commands for studies do with the folder of a search."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cli.helpers import Ran, contents
from lratlas.search.advice import Advice
from lratlas.search.finder import Finder
from lratlas.study.store import seal_weights
from search.finder_helpers import LRS, a_finder, trained

Run = Callable[..., Ran]
Refused = Callable[..., str]


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finder:
    """A search in the home folder, of which the first segments are trained and one failed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    finder = a_finder(tmp_path / "search")
    for _ in LRS[:-1]:
        asked = finder.ask()
        assert asked is not None
        finder.tell(asked, **trained(asked))
    last = finder.ask()
    assert last is not None
    finder.fail(last, "it broke")
    return finder


def printed(advice: Advice) -> list[str]:
    """The lines of an advice on a terminal."""
    first, *others = advice.statement.splitlines()
    return [f"→ {first}", *(f"  {line}" for line in others), *(f"• {warning}" for warning in advice.warnings)]


@pytest.mark.parametrize("named", ["~/search", "{}"])
def test_the_status_of_a_search_is_its_advice_so_far(search: Finder, run: Run, named: str):
    before = contents(search.folder)
    ran = run("status", named.format(search.folder))
    assert (ran.code, ran.err) == (0, "")
    *lines, last = ran.out.splitlines()
    count = len(LRS)
    assert last == (
        f"Search in {search.folder}: not finished, {count} segments trained, 1 of them failed,"
        f" {search.advice().cost:.2f} of 1.5 full trainings"
    )
    assert lines == printed(search.advice())
    assert contents(search.folder) == before


def test_the_status_of_a_search_is_there_for_scripts(search: Finder, run: Run):
    ran = run("status", search.folder, "--json")
    facts = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert (facts["state"], facts["segments"], facts["failed"]) == ("not finished", len(LRS), 1)
    assert facts["settings"]["lrs"] == list(LRS)
    assert facts["advice"]["lr"] == search.advice().lr


def test_a_search_without_results_has_no_advice_yet(tmp_path: Path, run: Run):
    a_finder(tmp_path / "new")
    ran = run("status", tmp_path / "new")
    assert ran.code == 0
    advice, last = ran.out.splitlines()
    assert last.endswith("not finished, 0 segments trained, 0 of them failed, 0.00 of 1.5 full trainings")
    assert advice.startswith("No advice yet: ")
    assert json.loads(run("status", tmp_path / "new", "--json").out)["advice"] is None


def test_the_tables_of_a_search_are_shown(search: Finder, run: Run, refused: Refused):
    rows = json.loads(run("show", search.folder, "--format", "json").out)
    assert rows == search.advice().evidence.to_dicts()
    assert rows == json.loads(run("show", search.folder, "evidence", "--format", "json").out)
    assert run("show", search.folder, "longest", "--format", "csv").out == search.advice().longest().write_csv()
    compared = json.loads(run("show", search.folder, "compared", "--format", "json").out)
    assert compared == search.advice().compared.to_dicts()
    assert {each["near"] for each in compared} <= {True, False}
    said = refused("show", search.folder, "evidense")
    assert "has no table 'evidense' (did you mean evidence?); choose evidence, longest or compared." in said


def test_the_report_of_a_search_is_written_again(search: Finder, run: Run):
    ran = run("report", search.folder)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"Report: {search.folder}/advice.html\n"
    assert (search.folder / "advice.html").exists()


@pytest.mark.parametrize("command", ["resume", "compare"])
def test_commands_for_studies_say_that_it_is_a_search(search: Finder, refused: Refused, command: str):
    folder = search.folder
    said = f"{folder} is a search for an initial LR, not a study; `lratlas status {folder}` shows it"
    assert said in refused(command, folder)


def spoil(search: Finder, deed: str) -> tuple[str, str]:
    """Spoil a file of a search; its name, and what is wrong with it."""
    folder = search.folder
    journal = folder / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    if deed == "settings":
        (folder / "search.json").write_text((folder / "search.json").read_text().replace("steps", "stebs", 1))
        return "search.json", "was cut short or altered"
    if deed == "line":
        journal.write_text("".join([lines[0], lines[1].replace("seed0", "seed1"), *lines[2:]]))
        return "journal.jsonl", "line 2 was altered, or belongs to another search"
    if deed == "line of another search":
        other = a_finder(folder.parent / "other")
        asked = other.ask()
        assert asked is not None
        other.tell(asked, **trained(asked))
        journal.write_text("".join([*lines, (other.folder / "journal.jsonl").read_text()]))
        return "journal.jsonl", f"line {len(lines) + 1} was altered, or belongs to another search"
    if deed == "journal":
        (folder / "advice.json").write_text("{}")
        journal.unlink()
        return "journal.jsonl", "is missing"
    (folder / "states").mkdir()
    data = seal_weights({"a/weights/x": torch.ones(2)}, "states/a.safetensors")
    if deed.endswith("of another search"):
        name = f"{'states/a' if 'state' in deed else 'checkpoint'}.safetensors"
        (folder / name).write_bytes(seal_weights({"x": torch.ones(2)}, f"0123/{name}"))
        return name, f"is a copy of 0123/{name}"
    name = "states/b.safetensors" if "state" in deed else "checkpoint.safetensors"
    (folder / name).write_bytes(data if "state" in deed else data[:-1] + b"!")
    return name, "is a copy of states/a.safetensors" if "state" in deed else "was cut short or altered"


@pytest.mark.parametrize(
    "deed",
    [
        "settings",
        "line",
        "line of another search",
        "journal",
        "state of another segment",
        "state of another search",
        "checkpoint",
        "checkpoint of another search",
    ],
)
def test_what_is_wrong_with_a_search_is_named_and_set_aside(search: Finder, run: Run, deed: str):
    assert run("verify", search.folder) == Ran(code=0, out="OK: all files match their checksums.\n", err="")
    before = {each.segment.name for each in search.results}
    path, what = spoil(search, deed)
    ran = run("verify", search.folder)
    assert ran.code == 1
    assert f"{path}: {what}" in ran.out.splitlines()
    repaired = run("verify", search.folder, "--repair")
    assert repaired.code == (1 if deed in {"settings", "journal"} else 0)
    if deed == "journal":  # its segments are trained again
        return
    assert list((search.folder / "damaged").rglob(f"*{Path(path).name}"))
    if deed == "settings":
        assert repaired.out.splitlines()[-1].startswith("Faults: 1;")
        assert "There is no search" in run("status", search.folder).err
        assert len(a_finder(search.folder).results) == len(before)
    assert run("verify", search.folder).code == 0
    kept = {each.segment.name for each in Finder(search.folder).results}
    assert len(before - kept) == (1 if deed == "line" else 0)
    assert kept <= before


def test_a_damaged_search_is_named(search: Finder, refused: Refused):
    (search.folder / "search.json").write_text("{")
    for command in ("status", "show", "report"):
        assert "search.json is damaged: " in refused(command, search.folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("explore ~/absent.toml -f new", "There is no spec {}/absent.toml"),
        ("find ~/absent.toml -f new", "There is no spec {}/absent.toml"),
        ("status ~/absent", "There is no folder {}/absent"),
        ("show ~nosuchuser/study", "~nosuchuser/study begins with an unknown home folder."),
        ("data path mnist --data-root ~/data", "MNIST is not in {}/data"),
    ],
)
def test_paths_may_begin_with_the_home_folder(
    words: str, said: str, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert said.format(tmp_path) in refused(*words.split())


def test_what_a_reader_passes_over_is_said_once(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LRATLAS_CACHE", str(tmp_path / "cache"))
    labels = np.array([0, 2, 0, 2])
    images = np.zeros((4, 1, 8, 8), np.uint8)
    np.savez(tmp_path / "own.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    task = '[task]\npreset = "images"\nbatch_size = 999\noptions = { data = "~/own.npz" }\n'
    (tmp_path / "spec.toml").write_text(f"{task}[pretrain]\nlrs = [0.1]\nepochs = 1\n")
    ran = run("explore", "~/spec.toml", "-f", "~/study", "--workers", "1")
    assert ran.code == 2
    first, second = ran.err.splitlines()
    assert first == (
        "lratlas: ~/own.npz: the training set has no images for 1 of the 3 classes (1);"
        " the test set has no images for 1 of the 3 classes (1)."
    )
    assert "batch_size is 999" in second
    assert (tmp_path / "study" / "spec.toml").exists()
