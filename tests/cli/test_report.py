"""`lratlas report --figures`: only figures; and reports where figures cannot be drawn."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.helpers import Ran
from lratlas.report.charts.paper import FIGURES


def test_figures_alone_leave_the_page_as_it_is(study: Path, run: Callable[..., Ran]):
    page, figure = study / "report.html", study / "figures" / "accuracy.svg"
    before = page.stat().st_mtime_ns
    figure.unlink()
    assert run("report", study, "--figures", "study") == Ran(code=0, out=f"Figures: {study}/figures\n", err="")
    assert page.stat().st_mtime_ns == before
    assert 'width="234.00pt"' in figure.read_text(encoding="utf-8")  # one column of a paper
    assert {path.suffix for path in figure.parent.glob("accuracy.*")} == {".csv", ".pdf", ".svg"}
    run("report", study)
    assert page.stat().st_mtime_ns > before


def test_the_paper_s_figures_are_written_as_far_as_there_are_data(study: Path, run: Callable[..., Ran]):
    page, folder = (study / "report.html").stat().st_mtime_ns, study / "figures" / "paper"
    done = run("report", study, "--figures", "paper")
    *figures, last = done.out.splitlines()
    assert (done.code, last) == (0, f"Figures: {folder}")
    written = {line.split(",")[0] for line in figures if line.endswith(": written")}
    left_out = [line for line in figures if ": left out. " in line]
    assert len(written) + len(left_out) == len(FIGURES)
    assert "Figure 2" in written
    assert all(line.endswith(".") for line in left_out)
    stems = {path.stem for path in folder.iterdir()}
    assert stems == {f"figure-{int(name.split()[1]):02d}" for name in written}
    assert {path.suffix for path in folder.glob("figure-02.*")} == {".pdf", ".svg", ".png"}
    assert (study / "report.html").stat().st_mtime_ns == page


def test_without_vl_convert_the_page_is_whole_and_a_sentence_says_what_figures_need(
    study: Path, run: Callable[..., Ran], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    page, figures, data = (study / name for name in ("report.html", "figures", "figures/accuracy.csv"))
    run("report", study)
    drawn = page.read_bytes()
    shutil.rmtree(figures)
    page.unlink()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    sentence = "vl_convert is not installed; this installs it: pip install 'lratlas[figures]'"
    assert run("report", study) == Ran(
        code=0, out=f"Report: {page}\n", err=f"lratlas: No PDF and SVG figures are written: {sentence}.\n"
    )
    assert page.read_bytes() == drawn
    assert data.is_file()
    assert {path.suffix for path in figures.iterdir()} == {".csv"}
    assert run("verify", study).code == 0
    data.unlink()
    assert refused("report", study, "--figures", "study") == f"{sentence}."
    assert not data.exists()
