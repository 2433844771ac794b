"""Reports state one thing: the evidence that decided, and numbers that agree with the words."""

import re
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from lratlas.monitor.rules import Rules
from lratlas.monitor.tracker import Look, RegimeTracker
from lratlas.monitor.watch import watch
from lratlas.monitor.wording import report, suggestion
from monitor.watch_helpers import Floats, Loop, ar1, mlp, train

STEPS = np.arange(1500.0)
LOSSES: dict[str, Floats] = {
    "falls a little": 0.5 - 0.02 * STEPS / 1500 + 0.05 * ar1(1500, 0.0, 0),
    "falls a little, slowly": 0.5 - 0.03 * STEPS / 1500 + 0.05 * ar1(1500, 0.9, 1),
    "rises a little": 0.5 + 0.02 * STEPS / 1500 + 0.05 * ar1(1500, 0.0, 2),
    "flat": 0.5 + 0.1 * ar1(1500, 0.2, 3),
    "waves": 0.5 + 0.1 * ar1(1500, 0.99, 4),
    "falls": 2.0 * (1 + STEPS / 50) ** -0.5 + 0.02 * ar1(1500, 0.0, 5),
    "falls without noise": 2.0 * (1 + STEPS / 50) ** -0.5,
    "to a plateau": 0.5 + 1.5 * np.exp(-STEPS / 100) + 0.05 * ar1(1500, 0.0, 6),
    "rises": 1.0 + STEPS / 750 + 0.1 * ar1(1500, 0.2, 7),
    "far above": 5.5 + 0.5 * ar1(1500, 0.0, 8),
    "far above, in bursts": 5.5 * np.exp(1.5 * ar1(1500, 0.9, 9)),
    "down from far above": 5.0 + 20.0 * np.exp(-STEPS / 300) + 0.1 * ar1(1500, 0.0, 10),
    "constant": np.full(1500, 0.7),
    "near zero": 0.002 * np.exp(0.1 * ar1(1500, 0.0, 11)),
    "below zero": -3.0 + 0.1 * ar1(1500, 0.0, 12),
}
OPTIONS: list[dict[str, Any]] = [{}, {"chance_loss": 2.303}, {"loss_is_progress": False}, {"schedule": True}]


def reports(losses: Floats, options: dict[str, Any], *, falls: bool = False) -> list[tuple[Loop, str]]:
    """The loop with its report after each part of the losses, at a constant or a falling learning rate."""
    loop, found = Loop(**options), list[tuple[Loop, str]]()
    for at, loss in enumerate(losses):
        if falls:
            loop.optimizer.param_groups[0]["lr"] = 0.1 * (1 - at / len(losses))
        loop.step(float(loss))
        if at in (300, 700, len(losses) - 1):
            found.append((loop, loop.watch.report()))
            check(loop, found[-1][1])
    return found


def check(loop: Loop, text: str) -> None:
    """No two sentences that cannot both be true, and numbers on the right side."""
    course = loop.watch.log[-1].course
    said = {
        "falling": bool(re.search(r"loss fell by .* for a fall by chance|loss falls", text)),
        "rising": bool(re.search(r"loss rose by .* for a rise by chance|loss rises", text)),
        "stationary": bool(re.search(r"is ruled out|would count|stationary since|is stationary", text)),
        "unclear": bool(re.search(r"may be chance|too slowly|no clear trend", text)),
    }
    assert {name for name, found in said.items() if found} == {course}, text
    assert text.count("(p ") <= 1, text  # one test decided
    for level, reference in re.findall(r"at (\S+), is above .*?, (-?[\d.]+[\d])", text):
        assert float(level) > float(reference), text
    for level, reference in re.findall(r"loss, (\S+), has been above .*?, (-?[\d.]+[\d]), since", text):
        assert float(level) > float(reference), text
    for level, reference in re.findall(
        r"the loss is ([^,]+),.*is not clearly below .*?, (?:\S+ to )?(-?[\d.]+\d)", text
    ):
        assert float(level) <= float(reference) + 0.15 * abs(float(reference)), text
    assert "level of chance" not in text


@pytest.mark.parametrize(("name", "at", "falls"), list(product(LOSSES, range(len(OPTIONS)), [False, True])))
def test_a_report_never_contradicts_itself(name: str, at: int, falls: bool) -> None:
    assert len(reports(LOSSES[name], OPTIONS[at], falls=falls)) == 3


def look(**fields: Any) -> Look:
    given: dict[str, Any] = {"step": 1000, "phase_step": 1000, "regime": "undecided", "loss": 0.5, "lr": 0.1}
    return Look(**(given | fields))


