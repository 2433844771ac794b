"""What is settled before a study is planned."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lratlas import Task
from lratlas.atlas import Atlas
from lratlas.config.sections import Spec
from lratlas.config.spec import spec_from
from lratlas.errors import SpecError, TaskError
from lratlas.models.mlp import MLP
from lratlas.study import preflight
from lratlas.study.preflight import check_task, device_name, measurement_options, strategy_of
from lratlas.training.prepared import Prepared
from lratlas.training.program import Strategy
from lratlas.training.rules import Rule, State
from lratlas.training.sphere import Weights
from study.pictures import picture_spec

Made = Callable[..., Task]


def spec(**sections: Any) -> Spec:
    return spec_from({"task": {"preset": "digits"}, "pretrain": {"lrs": [0.1], "steps": 1}} | sections)


AVERAGED: dict[str, Any] = {"pretrain": {"lrs": [0.1], "steps": 2}, "average": {"counts": [2], "every": 1}}


def image_task(*size: int) -> Prepared:
    """Floating-point images [n, 1, *size] of two classes."""
    x = torch.randn(12, 1, *size, generator=torch.Generator().manual_seed(0))
    y = torch.arange(12) % 2
    return Task(model=partial(MLP, x[0].numel(), (4,), 2), train=(x, y), test=(x, y), batch_size=4).prepared


@pytest.mark.parametrize("strategy", ["auto", "stack", "single"])
def test_mixed_precision_is_for_gpus(strategy: str, small_task: Made):
    wanted = spec(training={"mixed_precision": True, "strategy": strategy})
    with pytest.raises(SpecError, match=r"`training\.mixed_precision` is true, but the device is the CPU"):
        strategy_of(wanted, small_task().prepared, "cpu", print)


def test_an_optimizer_trains_one_run_at_a_time(small_task: Made):
    task = small_task(model=partial(MLP, 4, (6,), 2), rule=torch.optim.NAdam, singles=None).prepared
    with pytest.raises(SpecError, match=r"`training\.strategy` is 'stack', but optimizer NAdam cannot train stacks"):
        strategy_of(spec(training={"strategy": "stack"}), task, "cpu", print)
    for strategy in ("auto", "single"):
        assert strategy_of(spec(training={"strategy": strategy}), task, "cpu", print) == "single"


def test_a_named_strategy_is_taken_without_measuring(small_task: Made, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> Strategy:
        raise AssertionError("it was measured")

    monkeypatch.setattr(preflight, "faster_strategy", refuse)
    for strategy in ("stack", "single"):
        assert strategy_of(spec(training={"strategy": strategy}), small_task().prepared, "cpu", print) == strategy


def test_runs_that_are_trained_one_by_one_since_they_cannot_be_stacked_are_said_to_be(small_task: Made):
    def update(weights: Weights, gradients: Weights, state: State, lrs: Tensor) -> tuple[Weights, State]:
        # As if there were one run: right for a single one only.
        return {name: value - lrs[0, 0] * gradients[name] for name, value in weights.items()}, state

    rule, said = Rule(name="mine", settings={}, start=lambda _: {}, update=update), list[str]()
    assert strategy_of(spec(), small_task(rule=rule).prepared, "cpu", said.append) == "single"
    (sentence,) = said
    assert sentence.startswith("Runs cannot be trained as one program, so they are trained one by one")


def choosing(strategy: Strategy) -> Callable[..., Strategy]:
    """A measurement that comes out as wanted."""

    def choose(*_: object, **__: object) -> Strategy:
        return strategy

    return choose


@pytest.mark.parametrize("choice", ["stack", "single"])
def test_auto_takes_what_is_faster_and_a_study_keeps_it(
    choice: Strategy,
    pictures: Path,
    conducted: Callable[..., Atlas],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    training = {"device": "cpu", "compile": False, "strategy": "auto"}
    short: dict[str, Any] = {"finetune": None, "average": None, "training": training, "measure": {"bands": False}}
    monkeypatch.setattr(preflight, "faster_strategy", choosing(choice))
    first = conducted(tmp_path / "study", picture_spec(pictures, pretrain={"lrs": [1e-2], "steps": 4}, **short))
    other: Strategy = "single" if choice == "stack" else "stack"
    monkeypatch.setattr(preflight, "faster_strategy", choosing(other))
    wide = picture_spec(pictures, pretrain={"lrs": [1e-3, 1e-2, 1e-1], "steps": 4}, **short)
    extended = conducted(tmp_path / "study", wide)
    assert first.plan is not None
    assert extended.plan is not None
    assert first.plan.strategy == extended.plan.strategy == choice
    # The two added runs are one stack, or two single ones.
    assert [job.size for job in extended.plan.trainings] == ([1, 2] if choice == "stack" else [1, 1, 1])
    assert extended.spec.training.strategy == "auto"


def normed(**settings: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, **settings), nn.Linear(6, 2))


class Counting(nn.Module):
    """A model that counts its passes in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.get_buffer("passes").add_(1)
        return self.head(x)


