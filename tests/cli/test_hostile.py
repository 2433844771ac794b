"""The folders of strangers, by every command that reads them: no code runs, nothing is written elsewhere or steers."""

import base64
import gzip
import html
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.helpers import Ran
from hostile_folders import FORMULA, MARK, SIGNS, UNSAFE, make_hostile_search, make_hostile_study, plant_modules
from lratlas.atlas import load
from lratlas.search.finder import Finder
from lratlas.serve import LiveServer
from search.finder_helpers import a_finder, trained
from serve.helpers import answering, ask

Run = Callable[..., Ran]
SHOW = tuple(f"show extra --format {form}" for form in ("table", "csv", "json"))
STUDY = ("status", "status --json", "show", *SHOW, "verify")
SEARCH = ("status", "status --json", "show", "show evidence --format csv", "show evidence --format json")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module that the study names."""
    folder = tmp_path / "here"
    folder.mkdir()
    plant_modules(folder, "evil")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def hostile_study(study: Path, here: Path) -> Path:
    folder = Path(shutil.move(study, here / "study"))
    make_hostile_study(folder)
    return folder


@pytest.fixture
def hostile_search(here: Path) -> Path:
    finder = a_finder(here / "search")
    for _ in range(8):
        asked = finder.ask()
        assert asked is not None
        finder.tell(asked, **trained(asked))
    asked = finder.ask()
    assert asked is not None
    finder.fail(asked, "it broke")
    make_hostile_search(here / "search", "it broke")
    assert any(SIGNS in (each.failure or "") for each in Finder(here / "search").results)
    return here / "search"


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and not path.name.endswith((".lock", ".pyc"))}


def assert_harmless(text: str) -> None:
    assert not (found := UNSAFE.search(text)), text[max(0, found.start() - 40) :][:80]


def assert_harmless_page(page: str) -> None:
    """Of the page's own text, without its scripts, and of the charts and tables that are packed into it."""
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert_harmless(html.unescape(own))
    packed = re.findall(r"H4sI[\w+/=]+", own)
    assert packed
    for text in (gzip.decompress(base64.b64decode(each)).decode() for each in packed):
        assert_harmless(text)
        assert not re.search(r"\\u(00[01][0-9bcef]|202[a-e]|206[6-9])", text), "behind JSON's escapes"


def assert_nothing_ran(here: Path) -> None:
    assert not [*here.rglob(MARK)]
    assert "evil" not in sys.modules


@pytest.mark.parametrize("words", STUDY)
def test_reading_a_hostile_study_does_nothing_else(words: str, run: Run, hostile_study: Path, here: Path):
    before = files(here.parent)
    command, *rest = words.split()
    ran = run(command, hostile_study, *rest)
    assert ran.code == (1 if command == "verify" else 0), ran.err
    assert not UNSAFE.search(ran.out + ran.err)
    assert files(here.parent) == before
    assert_nothing_ran(here)
    if "csv" in words:
        assert "name" in ran.out
        assert "'=HYPERLINK" in ran.out
        assert not re.search(r'(^|,)"?=', ran.out, flags=re.MULTILINE)


def test_pages_and_figures_of_a_hostile_study_are_harmless(run: Run, hostile_study: Path, here: Path):
    before = files(here.parent) | {here / "page.html"}
    ran = run("report", hostile_study)
    compared = run("compare", hostile_study, "--html", "page.html")
    assert (ran.code, compared.code) == (0, 0), ran.err + compared.err
    assert not UNSAFE.search(ran.out + ran.err + compared.out + compared.err)
    assert all(path.is_relative_to(hostile_study) for path in files(here.parent) - before)
    for page in (hostile_study / "report.html", here / "page.html"):
        assert_harmless_page(page.read_text(encoding="utf-8"))
    figures = [*(hostile_study / "figures").glob("*.svg"), *(hostile_study / "figures").glob("*.csv")]
    assert {"extra.svg", "extra.csv", "ticks.svg"} <= {path.name for path in figures}
    for path in figures:
        assert_harmless(path.read_text(encoding="utf-8"))
    assert_nothing_ran(here)


def test_a_hostile_study_is_loaded_and_served_without_its_code(hostile_study: Path, here: Path):
    with answering(
        LiveServer(render=lambda: load(hostile_study).report_html(live=True), version=lambda: "1")
    ) as address:
        reply = ask(address)
    assert reply.status == 200
    assert_harmless_page(reply.body)
    assert_nothing_ran(here)


@pytest.mark.parametrize("words", SEARCH)
def test_reading_a_hostile_search_does_nothing_else(words: str, run: Run, hostile_search: Path, here: Path):
    before = files(here.parent)
    command, *rest = words.split()
    ran = run(command, hostile_search, *rest)
    assert ran.code == 0, ran.err
    assert not UNSAFE.search(ran.out + ran.err)
    assert files(here.parent) == before
    if "csv" in words:
        assert f"name{FORMULA[:4]}" in ran.out


def test_pages_and_figures_of_a_hostile_search_are_harmless(hostile_search: Path, run: Run):
    ran = run("report", hostile_search)
    assert ran.code == 0, ran.err
    assert_harmless_page((hostile_search / "advice.html").read_text(encoding="utf-8"))
    assert_harmless((hostile_search / "advice.svg").read_text(encoding="utf-8"))


def test_what_a_program_says_is_harmless_in_the_journal(here: Path):
    finder = a_finder(here / "search")
    asked = finder.ask()
    assert asked is not None
    assert finder.fail(asked, f"it said {SIGNS}").failure == "it said 2Jname"
