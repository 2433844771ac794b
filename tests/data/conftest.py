from dataclasses import replace
from pathlib import Path

import pytest

from lratlas.data import sources


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root, known through the environment; no data set is found elsewhere on this machine."""
    monkeypatch.setenv("LRATLAS_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("LRATLAS_CACHE", str(tmp_path / "cache"))
    below = {
        name: replace(entry, places=tuple(place for place in entry.places if not place.path.startswith("/")))
        for name, entry in sources.CATALOGUE.items()
    }
    monkeypatch.setattr(sources, "CATALOGUE", below)
    return tmp_path / "root"
