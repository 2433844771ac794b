"""The notebooks run from top to bottom, and what they show was made so."""

from itertools import groupby
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from cheaper import lines_of, unfigured, workerless
from docs.pages import DOCS

CHEAP = {
    'training={"compile": False}': 'training={"compile": False}, trace={"points": 5}, measure={"interpolation": 3}'
}
# What makes them short: they were trained for longer to be shown.
SHORT = {
    "ticks": {
        "8_000": "100",
        "steps = 2_000": "steps = 20",
        "every = 100": "every = 10",
        "compile = false": "compile = false\n\n[trace]\npoints = 5\n\n[measure]\ninterpolation = 3",
    },
    "own_model": {"epochs=20": "epochs=2", '"epochs": 20': '"epochs": 6', "range(700)": "range(300)", **CHEAP},
}
# No notebook shows figures for papers, and none asks for more than one process.
CHEAPER = lines_of(unfigured, workerless)


def kinds(cell: nbformat.NotebookNode) -> list[str]:
    """The kinds of what a cell shows; what it prints comes in one piece or several, as the kernel finds the time."""
    return sorted(kind for kind, _ in groupby(out.output_type for out in cell.outputs))


@pytest.mark.filterwarnings("ignore")  # of Jupyter
@pytest.mark.parametrize("name", SHORT)
def test_a_notebook_runs_and_was_run(name: str, tmp_path: Path) -> None:
    notebook = nbformat.read(DOCS / "notebooks" / f"{name}.ipynb", as_version=4)
    kept = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in kept] == list(range(1, len(kept) + 1))
    shown = [kinds(cell) for cell in kept]
    assert not any("error" in each for each in shown)
    for old, new in SHORT[name].items():
        assert any(old in cell.source for cell in kept)
        for cell in kept:
            cell.source = cell.source.replace(old, new)
    kept[0].source = CHEAPER + kept[0].source
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    ran = [cell for cell in client.execute().cells if cell.cell_type == "code"]
    assert [kinds(cell) for cell in ran] == shown


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in (DOCS / "notebooks").glob("*.ipynb")} == SHORT.keys()