def test_batch_norm_with_running_statistics_can_be_studied(small_task: Made):
    check_task(spec(**AVERAGED), small_task(model=normed, rule="sgd", singles=None).prepared)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (partial(normed, track_running_stats=False), "batch norm 1 has no running statistics or no momentum"),
        (partial(normed, momentum=None), "batch norm 1 has no running statistics or no momentum"),
        (Counting, "has running statistics in passes, which averaged and interpolated models lack"),
    ],
)
def test_models_whose_averages_would_lack_statistics_are_refused(
    model: Callable[[], nn.Module], words: str, small_task: Made
):
    with pytest.raises(TaskError, match=words):
        check_task(spec(**AVERAGED), small_task(model=model, rule="sgd", singles=None).prepared)


def test_a_device_that_is_not_there_is_refused():
    assert device_name("cpu", field="device") == "cpu"
    with pytest.raises(SpecError, match=r"`training\.device` is 'cuda:77', which this machine does not have"):
        device_name("cuda:77", field="`training.device`")


def bands_in(spec: Spec, task: Prepared) -> object:
    return measurement_options(spec, task).get("bands")


def test_the_usual_bands_are_a_quarter_a_half_and_a_quarter(small_task: Made):
    assert bands_in(spec(), image_task(32, 32)) == {"bands": ((0, 0), (1, 8), (9, 24), (25, 32))}
    assert bands_in(spec(), image_task(28, 28)) == {"bands": ((0, 0), (1, 7), (8, 21), (22, 28))}
    assert bands_in(spec(measure={"bands": False}), image_task(8, 8)) is None
    assert bands_in(spec(), small_task().prepared) is None


def test_bands_may_be_named_up_to_the_highest_one(small_task: Made):
    # 5 x 8 pixels: 2 cycles one way and 4 the other.
    named = spec(measure={"bands": [[3, 6], [0, 2]]})
    assert bands_in(named, image_task(5, 8)) == {"bands": ((0, 2), (3, 6))}
    with pytest.raises(SpecError, match=r"`measure\.bands` goes up to 7, but images of 5 x 8 have the bands 0 to 6"):
        bands_in(spec(measure={"bands": [[0, 7]]}), image_task(5, 8))
    with pytest.raises(SpecError, match=r"goes up to 9, but"):
        bands_in(spec(measure={"bands": [[0, 9], [1, 2]]}), image_task(5, 8))
    with pytest.raises(SpecError, match=r"`measure\.bands` names bands, but the task's inputs are not images"):
        bands_in(named, small_task().prepared)


def test_mixed_precision_is_of_float32(small_task: Made):
    wanted = spec(training={"mixed_precision": True, "dtype": "float64"})
    with pytest.raises(SpecError, match="mixed precision needs float32"):
        strategy_of(wanted, small_task().prepared, "cuda", print)


class Twice(nn.Module):
    """One batch norm in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(self.norm(x))))


def test_a_batch_norm_used_twice_is_refused_where_weights_are_averaged_or_interpolated():
    x, y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2
    task = Task(model=Twice, train=(x, y), test=(x, y), batch_size=4)
    with pytest.raises(TaskError, match=r"The batch norm norm is used more than once in a forward pass"):
        check_task(spec(**AVERAGED), task.prepared)
    check_task(spec(), task.prepared)


def to_reciprocals(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets.reciprocal()).square().mean()


def to_ratios(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets / targets).square().mean()


@pytest.mark.parametrize(("loss", "value"), [(to_reciprocals, "inf"), (to_ratios, "nan")])
def test_a_loss_that_is_not_finite_before_training_is_refused(loss: Callable[[Tensor, Tensor], Tensor], value: str):
    """It is finite on the samples with which a task is prepared."""
    x, y = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), torch.ones(64, 2)
    y[::2] = -1
    y[1] = 0
    pair = x, y
    task = Task(model=partial(nn.Linear, 4, 2), train=pair, test=pair, loss=loss, batch_size=4)
    words = rf"^The loss {loss.__name__} is {value} for the untrained model on some of the training data\. Regimes"
    with pytest.raises(TaskError, match=words):
        check_task(spec(), task.prepared)
