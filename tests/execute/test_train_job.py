"""Parts of a training job."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lratlas import Task
from lratlas.config.tasks import Tasks
from lratlas.execute import train_job
from lratlas.execute.context import WorkerContext
from lratlas.study.plan import read_stored_plan, read_stored_spec
from lratlas.study.store import Store
from lratlas.training.evaluate import Scores, evaluate_stack
from lratlas.training.program import Program
from lratlas.training.state import width


@pytest.mark.parametrize("compiled", [False, True])
def test_the_loss_before_training_is_evaluated_once_a_seed_unless_that_needs_another_compilation(
    whole_study: Path, small_task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch, *, compiled: bool
):
    store = Store.open(whole_study)
    spec, plan, task = read_stored_spec(store), read_stored_plan(store), small_task().prepared
    assert plan is not None
    study = WorkerContext(store, spec, plan, Tasks(make=lambda _: task, generated=False))
    study.__dict__["program"] = replace(study.program, compiled=compiled)
    job = next(job for job in plan.trainings if job.stage == "pretrain")
    widths = list[int]()

    def evaluated(program: Program, weights: Any, *others: Any) -> Scores:
        widths.append(width(weights))
        return evaluate_stack(program, weights, *others)

    monkeypatch.setattr(train_job, "evaluate_stack", evaluated)
    found = train_job._start_loss(study, job)  # pyright: ignore[reportPrivateUsage]
    assert widths == [len(job.lanes) if compiled else 1]
    assert found.shape == (len(job.seeds), len(job.lanes))
    rows = store.read_table("runs", job.id).filter(stage="pretrain")
    torch.testing.assert_close(found.flatten(), torch.tensor(rows["start_loss"].to_list(), dtype=torch.float64))
    assert len(job.lanes) > 1
