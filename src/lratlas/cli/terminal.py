"""Output of the command line: sentences, tables and JSON."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lratlas.lines import REGIME_STYLES, Part, line
from lratlas.text import format_lr, harmless, is_finite

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

LRS = frozenset({"lr", "plr", "plr2", "flr"})
MISSING = "–"
VERDICT_STYLES: Mapping[str, str] = {
    "supported": "green",
    "contradicted": "red",
    "inconclusive": "yellow",
    "not measured": "bright_black",
}
_STYLES = {**VERDICT_STYLES, **REGIME_STYLES}
_WIDEST = 40  # characters of a column next to others; longer texts are wrapped
_GAP = 2  # characters between columns: padding and the rule


def say(*parts: Part, lead: Part = "") -> None:
    """Print a line to standard output: wrapped at words and coloured in a terminal, one line everywhere else.

    Args:
        parts: The text, printed literally; brackets and colons have no special meaning.
        lead: A prefix such as a bullet.
    """
    sys.stdout.write(line(*parts, lead=lead, stream=sys.stdout))


def print_json(value: object) -> None:
    """Print a value as JSON."""
    sys.stdout.write(harmless(json.dumps(value, indent=1, allow_nan=False)) + "\n")


def print_csv(frame: "pl.DataFrame") -> None:
    """Print a table as CSV."""
    from lratlas.tables import csv_text

    sys.stdout.write(csv_text(frame))


def print_table(frame: "pl.DataFrame", *, widest: int = _WIDEST) -> None:
    """Print a table for people: in Markdown, or in a terminal in as many blocks as its width requires.

    In a terminal, long texts are wrapped, and columns that do not fit follow below, with the first column repeated.

    Args:
        frame: The table.
        widest: Characters; longer texts are wrapped to fit more columns side by side.
    """
    columns = [_column(frame, name) for name in frame.columns]
    if not sys.stdout.isatty():
        sys.stdout.write(table_text(frame))
        return
    from rich.console import Console

    console = Console(file=sys.stdout)
    numeric = [series.dtype.is_numeric() for series in frame]
    for block in _blocks(list(range(len(columns))), [_need(each, widest) for each in columns], console.width):
        console.print(_table([columns[at] for at in block], [numeric[at] for at in block], console.width))


def table_text(frame: "pl.DataFrame") -> str:
    """A table for people, in Markdown.

    Args:
        frame: The table.

    Returns:
        The lines: LRs in scientific notation, other numbers to four significant digits, – for missing values.
    """
    padded = [_padded(_column(frame, name), on_right=frame[name].dtype.is_numeric()) for name in frame.columns]
    header, *rows = zip(*padded, strict=True)
    rule = tuple("-" * len(cell) for cell in header)
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))


def _column(frame: "pl.DataFrame", name: str) -> list[str]:
    """Name and cells of a column."""
    # All numbers of the table of boundaries are LRs.
    is_lr = name in LRS or "boundary" in frame.columns
    return [harmless(name), *(_cell(value, is_lr=is_lr) for value in frame[name])]


def _padded(cells: Sequence[str], *, on_right: bool) -> list[str]:
    """The cells padded to one width; numbers are aligned right."""
    width = max(len(cell) for cell in cells)
    return [cell.rjust(width) if on_right else cell.ljust(width) for cell in cells]


def _cell(value: object, *, is_lr: bool) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return " ".join(harmless(str(value)).split("\n"))
    return format_lr(value, digits=4) if is_lr else _number(value)


def _number(value: float) -> str:
    """Four significant digits; numbers up to a million show all digits before the point."""
    if value == 0:
        return "0"
    if is_finite(value) and not 1e-3 <= abs(value) < 1e6:
        return format_lr(value, digits=4)
    return f"{value:#.4g}" if abs(value) < 1e3 else f"{value:.0f}"


def _blocks(columns: Sequence[int], needs: Sequence[int], width: int) -> list[list[int]]:
    """The indices of columns, split into blocks that fit; every block starts with the first column."""
    blocks = [[columns[0]]]
    for column in columns[1:]:
        if len(blocks[-1]) > 1 and sum(needs[at] + _GAP for at in [*blocks[-1], column]) - _GAP > width:
            blocks.append([columns[0]])
        blocks[-1].append(column)
    return blocks


def _need(column: Sequence[str], widest: int) -> int:
    """The characters that a column needs: its longest cell, or the width to which a long text can be wrapped."""
    return max(_longest_word(column), min(widest, _longest(column)))


def _longest(column: Sequence[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, column))


def _longest_word(column: Sequence[str]) -> int:
    return _longest([word for cell in column for word in cell.split(" ")])


def _widths(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """The width of each column: at least its longest word; remaining space goes to columns with longer texts."""
    widths = [_longest_word(each) for each in columns]
    wanted = [_longest(each) - least for each, least in zip(columns, widths, strict=True)]
    left = width - sum(widths) - _GAP * (len(widths) - 1)
    for turn, at in enumerate(sorted(range(len(widths)), key=wanted.__getitem__)):
        more = max(0, min(wanted[at], left // (len(widths) - turn)))
        widths[at] += more
        left -= more
    widths[-1] = max(1, widths[-1] + min(0, left))  # a word wider than a line has to be broken
    return widths


def _table(columns: Sequence[Sequence[str]], numeric: Sequence[bool], width: int) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", padding=(0, _GAP - 1, 0, 0))
    for (name, *_), on_right, wide in zip(columns, numeric, _widths(columns, width), strict=True):
        table.add_column(Text(name), justify="right" if on_right else "left", width=wide)
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return table
