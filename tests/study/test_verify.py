from pathlib import Path

import pytest

from cheaper import workerless
from lratlas.study.store import Store
from lratlas.study.verify import Fault, faults, find_unchecked
from study.fixtures import explored_in


@pytest.fixture
def store(finished: Path) -> Store:
    return Store.open(finished)


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
    session = next((root / "sittings").iterdir())
    session.write_text("{")
    altered, missing = "was cut short or altered", "is missing"
    names = {path: path.relative_to(root).as_posix() for path in (runs[1], weights, lost, session)}
    expected = [
        Fault(path=names[runs[1]], what=altered),
        Fault(path=names[weights], what=missing),
        Fault(path=names[lost], what=missing),
        Fault(path=names[session], what=altered),
    ]
    assert faults(store) == sorted(expected, key=lambda fault: fault.path)
    plan.write_text(plan_text.replace("float32", "float64", 1))
    assert Fault(path="plan.json", what=altered) in faults(store)
    (root / "spec.toml").write_text("name = ")
    assert any(each.path == "spec.toml" and "altered" in each.what for each in faults(store))


def test_files_that_are_made_from_tables_are_not_checked(store: Store):
    store.write_text("report.html", "half of")
    store.write_text("figures/mine.svg", "the user's")
    assert (faults(store), find_unchecked(store)) == ([], [])


def test_an_edit_of_the_spec_is_said_until_it_is_taken_in(store: Store):
    path = Path(store.root) / "spec.toml"
    path.write_text(path.read_text() + "# a comment of somebody's own\n")
    assert faults(store) == [Fault(path="spec.toml", what="was edited since the study was planned")]
    with workerless():
        explored_in(Path(store.root))
    assert "somebody's own" in path.read_text()
    assert (faults(store), find_unchecked(store)) == ([], [])
