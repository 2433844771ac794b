"""Lines for people: wrapped at words and coloured in a terminal; one line per fact everywhere else."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TextIO

from lratlas.text import harmless

if TYPE_CHECKING:
    from rich.text import Text

Part = str | tuple[str, str]
"""Text, or text with a Rich style such as ``bold`` or ``red``."""

REGIME_STYLES: Mapping[str, str] = MappingProxyType(
    {"1": "blue", "2A": "green", "2B": "yellow", "2": "cyan", "3": "magenta", "undecided": "bright_black"}
)
"""The terminal colours nearest to the report's colours."""

_NARROW = 20  # characters; a hanging indent must leave at least this width


def line(*parts: Part, lead: Part = "", stream: TextIO) -> str:
    """A line with its line end, formatted for the stream.

    Args:
        parts: The text.
        lead: A prefix such as a bullet; further rows are indented by its width.
        stream: The output stream. Colours follow ``NO_COLOR`` and ``TERM``.

    Returns:
        For a terminal, rows wrapped to its width without breaking words. Otherwise one line without colours.
    """
    said, (head, style) = [_safe(part) for part in parts], _safe(lead)
    if not stream.isatty():
        return f"{head}{''.join(text for text, _ in said)}\n"
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream)
    indent = cell_len(head) if console.width - cell_len(head) >= _NARROW else 0
    whole = Text.assemble((head, style), *said)
    with console.capture() as captured:
        for at, row in enumerate(_rows(whole, console.width, indent)):
            row.rstrip()
            console.print(Text(" " * indent) + row if at else row, soft_wrap=True)
    return captured.get()


def regimes_line(text: str) -> list[Part]:
    """Regimes with their LRs, as ``1: 1e-3 to 1e-2, 2A: …``, each name in its colour."""
    names = "|".join(REGIME_STYLES)
    found = re.split(rf"(?:(?<=^)|(?<=, ))({names})(?=: | \()", text)
    return [(part, f"bold {REGIME_STYLES[part]}") if at % 2 else part for at, part in enumerate(found) if part]


def _safe(part: Part) -> tuple[str, str]:
    text, style = (part, "") if isinstance(part, str) else part
    return harmless(text), style


def _rows(text: "Text", width: int, indent: int) -> "list[Text]":
    """The text, split between words; all rows except the first leave room for the indent."""
    from rich.cells import cell_len

    ends, used = list[int](), 0
    for word in re.finditer(r"[^ ]+ *| +", text.plain):
        if used and used + cell_len(word[0].rstrip()) > width:
            ends.append(word.start())
            used = indent
        used += cell_len(word[0])
    return list(text.divide(ends)) if ends else [text]
