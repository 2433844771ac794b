"""Jobs on any executor and in the calling process: the bits of one worker, and what happens when something fails."""

import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from polars.testing import assert_frame_equal

import lratlas
from cheaper import undrawn
from lratlas import Task
from lratlas.atlas import Atlas, load
from lratlas.errors import JobsFailed, SpecError, StudyError
from lratlas.execute import executors
from lratlas.execute.run_job import own_state
from lratlas.execute.scheduler import Progress
from lratlas.models.mlp import MLP
from lratlas.rng import generator_states
from lratlas.study.folder import AGAIN
from lratlas.study.records import Failure, read_failures
from study.fixtures import SECTIONS, blobs
from study.running import LONG, kept_part_way, printed_by, ran_here, started, under_way, wait_until

pytestmark = [
    pytest.mark.xdist_group("run_job"),  # the study of one worker is made once
    pytest.mark.filterwarnings("ignore"),  # executors warn of threads, forks and sockets, each in its own way
]

FEW: dict[str, Any] = {"pretrain": {"lrs": [1e-3, 1e-1], "steps": 12}, "training": SECTIONS["training"]}
"""Sections of a study of two jobs: pre-training, and its features."""


def explore(folder: Path, task: Task | None = None, sections: dict[str, Any] = SECTIONS, **how: Any) -> Atlas:
    with undrawn():
        return lratlas.explore(task or blobs(), folder=folder, notice=lambda _: None, **how, **sections)


def assert_same(one: Atlas, other: Atlas) -> None:
    for name, table in one.tables.items():
        pair: list[Any] = [each.drop("seconds", strict=False) for each in (table, other.table(name))]
        assert_frame_equal(*pair, check_exact=True)


@pytest.fixture(autouse=True)
def asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that do not call back are asked again at once."""
    monkeypatch.setattr(executors, "_WAIT", 0.01)


@pytest.fixture(scope="module")
def by_worker(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """The small study, by a worker process."""
    return explore(tmp_path_factory.mktemp("worker") / "study", workers=1)


@dataclass
class Immediate:
    """An executor that runs what it is given at once, or in the end raises an error instead of it."""

    errors: list[Exception] = field(default_factory=list[Exception])
    calls: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        self.calls.append(args)
        future = Future[Any]()
        if self.errors:
            future.set_exception(self.errors.pop(0))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


class Polled:
    """A job that does not call back when it has ended, and is asked a few times before it has."""

    def __init__(self, future: "Future[Any]") -> None:
        self._future, self._asked = future, 0

    def done(self) -> bool:
        self._asked += 1
        return self._asked > 2 and self._future.done()

    def result(self) -> Any:
        assert self._asked > 2
        return self._future.result()


class Polling(Immediate):
    """An executor of such jobs."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return Polled(super().submit(fn, *args, **kwargs))


def test_in_this_process_the_bits_are_those_of_a_worker(by_worker: Atlas, tmp_path: Path):
    seen, threads = list[Progress](), torch.get_num_threads()

    def report(now: Progress) -> None:
        seen.append(now)
        torch.rand(1)

    torch.manual_seed(3)
    before, environment, path = generator_states(), dict(os.environ), list(sys.path)
    torch.set_num_threads(2)
    try:
        atlas = explore(tmp_path / "study", workers=0, progress=report)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert_same(by_worker, atlas)
    assert (dict(os.environ), list(sys.path)) == (environment, path)
    assert generator_states()[1:] == before[1:]  # the callback draws from the first
    # Progress is reported while a job runs: 6 runs of 20 steps, and each fine-tuned with 2 FLRs for 12.
    assert seen[-1].trained == seen[-1].work == 6 * 20 + 12 * 12
    assert [each.work_done for each in seen] == sorted(each.work_done for each in seen)


def test_jobs_see_a_fresh_process_whatever_the_process_has_set():
    threads, before = torch.get_num_threads(), generator_states()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            with own_state():
                assert (torch.get_num_threads(), torch.get_default_dtype()) == (1, torch.float32)
                assert torch.is_grad_enabled()
                torch.rand(1)
            assert (torch.get_num_threads(), torch.get_default_dtype()) == (2, torch.float64)
            assert not torch.is_grad_enabled()
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)
    assert generator_states() == before


@pytest.mark.parametrize("start", [lambda: ThreadPoolExecutor(2), Polling], ids=["threads", "polled"])
def test_on_an_executor_in_this_process_the_bits_are_those_of_a_worker(
    start: Callable[[], Any], by_worker: Atlas, tmp_path: Path
):
    torch.manual_seed(3)
    before = generator_states()
    executor, seen = start(), list[Progress]()
    assert_same(by_worker, explore(tmp_path / "study", executor=executor, workers=None, progress=seen.append))
    assert generator_states() == before
    assert seen[-1].trained == seen[-1].work


