"""A study and a search as a stranger would prepare them, and a folder with modules that nobody should import."""

from pathlib import Path

MARK = "imported-by-mistake"
"""The file that a hostile module leaves in the current folder when it is imported."""
SIGNS = "\x1b[31m\x1b]0;owned\x07\x9b2J\u202e\u2066\r\x08"
"""Colours, a title, a cleared screen, letters turned around, and what is before written over."""
FORMULA = '=HYPERLINK("http://example.org","x")'


def plant_modules(folder: Path, *names: str) -> None:
    """Modules that leave a mark when they are imported."""
    for name in names:
        (folder / f"{name}.py").write_text(
            f"import pathlib\npathlib.Path({str(folder / MARK)!r}).touch()\nraise SystemExit('imported ' + __name__)\n"
        )
