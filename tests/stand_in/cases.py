"""Studies and searches on the stand-in device; `tests/test_stand_in.py` runs this file in a separate process."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from torch import Tensor, nn

from lratlas import Task, find
from lratlas.api.explore import explore
from lratlas.cli.status import search_table
from lratlas.config import values
from lratlas.errors import TaskError
from lratlas.models.convnet import ConvNet
from lratlas.models.mlp import MLP
from lratlas.rng import preserve_generators, set_seed
from lratlas.stacks.strategy import faster_strategy
from lratlas.stacks.tensors import initial_tensors, program_of, samples
from lratlas.study.plan import read_stored_plan
from lratlas.study.store import Store
from lratlas.training.compiling import why_not_compiled
from lratlas.training.prepared import task_on
from lratlas.training.state import start_stack
from lratlas.training.trainer import train_stack
from stand_in.device import DEVICE, FLOAT64, NAME, waits
from study.fixtures import blobs

HOST = torch.device("cpu")
SECTIONS: dict[str, Any] = {
    "pretrain": {"lrs": [1e-3, 1e-1], "steps": 12},
    "finetune": {"lrs": [1e-3], "steps": 5},
    "average": {"counts": [2], "every": 3},
    "trace": {"points": 4},
    "measure": {"interpolation": 3, "norms": True, "convergence": True},
}
# Sums over samples in chunks of another size differ by rounding in float32.
CLOSE: dict[str, Any] = {"rel_tol": 1e-4, "abs_tol": 1e-5, "check_row_order": False}


def _no_report(*_: object, **__: object) -> str:
    """Reports do not depend on devices."""
    return ""


def _is_host(device: torch.device) -> bool:
    return device.type != NAME


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_DEVICE", re.compile(f"{values._DEVICE.pattern}|{NAME}"))  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr("lratlas.atlas.Atlas.write_report", _no_report)
    if not FLOAT64:
        monkeypatch.setattr("lratlas.devices.has_float64", _is_host)


class Weighted(nn.Module):
    """A loss with its weights in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.tensor([1.0, 1.5])

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, y, weight=self.weights)


