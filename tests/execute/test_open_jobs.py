from types import SimpleNamespace
from typing import Any

import pytest

from lratlas.execute.scheduler import OpenJobs, open_jobs
from lratlas.study.jobs import Lane, Measuring, Seed, Training
from lratlas.study.plan import Plan

SEED = Seed(seed=0, training_seed=1, fingerprint="task")


def training(name: str, stage: Any = "pretrain", parent: str | None = None) -> Training:
    return Training(
        id=name,
        stage=stage,
        seeds=(SEED,),
        lanes=(Lane(plr=0.1),),
        runs=((f"run of {name}",),),
        parent=parent,
        parents=((f"run of {parent}",),) if parent else None,
        segments=(10,),
        trace_every=5,
    )


def plan() -> Plan:
    """Two trainings, a child of the first, features of the second, and the geometry of the first and its child."""
    return Plan(
        strategy="stack",
        dtype="float32",
        device="cpu",
        compiled=False,
        chance_loss=1.0,
        elr=False,
        trainings=(training("first"), training("second"), training("child", "finetune", "first")),
        measurements=(
            Measuring(id="features", measurement="features", training="second"),
            Measuring(
                id="geometry",
                measurement="geometry",
                training="first",
                solutions={"low": (("run of first",),), "high": (("run of child",),)},
            ),
        ),
    )


def taken(jobs: OpenJobs) -> list[str]:
    """All that can be taken now."""
    found = list[str]()
    while job := jobs.take():
        found.append(job.id)
    return found


def of(jobs: OpenJobs, name: str) -> Any:
    return jobs.jobs[name]


def test_jobs_come_in_the_order_of_the_plan_once_what_they_need_is_done():
    jobs = open_jobs(plan(), {"first", "second", "child", "features", "geometry"})
    assert taken(jobs) == ["first", "second"]
    assert not jobs.any
    jobs.finish(of(jobs, "second"))
    jobs.finish(of(jobs, "first"))
    assert taken(jobs) == ["child", "features"]
    jobs.finish(of(jobs, "features"))
    assert taken(jobs) == []
    jobs.finish(of(jobs, "child"))
    assert taken(jobs) == ["geometry"]
    jobs.finish(of(jobs, "geometry"))
    assert not jobs.jobs


def test_what_is_done_already_is_not_waited_for():
    jobs = open_jobs(plan(), {"child", "geometry"})
    assert taken(jobs) == ["child"]


def test_a_job_that_was_put_back_comes_again_after_its_pause(monkeypatch: pytest.MonkeyPatch):
    now = SimpleNamespace(value=100.0)
    monkeypatch.setattr("time.monotonic", lambda: now.value)
    jobs = open_jobs(plan(), {"first", "second"})
    first = jobs.take()
    assert first is not None
    assert jobs.pause() is None
    jobs.put_back(first, seconds=5)
    assert taken(jobs) == ["second"]
    assert jobs.any
    assert jobs.pause() == 5
    now.value += 5
    assert jobs.pause() == 0
    assert taken(jobs) == ["first"]


def test_what_needs_a_job_that_was_given_up_never_comes():
    jobs = open_jobs(plan(), {"first", "second", "child", "geometry"})
    assert taken(jobs) == ["first", "second"]
    jobs.give_up(of(jobs, "first"))
    jobs.finish(of(jobs, "second"))
    assert not jobs.any
    assert jobs.given_up == {"first"}
    assert set(jobs.jobs) == {"first", "child", "geometry"}
