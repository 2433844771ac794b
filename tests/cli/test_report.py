"""`lratlas report --figures`: the figures alone."""

from collections.abc import Callable
from pathlib import Path

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