def test_a_small_significant_fall_of_a_settled_loss_is_reported_as_stationary() -> None:
    tracker = RegimeTracker(rules=Rules(chance_loss=2.3), step=1000, phase_step=1000, regime="equilibrium")
    found = look(
        regime="equilibrium", course="stationary", standing="below", fall=0.004, falling_p=0.01, settled_p=9e-11
    )
    text = report(tracker, found)
    assert "fell" not in text
    assert "0.01" not in text
    assert "The loss changed by -0.004 from the third to the last quarter of 1,000 steps" in text
    assert "or more is ruled out (p = 9e-11)" in text
    assert "(p = 9e-11 for a missed fall)" in suggestion(tracker, found)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"course": "falling", "fall": 0.1, "falling_p": 1e-5}, "fell by 0.1 .* \\(p = 1e-05 for a fall by chance\\)"),
        ({"course": "rising", "fall": -0.1, "falling_p": 1 - 1e-5}, "rose by 0.1 .* \\(p = 1e-05 for a rise by chance"),
        ({"course": "rising", "fall": -0.1, "falling_p": 1.0}, "\\(p < 1e-15 for a rise by chance"),
        ({"course": "unclear", "fall": 0.1, "falling_p": 0.004}, "may be chance \\(p = 0.004; at most 0.00081 counts"),
        ({"course": "unclear", "fall": -0.1, "falling_p": 0.75}, "rose by 0.1 .* may be chance \\(p = 0.25"),
        ({"course": "unclear", "fall": 0.1}, "fell by 0.1 .* varies too slowly for a test"),
        (
            {"course": "stationary", "fall": 0.0, "settled_p": 0.01, "least_fall": 0.07},
            "did not change .*; a fall of 0.07",
        ),
        (
            {"course": "stationary", "fall": -0.01, "settled_p": 0.2, "least_fall": 0.07},
            "stationary at the previous check",
        ),
        ({"course": "stationary", "fall": 0.01}, "changed by -0.01 .* stationary at the previous check"),
    ],
)
def test_the_evidence_is_that_of_the_course(fields: dict[str, Any], words: str) -> None:
    tracker = RegimeTracker(rules=Rules(chance_loss=2.3), step=1000, phase_step=1000)
    assert re.search(words, report(tracker, look(standing="below", **fields)))


@pytest.mark.parametrize("lr", [10.0, 30.0, 100.0])
@pytest.mark.parametrize("options", [{}, {"chance_loss": 2.303}, {"chance_loss": 2.303, "chance_accuracy": 0.1}])
def test_a_training_that_blew_up_is_reported_with_its_loss(lr: float, options: dict[str, Any]) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    seen = watch(optimizer, **options)
    accurate = "chance_accuracy" in options
    train(model, optimizer, 600, after=lambda loss, accuracy: seen(loss, accuracy=accuracy if accurate else None))
    last, text = seen.log[-1], seen.report()
    assert last.loss is not None
    assert "far too low" not in text
    assert "level of chance" not in text
    if accurate:
        # Which of the two depends on the processor: a training that blew up is chaotic.
        assert re.search("has been at chance, 10.0%, since step|is not clearly above chance, 10.0%", text)
    if (last.loss > 1.1 * 2.303 and "not clearly above chance" not in text) or not accurate:
        reference = "the loss of an untrained model, 2.303" if options else "its level at the start, 2.301"
        assert re.search(
            rf"{last.loss:.4g},? (has been|is) above {reference}|at {last.loss:.4g}, is above {reference}", text
        )


def test_bursts_whose_lowest_block_is_near_chance_are_above_it() -> None:
    (loop, text), *_ = reports(LOSSES["far above, in bursts"][:301], {"chance_loss": 2.303})
    assert loop.watch.log[-1].standing == "above"
    assert "above the loss of an untrained model, 2.303" in text


def test_a_loss_that_comes_down_from_far_above_is_named() -> None:
    _, text = reports(LOSSES["down from far above"][:701], {"chance_loss": 2.303})[-1]
    assert "it is still above the loss of an untrained model, 2.303" in text


def test_accuracies_at_chance_are_the_reason() -> None:
    tracker = RegimeTracker(rules=Rules(chance_loss=2.3, chance_accuracy=0.1), step=1000, phase_step=1000)
    text = report(tracker, look(course="stationary", standing="below", fall=0.0, settled_p=0.01, accuracy=0.1))
    assert "the accuracy is not clearly above chance, 10.0%" in text


@pytest.mark.parametrize(
    ("loss", "accuracy", "words"), [(0.001, None, "the loss is near zero"), (0.5, 1.0, "almost every sample")]
)
def test_a_stationary_loss_that_converges_has_its_reason(loss: float, accuracy: float | None, words: str) -> None:
    loop = Loop(chance_loss=2.3, chance_accuracy=None if accuracy is None else 0.1)
    for noise in ar1(600, 0.0, 0).tolist():
        given = {} if accuracy is None else {"accuracy": accuracy}
        loop.step(loss * (1 + 0.1 * noise), **given)
    assert (loop.watch.regime, loop.watch.log[-1].course) == ("converging", "stationary")
    assert f"counts as converging because {words}" in loop.watch.report()


def test_numbers_of_the_learning_rate_before_a_jump_are_not_reported() -> None:
    loop = Loop(chance_loss=2.3)
    loop.steps((2.35 + 0.1 * ar1(400, 0.0, 0)).tolist())
    assert loop.watch.regime == "undecided"
    loop.steps((2.35 + 0.1 * ar1(50, 0.0, 1)).tolist(), lambda _: 0.1)
    assert "too few losses to judge since step 400" in loop.watch.report()
    assert loop.watch.suggestion() == ""
