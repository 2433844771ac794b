"""The notebooks run from top to bottom, and what they show was made so."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from docs.pages import DOCS

CHEAP = {
    'training={"compile": False}': 'training={"compile": False}, trace={"points": 5}, measure={"interpolation": 3}'
}
# What makes them short: they were trained for longer to be shown.
SHORT = {
    "ticks": {"8_000": "100", '"steps": 2_000': '"steps": 20', '"every": 100': '"every": 10', **CHEAP},
    "own_model": {"epochs=20": "epochs=2", '"epochs": 20': '"epochs": 6', "range(700)": "range(300)", **CHEAP},
}
# No notebook shows figures for papers, and none asks for more than one process.
CHEAPER = f"""
import sys
sys.path.append({str(Path(__file__).parents[1])!r})
import cheaper
patched = [cheaper.unfigured(), cheaper.workerless()]
for each in patched:
    each.__enter__()
"""


@pytest.mark.filterwarnings("ignore")  # of Jupyter
@pytest.mark.parametrize("name", SHORT)
def test_a_notebook_runs_and_was_run(name: str, tmp_path: Path) -> None:
    notebook = nbformat.read(DOCS / "notebooks" / f"{name}.ipynb", as_version=4)
    kept = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in kept] == list(range(1, len(kept) + 1))
    shown = [sorted(out.output_type for out in cell.outputs) for cell in kept]
    assert not any("error" in kinds for kinds in shown)
    for old, new in SHORT[name].items():
        assert any(old in cell.source for cell in kept)
        for cell in kept:
            cell.source = cell.source.replace(old, new)
    kept[0].source = CHEAPER + kept[0].source
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    ran = [cell for cell in client.execute().cells if cell.cell_type == "code"]
    assert [sorted(out.output_type for out in cell.outputs) for cell in ran] == shown


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in (DOCS / "notebooks").glob("*.ipynb")} == SHORT.keys()
