"""`lratlas report --figures`: the figures alone; and reports where figures cannot be drawn."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.helpers import Ran


def test_figures_alone_leave_the_page_as_it_is(study: Path, run: Callable[..., Ran]):
    page, figure = study / "report.html", study / "figures" / "accuracy.svg"
    before = page.stat().st_mtime_ns
    figure.unlink()
    assert run("report", study, "--figures") == Ran(code=0, out=f"Figures: {study}/figures\n", err="")
    assert page.stat().st_mtime_ns == before
    assert 'width="234.00pt"' in figure.read_text(encoding="utf-8")  # one column of a paper
    assert {path.suffix for path in figure.parent.glob("accuracy.*")} == {".csv", ".pdf", ".svg"}
    run("report", study)
    assert page.stat().st_mtime_ns > before


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
    assert refused("report", study, "--figures") == f"{sentence}."
    assert not data.exists()
