"""What goes for all tests: without a Chromium those of the browser are left out, and that is said."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from browser.browsing import CHROMIUM
from cheaper import unfigured
from inherited import reset_inherited

# Small studies, which tests of several packages share.
pytest_plugins = ["study.fixtures"]

# Models as small as those of the tests are trained fastest by one thread, all the more next to other tests. PyTorch
# reads it when it is imported, here and in the processes that the tests start.
os.environ["OMP_NUM_THREADS"] = "1"
# One small program at a time is compiled faster here than by processes that first have to import PyTorch.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

# What this process writes need not outlive a loss of power; those that the tests start do wait for the disk.
os.fsync = lambda _: None

# Images that the tests make up are not kept among those of the user.
os.environ.setdefault("LRATLAS_CACHE", str(Path(__file__).parents[1] / ".cache"))

# No deadlines, since the time of an example depends on the machine. `make properties` tries many more examples.
settings.register_profile("quick", deadline=None, max_examples=30)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("quick")

_BROWSER = Path(__file__).parent / "browser"
# Where several processes test at once, what takes longest begins first, so that none waits for another in the end.
_FIRST = {
    "test_examples.py",
    "test_find.py",
    "test_images.py",
    "test_lightning.py",
    "test_matrix.py",
    "test_readme.py",
    "test_resume.py",
    "test_world.py",
}


# What these tests share is made once for a module (or, by the command line's, for a folder), which one process runs.
# Those of charts share the same.
_CHARTS = {"test_charts.py", "test_controls.py", "test_figures.py"}
_TOGETHER = {
    "test_advice_baselines.py",
    "test_atlas.py",
    "test_comparing.py",
    "test_minima_study.py",
    "test_pages.py",
    "test_reporting.py",
    "test_site.py",
}


def pytest_sessionstart() -> None:
    reset_inherited()
    gc.disable()


def pytest_collection_finish() -> None:
    # Modules and tests stay to the end. Libraries that collect garbage for each training need not visit them each time.
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.name in _TOGETHER:
        item.add_marker(pytest.mark.xdist_group(item.path.stem))
    if item.path.name in _CHARTS and item.path.parent.name == "report":
        item.add_marker(pytest.mark.xdist_group("charts"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if not CHROMIUM and _BROWSER in item.path.parents]
    kept = (item for item in items if item not in left_out)
    items[:] = sorted(kept, key=lambda item: item.path.name not in _FIRST and item.path.parent.name != "cli")
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def without_figures() -> Iterator[None]:
    """Pages without figures for papers, where what is drawn is not the point."""
    with unfigured():
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not CHROMIUM:
        terminalreporter.write_line("No Chromium is installed here: the browser tests (tests/browser) were left out.")
