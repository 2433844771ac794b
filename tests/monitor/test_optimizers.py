"""Optimizers in wrappers, and optimizers that do not step."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lratlas.errors import SpecError
from lratlas.monitor.watch import watch
from monitor.watch_helpers import plateau


class Inherits(torch.optim.Optimizer):
    """As Accelerate's wrapper: an Optimizer by its class alone, which hands everything on."""

    def __init__(self, optimizer: torch.optim.Optimizer, overflows: set[int] | None = None) -> None:
        self.optimizer, self.overflows, self.calls = optimizer, overflows or set(), 0

    @property
    def param_groups(self) -> list[dict[str, object]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.optimizer.param_groups

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        return None if self.calls in self.overflows else self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


class Holds:
    """As DeepSpeed's wrappers: no Optimizer at all, with one inside."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        self.optimizer.step()


def sgd() -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    return weight, torch.optim.SGD([weight], lr=0.1)


@pytest.mark.parametrize("kinds", [(Inherits,), (Holds,), (Inherits, Holds)])
def test_the_optimizer_inside_wrappers_is_watched(kinds: tuple[type[Holds], ...]) -> None:
    _, inner = sgd()
    wrapper: Any = inner
    for kind in kinds:
        wrapper = kind(wrapper)
    seen = watch(wrapper, chance_loss=2.3)
    for loss in plateau():
        wrapper.step()
        seen(loss)
    assert seen.steps == 600
    assert seen.regime == "equilibrium"
    assert seen.log[-1].lr == 0.1
    assert seen.log[-1].gradient_norm == pytest.approx(2**0.5)


def test_steps_that_a_wrapper_skips_do_not_count() -> None:
    _, inner = sgd()
    wrapper = Inherits(inner, overflows=set(range(1, 401, 2)))
    seen = watch(wrapper, chance_loss=2.3)
    for loss in plateau(400):
        wrapper.step()
        seen(loss)
    assert seen.steps == 200


def test_weights_averaged_under_a_wrapper_come_back() -> None:
    weight, inner = sgd()
    wrapper = Inherits(inner)
    seen = watch(wrapper, average=True)
    for _ in range(64):
        wrapper.step()
        seen(0.5)
    kept = weight.detach().clone()
    with seen.averaged():
        assert not torch.equal(weight, kept)
    assert torch.equal(weight, kept)


def test_accelerates_own_wrapper_is_watched() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = nn.Linear(2, 1)
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        model, optimizer = accelerate.Accelerator(cpu=True).prepare(model, plain)
        seen = watch(optimizer)
        for _ in range(3):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            seen(0.5)
        assert seen.steps == 3
    finally:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("given", [None, Holds(None), Holds(3), "adam"])
def test_what_holds_no_optimizer_is_refused(given: object) -> None:
    with pytest.raises(SpecError, match=f"the optimizer is a {type(given).__name__}; it must be a PyTorch optimizer"):
        watch(given)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("losses", [[0.5] * 2000, [torch.tensor(0.5)] * 100, [float("nan")]])
def test_an_optimizer_that_has_not_stepped_is_not_judged(losses: list[float | Tensor]) -> None:
    _, optimizer = sgd()
    seen = watch(optimizer)
    for loss in losses:
        seen(loss)
    for _ in range(2):
        given = "1 loss was" if len(losses) == 1 else f"{len(losses):,} losses were"
        assert f"this optimizer has not stepped, although {given} given" in seen.report()
        assert (seen.regime, seen.log, seen.suggestion()) == ("undecided", [], "")
        seen.close()


def test_an_optimizer_that_steps_late_is_judged_from_then_on() -> None:
    _, optimizer = sgd()
    seen = watch(optimizer)
    for _ in range(100):
        seen(0.5)
    assert "has not stepped" in seen.report()
    for loss in plateau(400):
        optimizer.step()
        seen(loss)
    assert "has not stepped" not in seen.report()
    assert seen.log
