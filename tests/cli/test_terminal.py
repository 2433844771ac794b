import io
import json
import math
import re
import sys
from collections.abc import Callable

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.cli.terminal import print_json, print_table, say, table_text
from lratlas.notices import show_notice as notice
from lratlas.tables import SCHEMAS, empty
from lratlas.text import ESCAPES


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, header first, without its rule."""
    header, _rule, *body = text.splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *body)]


def test_numbers_are_shown_as_people_read_them():
    frame = pl.DataFrame(
        {
            "plr": [0.0074989, 1.0, 3.1622776e-5],
            "seed": [0, 12, None],
            "train_accuracy": [0.5, None, 0.98765432],
            "train_loss": [1234.5, 2.0, 0.00012345],
            "angle": [0.0, 1.5707963, 12.0],
            "diverged": [True, False, None],
            "stage": ["pretrain", None, "average"],
        }
    )
    assert rows(table_text(frame)) == [
        frame.columns,
        ["7.499e-3", "0", "0.5000", "1234", "0", "yes", "pretrain"],
        ["1e0", "12", "–", "2.000", "1.571", "no", "–"],
        ["3.162e-5", "–", "0.9877", "1.234e-4", "12.00", "–", "average"],
    ]


def test_all_numbers_of_the_boundaries_are_lrs():
    frame = pl.DataFrame([["convergence", 0.005, 0.01, 0.00707, 0.002, None]], SCHEMAS["boundaries"], orient="row")
    assert rows(table_text(frame))[1] == ["convergence", "5e-3", "1e-2", "7.07e-3", "2e-3", "–"]


@given(st.floats(-12, 12).map(lambda exponent: 10**exponent))
def test_a_number_keeps_its_value_to_four_digits(value: float):
    shown = rows(table_text(pl.DataFrame({"plr": [value], "seconds": [value]})))[1]
    assert all(math.isclose(float(cell), value, rel_tol=5.01e-4) for cell in shown)
    assert all(len(cell) <= len("1.234e-12") for cell in shown)


class Terminal(io.StringIO):
    """A terminal that remembers what was written."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The lines of a table as a terminal of some width shows them."""

    def lines(frame: pl.DataFrame, *, columns: int, widest: int = 40) -> list[str]:
        terminal = Terminal()
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stdout", terminal)
        print_table(frame, widest=widest)
        return re.sub(ESCAPES, "", terminal.getvalue()).splitlines()

    return lines


@pytest.mark.parametrize("columns", [20, 37, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_no_column_is_lost(columns: int, shown: Callable[..., list[str]]):
    frame = pl.DataFrame({name: [None] for name in SCHEMAS["runs"]}, SCHEMAS["runs"])
    lines = shown(frame, columns=columns)
    assert max(map(len, lines)) <= columns
    headers = [line.split() for line in lines if line.startswith("run")]
    assert [header[0] for header in headers] == ["run"] * len(headers)
    assert ["run", *(name for header in headers for name in header[1:])] == list(SCHEMAS["runs"])


def test_long_texts_are_wrapped_at_words_in_a_terminal(shown: Callable[..., list[str]]):
    words = [f"word{number:03}" for number in range(60)]
    lines = shown(pl.DataFrame({"claim": ["a"], "statement": [" ".join(words)]}), columns=80)
    assert max(map(len, lines)) <= 80
    assert [word for line in lines for word in line.split() if word.startswith("word")] == words


def test_columns_stand_side_by_side_as_long_as_their_words_fit(shown: Callable[..., list[str]]):
    text = "a text of several words that goes on"
    frame = pl.DataFrame({"": [text], "one": [text], "two": [text], "three": [text]})
    assert sum("three" in line and "one" in line for line in shown(frame, columns=80, widest=16)) == 1
    assert not any("three" in line and "one" in line for line in shown(frame, columns=80))


def test_a_table_without_rows_shows_its_columns():
    assert rows(table_text(empty("pairs"))) == [list(SCHEMAS["pairs"])]


def test_a_table_in_a_pipe_is_as_wide_as_it_needs(capsys: pytest.CaptureFixture[str]):
    print_table(empty("runs"))
    assert rows(capsys.readouterr().out) == [list(SCHEMAS["runs"])]


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", ":smile:", "a  b", "x" * 500])
def test_a_line_is_printed_as_it_stands(text: str, capsys: pytest.CaptureFixture[str]):
    say((text, "bold"))
    assert capsys.readouterr().out == f"{text}\n"


@pytest.mark.parametrize("text", ["It failed", "It failed.", "It\nfailed"])
def test_a_notice_is_one_line_with_a_full_stop(text: str, capsys: pytest.CaptureFixture[str]):
    notice(text)
    assert capsys.readouterr().err == "lratlas: It failed.\n"


def test_json_is_readable_anywhere(monkeypatch: pytest.MonkeyPatch):
    # A terminal that knows only ASCII must not break the data.
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    print_json({"name": "ü – 学", "missing": None})
    sys.stdout.flush()
    assert json.loads(raw.getvalue()) == {"name": "ü – 学", "missing": None}
