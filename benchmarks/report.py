"""Time, memory and size of the report of a study with 5,000 runs, and how fast its page is in a browser.

Its synthetic study: 25 PLRs, 10 seeds, and of each one pre-training, 14 FLRs and 5 averages, each trained run with 40
trace rows, and all tables filled; a second PLR adds a few hundred runs. Each round writes the report in a fresh process
and opens the page in a fresh headless Chromium of 1280x900 pixels:

- writing: wall time of `Atlas.write_report()`, imports included, the process's CPU time and largest resident memory;
- loading: from the start of navigation until the page is loaded, the answer at its top;
- first chart, all charts: from the jump to the charts to the first one drawn, and to the last one while the page is
  scrolled down;
- control: from choosing another value of a chart's control to the last change of what is drawn, the slowest of all.

    python benchmarks/report.py [--json] [--quick]
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TESTS = Path(__file__).parents[1] / "tests"
WHOLE = {"plrs": 25, "seeds": 10, "flrs": 14, "counts": 5}
QUICK = {"plrs": 14, "seeds": 2, "flrs": 2, "counts": 2}
TARGETS = {"write_seconds": 20.0, "peak_mb": 2000.0, "page_mb": 15.0}
WRITE = """
import json, resource, sys, time
began = time.perf_counter()
from lratlas.atlas import load
load(sys.argv[1]).write_report()
seconds = time.perf_counter() - began
# Kilobytes on Linux, bytes on macOS.
unit = 1e6 if sys.platform == "darwin" else 1e3
used = resource.getrusage(resource.RUSAGE_SELF)
figures = {"write_seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / unit}
print(json.dumps(figures))
"""
# Jumps to the charts, and notes the ms from then until each figure says that it is drawn.
JUMP = """
() => {
  const began = performance.now();
  window.drawnAfter = [];
  new MutationObserver(records => records.forEach(() => window.drawnAfter.push(performance.now() - began)))
    .observe(document.querySelector("#charts"), { subtree: true, attributeFilter: ["data-drawn"] });
  document.querySelector("#charts figure").scrollIntoView();
}
"""
# Chooses another value of the control, and resolves to the ms until the drawing has changed for the last time.
SWITCH = """
select => new Promise(resolve => {
  const figure = select.closest("figure"), began = performance.now();
  let last = null, waiting = null;
  const settle = () => { clearTimeout(waiting); waiting = setTimeout(() => resolve(last), 500); };
  new MutationObserver(() => { last = performance.now() - began; settle(); })
    .observe(figure.querySelector("svg.marks"), { subtree: true, childList: true, attributes: true });
  select.selectedIndex = select.selectedIndex ? 0 : select.options.length - 1;
  for (const event of ["input", "change"]) select.dispatchEvent(new Event(event, { bubbles: true }));
  settle();
})
"""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One report, written and opened."""

    write_seconds: float
    cpu_seconds: float  # of writing, in all threads: what a machine that has other work to do cannot lengthen
    peak_mb: float
    page_mb: float
    load_seconds: float
    first_chart_seconds: float
    all_charts_seconds: float
    control_seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time, memory and size of the report of 5,000 runs.")
    parser.add_argument("--json", action="store_true", help="print data instead of a table")
    parser.add_argument("--quick", action="store_true", help="a small study: does the script work?")
    given = parser.parse_args(arguments)
    shape, count = (QUICK, 1) if given.quick else (WHOLE, 3)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "study"
        _write_study(folder, shape)
        print("Writing and opening the report …", file=sys.stderr)
        rounds = [measure(folder) for _ in range(count)]
        runs = _rows(folder)
    machine = _machine()
    if given.json:
        data = {"machine": machine, "shape": shape, "rows": runs, "targets": TARGETS, "rounds": [*map(asdict, rounds)]}
        print(json.dumps(data, indent=1))
    else:
        _print_table(machine, runs, rounds)


def measure(folder: Path) -> Round:
    """Write the report of a study again and open it."""
    sys.path.append(str(TESTS))
    from browser.browsing import chromium

    done = subprocess.run([sys.executable, "-c", WRITE, str(folder)], capture_output=True, encoding="utf-8", check=True)
    page = folder / "report.html"
    with chromium() as browser:
        opened = timings(browser, page)
    return Round(**json.loads(done.stdout), page_mb=page.stat().st_size / 1e6, **opened)


def timings(browser: "Browser", page: Path) -> dict[str, float]:
    """Seconds until the page is there and its charts are drawn, and that a control takes."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto(page.as_uri())
    loaded: float = tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventStart")
    tab.evaluate(JUMP)
    for figure in tab.locator("#charts figure").all():
        figure.scroll_into_view_if_needed()
        figure.and_(tab.locator("[data-drawn]")).wait_for()
    drawn: list[float] = tab.evaluate("drawnAfter")
    switched: list[float] = [select.evaluate(SWITCH) for select in tab.locator("form.vega-bindings select").all()]
    tab.close()
    return {
        "load_seconds": loaded / 1e3,
        "first_chart_seconds": drawn[0] / 1e3,
        "all_charts_seconds": drawn[-1] / 1e3,
        "control_seconds": max(switched) / 1e3,
    }


def _write_study(folder: Path, shape: dict[str, int]) -> None:
    # In its own process: a process's peak memory cannot be less than that of the one which starts it.
    sizes = [word for name, size in shape.items() for word in (f"--{name}", str(size))]
    subprocess.run([sys.executable, "-m", "browser.made_up", str(folder), *sizes], cwd=TESTS, check=True)


def _rows(folder: Path) -> dict[str, int]:
    from lratlas.atlas import load

    return {name: len(table) for name, table in load(folder).tables.items()}


def _machine() -> dict[str, str | int | float]:
    from processes import processor

    from lratlas.doctor import checkup

    return {"system": platform.platform(), "processor": processor(), **checkup()}


def _print_table(machine: dict[str, str | int | float], rows: dict[str, int], rounds: Sequence[Round]) -> None:
    for name, value in machine.items():
        print(f"{name}: {value}")
    print("rows: " + ", ".join(f"{name} {count:,}" for name, count in rows.items()))
    print(f"\nmedian and range of {len(rounds)} rounds\n")
    print("what                     median     lowest    highest   target")
    for field in fields(Round):
        values = [getattr(each, field.name) for each in rounds]
        target = f"under {TARGETS[field.name]:g}" if field.name in TARGETS else ""
        print(f"{field.name:20} {median(values):10.2f} {min(values):10.2f} {max(values):10.2f}   {target}")


if __name__ == "__main__":
    main()
