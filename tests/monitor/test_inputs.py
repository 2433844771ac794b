"""What a watch refuses, always with an error of the library that names the value."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn

from lratlas.errors import LRAtlasError, SpecError
from lratlas.monitor.losses import GatheredLosses, one_number
from lratlas.monitor.rules import Rules
from lratlas.monitor.watch import watch
from monitor.watch_helpers import Loop, plateau

NOT_NUMBERS: dict[str, object] = {
    "text": "0.5",
    "array of text": np.array("0.5"),
    "complex": 0.5 + 1j,
    "None": None,
    "True": True,
    "NumPy's True": np.True_,
    "list": [0.5, 0.5],
    "dictionary": {"loss": 0.5},
    "array": np.zeros(3),
    "empty array": np.zeros(0),
    "object": object(),
    "tensor": torch.zeros(2, 1),
    "empty tensor": torch.zeros(0),
    "boolean tensor": torch.tensor(True),
    "complex tensor": torch.tensor(1j),
    "tensor without a value": torch.zeros(1, device="meta"),
}


@pytest.mark.parametrize("name", NOT_NUMBERS)
def test_a_loss_that_is_no_number_is_refused_and_changes_nothing(name: str) -> None:
    loop, untouched = Loop(), Loop()
    loop.steps(plateau(40))
    untouched.steps(plateau(40))
    with pytest.raises(SpecError, match="the loss is "):
        loop.watch(NOT_NUMBERS[name])  # pyright: ignore[reportArgumentType]
    assert str(loop.watch.state_dict()) == str(untouched.watch.state_dict())


@pytest.mark.parametrize("name", [name for name in NOT_NUMBERS if name != "None"])
def test_an_accuracy_or_a_metric_that_is_no_number_is_refused(name: str) -> None:
    loop: Any = Loop(chance_accuracy=0.1, average=True)
    with pytest.raises(SpecError, match="the accuracy is "):
        loop.watch(0.5, accuracy=NOT_NUMBERS[name])
    loop.steps(plateau(40))
    with pytest.raises(SpecError, match="the metric is "):
        loop.watch.ahead(lambda: NOT_NUMBERS[name])


@pytest.mark.parametrize(
    "loss",
    [
        1,
        np.float32(1),
        np.int64(1),
        np.array([1.0]),
        Fraction(1),
        torch.ones(1, 1),
        torch.tensor(1),
        torch.ones(1).half(),
    ],
)
def test_numbers_of_every_kind_are_losses(loss: Any) -> None:
    seen = GatheredLosses()
    seen.add(one_number(loss, "loss"), None, step=0)
    seen.add(2.0, None, step=1)
    assert [means.loss for means in seen.drain(to_the_end=True)] == [1.0, 2.0]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), torch.tensor(float("-inf")), 10**400])
def test_losses_that_are_not_finite_are_evidence_and_no_error(loss: Any) -> None:
    loop = Loop()
    loop.steps([0.5] * 10 + [loss] * 40)
    assert loop.watch.regime == "diverging"


@pytest.mark.parametrize("accuracy", [90, 90.0, 1.5, torch.tensor(90.0), np.float32(55), -0.2, float("inf"), 300])
def test_an_accuracy_in_per_cent_is_refused(accuracy: Any) -> None:
    loop = Loop(chance_accuracy=0.1)
    with pytest.raises(SpecError, match="it must be a share from 0 to 1") as refused:
        loop.watch(0.5, accuracy=accuracy)
    assert ("if it is a percentage, divide it by 100" in str(refused.value)) == (1 < float(accuracy) <= 100)


@pytest.mark.parametrize("accuracy", [0, 1, 1.0000001, True + 0, np.float64(0.9), torch.tensor(0.9), float("nan")])
def test_a_share_is_an_accuracy(accuracy: Any) -> None:
    loop = Loop(chance_accuracy=0.1)
    for _ in range(40):
        loop.step(0.5, accuracy=accuracy)
    assert "0%" not in loop.watch.report() or float(accuracy) in (0.0, 1.0)


def test_an_accuracy_in_per_cent_on_an_accelerator_is_refused_when_it_is_fetched() -> None:
    class Remote(GatheredLosses):
        """Tensors stay what they are, as those on an accelerator."""

        def add(self, loss: Any, accuracy: Any, *, step: int, lr: float = 0.1, phase: int = 0) -> None:
            super().add(0.0, None, step=step, lr=lr, phase=phase)
            self._losses[-1], self._accuracies[-1] = loss, accuracy

    seen = Remote()
    for step in range(3):
        seen.add(torch.tensor(0.5), torch.tensor(90.0), step=step)
    with pytest.raises(SpecError, match=r"the accuracy is 90; .* divide it by 100 \(0.9\)"):
        list(seen.drain())
    found = list(seen.drain(to_the_end=True))  # the losses are not lost
    assert [(means.loss, means.accuracy) for means in found] == [(0.5, None)] * 3


@pytest.mark.parametrize(
    "given",
    [
        {"chance_accuracy": 10},
        {"chance_accuracy": 1},
        {"chance_accuracy": "0.1"},
        {"chance_accuracy": float("nan")},
        {"chance_accuracy": True},
        {"chance_loss": "2.3"},
        {"chance_loss": True},
        {"chance_loss": [2.3, 2.3]},
        {"chance_loss": 2.3j},
        {"false_alarm": None},
        {"false_alarm": "0.05"},
        {"false_alarm": -0.05},
        {"false_alarm": True},
        {"loss_is_progress": "no"},
        {"loss_is_progress": None},
        {"average": "yes"},
        {"model": "model"},
        {"on_change": 3},
        {"schedule": np.zeros(2)},
        {"schedule": {0: "0.5"}.get},
    ],
)
def test_options_of_the_wrong_type_or_range_are_named(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(SpecError, match=name.removesuffix("d")):
        Loop(**given)


def test_a_chance_accuracy_in_per_cent_is_explained() -> None:
    with pytest.raises(SpecError, match=r"chance_accuracy is 10; .* divide it by 100 \(0.1\)"):
        Loop(chance_accuracy=10)


@pytest.mark.parametrize("number", [np.float32(2.5), torch.tensor(2.5), np.array(2.5)])
def test_numbers_of_every_kind_are_settings(number: Any) -> None:
    rules = Rules(chance_loss=number)
    assert type(rules.chance_loss) is float
    assert rules == Rules(chance_loss=2.5)


@pytest.mark.parametrize(
    ("name", "value"), [("above", 0.5), ("above", "1.1"), ("settled_level", None), ("scheduled", 1)]
)
def test_rules_name_the_number_that_is_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(SpecError, match=f"{name} is "):
        Rules(**{name: value})


class Holder:
    """A wrapper whose attribute is set later."""

    optimizer: Any = None


class Delegates:
    """A wrapper that looks up everything in the optimizer that it lacks."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)


