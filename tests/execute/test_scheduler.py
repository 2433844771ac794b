"""Worker processes: the same bits whatever their number, and what happens when they fail."""

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import lratlas
from cheaper import undrawn, unfigured, workerless
from lratlas import Task
from lratlas.atlas import Atlas, load
from lratlas.errors import JobsFailed, StudyError
from lratlas.execute.scheduler import Progress
from lratlas.study.progress import is_done
from lratlas.study.records import read_failures

Made = Callable[..., Task]

pytestmark = pytest.mark.xdist_group("execute")  # the study of one worker is made once

FRAGILE = """
import logging
import os
import signal
from pathlib import Path

from lratlas.models.mlp import MLP

print("what a module prints does not disturb the workers")


class Fragile(MLP):
    '''Does something at a given call of a process other than the first, unless a file is there.'''

    def __init__(self, home, flag, at, deed):
        super().__init__(4, (6,), 2, scale_invariant=True)
        self.home, self.flag, self.calls, self.deed = home, Path(flag), at, deed

    def forward(self, x):
        if os.getpid() != self.home and not self.flag.exists():
            self.calls -= 1
            if self.calls == 0 and self.deed == "die":
                self.flag.touch()  # once is enough
                os.kill(os.getpid(), signal.SIGKILL)
            if self.calls <= 0 and self.deed == "raise":
                raise RuntimeError("the first line of many\\nand the second")
        return super().forward(x)


class Choosy(MLP):
    '''Does not take 13 samples.'''

    def __init__(self, error):
        super().__init__(4, (6,), 2, scale_invariant=True)
        self.error = error

    def forward(self, x):
        if x.shape[0] == 13:
            raise self.error("not so many")
        return super().forward(x)


def make_choosy(error):
    return Choosy(error)


def make(home, flag, at, deed):
    return Fragile(home, flag, at, deed)


def made_with_words(home):
    if os.getpid() != home:
        logging.getLogger("lratlas").warning("%d lanes do not fit", 3)
        logging.getLogger("lratlas").info("nobody needs to know")
        logging.getLogger("another").warning("something else")
    return MLP(4, (6,), 2, scale_invariant=True)


def made_at_home(home):
    if os.getpid() != home:
        raise OSError("there is no model here")
    return MLP(4, (6,), 2, scale_invariant=True)
"""


@pytest.fixture(scope="module")
def by_one(tmp_path_factory: pytest.TempPathFactory, small_task: Made, sections: dict[str, Any]) -> Atlas:
    """The whole small study, made in this process."""
    with workerless(), undrawn():
        return lratlas.explore(small_task(), folder=tmp_path_factory.mktemp("one") / "study", **sections)


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module next to the user's script, neither installed nor in the current folder."""
    import importlib

    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/fragile_model.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(tmp_path / "beside")
    return importlib.import_module("fragile_model")


def test_two_workers_make_the_very_tables_that_one_process_makes(
    by_one: Atlas, tmp_path: Path, small_task: Made, sections: dict[str, Any]
):
    told: list[Progress] = []
    task = small_task()
    with unfigured():
        by_two = lratlas.explore(task, folder=tmp_path / "study", workers=2, progress=told.append, **sections)
    for name, table in by_one.tables.items():
        other = by_two.table(name)
        # The task has no images, and the others are not asked for.
        assert (len(table) > 0) == (name not in {"bands", "sharpness", "norms", "convergence", "power_law"})
        assert_frame_equal(table.drop("seconds", strict=False), other.drop("seconds", strict=False), check_exact=True)
    assert by_one.plan == by_two.plan
    # 2 seeds × 3 PLRs for 20 steps, and each fine-tuned with 2 FLRs for 12.
    work = 6 * 20 + 12 * 12
    assert {(each.work, each.jobs) for each in told} == {(work, told[0].jobs)}
    assert (told[0].work_done, told[0].jobs_done) == (0, 0)
    assert (told[-1].work_done, told[-1].jobs_done, told[-1].trained) == (work, told[0].jobs, work)
    assert [each.work_done for each in told] == sorted(each.work_done for each in told)
    assert any("pre-training" in each.doing for each in told)
    assert any("fine-tuning" in each.doing for each in told)
    assert Path(by_two.folder, "report.html").stat().st_size > 10_000


