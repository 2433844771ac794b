"""Losses of any sign and offset, first mini-batches that are far off, and losses that do not measure progress."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lratlas.monitor.rules import Course, Regime, Rules
from monitor.watch_helpers import Floats, Loop, ar1, followed

STEPS = np.arange(1500.0)
# What a training without a chance loss does, in losses that are never near zero
COURSES: dict[str, tuple[Floats, Regime]] = {
    "falls to a plateau": (1.0 + 1.5 * np.exp(-STEPS / 100) + 0.1 * ar1(1500, 0.2, 0), "equilibrium"),
    "falls on": (1.0 + 2.0 * (1 + STEPS / 50) ** -0.5 + 0.05 * ar1(1500, 0.2, 1), "converging"),
    "falls on without noise": (1.0 + 2.0 * (1 + STEPS / 50) ** -0.5, "converging"),
    "rises": (1.0 + STEPS / 750 + 0.1 * ar1(1500, 0.2, 2), "diverging"),
    "rises to a plateau": (3.0 - np.exp(-STEPS / 100) + 0.1 * ar1(1500, 0.2, 3), "diverging"),
    "never moves": (1.0 + 0.3 * ar1(1500, 0.0, 4), "undecided"),
}


@cache
def verdicts(course: str) -> tuple[Regime, Course, frozenset[str]]:
    tracker, said = followed(COURSES[course][0], Rules())
    return tracker.regime, tracker.course, frozenset(said)


@pytest.mark.parametrize("course", COURSES)
def test_without_a_chance_loss_the_regime_is_that_of_the_course(course: str) -> None:
    assert verdicts(course)[0] == COURSES[course][1]


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(COURSES)), st.floats(-1e3, 1e3), st.sampled_from([1e-3, 1.0, 50.0]))
def test_without_a_chance_loss_neither_zero_nor_unit_matters(course: str, offset: float, unit: float) -> None:
    losses = unit * (COURSES[course][0] + offset)
    # The one exception: zero is the floor of losses that were never below it and come close to it
    if 0 <= losses.min() < 0.05 * losses[0]:
        return
    tracker, said = followed(losses, Rules())
    assert (tracker.regime, tracker.course, said) == verdicts(course)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(COURSES)), st.sampled_from([1e-3, 0.1, 50.0]))
def test_with_a_chance_loss_the_unit_does_not_matter(course: str, unit: float) -> None:
    losses = COURSES[course][0]
    one, said_one = followed(losses, Rules(chance_loss=2.3))
    other, said_other = followed(unit * losses, Rules(chance_loss=unit * 2.3))
    assert (other.regime, said_other) == (one.regime, said_one)


@pytest.mark.parametrize("chance_loss", [None, 3.0])
def test_losses_that_fall_below_zero_are_not_near_zero(chance_loss: float | None) -> None:
    losses = 3.0 - 6.0 * (1 - np.exp(-STEPS / 80)) + 0.1 * ar1(1500, 0.2, 0)
    tracker, said = followed(losses, Rules(chance_loss=chance_loss))
    assert tracker.regime == "equilibrium"
    assert "converging" in said


def test_a_chance_loss_may_be_below_zero() -> None:
    falls = -1.0 - 1.5 * (1 - np.exp(-STEPS / 100)) + 0.1 * ar1(1500, 0.2, 0)
    assert followed(falls, Rules(chance_loss=-1.0))[0].regime == "equilibrium"
    assert followed(1.0 + 0.1 * ar1(1500, 0.2, 0), Rules(chance_loss=-1.0))[0].regime == "diverging"


def test_a_loss_near_zero_without_a_chance_loss_converges() -> None:
    losses = 0.002 + 2.0 * np.exp(-STEPS / 50) * np.exp(0.2 * ar1(1500, 0.0, 0))
    assert followed(losses, Rules())[0].regime == "converging"


@pytest.mark.parametrize("first", [1000.0, 1e-2, -5.0])
def test_a_first_mini_batch_that_is_far_off_is_not_the_reference(first: float) -> None:
    for _, said in (followed([first, *(level + 0.1 * level * ar1(1500, 0.0, 0))], Rules()) for level in (2.0, 5.0)):
        assert said == {"undecided"}
    falls = followed([first, *COURSES["falls on"][0]], Rules())[0]
    assert falls.regime == "converging"


def test_a_report_says_that_the_loss_is_where_it_was() -> None:
    loop = Loop()
    loop.steps(2.0 + 0.1 * ar1(600, 0.0, 0))
    report = loop.watch.report()
    assert "stationary and is not clearly below its level at the start" in report
    assert "chance" not in report.replace("fall by chance", "")


def test_an_explosion_in_the_first_steps_is_no_level_to_have_come_down_from() -> None:
    losses = [2.3, 50.0, 400.0, 90.0, 60.0, 40.0, 30.0, 20.0, *(2.45 + 0.1 * ar1(1000, 0.0, 0))]
    assert "equilibrium" not in followed(losses, Rules())[1]


def test_losses_too_large_to_be_squared_have_diverged() -> None:
    assert followed([1.0] * 10 + [1e200] * 2, Rules())[0].regime == "diverging"


@pytest.mark.parametrize("loss", [0.5, 2.3, float(np.log(10)), 1 / 3, 0.7, -0.7])
def test_a_constant_loss_is_stationary(loss: float) -> None:
    # Means of numbers that are no sums of powers of two are rounded.
    tracker, said = followed([loss] * 3000, Rules())
    assert (tracker.course, tracker.regime) == ("stationary", "undecided")
    assert "diverging" not in said


@pytest.mark.parametrize(
    ("course", "words"),
    [
        ("falls on", "The loss falls."),
        ("falls to a plateau", "The loss is stationary."),
        ("rises", "The loss rises."),
    ],
)
def test_where_the_loss_is_no_progress_only_its_course_is_reported(course: str, words: str) -> None:
    changes = list[object]()
    loop = Loop(loss_is_progress=False, on_change=changes.append)
    loop.steps(COURSES[course][0])
    report = loop.watch.report()
    assert words in report
    assert "gradient norm 1.41" in report
    assert "there is no regime and no suggestion" in report
    assert not any(regime in report for regime in ("undecided", "converging", "equilibrium", "diverging"))
    assert (loop.watch.regime, loop.watch.suggestion(), changes) == ("undecided", "", [])


def test_a_solved_game_is_neither_at_chance_nor_near_zero() -> None:
    # The losses of a policy gradient are around zero, however good the policy is
    loop = Loop(loss_is_progress=False, chance_loss=0.7)
    loop.steps(0.001 * ar1(600, 0.0, 0))
    report = loop.watch.report()
    assert "chance:" not in report
    assert "learning rate may" not in report


def test_losses_that_are_not_finite_diverge_even_where_they_are_no_progress() -> None:
    loop = Loop(loss_is_progress=False)
    loop.steps([0.5] * 10 + [float("nan")] * 40)
    assert loop.watch.regime == "diverging"
    assert "diverging; the loss is not finite" in loop.watch.report()
    assert loop.watch.suggestion() == ""
