"""Studies with their pages, and a browser to open them in."""

from collections.abc import Generator, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from browser.browsing import DESKTOP, PATIENCE, Opener, Visit, chromium, visit
from browser.made_up import STAGES, Shape, write_study
from lratlas.api.compare import compare
from lratlas.atlas import load

EVIL = "<script>alert(1)</script>"
SMALL = Shape(plrs=14, seeds=2, flrs=1, counts=1)


@pytest.fixture(scope="package")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for studies that the tests share."""
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="package")
def study(studies: Path) -> Path:
    """A finished study with everything measured, and its page ``report.html``."""
    return _reported(studies / "whole")


@pytest.fixture(scope="package")
def unfinished(studies: Path) -> Path:
    """A study of which only pre-training is done, and its page."""
    return _reported(studies / "unfinished", shape=SMALL, stages=("pretrain",))


@pytest.fixture(scope="package")
def hostile(studies: Path) -> Path:
    """A study whose name and task are HTML, in a folder whose name is markup too, and its page."""
    return _reported(studies / "<img src=x onerror=alert(2)>", shape=SMALL, name=EVIL)


@pytest.fixture(scope="package")
def comparison(studies: Path, study: Path, hostile: Path) -> Path:
    """The page on which the two studies stand side by side."""
    compare([study, hostile]).write_html(studies / "comparison.html")
    return studies / "comparison.html"


@pytest.fixture(scope="package")
def browser() -> Generator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with chromium() as running:
        yield running


@pytest.fixture
def opened(browser: Browser) -> Generator[Opener]:
    """A function that opens a page, or that of a study; whatever it opened must have kept quiet and to itself."""
    visits = list[Visit]()

    def open_page(place: Path, *, size: tuple[int, int] = DESKTOP, dark: bool = False) -> Visit:
        visits.append(visit(browser, place / "report.html" if place.is_dir() else place, size=size, dark=dark))
        return visits[-1]

    yield open_page
    for each in visits:
        each.page.context.close()
        assert not each.complaints
        assert not each.outside


def _reported(
    folder: Path, *, shape: Shape | None = None, name: str = "made-up", stages: Sequence[str] = STAGES
) -> Path:
    write_study(folder, shape, name=name, task=f"the task of {name}", stages=stages)
    (folder / "report.html").write_text(load(folder).report_html(), encoding="utf-8")
    return folder
