"""Tensors of a user's function are moved to the device, or named where they cannot be."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lratlas.errors import TaskError
from lratlas.training.placing import copy_to, on_device

HOST, AWAY = torch.device("cpu"), torch.device("meta")
WEIGHT = torch.ones(2, device=AWAY)
CRITERION = nn.CrossEntropyLoss(weight=WEIGHT)
LOSSES = {"first": [CRITERION]}


class Holder:
    """An object with a loss, and with tensors that the loss does not use."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.data, self.criterion = weight, torch.ones(3, device=AWAY), nn.CrossEntropyLoss()
        self.me = self

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self._weighted(outputs, y) + self.criterion(outputs, y)

    def _weighted(self, outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, y, weight=self.scaled)

    @property
    def scaled(self) -> Tensor:
        return 2 * self.weight

    def as_closure(self) -> Callable[..., Tensor]:
        def loss(outputs: Tensor, y: Tensor) -> Tensor:
            return functional.cross_entropy(outputs, y, weight=self.weight)

        return loss


class Called(Holder):
    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.loss(outputs, y)


class Weighted(nn.Module):
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(2))

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, y, weight=self.weight)


def closed(held: Any) -> Callable[..., Any]:
    def loss(outputs: Any, y: Any) -> Any:
        return held, outputs, y

    return loss


def nested(held: Any) -> Callable[..., Any]:
    def inner(outputs: Any) -> Any:
        return held, outputs

    def loss(outputs: Any, y: Any) -> Any:
        return inner(outputs), y

    return loss


def by_default(outputs: Any, y: Any, weight: Tensor = WEIGHT, *, scale: float = 1) -> Any:
    return outputs, y, weight, scale


def by_keyword(outputs: Any, y: Any, *, weight: Tensor = WEIGHT) -> Any:
    return outputs, y, weight


def by_global(outputs: Any, y: Any) -> Any:
    return LOSSES["first"], outputs, y


def inside_of_another(outputs: Any, y: Any) -> Any:
    return [CRITERION(output, y) for output in outputs]


def only_an_attribute(outputs: Any, y: Any) -> Any:
    return outputs.WEIGHT + y


def decorated(held: Any) -> Any:
    function = closed(None)
    function.table = held  # pyright: ignore[reportFunctionMemberAccess]
    return function


def in_a_circle() -> Any:
    held: list[Any] = []
    held.append(held)
    held.append(closed(held))
    held.append({"w": WEIGHT})
    return closed(held)


HELD: dict[str, tuple[Any, str]] = {
    "a tensor in a closure": (closed(WEIGHT), "tensor held on meta"),
    "a module in a closure": (closed(CRITERION), "module held on meta"),
    "a list": (closed([1, WEIGHT]), r"tensor held\[1\] on meta"),
    "a dictionary of modules": (closed({"a": CRITERION}), r"module held\['a'\] on meta"),
    "a nested function": (nested(CRITERION), "module held on meta"),
    "a partial function in a closure": (closed(partial(closed(None), WEIGHT)), r"tensor held\[0\] on meta"),
    "a default": (by_default, "tensor weight on meta"),
    "a default by keyword": (by_keyword, "tensor weight on meta"),
    "a global": (by_global, r"module LOSSES\['first'\]\[0\] on meta"),
    "a comprehension": (inside_of_another, "module CRITERION on meta"),
    "an attribute of a function": (decorated(WEIGHT), "tensor loss.table on meta"),
    "a method": (Holder(WEIGHT).loss, r"tensor self\.weight on meta"),
    "a callable object": (Called(WEIGHT), r"tensor self\.weight on meta"),
    "a callable object in a closure": (closed(Called(WEIGHT)), r"tensor held\.weight on meta"),
    "an object in a closure": (Holder(WEIGHT).as_closure(), r"tensor self\.weight on meta"),
    "a circle": (in_a_circle(), r"tensor held\[2\]\['w'\] on meta"),
}


@pytest.mark.parametrize("case", HELD)
def test_what_cannot_be_moved_is_named(case: str) -> None:
    function, words = HELD[case]
    with pytest.raises(TaskError, match=f"The loss holds the {words}, but it is needed on cpu; make the loss a"):
        on_device(function, "loss", HOST)
    assert on_device(function, "loss", AWAY) is function


UNUSED: dict[str, Any] = {
    "a class": closed(Weighted),
    "a library": closed(nn),
    "a module without tensors": closed(nn.CrossEntropyLoss()),
    "a method that does not use it": Holder(torch.ones(2)).loss,
    "a callable object that does not use it": Called(torch.ones(2)),
    "an object in a closure that is not used for it": Holder(torch.ones(2)).as_closure(),
    "a global that only an attribute is named after": only_an_attribute,
    "a built-in function": len,
    "a function of PyTorch": functional.cross_entropy,
}


@pytest.mark.parametrize("case", UNUSED)
def test_what_is_not_used_does_not_matter(case: str) -> None:
    assert on_device(UNUSED[case], "loss", HOST) is UNUSED[case]


def test_modules_their_methods_and_partial_arguments_are_moved() -> None:
    module = Weighted()
    moved = on_device(module.loss, "loss", AWAY)
    assert moved.__self__.weight.device == AWAY
    assert module.weight.device == HOST
    held = on_device(partial(closed(None), [torch.ones(1)], y={"a": (module, 3)}), "loss", AWAY, torch.float64)
    assert held.args[0][0].device == AWAY
    assert held.args[0][0].dtype == torch.float64
    assert held.keywords["y"]["a"][0].weight.device == AWAY
    assert held.keywords["y"]["a"][1] == 3


def test_a_long_list_is_no_obstacle() -> None:
    function = closed([*range(10**6)])
    assert on_device(function, "loss", HOST) is function


class Masked(nn.Module):
    """A model with tensors outside its buffers, and a list of a submodule that it also registers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.mask, self.held = torch.ones(2), {"more": [torch.zeros(3)], "same": [self.inner]}
        self.function: Any = functional.relu


def test_tensors_in_attributes_of_modules_are_moved_and_shared_modules_stay_shared() -> None:
    module = Masked()
    moved = copy_to(module, "model", AWAY)
    assert {moved.mask.device, moved.held["more"][0].device, moved.inner.weight.device} == {AWAY}
    assert moved.held["same"][0] is moved.inner
    assert module.mask.device == HOST
    assert copy_to(module, "loss", HOST, torch.float64).mask.dtype == torch.float64


def test_containers_that_modules_share_stay_shared_and_a_container_can_hold_itself() -> None:
    first, second, held = nn.Identity(), nn.Identity(), list[Any]()
    held += [torch.zeros(3), (torch.ones(2), 1), held]
    for module in (first, second):
        setattr(module, "held", held)  # noqa: B010 - the type of a module's attribute is a tensor or a module
    one, other = copy_to(nn.Sequential(first, second), "model", AWAY)
    assert one.held is other.held
    assert one.held[2] is one.held
    assert {one.held[0].device, one.held[1][0].device} == {AWAY}
    assert held[0].device == HOST


def test_what_an_attribute_of_a_module_holds_elsewhere_is_named() -> None:
    module = Masked()
    module.function = closed(torch.ones(1))
    with pytest.raises(TaskError, match=r"The model's attribute 0\.function holds the tensor held on cpu"):
        copy_to(nn.Sequential(module), "model", AWAY)
