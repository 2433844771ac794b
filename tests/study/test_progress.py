"""How far a study is, at each point on its way."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lratlas.atlas import Atlas, load
from lratlas.config.sections import RefineSpec
from lratlas.study.progress import Count, Standing, is_done, standing, version
from lratlas.study.store import Store
from lratlas.tables import SCHEMAS

# The small study: 3 PLRs and 2 seeds in stacks of 3 runs, segments of 10 steps; 20 steps of pre-training, 12 of each
# of the 2 fine-tunings, single features of all.
STEPS = 6 * 20 + 12 * 12


def of(folder: Path) -> Standing:
    atlas = load(folder)
    return standing(atlas.store, atlas.plan, atlas.tables, atlas.spec.refine)


def without(folder: Path, *patterns: str) -> Path:
    """The study less the files of these patterns."""
    for pattern in patterns:
        paths = list(folder.glob(pattern))
        assert paths, pattern
        for path in paths:
            path.unlink()
    return folder


def test_of_a_finished_study_everything_is_done(finished: Path):
    found, plan = of(finished), load(finished).plan
    assert plan is not None
    assert found.state == "finished"
    assert found.jobs == Count(done=len(plan.jobs), total=len(plan.jobs))
    assert found.steps == Count(done=STEPS, total=STEPS)
    assert found.seconds_left == 0
    assert sum(count.total for count in found.kinds.values()) == len(plan.jobs)
    assert {kind: count.total for kind, count in found.kinds.items()} == {
        "pretrain": 2,
        "finetune": len([job for job in plan.trainings if job.stage == "finetune"]),
        "features": len(plan.measuring("features")),
        "geometry": len(plan.measuring("geometry")),
    }


def test_the_rate_is_that_of_one_process(finished: Path):
    seconds = load(finished).table("runs")["seconds"].sum()
    assert of(finished).rate == pytest.approx(STEPS / seconds)


def test_without_fine_tuning_its_time_is_told_by_pre_training(finished: Path):
    before = load(finished).table("runs").filter(stage="pretrain")["seconds"].sum()
    without(finished, "tables/*/*finetune-*", "checkpoints/finetune-*", "tables/pairs/*")
    found = of(finished)
    assert found.state == "unfinished"
    assert found.kinds["pretrain"] == Count(done=2, total=2)
    assert found.kinds["finetune"].done == found.kinds["geometry"].done == 0
    assert found.steps == Count(done=120, total=STEPS)
    assert found.rate == pytest.approx(120 / before)
    assert found.seconds_left == pytest.approx(before * (STEPS - 120) / 120)


def test_what_is_left_of_a_stage_is_told_by_its_own_pace(finished: Path):
    runs = load(finished).table("runs")
    parts = sorted(path.stem for path in (finished / "tables" / "runs").glob("finetune-*"))
    plan = load(finished).plan
    assert plan is not None
    lost, *kept = [job for job in plan.trainings if job.id in parts]
    ids = {run for job in kept for row in job.runs for run in row}
    without(finished, f"tables/runs/{lost.id}.parquet")
    seconds = runs.filter(pl.col("run").is_in(ids))["seconds"].sum()
    pace = seconds / sum(job.work for job in kept)
    assert of(finished).seconds_left == pytest.approx(lost.work * pace)


def test_an_interrupted_job_counts_up_to_its_last_checkpoint(
    explored: Callable[..., Atlas], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Interrupted(Exception):  # noqa: N818 - nothing is wrong
        pass

    written = Store.write_weights

    def write(self: Store, name: str, tensors: Any) -> None:
        written(self, name, tensors)
        raise Interrupted

    monkeypatch.setattr(Store, "write_weights", write)
    with pytest.raises(Interrupted):
        explored(tmp_path / "study")
    found = of(tmp_path / "study")
    # Three runs for ten steps, none of them finished.
    assert found.steps == Count(done=30, total=STEPS)
    assert (found.jobs.done, found.rate, found.seconds_left) == (0, None, None)
    assert found.state == "unfinished"


def test_of_a_study_that_is_not_planned_yet_there_is_nothing(finished: Path, tmp_path: Path):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(finished / "spec.toml", bare)
    nothing = Count(done=0, total=0)
    assert of(bare) == Standing(
        state="not planned yet", jobs=nothing, kinds={}, steps=nothing, rate=None, seconds_left=None
    )


@pytest.mark.parametrize(("ratio", "state"), [(9.9, "bisecting"), (10.1, "finished")])
def test_a_bisection_goes_on_until_its_bracket_is_narrow(ratio: float, state: str, finished: Path):
    atlas = load(finished)
    bracket = pl.DataFrame({"boundary": ["convergence"], "below": [1e-2], "above": [1e-1], "value": [3e-2]})
    regimes = pl.DataFrame({"plr": [1e-3, 1e-2, 1e-1], "regime": ["1", "1", "2"]})
    tables = {**atlas.tables, "boundaries": bracket, "regimes": regimes}
    refine = RefineSpec(boundary="convergence", ratio=ratio)
    assert standing(atlas.store, atlas.plan, tables, refine).state == state
    without(finished, "tables/pairs/*")
    assert standing(atlas.store, atlas.plan, tables, refine).state == "unfinished"


def test_a_boundary_that_cannot_be_bisected_does_not_keep_a_study_from_being_finished(
    explored: Callable[..., Atlas], tmp_path: Path
):
    atlas = explored(
        tmp_path / "study",
        pretrain={"lrs": [1e-4, 2e-4], "steps": 20, "repeats": 1},
        finetune=None,
        average=None,
        refine={"boundary": "divergence", "ratio": 1.5},
    )
    assert atlas.boundaries.filter(boundary="divergence")["value"].to_list() == [None]
    assert standing(atlas.store, atlas.plan, atlas.tables, atlas.spec.refine).state == "finished"


def test_folders_are_listed_once_however_many_jobs_there_are(finished: Path, monkeypatch: pytest.MonkeyPatch):
    atlas, listed = load(finished), list[str]()
    listing = Store.files

    def files(self: Store, folder: str) -> list[str]:
        listed.append(folder)
        return listing(self, folder)

    tables = {name: atlas.tables[name] for name in SCHEMAS}
    monkeypatch.setattr(Store, "files", files)
    standing(atlas.store, atlas.plan, tables, None)
    assert len(listed) == len(set(listed))


def test_jobs_are_done_as_for_those_who_do_them(finished: Path):
    without(finished, "checkpoints/finetune-*")
    atlas = load(finished)
    assert atlas.plan is not None
    assert of(finished).jobs.done == sum(is_done(atlas.store, job) for job in atlas.plan.jobs)


@pytest.mark.parametrize(
    "pattern", ["tables/runs/finetune-*", "tables/traces/pretrain-*", "tables/pairs/*", "plan.json"]
)
def test_the_version_changes_with_what_the_study_has_and_only_then(pattern: str, finished: Path):
    store = Store.open(finished)
    whole = version(store)
    assert version(Store.open(finished)) == whole
    path = next(iter(sorted(finished.glob(pattern))))
    data = path.read_bytes()
    path.unlink()
    less = version(store)
    path.write_bytes(data)
    assert less != whole
    assert version(store) == whole
    assert whole.isalnum()
    assert len(whole) < 40


def test_the_version_changes_with_the_plan_and_the_spec(finished: Path):
    store = Store.open(finished)
    seen = {version(store)}
    for name in ("plan.json", "spec.toml"):
        store.write_text(name, store.read_text(name) + "\n")
        seen.add(version(store))
    assert len(seen) == 3
