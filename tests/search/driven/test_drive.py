"""Searches whose trainings resist, fail, end early, are dropped or interrupted."""

import _thread
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lratlas.errors import SearchError, SpecError
from lratlas.rng import generator_states
from lratlas.search.driven import drive
from lratlas.search.driven.find import find_by_function
from lratlas.search.finder import Finder

LRS = [0.01, 0.1, 0.5]
STEPS = 128
x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
y = x[:, 0] * 2 - x[:, 1]


def parts() -> tuple[nn.Linear, Callable[[float], torch.optim.Optimizer]]:
    model = nn.Linear(4, 1)
    return model, lambda lr: torch.optim.SGD(model.parameters(), lr=lr)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    at = torch.randint(64, (8,))
    optimizer.zero_grad()
    loss = (model(x[at])[:, 0] - y[at]).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


def train(lr: float) -> None:
    model, make = parts()
    optimizer = make(lr)
    for _ in range(STEPS):
        step(model, optimizer)


def error(model: nn.Module) -> float:
    return float((model(x)[:, 0] - y).square().mean())


def plain(lr: float) -> None:
    train(lr)


def found(given: Callable[..., object], folder: Path, **settings: Any) -> list[Any]:
    options: dict[str, Any] = {"value": error, "steps": STEPS, "lrs": LRS, "budget": 0.4}
    find_by_function(given, folder=folder, **(options | settings))
    return told(folder)