def test_on_other_processes_too(by_worker: Atlas, tmp_path: Path):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert_same(by_worker, explore(tmp_path / "study", executor=executor, workers=2))
        assert executor.submit(abs, -1).result() == 1  # it is left running


def test_a_study_that_was_begun_elsewhere_continues_on_an_executor(by_worker: Atlas, tmp_path: Path):
    def leave(now: Progress) -> None:
        if now.jobs_done == 2:
            raise KeyboardInterrupt

    for executor in (Immediate(), None):
        with pytest.raises(KeyboardInterrupt):
            explore(tmp_path / "study", workers=1 if executor else 0, executor=executor, progress=leave)
    done = len(load(tmp_path / "study").table("runs"))
    assert 0 < done < len(by_worker.table("runs"))
    assert_same(by_worker, explore(tmp_path / "study", executor=Polling()))


class BrokenNetworkError(Exception):
    """What an executor may raise instead of a result."""


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lratlas.execute.scheduler.PAUSES", (0.0, 0.0))


@pytest.mark.usefixtures("no_pauses")
def test_a_job_that_is_lost_is_submitted_again_with_other_arguments(tmp_path: Path):
    executor = Immediate(errors=[BrokenNetworkError("gone"), BrokenNetworkError("gone again")])
    atlas = explore(tmp_path / "study", sections=FEW, executor=executor)
    reasons = [(each.attempt, each.given_up, each.reason) for each in read_failures(atlas.store)]
    said = "its worker stopped with BrokenNetworkError: gone"
    assert reasons == [(1, False, f"{said}."), (2, False, f"{said} again.")]
    assert len({call[1] for call in executor.calls}) == len(executor.calls) - 2
    assert len({call[1:] for call in executor.calls}) == len(executor.calls)
    with pytest.raises(JobsFailed, match=r"A job failed in 3 attempts \(pretrain-\S+: its worker stopped with Brok"):
        explore(tmp_path / "other", sections=FEW, executor=Immediate(errors=[BrokenNetworkError("gone")] * 3))


def dying(home: int) -> MLP:
    """A model that ends the process that makes it, unless it is the given one."""
    if os.getpid() != home:
        os._exit(1)
    return MLP(4, (6,), 2, scale_invariant=True)


@pytest.mark.usefixtures("no_pauses")
def test_where_the_executor_breaks_the_study_can_be_continued_on_another(tmp_path: Path):
    task, single = blobs(model=partial(dying, os.getpid())), Immediate()
    words = r"The executor accepts no job: BrokenProcessPool: .* All results so far are saved: continue with another"
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor,
        pytest.raises(StudyError, match=words),
    ):
        explore(tmp_path / "study", task, FEW, executor=executor)
    (failure,) = read_failures(load(tmp_path / "study").store)
    assert "BrokenProcessPool" in failure.reason
    assert not failure.given_up
    assert len(explore(tmp_path / "study", task, FEW, executor=single).table("runs")) == 2


class Choosy(MLP):
    """Does not take 13 samples."""

    def __init__(self) -> None:
        super().__init__(4, (6,), 2, scale_invariant=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] == 13:
            raise ZeroDivisionError("not so many")
        return super().forward(x)


def choosy() -> Task:
    """A task whose features cannot be measured."""
    return blobs(model=Choosy, singles=(torch.zeros(2, 13, 4), torch.arange(26).reshape(2, 13) % 2))


def test_a_job_that_fails_on_an_executor_is_named_and_the_rest_is_done(tmp_path: Path):
    words = r"^A job failed \(features-\S+: ZeroDivisionError: not so many\)\. All results so far are saved"
    with pytest.raises(JobsFailed, match=words):
        explore(tmp_path / "study", choosy(), FEW, executor=Immediate())
    assert len(load(tmp_path / "study").table("runs")) == 2


def test_in_this_process_the_first_error_is_raised_where_it_is_and_written_down(tmp_path: Path):
    with pytest.raises(ZeroDivisionError, match="not so many") as caught:
        explore(tmp_path / "study", choosy(), FEW, workers=0)
    assert caught.traceback[-1].name == "forward"
    (note,) = caught.value.__notes__
    (failure,) = read_failures(load(tmp_path / "study").store)
    assert failure == Failure(job=failure.job, attempt=1, reason="ZeroDivisionError: not so many.", given_up=True)
    assert failure.job.startswith("features-")
    assert note == f"This was the job {failure.job}. All results so far are saved: {AGAIN}."


