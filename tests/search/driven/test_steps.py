"""PyTorch informs a follower of what trains; the LR that a schedule multiplies follows from that."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim import lr_scheduler as schedulers

import lratlas
from lratlas.errors import SearchError
from lratlas.search.driven.find import find_by_function
from lratlas.search.driven.steps import Follower, follow_steps
from lratlas.search.finder import Finder

LRS = [1e-3, 1e-2, 0.1]
STEPS = 64


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    before: Callable[[int], object] = bool,
    after: Callable[[], object] = bool,
) -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    y = x.sum(1, keepdim=True)
    for step in range(STEPS):
        before(step)
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after()


def lrs_of(optimizer: Optimizer) -> tuple[float, float]:
    first, second = (group["lr"] for group in optimizer.param_groups)
    return first, second


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))


def rising_by_hand(lrs: list[float], made: float) -> Callable[[], None]:
    """A training that raises the LRs of its groups by hand over 20 steps."""

    def train() -> None:
        model = net()
        layers = [{"params": layer.parameters()} for layer in model]
        optimizer = SGD(layers, lr=made)

        def warm_up(step: int) -> None:
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * min(1, (step + 1) / 20)

        fit(model, optimizer, before=warm_up)

    return train


@pytest.mark.parametrize(("lrs", "made"), [([0.01, 0.1], 0.1), ([0.1, 0.1], 0.0)], ids=["groups", "made with 0"])
def test_an_lr_that_is_raised_by_hand_from_an_unknown_one_is_not_scaled(lrs: list[float], made: float, tmp_path: Path):
    with pytest.raises(SearchError, match=r"raises its LR from .* is unknown: pass the LR of the search"):
        find_by_function(rising_by_hand(lrs, made), folder=tmp_path, lrs=LRS, steps=STEPS)


def test_an_lr_that_is_raised_by_hand_to_that_of_the_optimizer_is_scaled(tmp_path: Path):
    """The search's LR takes the place of the one that the optimizer was made with, at the top of the warm-up."""
    peaks = list[float]()

    def train() -> None:
        model = net()
        optimizer = SGD(model.parameters(), lr=0.5)

        def warm_up(step: int) -> None:
            optimizer.param_groups[0]["lr"] = 0.5 * min(1, (step + 1) / 4)

        optimizer.register_step_pre_hook(lambda own, _args, _kwargs: peaks.append(own.param_groups[0]["lr"]))
        fit(model, optimizer, before=warm_up)

    find_by_function(train, folder=tmp_path, lrs=[0.02], steps=STEPS, budget=0.5, value="float(loss)")
    assert max(peaks) == pytest.approx(0.02)


def test_groups_with_lrs_of_their_own_are_scaled_together(tmp_path: Path):
    seen = list[tuple[float, float]]()

    def train() -> None:
        model = net()
        optimizer = SGD([{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.3}])
        plateau = schedulers.ReduceLROnPlateau(optimizer, patience=20, threshold=1.0)
        optimizer.register_step_pre_hook(lambda own, _args, _kwargs: seen.append(lrs_of(own)))
        fit(model, optimizer, after=lambda: plateau.step(1.0))

    find_by_function(train, folder=tmp_path, lrs=[0.02], steps=STEPS, budget=0.5, value="float(loss)")
    assert seen[0] == pytest.approx((0.02, 0.06))
    assert all(second == pytest.approx(3 * first) for first, second in seen)


@pytest.mark.parametrize("steps", [None, STEPS], ids=["counted", "given"])
@pytest.mark.parametrize("kind", ["late steps", "plateau", "none"])
def test_a_schedule_that_sets_in_after_what_was_compared_is_said(kind: str, steps: int | None, tmp_path: Path):
    def train(lr: float) -> None:
        model = net()
        optimizer = SGD(model.parameters(), lr=lr)
        made: dict[str, Callable[[], Any]] = {
            "late steps": lambda: schedulers.StepLR(optimizer, STEPS - 4, gamma=0.1).step,
            "plateau": lambda: partial(schedulers.ReduceLROnPlateau(optimizer).step, 0.0),
            "none": lambda: bool,
        }
        fit(model, optimizer, after=made[kind]())

    advice = lratlas.find(train, folder=tmp_path, lrs=LRS, steps=steps, budget=0.5)
    assert max(each.segment.stop for each in Finder(tmp_path).results) < STEPS - 4
    noted = any("changes its LR over time" in each for each in advice.warnings)
    assert (noted, advice.finish == "schedule") == (kind != "none", kind != "none")


def test_the_length_is_counted_once_though_the_metric_was_misspelt(tmp_path: Path):
    lengths = list[int]()

    def train(lr: float) -> None:
        model = net()
        optimizer = SGD(model.parameters(), lr=lr)
        lengths.append(0)

        def report(step: int) -> None:
            lengths[-1] = step + 1
            if step % 8 == 7:
                print(f"val_loss: {1 / (step + 1)}")  # noqa: T201

        fit(model, optimizer, before=report)

    with pytest.raises(SearchError, match="no val_los"):
        find_by_function(train, metric="val_los", folder=tmp_path, lrs=LRS, budget=0.5)
    assert lengths == [STEPS]
    find_by_function(train, metric="val_loss", folder=tmp_path, lrs=LRS, budget=0.5)
    assert lengths.count(STEPS) == 1
    assert Finder(tmp_path).search.steps == STEPS


def by_sgd(lr: float) -> None:
    model = net()
    fit(model, torch.optim.SGD(model.parameters(), lr=lr))


def by_adam(lr: float) -> None:
    model = net()
    fit(model, torch.optim.Adam(model.parameters(), lr=lr))


def within(scale: float) -> Callable[[float], None]:
    def train(lr: float) -> None:
        model = net()
        fit(model, SGD(model.parameters(), lr=lr), after=lambda: scale * 2)

    return train


def test_a_function_that_does_something_else_is_another_code(tmp_path: Path):
    """It differs by a name alone; functions within it count, and not where in memory they are."""
    given: dict[str, Any] = {"lrs": LRS, "steps": STEPS, "budget": 0.2}
    changed = "The code has changed since"
    for first, second, expected in [(by_sgd, by_sgd, False), (by_sgd, by_adam, True), (within(1), within(1), False)]:
        folder = tmp_path / f"{first.__name__}-{second.__name__}"
        find_by_function(first, folder=folder, **given)
        advice = find_by_function(second, folder=folder, **given)
        assert any(changed in note for note in advice.warnings) == expected


class Heard(Follower):
    """A follower that records the calls it gets."""

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
