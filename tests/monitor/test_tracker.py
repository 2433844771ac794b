"""What the tracker says of losses of known kind."""

import json
from collections.abc import Callable
from math import inf, log, nan

import numpy as np
import polars as pl
import pytest

from lratlas.analysis.regimes import run_evidence
from lratlas.errors import SpecError
from lratlas.monitor.rules import FIRST_LOOK, LOOK_GROWTH, Rules
from lratlas.monitor.tracker import RegimeTracker
from lratlas.tables import SCHEMAS, empty
from lratlas.thresholds import DEFAULTS
from monitor.watch_helpers import ar1, followed

STEPS = np.arange(3000.0)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_a_flat_loss_is_hardly_ever_called_converging(correlation: float) -> None:
    alarms = ["converging" in followed(0.5 * np.exp(0.3 * ar1(1500, correlation, seed)))[1] for seed in range(30)]
    # The promise is 5%; more than 6 of 30 have a probability under 0.1% then
    assert sum(alarms) <= 6


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_a_flat_loss_is_an_equilibrium(correlation: float) -> None:
    ends = [followed(0.5 * np.exp(0.3 * ar1(2000, correlation, seed)))[0].regime for seed in range(10)]
    assert ends.count("equilibrium") >= 9


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_descent_that_goes_on_converges(power: float, noise: float) -> None:
    tracker, said = followed(2.0 * (1 + STEPS / 50) ** -power * np.exp(noise * ar1(3000, 0.3, 0)))
    assert tracker.regime == "converging"
    assert "diverging" not in said


def test_a_loss_near_zero_converges_though_it_rests() -> None:
    assert followed(0.01 * np.exp(0.5 * ar1(600, 0.0, 0)))[0].regime == "converging"


def test_a_descent_to_a_plateau_ends_in_equilibrium() -> None:
    losses = 0.5 + 1.5 * np.exp(-STEPS / 200) + 0.1 * ar1(3000, 0.2, 0)
    tracker, said = followed(losses)
    assert "converging" in said
    assert tracker.regime == "equilibrium"
    assert tracker.since > 500


def test_a_loss_that_rests_above_chance_diverges() -> None:
    assert followed(3.5 + 0.2 * ar1(600, 0.0, 0))[0].regime == "diverging"


def test_the_first_losses_take_the_place_of_chance() -> None:
    losses = np.concatenate([2.0 + 0.2 * ar1(8, 0.0, 0), 3.5 + 0.2 * ar1(600, 0.0, 0)])
    assert followed(losses, Rules())[0].regime == "diverging"


def test_slow_losses_that_hardly_leave_chance_converge_all_the_same() -> None:
    losses = 2.3 - 0.1 * STEPS / 3000 + 0.05 * ar1(3000, 0.0, 0)
    assert followed(losses)[0].regime == "converging"


def test_a_loss_just_above_chance_is_left_open() -> None:
    assert followed(2.4 + 0.05 * ar1(600, 0.0, 0))[0].regime == "undecided"


@pytest.mark.parametrize(
    ("loss", "accuracy", "regime"), [(3.5, 0.3, "equilibrium"), (3.5, 0.1, "diverging"), (0.5, 0.8, "equilibrium")]
)
def test_accuracies_tell_an_equilibrium_from_divergence(loss: float, accuracy: float, regime: str) -> None:
    tracker = RegimeTracker(rules=Rules(chance_loss=2.3, chance_accuracy=0.1))
    noise = np.random.default_rng(0).normal(size=(1000, 2))
    for one, other in noise:
        tracker.add(steps=1, loss=loss + 0.1 * one, accuracy=accuracy + 0.05 * other)
    assert tracker.regime == regime


def test_a_low_learning_rate_at_chance_accuracy_is_not_called_divergence() -> None:
    tracker = RegimeTracker(rules=Rules(chance_loss=2.3, chance_accuracy=0.1))
    for one, other in np.random.default_rng(0).normal(size=(1000, 2)):
        tracker.add(steps=1, loss=2.3 + 0.05 * one, accuracy=0.1 + 0.05 * other)
    assert tracker.regime == "undecided"


@pytest.mark.parametrize("broken", [nan, inf])
def test_two_losses_that_are_not_finite_are_divergence_at_once(broken: float) -> None:
    tracker, _ = followed([0.5] * 20)
    assert tracker.add(steps=1, loss=broken) is None
    look = tracker.add(steps=1, loss=broken)
    assert look is not None
    assert look.regime == tracker.regime == "diverging"
    assert tracker.look().regime == "diverging"


