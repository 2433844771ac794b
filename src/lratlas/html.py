"""Small pieces of HTML that display objects in notebooks."""

import html
from collections.abc import Iterable, Sequence

_CELL = "padding: .1em .6em; text-align: "
_NUMBER = "right; font-variant-numeric: tabular-nums"


def answer(headline: str, lines: Iterable[str] = (), *, notes: Iterable[str] = ()) -> str:
    """A bold line with further lines below it, and notes in a list. All text is escaped."""
    listed = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    rest = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
    return f"<div><b>{html.escape(headline)}</b></div>{rest}{f'<ul>{listed}</ul>' if listed else ''}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """A table of texts.

    Args:
        header: The heading of each column; none for a table without.
        rows: The cells of each row; the first one is a heading.
        numbers: Whether the other cells are numbers, which are aligned right.
    """
    style = f' style="{_CELL}{_NUMBER if numbers else "left"}"'
    head = "".join(f"<th{style}>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr><th{style}>{html.escape(first)}</th>"
        f"{''.join(f'<td{style}>{html.escape(cell)}</td>' for cell in cells)}</tr>"
        for first, *cells in rows
    )
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if header else ''}<tbody>{body}</tbody></table>"