class Shifted(nn.Module):
    """A transform and a layer with a tensor in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.full((4,), 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def pictures() -> Task:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(48, 3, 8, 8, generator=draw), torch.randint(3, (48,), generator=draw)
    return blobs(
        model=partial(ConvNet, channels=3, classes=3, width=4, scale_invariant=True),
        train=(x[:32], y[:32]),
        test=(x[32:], y[32:]),
        singles=None,
        rule={"name": "sphere_sgd", "radius": 5.0},
    )


def plain_model() -> nn.Module:
    return nn.Sequential(Shifted(), nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


CASES: dict[str, tuple[Callable[[], Task], str]] = {
    "a scale-invariant MLP, as a stack": (blobs, "stack"),
    "AdamW, as a stack": (
        partial(blobs, model=plain_model, rule="adamw", loss=Weighted(), transform=Shifted()),
        "stack",
    ),
    "NAdam, one by one": (partial(blobs, model=plain_model, rule=torch.optim.NAdam), "single"),
    "images, one by one": (pictures, "single"),
}


def tables(task: Task, folder: Path, device: str, strategy: str, **more: Any) -> dict[str, pl.DataFrame]:
    training: Any = {"device": device, "strategy": strategy, "compile": False, "segment_steps": 10}
    atlas = explore(task, folder=folder, workers=0, progress=False, training=training, **{**SECTIONS, **more})
    names = ("runs", "traces", "pairs", "norms", "convergence", "regimes")
    return {name: atlas.table(name) for name in names}


@pytest.mark.parametrize("case", CASES)
def test_a_whole_study_gives_the_tables_of_the_cpu(case: str, tmp_path: Path) -> None:
    make, strategy = CASES[case]
    expected, found = (tables(make(), tmp_path / device, device, strategy) for device in ("cpu", NAME))
    for name, table in expected.items():
        assert len(table)
        dropped = ["seconds"] if "seconds" in table.columns else []
        assert_frame_equal(found[name].drop(dropped), table.drop(dropped), **CLOSE)
    plan = read_stored_plan(Store.open(tmp_path / NAME))
    assert plan is not None
    assert (plan.device, plan.compiled) == (NAME, False)


def test_a_search_gives_the_evidence_of_the_cpu(tmp_path: Path) -> None:
    def advised(device: str) -> pl.DataFrame:
        lrs = [1e-3, 1e-2, 0.1, 1.0]
        find(blobs(), steps=60, lrs=lrs, folder=tmp_path / device, device=device, progress=False, validation=0.3)
        return search_table(str(tmp_path / device), None).drop("seconds")

    assert_frame_equal(advised(NAME), advised("cpu"), **CLOSE)


RULES: dict[str, Any] = {
    "sphere_sgd": "sphere_sgd",
    "adamw": "adamw",
    "NAdam": torch.optim.NAdam,
    "SGD": torch.optim.SGD,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("strategy", ["stack", "single"])
def test_no_step_waits_for_the_device(rule: str, strategy: Any) -> None:
    if strategy == "stack" and not isinstance(RULES[rule], str):
        pytest.skip("optimizer classes train one by one")
    model = partial(MLP, 4, (6,), 2, scale_invariant=True) if rule == "sphere_sgd" else plain_model
    task = task_on(blobs(model=model, rule=RULES[rule]).prepared, DEVICE, torch.float32)
    program = program_of(task, strategy=strategy, compiled=False, device=DEVICE)
    weights, buffers, frozen = initial_tensors([task], [0], 1, dtype=torch.float32, device=DEVICE)
    train = samples([task], "train", frozen, dtype=torch.float32, device=DEVICE)

    def waited(steps: int) -> list[str]:
        waits.clear()
        batches = torch.zeros(steps, 1, 8, dtype=torch.int64).to(DEVICE)
        lrs = torch.full((1, 1), 1e-3).to(DEVICE)
        train_stack(program, start_stack(weights, buffers, task.update), lrs=lrs, batches=batches, train=train)
        return [*waits]

    assert waited(9) == waited(3)  # an optimizer class reads its learning rate once


def test_a_stack_is_measured_on_the_device() -> None:
    task = task_on(blobs().prepared, DEVICE, torch.float32)
    assert faster_strategy(task, device=NAME, dtype="float32") in {"stack", "single"}


def test_the_compiler_is_tried_on_the_device(tmp_path: Path) -> None:
    reason = why_not_compiled(DEVICE)
    assert reason.startswith(f"a trial compilation for {NAME}:0 failed with ")
    notices, training = list[str](), cast("Any", {"device": NAME, "strategy": "stack"})
    pretrain: Any = {"lrs": [1e-2], "steps": 4}
    explore(
        blobs(), folder=tmp_path, workers=0, progress=False, training=training, pretrain=pretrain, notice=notices.append
    )
    assert any("Training runs uncompiled" in notice and "trial compilation" in notice for notice in notices)
    plan = read_stored_plan(Store.open(tmp_path))
    assert plan is not None
    assert not plan.compiled


def test_a_study_continues_on_another_device_and_records_it(tmp_path: Path) -> None:
    few = {"lrs": [1e-2], "steps": 12}
    tables(blobs(), tmp_path, "cpu", "stack", pretrain=few)
    more = {"lrs": [1e-2, 1e-1], "steps": 12}
    found = tables(blobs(), tmp_path, NAME, "stack", pretrain=more)
    plan = read_stored_plan(Store.open(tmp_path))
    assert plan is not None
    assert (plan.devices, plan.device) == (("cpu",), NAME)
    expected = tables(blobs(), tmp_path / "whole", "cpu", "stack", pretrain=more)
    assert_frame_equal(found["runs"].drop("seconds"), expected["runs"].drop("seconds"), **CLOSE)


def test_pooling_seeds_and_restores_the_generator_of_the_device() -> None:
    with preserve_generators():
        set_seed(1)
        first = torch.randn(3, device=NAME).cpu()
        with preserve_generators():
            torch.randn(5, device=NAME)
        set_seed(1)
        assert torch.equal(torch.randn(3, device=NAME).cpu(), first)


def test_dropout_on_the_device_resumes_where_it_stopped() -> None:
    from lratlas.rng import pack_generators, unpack_generators

    with preserve_generators():
        set_seed(1)
        torch.randn(3, device=NAME)
        packed = pack_generators()
        assert f"{NAME}/0" in packed
        expected = torch.randn(3, device=NAME).cpu()
        set_seed(2)
        unpack_generators(packed)
        assert torch.equal(torch.randn(3, device=NAME).cpu(), expected)


def test_a_loss_that_holds_tensors_of_the_host_in_a_closure_is_refused_by_name(tmp_path: Path) -> None:
    held = torch.ones(2)

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, y, weight=held)

    with pytest.raises(TaskError, match=f"The loss holds the tensor held on cpu, but it is needed on {NAME}"):
        tables(blobs(model=plain_model, rule="sgd", loss=loss), tmp_path, NAME, "stack")


def test_a_model_that_is_made_on_the_device_trains_as_elsewhere(tmp_path: Path) -> None:
    def away() -> nn.Module:
        return plain_model().to(NAME)

    made = {"cpu": plain_model, NAME: away}
    runs = [tables(blobs(model=each, rule="sgd"), tmp_path / on, on, "stack")["runs"] for on, each in made.items()]
    assert_frame_equal(runs[1].drop("seconds"), runs[0].drop("seconds"), **CLOSE)
