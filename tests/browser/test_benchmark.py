"""What the benchmark of the report does in a browser; no timing is judged."""

import runpy
from dataclasses import fields
from pathlib import Path

import pytest
from playwright.sync_api import Browser

pytestmark = pytest.mark.xdist_group("browser")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "report.py"


def test_loading_drawing_and_controls_are_timed(browser: Browser, unfinished: Path) -> None:
    benchmark = runpy.run_path(str(SCRIPT))
    found: dict[str, float] = benchmark["timings"](browser, unfinished / "report.html")
    known = {field.name for field in fields(benchmark["Round"])}
    assert set(found) == known - {"write_seconds", "cpu_seconds", "peak_mb", "page_mb"}
    assert all(0 < seconds < 60 for seconds in found.values())
    assert found["first_chart_seconds"] <= found["all_charts_seconds"]
    assert set(benchmark["TARGETS"]) < known
