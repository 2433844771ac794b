"""A training that is left anywhere continues with identical bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from torch import nn

from cheaper import workerless
from lratlas import Task
from lratlas.atlas import Atlas
from lratlas.config.tasks import Tasks
from lratlas.execute import scheduler
from lratlas.execute.context import WorkerContext
from lratlas.execute.train_job import Stopped, perform
from lratlas.study.plan import Plan, read_stored_spec
from lratlas.study.progress import is_done
from lratlas.study.store import Store
from lratlas.study.verify import faults
from lratlas.tables import SCHEMAS
from study.fixtures import explored_in

pytestmark = pytest.mark.xdist_group("resuming")  # the study that is never interrupted is made once

Explored = Callable[..., Atlas]
CHANGES: dict[str, Any] = {
    "average": {"counts": [2, 4], "every": 3, "extend": True},
    "measure": {"convergence": True, "geometry": False},
    "pretrain": {"lrs": [1e-3, 1e-2, 1e-1], "steps": 30, "repeats": 2},
}


def forgetful() -> nn.Module:
    """Draws at random in training, has buffers, and state of its optimizer."""
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))


@pytest.fixture(scope="module")
def task(small_task: Callable[..., Task]) -> Task:
    return small_task(model=forgetful, rule="adam")


@pytest.fixture(scope="module")
def whole(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """The study, never interrupted."""
    with workerless():
        return explored_in(tmp_path_factory.mktemp("whole") / "study", task, **CHANGES)


class Impatient:
    """Says after some questions, ever again, that it is time to leave."""

    def __init__(self, patience: int) -> None:
        self.patience, self.asked = patience, 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked > self.patience


def left_again_and_again(
    monkeypatch: pytest.MonkeyPatch, patience: int, between: Callable[[Store], None] = lambda _: None
) -> list[int]:
    """Have every job left after this many steps, until all are done; the run-steps done each time."""
    trained: list[int] = []

    def execute(store: Store, plan: Plan, *, tasks: Tasks, **_: Any) -> bool:
        study = WorkerContext(store, read_stored_spec(store), plan, tasks)
        for job in plan.jobs:
            while not is_done(store, job):
                torch.manual_seed(len(trained))  # as in a process that knows nothing of the one before
                told = list[int]()
                try:
                    perform(study, job, told.append, Impatient(patience))
                except Stopped:
                    between(store)
                finally:
                    trained.append(sum(told[1:]))  # the first is what was trained before
        return True

    monkeypatch.setattr(scheduler, "execute", execute)
    return trained


def assert_same(atlas: Atlas, other: Atlas) -> None:
    for name in SCHEMAS:
        tables = [each.table(name).drop("seconds", strict=False) for each in (atlas, other)]
        assert_frame_equal(*tables, check_exact=True)


@pytest.mark.filterwarnings("ignore:.*dropout")
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patience=st.integers(1, 17))
def test_left_after_any_number_of_steps_again_and_again_a_study_ends_with_the_same_bits(
    patience: int, whole: Atlas, explored: Explored, task: Task, tmp_path_factory: pytest.TempPathFactory
):
    with pytest.MonkeyPatch.context() as patch:
        trained = left_again_and_again(patch, patience)
        left = explored(tmp_path_factory.mktemp("study"), task, **CHANGES)
    assert_same(left, whole)
    plan = whole.plan
    assert plan is not None
    assert sum(trained) == sum(job.work for job in plan.trainings)  # no step was trained twice


def parts(store: Store) -> list[str]:
    return [name for name in store.weights() if name.endswith("-part")]


def test_what_is_kept_on_the_way_is_gone_in_the_end(
    explored: Explored, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[list[str]] = []
    left_again_and_again(monkeypatch, 4, lambda store: seen.append(parts(store)))
    atlas = explored(tmp_path / "left", task, **CHANGES)
    assert seen
    assert all(len(found) == 1 for found in seen)  # a job has one at most, and they are done one after the other
    assert not parts(atlas.store)
    assert faults(atlas.store) == []


def test_if_it_is_damaged_the_job_goes_on_from_the_end_of_the_segment_before(
    whole: Atlas, explored: Explored, task: Task, tmp_path: Path
):
    def damage(store: Store) -> None:
        for name in parts(store):
            path = f"checkpoints/{name}.safetensors"
            store.write_bytes(path, store.read_bytes(path)[:-1] + b"!")
            raise KeyboardInterrupt

    folder, notices = tmp_path / "left", list[str]()
    with pytest.MonkeyPatch.context() as patch:
        left_again_and_again(patch, 12, damage)  # a segment has 10 steps
        with pytest.raises(KeyboardInterrupt):
            explored(folder, task, **CHANGES)
    assert_same(explored(folder, task, notices, **CHANGES), whole)
    assert len(notices) == 1
    assert "-part.safetensors is damaged; it is moved to damaged/" in notices[0]
