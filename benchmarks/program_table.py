"""The table of `benchmarks.programs`, written into the page of its results.

python -m benchmarks.program_table
"""

import json
from typing import Any

from benchmarks.programs import FACTORS, OUT, PROGRAMS

HEADS = (
    "program", "optimizer, schedule", "steps", "cost", "LR (range)", "metric, finish",
    "at half", "at the LR", "at three times",
)  # fmt: skip


def line(found: dict[str, Any]) -> str:
    """A row of the table; the metric is that of the finish that is advised.

    Args:
        found: A line of ``programs.jsonl``.
    """
    program = PROGRAMS[found["program"]]
    reached = "averaged" if found["finish"] == "average" else "value"
    ratio = found["seconds"] / (1.5 * found["advised: seconds"])
    cells = [found["program"], program.kind, f"{found['steps']:,}", f"{ratio:.1f}"]
    cells += ["{lr:.2g} ({low:.2g} to {high:.2g})".format(**found), f"{program.metric}, {found['finish']}"]
    values = [found[f"{factor}: {reached}"] for factor in FACTORS]
    cells += ["diverges" if value is None else f"{value:.4g}" for value in values]
    return row(cells)


def row(cells: list[str] | tuple[str, ...]) -> str:
    """A row in Markdown."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """The newest line of each program, instead of the table that is there."""
    rows = [json.loads(each) for each in OUT.read_text(encoding="utf-8").splitlines()]
    newest = {found["program"]: found for found in rows}
    lines = [row(HEADS), "|---" * len(HEADS) + "|", *[line(newest[name]) for name in PROGRAMS if name in newest]]
    page = OUT.with_name("README.md")
    before, _, after = page.read_text(encoding="utf-8").partition(f"| {HEADS[0]} |")
    page.write_text(before + "\n".join(lines) + "\n\n" + after.partition("\n\n")[2], encoding="utf-8")


if __name__ == "__main__":
    main()
