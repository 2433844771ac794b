"""PyTorch informs a follower of what trains, and is afterwards as it was."""

from collections.abc import Sequence
from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lratlas.search.driven.steps import Follower, follow_steps


class Heard(Follower):
    """A follower that remembers what it was told."""

    def __init__(self) -> None:
        self.events = list[object]()

    def before_backward(self) -> None:
        self.events.append("backward")

    def after_backward(self, losses: Sequence[Tensor]) -> None:
        self.events.append([each.item() for each in losses])

    def before_step(self, optimizer: Optimizer) -> None:  # noqa: ARG002
        self.events.append("step")

    def after_step(self, optimizer: Optimizer) -> None:  # noqa: ARG002
        self.events.append("stepped")

    def after_scaling(self) -> None:
        self.events.append("scaled")


def test_losses_are_those_before_scaling_in_whatever_order():
    heard, scaler = Heard(), torch.amp.GradScaler("cpu")
    w = torch.ones(1, requires_grad=True)
    with follow_steps(lambda: heard):
        one, two = scaler.scale(w.sum() * 2), scaler.scale(w.sum() * 3)
        one.backward()
        two.backward()
        (w.sum() * 5).backward()
    assert heard.events == ["backward", [2.0], "backward", [3.0], "backward", [5.0]]


def test_only_losses_are_told_and_also_of_a_backward_pass_that_fails():
    heard, w = Heard(), torch.ones(2, requires_grad=True)
    with follow_steps(lambda: heard):
        (w * 2).backward(torch.ones(2))
        torch.autograd.backward([w.sum(), (w * 3).sum()])
        with pytest.raises(RuntimeError):
            torch.ones(1).backward()
    assert heard.events == ["backward", [], "backward", [2.0, 6.0], "backward", []]


def test_a_step_that_a_scaler_skips_is_none():
    heard, model = Heard(), nn.Linear(2, 1)
    optimizer, scaler = torch.optim.SGD(model.parameters()), torch.amp.GradScaler("cpu")
    with follow_steps(lambda: heard):
        for factor in (1.0, torch.inf):
            scaler.scale(model(torch.full((1, 2), factor)).sum() * 0).backward()
            heard.events.clear()
            scaler.step(optimizer)
            scaler.update()
            assert heard.events == (["step", "stepped", "scaled"] if factor == 1 else ["scaled"])


def test_pytorch_is_afterwards_as_it_was_and_follows_nothing():
    def functions() -> tuple[object, ...]:
        return torch.autograd.backward, torch.amp.GradScaler.scale, torch.amp.GradScaler.update

    before, heard, model = functions(), Heard(), nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters())
    with suppress(KeyboardInterrupt), follow_steps(lambda: heard):
        assert not set(functions()) & set(before)
        raise KeyboardInterrupt
    assert functions() == before
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert heard.events == []