def test_a_finished_study_starts_no_worker(
    by_one: Atlas, small_task: Made, sections: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr("subprocess.Popen", refuse)
    before = {path: path.stat().st_mtime_ns for path in Path(by_one.folder, "tables/runs").iterdir()}
    told: list[Progress] = []
    lratlas.explore(small_task(), folder=by_one.folder, workers=2, progress=told.append, **sections)
    assert {path: path.stat().st_mtime_ns for path in Path(by_one.folder, "tables/runs").iterdir()} == before
    assert told == []


@pytest.fixture
def no_report() -> Iterator[None]:
    with undrawn():
        yield


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lratlas.execute.scheduler.PAUSES", (0.0, 0.0))


@pytest.mark.usefixtures("no_pauses", "no_report")
def test_what_a_killed_worker_was_at_is_done_by_another(
    by_one: Atlas,
    fragile: Any,
    tmp_path: Path,
    small_task: Made,
    sections: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
):
    # The steps of pre-training are over by then, fine-tuning has begun.
    task, told = small_task(model=partial(fragile.make, os.getpid(), tmp_path / "flag", 25, "die")), list[str]()
    atlas = lratlas.explore(task, folder=tmp_path / "study", notice=told.append, **sections)
    assert told
    assert all(re.fullmatch(r"\S+ failed and is retried: its worker .* SIGKILL \(out of.*", each) for each in told)
    failures = read_failures(atlas.store)
    assert len(failures) == len(told)
    assert not any(each.given_up for each in failures)
    # It is another model only in when it dies; runs have other names for that.
    for name in ("regimes", "pairs", "boundaries"):
        columns = by_one.table(name).columns
        assert_frame_equal(by_one.table(name), atlas.table(name).select(columns), check_exact=True)
    assert "Traceback" not in capfd.readouterr().err


# Code that raises an error raises it again; a disk or a network may be better next time.
ATTEMPTS: dict[type[Exception], list[tuple[int, bool]]] = {
    ValueError: [(1, True)],
    OSError: [(1, False), (2, False), (3, True)],
}


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("error", ATTEMPTS)
def test_a_job_that_keeps_failing_is_named_and_the_rest_is_done(
    error: type[Exception],
    fragile: Any,
    tmp_path: Path,
    small_task: Made,
    sections: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
):
    samples = torch.zeros(2, 13, 4), torch.arange(26).reshape(2, 13) % 2
    task = small_task(model=partial(fragile.make_choosy, error), singles=samples)
    sections = {name: fields for name, fields in sections.items() if name not in {"finetune", "average"}}
    tries = " in 3 attempts" if len(ATTEMPTS[error]) == 3 else ""
    words = (
        rf"^2 jobs failed{tries} \(features-\S+: {error.__name__}: not so many; fea.*\)\."
        r" All results so far are saved: run the same explore\(\) call again\.$"
    )
    with pytest.raises(JobsFailed, match=words) as caught, unfigured():
        lratlas.explore(task, folder=tmp_path / "study", **sections)
    assert "\n" not in str(caught.value)
    atlas = load(tmp_path / "study")
    attempts = [(each.attempt, each.given_up) for each in read_failures(atlas.store)]
    assert sorted(attempts) == sorted(2 * ATTEMPTS[error])
    assert atlas.plan is not None
    left = {job.id for job in atlas.plan.jobs if not is_done(atlas.store, job)}
    assert left == {job.id for job in atlas.plan.measuring("features")}
    assert all(name in str(caught.value) for name in left)
    assert Path(atlas.folder, "report.html").exists()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("no_pauses", "no_report")
def test_where_nothing_goes_well_what_needs_it_is_not_begun(
    fragile: Any, tmp_path: Path, small_task: Made, sections: dict[str, Any]
):
    task = small_task(model=partial(fragile.make, os.getpid(), tmp_path / "flag", 1, "raise"))
    words = r"RuntimeError: the first line of many\)\. \d+ jobs that need them were not started"
    with pytest.raises(JobsFailed, match=words):
        lratlas.explore(task, folder=tmp_path / "study", **sections)


@pytest.mark.usefixtures("no_report")
def test_a_worker_that_cannot_begin_ends_the_study(
    fragile: Any, tmp_path: Path, small_task: Made, sections: dict[str, Any], capfd: pytest.CaptureFixture[str]
):
    homebound = small_task(model=partial(fragile.made_at_home, os.getpid()))
    with pytest.raises(StudyError, match=r"^Creating the model failed: OSError: there is no model here"):
        lratlas.explore(homebound, folder=tmp_path / "other", **sections)
    assert load(tmp_path / "other").table("runs").is_empty()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("no_report")
def test_generated_data_are_drawn_by_the_workers_too(tmp_path: Path, small_task: Made):
    def task(seed: int) -> Task:
        base = small_task()
        return small_task(train=(base.train[0] + 0.1 * seed, base.train[1]), singles=None)

    atlas = lratlas.explore(
        task,
        folder=tmp_path / "study",
        pretrain={"lrs": [1e-2], "steps": 5, "repeats": 6},
        training={"compile": False},
    )
    runs = atlas.table("runs").sort("seed")
    assert runs["data_seed"].to_list() == [1, 2, 3, 4, 5, 6]
    assert runs["train_loss"].n_unique() == 6
    assert runs.select(pl.col("plr").unique()).item() == 1e-2


@pytest.mark.usefixtures("no_report")
def test_what_the_package_warns_of_in_a_worker_is_told_to_the_user(
    fragile: Any, tmp_path: Path, small_task: Made, capfd: pytest.CaptureFixture[str]
):
    """Only warnings of the package's logger, each given once; the study continues."""
    task = small_task(model=partial(fragile.made_with_words, os.getpid()), singles=None)
    told: list[str] = []
    atlas = lratlas.explore(
        task,
        folder=tmp_path / "study",
        notice=told.append,
        pretrain={"lrs": [1e-2], "steps": 4},
        training={"compile": False, "strategy": "stack"},
    )
    assert len(atlas.table("runs")) == 1
    assert told == ["3 lanes do not fit"]
    assert "something else" not in capfd.readouterr().out