class Shell(torch.optim.Optimizer):
    """An optimizer by its class only, which holds itself."""

    def __init__(self) -> None:
        self.optimizer = self


def ring(length: int) -> Holder:
    holders = [Holder() for _ in range(length)]
    for one, other in zip(holders, [*holders[1:], holders[0]], strict=True):
        one.optimizer = other
    return holders[0]


@pytest.mark.parametrize("length", [1, 2, 5, 50])
def test_wrappers_that_refer_to_each_other_are_refused(length: int) -> None:
    with pytest.raises(SpecError, match=r"the optimizer is a Holder; .* leads back to a wrapper"):
        watch(ring(length))


@pytest.mark.parametrize("make", [Delegates, Shell, MagicMock])
def test_wrappers_without_an_end_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(SpecError, match=f"the optimizer is a {make.__name__}; it must be a PyTorch optimizer"):
        watch(make())


def test_an_optimizer_that_refers_to_itself_is_watched() -> None:
    inner: Any = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    inner.optimizer = inner
    outer = Holder()
    outer.optimizer = inner
    seen = watch(outer)
    inner.step()
    assert seen.steps == 1


@pytest.mark.parametrize("lr", [None, "missing"])
def test_an_optimizer_that_sets_its_own_learning_rate_is_watched(lr: str | None) -> None:
    class Own(torch.optim.Optimizer):
        """An optimizer with learning rates of no group, such as Adafactor with relative steps."""

        def step(self, closure: Any = None) -> Any:
            """Do nothing."""

    optimizer = Own([nn.Parameter(torch.zeros(1))], {"lr": None} if lr is None else {})
    seen = watch(optimizer, chance_loss=2.3)
    for loss in plateau(400):
        optimizer.step()
        seen(loss)
    assert seen.regime == "equilibrium"
    assert seen.log[-1].lr is None
    assert "at this learning rate" in seen.report()


@pytest.mark.parametrize("lr", ["0.1", 1j, [0.1]])
def test_a_learning_rate_that_is_no_number_is_named(lr: Any) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    optimizer.param_groups[0]["lr"] = lr
    with pytest.raises(SpecError, match="the learning rate of a parameter group is"):
        watch(optimizer)


def states() -> list[object]:
    whole = Loop().watch.state_dict()
    missing = whole | {"rates": {}}
    wrong = whole | {"gathered": {"losses": [], "accuracies": [], "given": [[1]], "open": None}}
    return [None, 3, "state", [], whole | {"extra": 1}, {1: 2, "a": 3}, missing, wrong, whole | {"tracker": None}]


@pytest.mark.parametrize("at", range(9))
def test_a_state_of_anything_else_is_refused(at: int) -> None:
    with pytest.raises(LRAtlasError, match="state"):
        Loop().watch.load_state_dict(states()[at])  # pyright: ignore[reportArgumentType]
