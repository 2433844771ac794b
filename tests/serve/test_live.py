import threading
import time
from itertools import count
from types import SimpleNamespace

import pytest

from lratlas.errors import StudyError
from lratlas.serve import LivePage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the pages' clock shows, to be set."""
    shown = [0.0]
    monkeypatch.setattr("lratlas.serve.time", SimpleNamespace(monotonic=lambda: shown[0]))
    return shown


def test_a_page_is_made_once_for_each_version(clock: list[float]):
    versions, made = ["a"], count(1)
    page = LivePage(render=lambda: f"page {next(made)}", version=lambda: versions[-1])
    assert [page.text(), page.text()] == ["page 1", "page 1"]
    versions.append("b")
    clock[0] += 1e-9  # making it took no time
    assert page.version() == "b"
    assert [page.text(), page.text()] == ["page 2", "page 2"]


def test_what_comes_while_a_page_is_made_is_another_version(clock: list[float]):
    versions, made = ["before"], count(1)

    def render() -> str:
        versions.append("after")
        return f"page {next(made)}"

    page = LivePage(render=render, version=lambda: versions[-1])
    assert page.text() == "page 1"
    clock[0] += 1e-9
    assert page.version() == "after"
    assert page.text() == "page 2"


def test_a_page_that_took_long_counts_as_the_newest_for_four_times_as_long(clock: list[float]):
    versions, made = ["a"], count(1)

    def render() -> str:
        clock[0] += 2.0
        return f"page {next(made)}"

    page = LivePage(render=render, version=lambda: versions[-1])
    assert page.text() == "page 1"
    versions.append("b")
    clock[0] += 7.9
    assert (page.version(), page.text()) == ("a", "page 1")
    clock[0] += 0.2
    assert (page.version(), page.text()) == ("b", "page 2")


def test_many_readers_have_one_page_made_at_a_time():
    at_work, most, made = 0, 0, count(1)

    def render() -> str:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.05)
        at_work -= 1
        return f"page {next(made)}"

    page, texts = LivePage(render=render, version=lambda: "a"), list[str]()
    readers = [threading.Thread(target=lambda: texts.append(page.text())) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert (most, texts) == (1, ["page 1"] * 8)


def test_a_page_that_could_not_be_made_is_made_the_next_time():
    faults = [StudyError("damaged")]

    def render() -> str:
        if faults:
            raise faults.pop()
        return "whole"

    page = LivePage(render=render, version=lambda: "a")
    with pytest.raises(StudyError, match="damaged"):
        page.text()
    assert page.text() == "whole"
