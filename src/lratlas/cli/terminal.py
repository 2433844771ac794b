"""What the command line prints: sentences, tables, JSON, and the progress of long work."""

import json
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from lratlas.text import format_lr, harmless, is_finite

if TYPE_CHECKING:
    import polars as pl

    from lratlas.execute.scheduler import Progress

LRS = frozenset({"lr", "plr", "plr2", "flr"})
MISSING = "–"
REGIMES_EVERY = 30  # seconds; all tables are read for it


def say(text: str, *, style: str = "") -> None:
    """Print a line to standard output as it stands; brackets and colons in it mean nothing."""
    from rich.console import Console

    Console().print(harmless(text), style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


def notice(text: str) -> None:
    """Print a sentence to standard error, on one line."""
    sentence = " ".join(harmless(text).split("\n")).strip()
    end = "" if sentence.endswith((".", "!", "?", "…")) else "."
    sys.stderr.write(f"lratlas: {sentence}{end}\n")


def print_json(value: object) -> None:
    """Print a value as JSON."""
    sys.stdout.write(harmless(json.dumps(value, indent=1, allow_nan=False)) + "\n")


def print_csv(frame: "pl.DataFrame") -> None:
    """Print a table as CSV."""
    from lratlas.tables import csv_text

    sys.stdout.write(csv_text(frame))


def print_table(frame: "pl.DataFrame") -> None:
    """Print a table to be read; in a terminal, in as many blocks as its width asks for."""
    from rich.console import Console

    sys.stdout.write(table_text(frame, width=Console().width if sys.stdout.isatty() else None))


def table_text(frame: "pl.DataFrame", *, width: int | None = None) -> str:
    """A table as people read it, in Markdown.

    Args:
        frame: The table.
        width: Characters in a line; columns that do not fit follow below, the first one with
                them. None: no limit.

    Returns:
        The lines: LRs in scientific notation, other numbers to four significant digits, – for missing values.
    """
    columns = [_column(frame, name) for name in frame.columns]
    return "\n".join(_block(block) for block in _blocks(columns, width))


@contextmanager
def progress_bar(regimes: Callable[[], str]) -> "Generator[Callable[[Progress], None]]":
    """A progress bar with rate, time left and the current regimes; nothing where standard error is not a terminal.

    Args:
        regimes: Says in few words which regimes the study has found so far; asked now and then.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[pace]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[regimes]}", markup=False),
    )
    shown = sys.stderr.isatty()
    with Bar(*columns, console=Console(stderr=True), disable=not shown, transient=True) as bar:
        line = bar.add_task("planning", total=None, pace="", regimes="")
        began = asked = time.monotonic()

        def show_progress(progress: "Progress") -> None:
            nonlocal asked
            jobs = f"{progress.jobs_done} of {progress.jobs} jobs done"
            if shown and time.monotonic() - asked > REGIMES_EVERY:
                bar.update(line, regimes=harmless(regimes()))
                asked = time.monotonic()
            bar.update(
                line,
                description=harmless(f"{progress.doing or 'finishing'}, {jobs}"),
                total=progress.work,
                completed=progress.work_done,
                pace=pace(progress, time.monotonic() - began),
            )

        yield show_progress


def pace(progress: "Progress", seconds: float) -> str:
    """The rate of training and the time left, from what was trained in the given time; empty before that."""
    if not progress.trained or seconds <= 0:
        return ""
    rate = progress.trained / seconds
    return f"{rate:,.0f} steps/s, {time_text((progress.work - progress.work_done) / rate)} left"


def time_text(seconds: float) -> str:
    """A time in hours, minutes and seconds.

    >>> time_text(3725.2)
    '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))


def _column(frame: "pl.DataFrame", name: str) -> list[str]:
    """Name and cells of a column, all of one width; numbers stand on the right."""
    series = frame[name]
    # All numbers of the table of boundaries are LRs.
    is_lr = name in LRS or "boundary" in frame.columns
    cells = [harmless(name), *(_cell(value, is_lr=is_lr) for value in series)]
    width = max(len(cell) for cell in cells)
    return [cell.rjust(width) if series.dtype.is_numeric() else cell.ljust(width) for cell in cells]


def _cell(value: object, *, is_lr: bool) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return " ".join(harmless(str(value)).split("\n"))
    return format_lr(value, digits=4) if is_lr else _number(value)


def _number(value: float) -> str:
    """Four significant digits; numbers up to a million with all before the point."""
    if value == 0:
        return "0"
    if is_finite(value) and not 1e-3 <= abs(value) < 1e6:
        return format_lr(value, digits=4)
    return f"{value:#.4g}" if abs(value) < 1e3 else f"{value:.0f}"


def _blocks(columns: Sequence[list[str]], width: int | None) -> list[list[list[str]]]:
    """The columns, shared out so that each block fits; every block starts with the first column."""
    blocks: list[list[list[str]]] = [[columns[0]]]
    for column in columns[1:]:
        if width is not None and len(blocks[-1]) > 1 and _width([*blocks[-1], column]) > width:
            blocks.append([columns[0]])
        blocks[-1].append(column)
    return blocks


def _width(columns: Sequence[list[str]]) -> int:
    return sum(len(column[0]) + 3 for column in columns) + 1


def _block(columns: Sequence[list[str]]) -> str:
    header, *rows = zip(*columns, strict=True)
    rule = tuple("-" * len(cell) for cell in header)
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))
