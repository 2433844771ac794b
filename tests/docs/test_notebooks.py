"""The notebooks run from top to bottom, and what they show was made so."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from docs.pages import DOCS

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.filterwarnings("ignore")  # of Jupyter
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_was_run(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    kept = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in kept] == list(range(1, len(kept) + 1))
    shown = [sorted(out.output_type for out in cell.outputs) for cell in kept]
    assert not any("error" in kinds for kinds in shown)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    ran = [cell for cell in client.execute().cells if cell.cell_type == "code"]
    assert [sorted(out.output_type for out in cell.outputs) for cell in ran] == shown
