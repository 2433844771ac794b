"""A watch that is saved and loaded at any moment gives the same answers as one that was never interrupted."""

import json
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.watch_helpers import Loop, ar1

STEPS = np.arange(900.0)
Event = tuple[str, float]  # "step", "lr" (with a value), "loss" (with a value)


def every_step(losses: Iterable[float], factor: Callable[[int], float] = lambda _: 1.0) -> list[Event]:
    """The events of a plain loop: learning rate, step, loss."""
    events = list[Event]()
    for at, loss in enumerate(losses):
        events += [("lr", 0.1 * factor(at)), ("step", 0.0), ("loss", float(loss))]
    return events


def accumulated(losses: Iterable[float], times: int) -> list[Event]:
    """Several mini-batches for each step, given before it; the learning rate jumps within one of them."""
    events = list[Event]()
    for at, loss in enumerate(losses):
        events.append(("loss", float(loss)))
        if at == 300 * times + 1:
            events.append(("lr", 0.01))
        if at % times == times - 1:
            events.append(("step", 0.0))
    return events


def broken() -> list[float]:
    losses = 0.5 + 0.1 * ar1(900, 0.2, 0)
    losses[[50, 400, 401, 402, 600]] = np.nan
    return losses.tolist()


def sparse() -> list[Event]:
    """A loss at every tenth step."""
    events = list[Event]()
    for loss in 0.5 + 1.5 * np.exp(-STEPS / 200) + 0.1 * ar1(900, 0.2, 1):
        events += [("step", 0.0)] * 10 + [("loss", float(loss))]
    return events


def tenths(step: int) -> float:
    return 0.1 ** (step // 400)


TRAININGS: dict[str, tuple[dict[str, Any], list[Event]]] = {
    "plateau": ({"chance_loss": 2.3}, every_step(0.5 + 0.1 * ar1(900, 0.3, 0))),
    "descent": ({}, every_step(2.0 * (1 + STEPS / 50) ** -0.5 + 0.05 * ar1(900, 0.2, 1))),
    "broken": ({"chance_loss": 2.3}, every_step(broken())),
    "jumps": ({"chance_loss": 2.3}, every_step(0.5 + 0.1 * ar1(900, 0.0, 2), lambda at: 1.0 if at < 400 else 0.1)),
    "moves": ({}, every_step(1 + 0.1 * ar1(900, 0.2, 3), lambda at: 1 - at / 900)),
    "schedule": ({"schedule": tenths}, every_step(broken(), tenths)),
    "accumulated": ({"chance_loss": 2.3}, accumulated(0.5 + 0.1 * ar1(1800, 0.0, 4), 3)),
    "sparse": ({"chance_loss": 2.3, "average": True}, sparse()),
    "accuracies": ({"chance_loss": 2.3, "chance_accuracy": 0.1}, every_step(0.5 + 0.1 * ar1(900, 0.3, 5))),
}


def play(loop: Loop, events: Iterable[Event], *, start: int = 0, accurate: bool = False) -> None:
    for at, (kind, value) in enumerate(events, start):
        if kind == "lr":
            for group in loop.optimizer.param_groups:
                group["lr"] = value
        elif kind == "step":
            for weight in loop.weights:
                weight.grad = torch.full((2,), 1 + 0.3 * (at % 17))
            loop.optimizer.step()
        elif accurate:
            loop.watch(value, accuracy=0.5 + 0.01 * (at % 7))
        else:
            loop.watch(value)


def saved(loop: Loop) -> BytesIO:
    file = BytesIO()
    parts = {"watch": loop.watch.state_dict(), "optimizer": loop.optimizer.state_dict(), "weights": loop.weights}
    torch.save(parts, file)
    file.seek(0)
    return file


def restored(file: BytesIO, options: dict[str, Any]) -> Loop:
    parts, loop = torch.load(file, weights_only=True), Loop(**options)
    with torch.no_grad():
        for weight, value in zip(loop.weights, parts["weights"], strict=True):
            weight.copy_(value)
    loop.optimizer.load_state_dict(parts["optimizer"])
    loop.watch.load_state_dict(parts["watch"])
    return loop


def answers(loop: Loop) -> tuple[object, ...]:
    seen = loop.watch
    state = str(seen.state_dict())
    return state, seen.regime, seen.steps, list(seen.log), seen.report(), seen.suggestion(), str(seen.state_dict())


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(TRAININGS)), st.lists(st.floats(0, 1), min_size=1, max_size=3), st.floats(0, 1))
def test_interrupted_anywhere_the_answers_are_the_same(name: str, stops: list[float], end: float) -> None:
    options, events = TRAININGS[name]
    accurate = "chance_accuracy" in options
    events = events[: max(int(end * len(events)), 1)]
    places = sorted(int(stop * len(events)) for stop in stops)
    whole, loop, done = Loop(**options), Loop(**options), 0
    play(whole, events, accurate=accurate)
    for place in places:
        play(loop, events[done:place], start=done, accurate=accurate)
        loop, done = restored(saved(loop), options), place
    play(loop, events[done:], start=done, accurate=accurate)
    assert answers(loop) == answers(whole)
    whole.watch.close()
    loop.watch.close()
    assert answers(loop) == answers(whole)


