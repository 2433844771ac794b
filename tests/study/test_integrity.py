from pathlib import Path

import pytest

from lratlas.study.integrity import Fault, faults
from lratlas.study.store import Store
from study.conftest import explored_in


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    from study.conftest import explored_here

    monkeypatch.setattr("lratlas.study.execute.execute", explored_here)
    return explored_in(tmp_path / "study").store


def test_a_study_as_it_was_written_has_no_faults(store: Store):
    assert faults(store) == []


def test_each_damaged_or_missing_file_is_named(store: Store):
    root = Path(store.root)
    runs, traces = (sorted((root / "tables" / name).iterdir()) for name in ("runs", "traces"))
    weights = root / "checkpoints" / f"{runs[0].stem}.safetensors"
    runs[1].write_bytes(runs[1].read_bytes()[:-9])
    weights.unlink()
    lost = next(path for path in traces if path.stem.startswith(runs[0].stem))
    lost.unlink()
    plan = root / "plan.json"
    plan_text = plan.read_text()
    sitting = next((root / "sittings").iterdir())
    sitting.write_text("{")
    altered, missing = "was cut short or altered", "is missing"
    names = {path: path.relative_to(root).as_posix() for path in (runs[1], weights, lost, sitting)}
    expected = [
        Fault(path=names[runs[1]], what=altered),
        Fault(path=names[weights], what=missing),
        Fault(path=names[lost], what=missing),
        Fault(path=names[sitting], what=altered),
    ]
    assert faults(store) == sorted(expected, key=lambda fault: fault.path)
    plan.write_text(plan_text.replace("float32", "float64", 1))
    assert Fault(path="plan.json", what=altered) in faults(store)
    (root / "spec.toml").write_text("name = ")
    assert any(each.path == "spec.toml" and "altered" in each.what for each in faults(store))
