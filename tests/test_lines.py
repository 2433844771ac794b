"""How lines are shown: in a terminal and elsewhere."""

import io
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lratlas.lines import line, regimes_line
from lratlas.text import ESCAPES


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def plain(shown: str) -> str:
    return re.sub(ESCAPES, "", shown)


words = st.lists(st.text("abc–-/%学", min_size=1, max_size=30), min_size=1, max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words)
def test_a_terminal_breaks_no_word_and_has_no_line_that_is_too_long(words: list[str]) -> None:
    from rich.cells import cell_len

    rows = plain(line(" ".join(words), lead="• ", stream=Terminal())).splitlines()
    assert all(cell_len(row) <= 80 for row in rows)
    assert [word for row in rows for word in row[2:].split(" ")] == words
    assert [row[:2] for row in rows] == ["• ", *["  "] * (len(rows) - 1)]


def test_rows_are_as_full_as_they_can_be() -> None:
    rows = plain(line(" ".join(["word"] * 40), stream=Terminal())).splitlines()
    # Sixteen words of four characters and a space after each but the last.
    assert [len(row) for row in rows] == [79, 79, 39]


def test_a_word_that_is_wider_than_the_terminal_stays_whole() -> None:
    path = f"/{'x' * 100}"
    assert plain(line(f"Report: {path}", stream=Terminal())) == f"Report:\n{path}\n"


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", ":smile:", "a  b", " ".join(["word"] * 100)])
def test_elsewhere_a_line_is_one_line_as_it_is(text: str) -> None:
    assert line((text, "bold red"), lead=("• ", "green"), stream=io.StringIO()) == f"• {text}\n"


def test_colours_are_there_in_a_terminal_unless_somebody_set_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[31mfailed\x1b[0m" in line(("failed", "red"), stream=Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert line(("failed", "red"), stream=Terminal()) == "failed\n"


def test_text_of_others_steers_no_terminal() -> None:
    assert line("\x1b[2Jname\x07", stream=Terminal()) == "name\n"


def test_the_name_of_each_regime_has_its_colour() -> None:
    text = "1: 1e-3 to 1e-2, undecided (loss of 3, it rises): 2e-2, 2A: 3e-2, 3: 1e0"
    parts = regimes_line(text)
    assert [part[0] for part in parts if not isinstance(part, str)] == ["1", "undecided", "2A", "3"]
    assert "".join(part if isinstance(part, str) else part[0] for part in parts) == text
