"""The command that puts studies side by side."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.helpers import Explored, Ran
from lratlas.analysis.comparison import COMPARISON


def test_json_and_csv_have_a_row_for_each_study(run: Callable[..., Ran], explored: Explored, study: Path) -> None:
    told = json.loads(run("compare", explored.folder, study, "--format", "json").out)
    written = list(csv.DictReader(io.StringIO(run("compare", explored.folder, study, "--format", "csv").out)))
    for rows in (told, written):
        assert [list(row) for row in rows] == [COMPARISON.names()] * 2
        assert [row["study"] for row in rows] == [f"tiny ({folder})" for folder in (explored.folder, study)]
    assert told[0]["seeds"] == 1
    assert told[0]["best_gain_low"] is None
    assert written[0]["best_gain_low"] == ""


def test_the_table_has_a_column_for_each_study(run: Callable[..., Ran], explored: Explored) -> None:
    ran = run("compare", explored.folder)
    assert (ran.code, ran.err) == (0, "")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in ran.out.splitlines()[:-1]]
    assert lines[0] == ["", "tiny"]
    assert ["seeds", "1"] in lines
    assert ["fine-tuned, lowest FLR", "1e-4"] in lines
    assert all(len(line) == 2 for line in lines)
    assert ran.out.splitlines()[-1].startswith("Intervals are 95% over seeds;")


def test_the_page_is_written_beside_any_format(run: Callable[..., Ran], explored: Explored, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ran = run("compare", explored.folder, "--format", "json", "--html", page)
    assert ran.err == f"lratlas: The page is in {page}.\n"
    assert json.loads(ran.out)[0]["study"] == "tiny"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Missing argument 'FOLDER…'; `lratlas compare --help` shows what is allowed"),
        (["study", "study"], "is listed twice; list each study once"),
        (["study", "./study/"], "is listed twice; list each study once"),
        (["study", "absent"], "There is no folder"),
        (["spec.toml"], "spec.toml is a file, but a study is a folder"),
        (["study", "--format", "xml"], "--format is 'xml'; choose table, csv or json"),
        (["study", "--html", "absent/page.html"], "The page cannot be written to absent/page.html"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    refused: Callable[..., str], explored: Explored, words: list[str], says: str
) -> None:
    assert explored.folder.name == "study"
    assert says in refused("compare", *words)