SPEC = """
[task]
model = "own_module_of_jobs:make"
data = "own_module_of_jobs:load"
batch_size = 8
[pretrain]
lrs = [1e-2, 1e-1]
steps = 8
[measure]
geometry = false
[training]
compile = false
"""
MODULE = """
import os
import torch
from torch import nn

print("a module prints")

class Model(nn.Linear):
    def forward(self, x):
        if os.path.exists("fail") and x.shape[0] == 13:
            raise ZeroDivisionError("not so\\nmany")
        return super().forward(x)

def make():
    return Model(4, 2)

def load():
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    return (x, (x[:, 0] > 0).long()), (x[:13], (x[:13, 1] > 0).long())
"""


@undrawn()
def test_the_command_line_does_jobs_in_its_own_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC)
    (tmp_path / "own_module_of_jobs.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "fail").touch()
    here, there = (("explore", spec, "--folder", tmp_path / name, "--workers") for name in ("here", "there"))
    code, out, errors = ran_here(*here, 0)
    assert code == 2
    assert "a module prints" not in out
    assert "Traceback" not in errors
    assert "lratlas: ZeroDivisionError: not so. This was the job pretrain-" in errors
    assert re.search(r"All results so far are saved: run `lratlas resume \S+here`\.$", errors.strip())
    (tmp_path / "fail").unlink()
    printed_by(*here, 0)
    printed_by(*there, 1)
    assert_same(load(tmp_path / "here"), load(tmp_path / "there"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_this_process_keeps_its_stack_first(number: int, tmp_path: Path):
    folder, spec = tmp_path / "study", tmp_path / "long.toml"
    spec.write_text(LONG)
    with started("explore", spec, "--folder", folder, "--workers", 0) as process:
        under_way(folder, workers=1)
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "no result is lost" in errors
    assert "Traceback" not in errors
    assert kept_part_way(folder)


def test_a_handler_that_takes_note_of_a_signal_lets_the_job_continue(by_worker: Atlas, tmp_path: Path):
    noted, before = list[int](), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, _: noted.append(number))

    def send(now: Progress) -> None:
        if now.doing and not noted:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        atlas = explore(tmp_path / "study", workers=0, progress=send)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert noted
    assert_same(by_worker, atlas)


def test_in_another_thread_signals_are_left_alone(tmp_path: Path):
    found = list[Atlas]()
    thread = threading.Thread(target=lambda: found.append(explore(tmp_path / "study", sections=FEW, workers=0)))
    thread.start()
    thread.join()
    assert len(found[0].table("runs")) == 2


CALLS = [0]
"""Of the model below, in this process."""


class Counting(MLP):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__(4, (6,), 2, scale_invariant=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        CALLS[0] += 1
        return super().forward(x)


def test_a_job_in_a_thread_keeps_its_stack_when_the_study_is_interrupted(tmp_path: Path):
    def leave(now: Progress) -> None:
        if now.doing:
            begun = CALLS[0]
            wait_until(lambda: CALLS[0] > begun + 300, within=60)
            raise KeyboardInterrupt

    sections = FEW | {"pretrain": {"lrs": [1e-2], "steps": 20_000}, "training": {"compile": False, "strategy": "stack"}}
    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyboardInterrupt):
        explore(tmp_path / "study", blobs(model=Counting), sections, executor=executor, progress=leave)
    assert kept_part_way(tmp_path / "study")


class Submits:
    """Something whose jobs cannot be waited for."""

    def submit(self, *_: object) -> str:
        return "later"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"executor": [1]}, r"executor is \[1\], which has no submit\(\)"),
        ({"executor": ThreadPoolExecutor}, "executor is the class ThreadPoolExecutor; pass an instance"),
        ({"executor": Immediate(), "cluster": "auto"}, "executor and cluster exclude each other"),
        ({"executor": Immediate(), "workers": 0}, "workers is 0, which means this process"),
        ({"workers": 0, "cluster": "auto"}, "workers is 0, which means this process"),
        ({"executor": Submits()}, r"executor\.submit\(\) returned a str, which is not a future"),
    ],
)
def test_what_cannot_do_jobs_is_refused(how: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises(StudyError, match=said):
        explore(tmp_path / "study", sections=FEW, **how)


def test_a_refused_call_leaves_no_folder_that_another_study_could_not_have(tmp_path: Path):
    refused: list[dict[str, Any]] = [{"executor": [1]}, {"workers": -1}, {"executor": Immediate(), "workers": 0}]
    for how in refused:
        with pytest.raises(StudyError):
            explore(tmp_path / "study", sections=FEW, **how)
    with pytest.raises(SpecError, match="is part of the package"):
        explore(tmp_path / "study", sections={**FEW, "measure": ["sharpness"]})
    assert not (tmp_path / "study").exists()
