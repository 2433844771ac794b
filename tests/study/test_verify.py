from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cheaper import workerless
from lratlas.study.expected import Fault
from lratlas.study.plan import read_stored_plan
from lratlas.study.store import Store
from lratlas.study.verify import count_open, faults, find_unchecked
from study.fixtures import explored_in


@pytest.fixture
def store(finished: Path) -> Store:
    return Store.open(finished)


def test_a_study_as_it_was_written_has_no_faults(store: Store):
    assert faults(store) == []


def test_of_an_unfinished_study_only_what_must_be_there_is_missed(
    explored: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It ends in the middle of fine-tuning, which starts from weights of a job that is done."""

    def stop_in_finetuning(store: Store, name: str, tensors: Any) -> None:
        write(store, name, tensors)
        if name.startswith("finetune-") and name.endswith("-10"):
            raise KeyboardInterrupt

    write = Store.write_weights
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_weights", stop_in_finetuning)
        with pytest.raises(KeyboardInterrupt):
            explored(tmp_path / "study")
    store = Store.open(tmp_path / "study")
    assert (faults(store), find_unchecked(store)) == ([], [])
    plan = read_stored_plan(store)
    assert plan is not None
    assert 0 < count_open(store) < len(plan.jobs)
    state = next(path for path in (tmp_path / "study/checkpoints").iterdir() if path.stem.endswith("-10"))
    parent = next(job.parent for job in plan.trainings if state.stem.startswith(job.id))
    lost = [f"checkpoints/{parent}.safetensors", f"tables/runs/{parent}.parquet"]
    for name in lost:
        store.remove(name)
    assert faults(store) == [Fault(path=name, what="is missing") for name in lost]


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
