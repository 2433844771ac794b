"""The progress of long work, as it is shown."""

import io
import logging
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from lratlas import bars
from lratlas.bars import State, bar, in_notebook
from lratlas.text import ESCAPES

STATE = State(
    doing="features, geometry, fine-tuning, averaging",
    done=420.0,
    total=1000.0,
    count="12,345 of 12,345 jobs",
    left="12:05:00 left",
    more="2,000 steps/s · 1: 3.2e-5 to 7.5e-3, 2A: 1e-2 to 1.3e-2, 2B: 1.8e-2 to 4.2e-2, 3: 5.6e-2 to 1e0",
)


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


class Page:
    """A display of a notebook: what it showed, in order."""

    def __init__(self) -> None:
        self.shown, self.names = list[str](), set[str]()

    def publish(self, data: dict[str, str], *, transient: dict[str, str], update: bool) -> None:
        assert update == bool(self.shown)  # the first one makes the display, the others change it
        self.names.add(transient["display_id"])
        self.shown.append(data["text/html"])


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Page:
    """The page of a notebook that this process is the kernel of."""
    page = Page()
    shell = SimpleNamespace(kernel=object(), display_pub=page)
    for name in ("IPython", "IPython.core.getipython"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(get_ipython=lambda: shell))
    return page


def test_a_terminal_of_80_columns_shows_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    with bar() as show:
        show(STATE)
    rows = [row for row in re.sub(ESCAPES, "", terminal.getvalue()).replace("\r", "\n").splitlines() if row]
    first = next(row for row in rows if "12,345 of 12,345 jobs" in row)
    assert "42%" in first
    assert first.endswith("12:05:00 left")
    assert any(row.startswith("0:00:00 elapsed · 2,000 steps/s · 1: 3.2e-5") for row in rows)
    assert max(map(len, rows)) <= 80


def test_a_notebook_shows_both_lines_and_clears_them_at_the_end(notebook: Page) -> None:
    assert in_notebook()
    with bar() as show:
        show(State(doing="<b>mine</b>", done=1.0, total=4.0, count="1 of 4 jobs"))
    assert len(notebook.names) == 1
    first, shown, last = notebook.shown
    assert (first, last) == ("", "")
    assert '<progress value="0.2500">' in shown
    assert "&lt;b&gt;mine&lt;/b&gt; · 25% · 1 of 4 jobs<br>0:00:00 elapsed" in shown


def test_a_notebook_is_cleared_after_an_error_too(notebook: Page) -> None:
    with pytest.raises(ValueError, match="broken"), bar():
        raise ValueError("broken")
    assert notebook.shown[-1] == ""


def test_elsewhere_nothing_is_shown_and_the_log_has_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lratlas")
    assert not in_notebook()
    with bar() as show:
        show(STATE)
        assert not caplog.records
        monkeypatch.setattr(bars, "LOGGED_EVERY", 0.0)
        show(State(doing="searching", done=1.0, total=2.0, count="1.00 of 2 full trainings"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "searching, 50%, 1.00 of 2 full trainings")
    ]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("done", "total", "said"), [(0.0, None, ""), (0.0, 4.0, "0%"), (5.0, 4.0, "100%")])
def test_the_share_that_is_done_is_at_most_all(done: float, total: Any, said: str) -> None:
    assert State(doing="", done=done, total=total).percent == said
