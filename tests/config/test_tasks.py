"""Tasks from the words of a spec: presets and a user's own functions."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lratlas.config.spec import spec_from
from lratlas.config.tasks import KEPT_TASKS, Tasks, tasks_from, training_seed
from lratlas.errors import LRAtlasError, SpecError, TaskError
from lratlas.training.fingerprint import fingerprint
from lratlas.training.prepared import Prepared, make_model

OWN = """
import torch

from lratlas.models.mlp import MLP

x = torch.arange(48.0).reshape(12, 4).sin()
y = torch.arange(12) % 3

def model(width=5, seed=None):
    return MLP(4, (width,), 3)

def data():
    return (x, y), (x[:6], y[:6])

def flat():
    return x, y, x, y

def lost():
    raise OSError("the disk is gone")

def swapped():
    return (y, x), (y[:6], x[:6])

def margin(outputs, targets):
    return (1 - outputs.gather(1, targets[:, None]).squeeze(1)).relu()

constant = 3
"""


def tasks(**fields: Any) -> Tasks:
    section = spec_from({"task": fields, "pretrain": {"lrs": [0.1], "steps": 1}}).task
    return tasks_from(section)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"own_{uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / f"{name}_broken.py").write_text("import nothing_of_that_name")
    return name


def test_every_repetition_of_ticks_has_its_own_seed_for_data_weights_and_order():
    made = tasks(preset="ticks", options={"train": 40, "test": 30, "single": 20})
    assert [(made.data_seed(r), training_seed(r)) for r in range(7)] == [(1 + r, 1 + r) for r in range(7)]
    assert made.of(0) is made.of(0)
    assert len({fingerprint(made.of(r)) for r in range(7)}) == 7
    heads = [make_model(made.of(r), training_seed(r)).get_parameter("layers.6.weight").detach() for r in range(7)]
    assert all(not torch.equal(head, other) for at, head in enumerate(heads) for other in heads[:at])
    task = made.of(0)
    assert [tuple(part.shape) for part in (*task.train, *task.test)] == [(40, 32), (40,), (30, 32), (30,)]
    assert task.singles is not None
    assert tuple(task.singles[0].shape) == (16, 20, 32)
    assert (task.classes, task.batch_size, task.update.name) == (2, 16, "sphere_sgd")


def test_few_generated_tasks_are_in_memory_and_others_are_made_again():
    base, calls = tasks(preset="digits").of(0), list[int]()

    def make(seed: int) -> Prepared:
        calls.append(seed)
        return replace(base, name=str(seed))

    made = Tasks(make=make, generated=True)
    names = [made.of(r).name for r in range(KEPT_TASKS + 5)]
    assert names == [str(1 + r) for r in range(KEPT_TASKS + 5)]
    assert len(made.made) == KEPT_TASKS
    assert (made.of(KEPT_TASKS + 4).name, made.of(0).name) == (str(KEPT_TASKS + 5), "1")
    assert calls == [*range(1, KEPT_TASKS + 6), 1]


def test_digits_are_one_stratified_split_of_all_images():
    made = tasks(preset="digits")
    assert [(made.data_seed(r), training_seed(r)) for r in range(3)] == [(None, 1), (None, 2), (None, 3)]
    task = made.of(0)
    assert made.of(4) is task
    images, labels = load_digits(return_X_y=True)
    x, y = torch.cat([task.train[0], task.test[0]]), torch.cat([task.train[1], task.test[1]])
    # The inputs are one affine map of the pixels, so that sorted rows must match, each with its label.
    pixels = np.rint((x - x.min()).numpy() / float(x.max() - x.min()) * 16)
    found = sorted(zip(map(tuple, pixels), y.tolist(), strict=True))
    assert found == sorted(zip(map(tuple, images), labels.tolist(), strict=True))
    share = torch.bincount(task.test[1]) / torch.bincount(y)
    assert torch.allclose(share, torch.tensor(0.3), atol=0.005)
    assert float(task.train[0].mean()) == pytest.approx(0, abs=1e-5)
    assert float(task.train[0].std()) == pytest.approx(1, abs=1e-5)


def test_digits_come_out_the_same_every_time_and_take_options():
    one, again = (tasks(preset="digits", batch_size=8, rule={"name": "sgd", "momentum": 0.5}) for _ in range(2))
    assert fingerprint(one.of(0)) == fingerprint(again.of(0))
    assert (one.of(0).batch_size, one.of(0).update.name) == (8, "sgd")
    assert one.of(0).update.settings["momentum"] == 0.5
    half = tasks(preset="digits", options={"test_share": 0.5}).of(0)
    assert abs(len(half.test[0]) - len(half.train[0])) <= 1


def test_digits_may_be_few_and_have_wrong_labels():
    """The same images with right and with wrong labels; of these as many as the share says. Tests are as they were."""
    whole, right, wrong = (
        tasks(preset="digits", options=options).of(0)
        for options in ({}, {"images": 200}, {"images": 200, "corruption": 0.25})
    )
    assert torch.equal(right.train[0], wrong.train[0])
    assert torch.bincount(right.train[1]).tolist() == [20] * 10
    assert int((right.train[1] != wrong.train[1]).sum()) == 50
    assert torch.equal(wrong.test[1], whole.test[1])


def test_own_functions_in_the_current_folder_are_found(module: str):
    made = tasks(
        model=f"{module}:model",
        data=f"{module}:data",
        loss=f"{module}:margin",
        options={"width": 7, "seed": 3},
        batch_size=6,
        rule={"name": "adam"},
    )
    task = made.of(0)
    assert made.data_seed(3) is None
    assert {tuple(value.shape) for value in task.model().parameters()} == {(7, 4), (7,), (3, 7), (3,)}
    assert (len(task.train[0]), len(task.test[0]), task.batch_size) == (12, 6, 6)
    assert (task.update.name, task.objective.name) == ("adam", "margin")
    outputs = torch.tensor([[0.25, 0.0, 0.0], [0.0, 0.0, 3.0]])
    assert task.objective.losses is not None
    assert task.objective.losses(outputs, torch.tensor([0, 2])).tolist() == [0.75, 0.0]
    assert float(task.objective.batch(outputs, torch.tensor([0, 2]))) == 0.375


WRONG: dict[str, tuple[dict[str, Any], type[LRAtlasError], str]] = {
    "unknown preset": ({"preset": "dgits"}, SpecError, r"no task preset 'dgits'.*choose one of ticks, digits"),
    "unknown option of a preset": (
        {"preset": "digits", "options": {"share": 0.5}},
        SpecError,
        "task preset digits has no option 'share' .did you mean test_share.*; it has .*test_share",
    ),
    "unknown option of ticks": (
        {"preset": "ticks", "options": {"margins": 0.5}},
        SpecError,
        "task preset ticks has no option 'margins' .did you mean margin.*; it has .*margin",
    ),
    "seed among the options": (
        {"preset": "ticks", "options": {"seed": 3}},
        SpecError,
        "task preset ticks has no option 'seed'",
    ),
    "batch size among the options": (
        {"preset": "digits", "options": {"batch_size": 3}},
        SpecError,
        "task preset digits has no option 'batch_size'; it has corruption, images, test_share",
    ),
    "value of another type": (
        {"preset": "ticks", "options": {"train": "many"}},
        SpecError,
        r"task\.options: task preset ticks cannot be created",
    ),
    "value out of range": (
        {"preset": "digits", "options": {"test_share": 2.0}},
        SpecError,
        r"task\.options: task preset digits cannot be created.* 2\.0",
    ),
    "unknown option of a model": (
        {"model": "M:model", "data": "M:data", "options": {"depth": 3}},
        SpecError,
        "M:model has no option 'depth'.*; it has seed, width",
    ),
    "missing module": (
        {"model": "missing_of_all:model", "data": "M:data"},
        SpecError,
        r"task\.model: .*missing_of_all",
    ),
    "module that fails": ({"model": "M_broken:model", "data": "M:data"}, SpecError, r"task\.model: .*nothing_of_that"),
    "missing function": (
        {"model": "M:model", "data": "M:load"},
        SpecError,
        r"task\.data: module M has no function 'load'",
    ),
    "not a function": ({"model": "M:constant", "data": "M:data"}, SpecError, r"task\.model: .* no function 'constant'"),
    "missing loss": (
        {"model": "M:model", "data": "M:data", "loss": "M:hinge"},
        SpecError,
        r"task\.loss: module M has no function 'hinge'",
    ),
    "data that fail": ({"model": "M:model", "data": "M:lost"}, TaskError, "M:lost failed: OSError: the disk is gone"),
    "data of another form": (
        {"model": "M:model", "data": "M:flat"},
        TaskError,
        r"M:flat must return a pair \(train, test\)",
    ),
    "data that do not fit": (
        {"model": "M:model", "data": "M:swapped", "batch_size": 3},
        TaskError,
        r"The model does not accept a batch of the data, \(3,\) torch\.int64",
    ),
    "batch that does not fit": (
        {"model": "M:model", "data": "M:data", "batch_size": 13},
        TaskError,
        r'batch_size is 13; it must be "full" or a whole number from 1 to 12 \(all samples\)',
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_task_is_said_in_one_sentence(case: str, module: str):
    fields, kind, words = WRONG[case]
    filled = {key: value.replace("M", module) if isinstance(value, str) else value for key, value in fields.items()}
    with pytest.raises(kind, match=words.replace("M", module)) as caught:
        tasks(**filled).of(0)
    assert "\n" not in str(caught.value)