def test_one_loss_that_is_not_finite_is_left_out() -> None:
    losses = 0.5 + 0.05 * ar1(1000, 0.0, 0)
    losses[::100] = nan
    assert followed(losses)[0].regime == "equilibrium"


def test_finite_losses_after_divergence_begin_anew() -> None:
    tracker, _ = followed([0.5, nan, nan, 0.5])
    assert (tracker.regime, tracker.phase_step, tracker.step) == ("undecided", 0, 4)


def test_a_new_learning_rate_begins_anew() -> None:
    tracker, _ = followed(0.5 + 0.05 * ar1(1000, 0.0, 0))
    tracker.restart()
    assert (tracker.regime, tracker.phase_step, tracker.step) == ("undecided", 0, 1000)


def test_looks_grow_with_the_logarithm_of_the_steps() -> None:
    tracker = RegimeTracker(rules=Rules(chance_loss=2.3))
    looks = [look for _ in range(5000) if (look := tracker.add(steps=1, loss=0.5)) is not None]
    assert [look.step for look in looks[:3]] == [256, 320, 400]
    assert len(looks) == pytest.approx(log(5000 / FIRST_LOOK) / log(LOOK_GROWTH) + 1, abs=1)


def test_a_look_needs_eight_means() -> None:
    tracker, _ = followed([0.5] * 7)
    look = tracker.look()
    assert (look.regime, look.loss, look.blocks) == ("undecided", None, 0)


@pytest.mark.parametrize("every", [10, 100])
def test_block_means_say_what_their_steps_say(every: int) -> None:
    losses = 0.5 + 1.5 * np.exp(-STEPS / 200) + 0.1 * ar1(3000, 0.2, 0)
    tracker = RegimeTracker(rules=Rules(chance_loss=2.3))
    for mean in losses.reshape(-1, every).mean(axis=1):
        tracker.add(steps=every, loss=float(mean))
    assert (tracker.step, tracker.look().regime) == (3000, "equilibrium")


def test_a_state_goes_on_as_if_nothing_had_happened() -> None:
    losses = 0.5 + 0.1 * ar1(2000, 0.3, 0)
    whole, _ = followed(losses)
    half, _ = followed(losses[:1111])
    resumed = RegimeTracker(rules=half.rules)
    resumed.load_state_dict(json.loads(json.dumps(half.state_dict())))
    for loss in losses[1111:]:
        resumed.add(steps=1, loss=loss)
    assert json.dumps(resumed.state_dict()) == json.dumps(whole.state_dict())
    assert resumed.look() == whole.look()


def test_a_state_of_something_else_is_refused() -> None:
    with pytest.raises(SpecError, match="weights"):
        RegimeTracker().load_state_dict({"weights": 1})


@pytest.mark.parametrize("seed", range(3))
def test_the_last_look_has_the_p_value_of_the_finished_study(seed: int) -> None:
    losses = 0.5 + 0.05 * np.random.default_rng(seed).normal(size=40)
    steps = [100 * (row + 1) for row in range(40)]
    tracker = RegimeTracker(rules=Rules(chance_loss=2.3))
    for loss in losses:
        tracker.add(steps=100, loss=float(loss))
    run = {"run": "a", "stage": "pretrain", "plr": 0.1, "seed": 0, "steps": 4000, "diverged": False}
    runs = pl.DataFrame([run | {"train_loss": 0.5, "train_accuracy": 0.8}], schema=SCHEMAS["runs"])
    traces = pl.DataFrame({"run": "a", "step": steps, "train_loss": losses, "train_accuracy": 0.8})
    traces = pl.concat([empty("traces"), traces], how="diagonal_relaxed")
    evidence = run_evidence({"runs": runs, "traces": traces}, chance_loss=2.3, thresholds=DEFAULTS)
    look = tracker.look()
    assert look.falling_p == pytest.approx(evidence["trend_p"][0])
    assert look.loss == pytest.approx(evidence["train_loss"][0])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Rules(chance_loss=nan), "chance_loss"),
        (lambda: Rules(chance_loss=inf), "chance_loss"),
        (lambda: Rules(chance_accuracy=1.5), "chance_accuracy"),
        (lambda: Rules(false_alarm=0.0), "false_alarm"),
        (lambda: Rules(settled_level=1.0), "settled_level"),
    ],
)
def test_numbers_out_of_range_are_named(make: Callable[[], Rules], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        make()
