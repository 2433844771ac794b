"""The simulation of large studies, against what can be worked out by hand."""

import math
from collections.abc import Mapping

import pytest

from benchmarks.scale_assumed import ratios
from benchmarks.scale_studies import RUNS_A_REPEAT, Name, plan_of
from benchmarks.scale_workers import Outcome, World, simulate
from benchmarks.scheduling import plan_of as plan_of_equal_jobs
from lratlas.study.plan import Plan


def same(plan: Plan, seconds: float) -> dict[str, float]:
    return dict.fromkeys((job.id for job in plan.jobs), seconds)


def of(plan: Plan, **world: object) -> Outcome:
    return simulate(plan, World(**{"workers": 7, "seconds": same(plan, 3.0), **world}))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("workers", [1, 7, 100, 2000])
def test_equal_jobs_without_failures_take_whole_rounds(workers: int):
    plan = plan_of_equal_jobs(100)
    found = simulate(plan, World(workers=workers, seconds=same(plan, 3.0), start=5.0))
    assert found.makespan == pytest.approx(5.0 + 3.0 * math.ceil(100 / workers))
    assert (found.useful, found.lost, found.undone) == (pytest.approx(300.0), 0.0, 0)


def test_a_driver_that_takes_longer_than_the_jobs_divided_by_workers_decides():
    # One job is given out every 2 s; the last of 100 begins after 200 s and takes 3 s.
    found = of(plan_of_equal_jobs(100), per_job=2.0)
    assert found.makespan == pytest.approx(203.0)
    assert found.driver == pytest.approx(200.0)


def test_a_study_takes_at_least_its_longest_chain():
    plan = plan_of("resnet", 200)
    # Pre-training, then fine-tuning or averaging, then bands or geometry.
    assert of(plan, workers=10_000).makespan == pytest.approx(3 * 3.0)


def test_failures_lose_time_but_no_work():
    plan = plan_of("resnet", 1000)
    seconds: Mapping[str, float] = {job.id: 1.0 + at % 5 for at, job in enumerate(plan.jobs)}
    segments = {job.id: len(job.segments) for job in plan.trainings}
    calm = of(plan, seconds=seconds, segments=segments)
    rough = of(plan, seconds=seconds, segments=segments, between_failures=60.0, start=1.0)
    assert calm.failures == 0 < rough.failures
    assert rough.undone == 0
    assert rough.useful == pytest.approx(calm.useful) == pytest.approx(sum(seconds.values()))
    # At most a segment is lost at a time, or a job that has none.
    assert 0 < rough.lost < 5.0 * rough.failures
    assert rough.makespan > calm.makespan


def test_the_same_seed_fails_in_the_same_places():
    plan = plan_of("resnet", 1000)
    first, again, other = (of(plan, between_failures=60.0, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_a_repetition_has_the_runs_that_it_is_said_to_have(name: Name):
    assert len(plan_of(name, 3 * RUNS_A_REPEAT[name]).holders()) == 3 * RUNS_A_REPEAT[name]


def test_spread_is_relative_to_the_mean_of_a_kind_that_has_several_jobs():
    kinds = {"pretrain": {"seconds": [1.0, 1.0, 1.0, 1.0, 6.0]}, "geometry": {"seconds": [7.0]}}
    assert ratios({"studies": {"any": {"kinds": kinds}}}) == [0.5, 0.5, 0.5, 0.5, 3.0]