@pytest.mark.parametrize("losses", [1, 2, 31, 32, 33, 300, 301])
def test_the_loss_of_an_open_record_is_saved(losses: int) -> None:
    whole, first = Loop(), Loop()
    for loop in (whole, first):
        for loss in (0.5 + 0.1 * ar1(losses, 0.0, 0)).tolist():
            loop.step(loss)
    second = restored(saved(first), {})
    for loop in (whole, second):
        loop.watch.close()
    assert second.watch.log == whole.watch.log
    assert second.watch.log[-1].step == losses


def test_saving_judges_nothing_and_calls_nothing() -> None:
    changes, silent = list[object](), Loop()
    loop = Loop(on_change=changes.append)
    for loss in [0.5] * 40 + [float("nan")] * 5:
        loop.step(loss)
        silent.step(loss)
        loop.watch.state_dict()
    assert (changes, loop.watch.log) == ([], [])
    assert str(loop.watch.state_dict()) == str(silent.watch.state_dict())
    assert "not finite" in loop.watch.report()
    assert len(changes) == 1


def test_a_state_is_plain_values() -> None:
    loop = Loop(chance_loss=2.3)
    for at, loss in enumerate((0.5 + 0.1 * ar1(333, 0.0, 0)).tolist()):
        loop.step(torch.tensor(loss) if at % 2 else loss)
    state = loop.watch.state_dict()
    other = Loop(chance_loss=2.3)
    other.watch.load_state_dict(json.loads(json.dumps(state)))
    assert str(other.watch.state_dict()) == str(state)


def test_losses_as_on_an_accelerator_are_saved_as_numbers() -> None:
    class Remote(torch.Tensor):
        """A tensor whose value cannot be read at once."""

        @property
        def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
            return torch.device("cuda")

    loop, plain = Loop(), Loop()
    for loss in (0.5, 0.25, 0.125):
        loop.step(torch.tensor(loss).as_subclass(Remote))
        plain.step(loss)
    assert str(loop.watch.state_dict()) == str(plain.watch.state_dict())


def test_a_learning_rate_that_is_changed_before_resuming_is_a_jump() -> None:
    first, second = Loop(chance_loss=2.3), Loop(chance_loss=2.3)
    for loss in (0.5 + 0.05 * ar1(600, 0.0, 0)).tolist():
        first.step(loss)
    second.optimizer.param_groups[0]["lr"] = 0.01
    second.watch.load_state_dict(first.watch.state_dict())
    assert second.watch.regime == "equilibrium"
    second.step(0.5)
    assert "undecided" in second.watch.report()
    assert second.watch.log[-1].lr == 0.01


def test_a_refused_state_changes_nothing() -> None:
    loop = Loop(average=True)
    loop.steps((0.5 + 0.05 * ar1(300, 0.0, 0)).tolist())
    other = Loop(groups=2, average=True)
    other.steps((0.5 + 0.05 * ar1(64, 0.0, 0)).tolist())
    before = str(loop.watch.state_dict())
    with pytest.raises(Exception, match="other shapes"):
        loop.watch.load_state_dict(other.watch.state_dict())
    assert str(loop.watch.state_dict()) == before