def told(folder: Path) -> list[Any]:
    return [(each.segment, each.value, each.averaged, each.losses, each.failure) for each in Finder(folder).results]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What is found of the plain training."""
    return found(plain, tmp_path_factory.mktemp("plain") / "search")


def test_trainings_that_are_dropped_and_trained_again_come_to_the_same(
    whole: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    starts = list[float]()

    def counted(lr: float) -> None:
        starts.append(lr)
        train(lr)

    assert found(counted, tmp_path / "kept") == whole
    few = len(starts)
    monkeypatch.setattr(drive, "_full", lambda: True)
    assert found(counted, tmp_path / "dropped") == whole
    assert len(starts) - few > few


def test_a_training_that_finds_no_memory_is_trained_again_without_those_that_wait(whole: list[Any], tmp_path: Path):
    alive, failed = list[float](), list[float]()

    def hungry(lr: float) -> None:
        if alive:
            failed.append(lr)
            raise torch.OutOfMemoryError("CUDA out of memory")
        alive.append(lr)
        try:
            train(lr)
        finally:
            alive.remove(lr)

    assert found(hungry, tmp_path) == whole
    assert failed


def test_a_training_that_finds_no_memory_alone_ends_the_search_and_is_not_recorded(whole: list[Any], tmp_path: Path):
    errors = [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ]

    def hungry(lr: float) -> None:
        if lr == LRS[1]:
            raise errors.pop()
        train(lr)

    while errors:
        with pytest.raises(SearchError, match=r"The training at LR 0\.1 ran out of memory.* smaller batch"):
            found(hungry, tmp_path)
        assert [(segment.lr, failure) for segment, *_, failure in told(tmp_path)] == [(LRS[0], None)]
    # With more memory, it is the search that it would have been.
    assert found(plain, tmp_path) == whole


@pytest.mark.parametrize("catch", [Exception, BaseException])
def test_code_that_catches_everything_is_left(catch: type[BaseException], tmp_path: Path):
    steps = dict[float, int]()

    def stubborn(lr: float) -> None:
        model, make = parts()
        optimizer = make(lr)
        for _ in range(10 * STEPS):
            try:
                steps[lr] = steps.get(lr, 0) + 1
                step(model, optimizer)
            except catch:
                pass

    results = found(stubborn, tmp_path)
    assert len(results) > len(LRS)
    assert max(steps.values()) < STEPS  # none trained on


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # as Ctrl-C does


@pytest.mark.parametrize("interrupt", [interrupt, _thread.interrupt_main])
def test_an_interrupted_search_leaves_nothing_behind_and_resumes(
    interrupt: Callable[[], None], whole: list[Any], tmp_path: Path
):
    count, ended = [0], list[int]()

    def interrupted(lr: float) -> None:
        os.chdir(tmp_path)
        sys.argv = ["changed"]
        os.environ["LRATLAS_CHANGED"] = "1"
        logging.basicConfig(level=logging.DEBUG, force=True)
        warnings.simplefilter("ignore")
        model, make = parts()
        optimizer = make(lr)
        try:
            for _ in range(STEPS):
                count[0] += 1
                if count[0] == 9:
                    interrupt()
                    time.sleep(0.2)
                step(model, optimizer)
        finally:
            ended.append(count[0])

    def state() -> tuple[Any, ...]:
        scaler = torch.amp.GradScaler
        return (
            os.getcwd(), list(sys.argv), dict(os.environ), sys.stdout, sys.stderr, sys.stdin, generator_states(),  # noqa: PTH109
            torch.autograd.backward, scaler.scale, scaler.update, signal.signal, list(logging.root.handlers),
            logging.root.level, list(warnings.filters), sys.modules["__main__"],
        )  # fmt: skip

    before, asleep = state(), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        found(interrupted, tmp_path / "parts")
    assert state() == before
    assert len(ended) >= 1
    steps = count[0]
    time.sleep(0.1)
    assert count[0] == steps
    assert threading.active_count() <= asleep
    assert found(plain, tmp_path / "parts") == whole


def test_trainings_that_end_early_or_fail_at_some_lrs_are_said_to(tmp_path: Path):
    def early(lr: float) -> None:
        model, make = parts()
        optimizer = make(lr)
        for at in range(STEPS):
            step(model, optimizer)
            if lr == LRS[0] and at == 1:
                return
            if lr == LRS[1] and at == 0:
                sys.exit(3)

    results = {each.segment.lr: each for each in _results(early, tmp_path)}
    assert results[LRS[0]].failure is not None
    assert "SystemExit: 3" in str(results[LRS[1]].failure)
    assert results[LRS[2]].failure is None


def _results(given: Callable[..., object], folder: Path, **settings: Any) -> Any:
    found(given, folder, **settings)
    return Finder(folder).results


def test_trainings_that_stop_where_their_loss_is_not_finite_have_diverged(tmp_path: Path):
    def careful(lr: float) -> None:
        model, make = parts()
        optimizer = make(lr)
        for _ in range(STEPS):
            if not step(model, optimizer).isfinite():
                return

    results = _results(careful, tmp_path, lrs=[0.1, 1e20, 1e25, 1e30])
    assert all("not finite" in each.failure for each in results if each.segment.lr > 1)


def test_a_scaler_that_skips_all_steps_has_diverged(tmp_path: Path):
    count = dict[float, int]()

    def skipping(lr: float) -> None:
        model, make = parts()
        optimizer, scaler = make(lr), torch.amp.GradScaler("cpu")
        for _ in range(10 * STEPS):
            count[lr] = count.get(lr, 0) + 1
            optimizer.zero_grad()
            loss = (model(x)[:, 0] - y).square().mean() * (float("nan") if lr == LRS[2] else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    results = _results(skipping, tmp_path)
    assert [each.failure is not None for each in results if each.segment.lr == LRS[2]] == [True]
    assert "not finite" in next(each.failure for each in results if each.failure)
    assert count[LRS[2]] < STEPS


def test_what_failed_because_of_a_mistake_is_trained_again_once_it_is_mended(whole: list[Any], tmp_path: Path):
    with pytest.raises(SearchError, match=r"NameError: name 'models' is not defined \(did you mean model\?\)"):
        found(plain, tmp_path, value="error(models)")
    assert told(tmp_path) == []
    assert found(plain, tmp_path) == whole


def test_a_training_that_is_an_import_is_dropped_where_others_need_the_import(
    whole: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "looped_at_import.py").write_text(
        "import builtins\nfrom driven_looped import step, parts, STEPS\nmodel, make = parts()\n"
        "optimizer = make(builtins.lratlas_lr)\nfor _ in range(STEPS): step(model, optimizer)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "driven_looped", sys.modules[__name__])
    import builtins

    def imports(lr: float) -> None:
        builtins.lratlas_lr = lr  # pyright: ignore[reportAttributeAccessIssue]
        importlib.import_module("looped_at_import")

    assert found(imports, tmp_path / "imported", value="error(model)") == whole
    assert "looped_at_import" not in sys.modules


def generated(lr: float) -> Any:
    model, make = parts()
    optimizer = make(lr)
    for _ in range(STEPS):
        yield step(model, optimizer)


async def awaited(lr: float) -> None:
    train(lr)


def keyword(*, epochs: int = 3, learning_rate: float = 0.3) -> None:
    assert epochs == 3
    train(learning_rate)


def passed(*args: Any, **kwargs: Any) -> None:
    train(*args, **kwargs)


def named(**kwargs: Any) -> None:
    train(kwargs["lr"])


@pytest.mark.parametrize("given", [generated, awaited, keyword, passed, named])
def test_functions_of_any_kind_are_given_the_lr(given: Any, whole: list[Any], tmp_path: Path):
    assert found(given, tmp_path) == whole


def test_a_function_that_needs_more_is_named(tmp_path: Path):
    def needy(lr: float, data: object) -> None: ...

    with pytest.raises(SpecError, match=r"also needs data: .* lambda lr"):
        found(needy, tmp_path)


def test_a_function_with_other_arguments_only_has_its_lr_scaled(whole: list[Any], tmp_path: Path):
    def own(epochs: int = 3) -> None:
        assert epochs == 3
        train(0.25)

    assert found(own, tmp_path) == whole  # to the last digit


def test_seeds_are_those_of_the_search(tmp_path: Path):
    def seeded(lr: float, seed: int) -> None:
        torch.manual_seed(seed)
        train(lr)

    def fixed(lr: float) -> None:
        torch.manual_seed(0)
        train(lr)

    close: dict[str, Any] = {"lrs": [0.09, 0.1], "steps": 64, "budget": 3, "tolerance": 0.5}
    for given in (plain, seeded):
        results = _results(given, tmp_path / given.__name__, **close)
        assert {each.segment.seed for each in results} > {0}
    advice = find_by_function(fixed, value=error, folder=tmp_path / "fixed", **close)
    assert any("sets its own seed" in each for each in advice.warnings)


@pytest.mark.parametrize("epochs", [1, 4])
@pytest.mark.parametrize("steps", [STEPS, None])
def test_a_model_that_all_trainings_share_is_named(steps: int | None, epochs: int, tmp_path: Path):
    model, make = parts()

    def shared(lr: float) -> None:
        for _ in range(epochs):
            optimizer = make(lr)
            for _ in range(STEPS // epochs):
                step(model, optimizer)

    with pytest.raises(SearchError, match=r"the same parameters: .* created outside the function"):
        found(shared, tmp_path / "search", steps=steps)


def test_a_part_that_all_trainings_share_and_none_trains_is_no_error(tmp_path: Path):
    backbone = nn.Linear(4, 4)

    def train_head(lr: float) -> None:
        model = nn.Sequential(backbone, nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        for _ in range(STEPS):
            with torch.no_grad():
                features = backbone(x)
            optimizer.zero_grad()
            (model[1](features)[:, 0] - y).square().mean().backward()
            optimizer.step()

    assert all(each[-1] is None for each in found(train_head, tmp_path / "search", lrs=[0.001, 0.01]))


def test_what_a_training_and_its_processes_write_is_in_its_file(tmp_path: Path):
    copy = tmp_path / "copy.txt"

    def writes(lr: float) -> None:
        class Tee:
            def write(self, text: str) -> int:
                with copy.open("a") as file:
                    file.write(text)
                return usual.write(text)

            def flush(self) -> None:
                usual.flush()

        usual, sys.stdout = sys.stdout, Tee()  # pyright: ignore[reportAttributeAccessIssue]
        model, make = parts()
        optimizer = make(lr)
        subprocess.run([sys.executable, "-c", f"print('a process at {lr}')"], check=True)
        for at in range(STEPS):
            sys.stdout.write(f"step {at} at {lr}\n")
            step(model, optimizer)

    before = sys.stdout
    found(writes, tmp_path / "search")
    assert sys.stdout is before
    files = [each.read_text().splitlines() for each in sorted((tmp_path / "search" / drive.OUTPUT).glob("*.txt"))]
    assert len(files) >= len(LRS)
    for process, *lines in files:
        lr = process.removeprefix("a process at ")
        assert lines == [f"step {at} at {lr}" for at in range(len(lines))]
        assert len(lines) > 1
    assert sorted(copy.read_text().splitlines()) == sorted(each for lines in files for each in lines[1:])
