"""What stands in a page: its blocks of code, its tables, the commands in them."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.main

from lratlas.cli.app import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# The languages of the blocks that can be run.
CODE = {"python", "sh", "toml", "json"}
_FENCED = re.compile(r"^( *)```(\w+)?([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of code: its language, the file that it stands for where it has a title, and its lines."""

    language: str
    title: str | None
    text: str


def text_of(page: str) -> str:
    """A page, by its path from the root of the repository."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(text: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    return [
        Block(
            language=language,
            title=title[1] if (title := re.search(r'title="(.*?)"', options)) else None,
            text=textwrap.dedent(lines),
        )
        for _, language, options, lines in _FENCED.findall(text)
    ]


def blocks(language: str, text: str) -> list[str]:
    """The blocks of one language, of which there must be some."""
    found = [block.text for block in blocks_of(text) if block.language == language]
    assert found
    return found


def table(text: str, first: str) -> dict[str, list[str]]:
    """The rows of the table whose first column is headed so: first cell, without backquotes, to the others."""
    lines = text.partition(f"| {first} |")[2].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[: lines.index("")]]
    return {row[0].strip("`"): row[1:] for row in rows}


def parsed(command: str) -> tuple[str, dict[str, Any]]:
    """Name and parameters of a command line, as the command would get them."""
    name, *words = shlex.split(command, comments=True)
    assert name == "lratlas"
    found: Any = typer.main.get_command(app)
    context: Any = typer.Context(found)
    while hasattr(found, "commands"):
        name, found, words = found.resolve_command(context, words)
    return name, found.make_context(name, [*words]).params


def commands(text: str) -> list[str]:
    """The lines of a block for the shell that call LR Atlas, joined where they continue."""
    lines = text.replace("\\\n", " ").splitlines()
    return [found[1] for line in lines if (found := re.search(r"(?:^|exec )(lratlas .*)$", line))]
