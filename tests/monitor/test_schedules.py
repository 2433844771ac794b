"""Learning rates that move: noticed without a word, judged where they are declared."""

from collections.abc import Callable
from math import cos, pi

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lratlas.errors import SpecError
from lratlas.monitor.history import Cell, History
from lratlas.monitor.rules import LRs
from lratlas.monitor.tracker import Look
from lratlas.monitor.watch import watch
from monitor.watch_helpers import Floats, Loop, ar1, mlp, train

COUNT = 3000
STEPS = np.arange(float(COUNT))
SCHEDULES: dict[str, Callable[[int], float]] = {
    "cosine": lambda step: (1 + cos(pi * step / COUNT)) / 2,
    "linear": lambda step: 1 - step / COUNT,
    "exponential": lambda step: 0.95 ** (step // 60),
    "fast": lambda step: 0.7 ** (step // 50),  # by more than 1.25 at once, again and again
}


def follows(factor: Callable[[int], float]) -> Floats:
    """The losses of an equilibrium whose level is that of the learning rate."""
    level = np.array([factor(step) for step in range(COUNT)])
    return 0.2 + 2.0 * np.exp(-STEPS / 100) + level + 0.1 * ar1(COUNT, 0.2, 0)


def converges() -> Floats:
    return (0.5 + 2.0 * (1 + STEPS / 50) ** -1.0) * np.exp(0.1 * ar1(COUNT, 0.2, 0))


def rests(_: object = None) -> Floats:
    return 1.0 + 1.5 * np.exp(-STEPS / 60) + 0.1 * ar1(COUNT, 0.2, 0)


def moving(looks: list[Look]) -> list[Look]:
    return [look for look in looks if look.lr_moves]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("losses", [follows, rests], ids=["follows", "rests"])
def test_a_moving_learning_rate_is_noticed_and_said(name: str, losses: Callable[[Callable[[int], float]], Floats]):
    loop = Loop()
    looks = loop.steps(losses(SCHEDULES[name]), SCHEDULES[name])
    assert len(moving(looks)) >= 4
    assert {look.regime for look in moving(looks)} == {"undecided"}
    report = loop.watch.report()
    assert "while the learning rate fell from" in report
    assert "schedule=True" in report
    assert "too few" not in report


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_training_that_converges_under_a_schedule_is_no_equilibrium(name: str):
    for options in ({}, {"schedule": True}):
        looks = Loop(**options).steps(converges(), SCHEDULES[name])
        assert "equilibrium" not in {look.regime for look in moving(looks)}


@pytest.mark.parametrize("name", ["cosine", "linear", "exponential"])
def test_a_declared_schedule_has_the_regime_of_the_training_under_it(name: str):
    loop = Loop(schedule=name if name in {"cosine", "linear"} else True)
    assert "converging" in {look.regime for look in moving(loop.steps(follows(SCHEDULES[name]), SCHEDULES[name]))}
    loop = Loop(schedule=SCHEDULES[name])
    loop.steps(rests(), SCHEDULES[name])
    assert loop.watch.regime == "equilibrium"
    assert "stationary since" in loop.watch.suggestion()
    assert "while the learning rate fell from" in loop.watch.suggestion()
    assert "Annealing" not in loop.watch.suggestion()


def test_under_a_schedule_a_plateau_at_a_constant_learning_rate_is_still_an_equilibrium():
    looks = Loop().steps(rests(), lambda step: 1.0 if step < 2000 else 1 - (step - 2000) / 1000)
    assert looks[-2].regime == "equilibrium"
    assert not looks[-2].lr_moves


def test_a_loss_that_falls_while_the_learning_rate_rises_converges():
    looks = Loop().steps(converges()[:900], lambda step: (step + 1) / 900)
    assert moving(looks)
    assert moving(looks)[-1].regime == "converging"


def test_a_jump_starts_the_tests_again_and_the_report_says_so():
    loop = Loop()
    loop.steps(rests()[:1000])
    assert loop.watch.regime == "equilibrium"
    loop.steps(rests()[1000:1100], lambda _: 0.1)
    assert loop.watch.log[-1].regime == "undecided"
    assert "too few losses to judge since step 1,000, where the tests restarted" in loop.watch.report()
    loop.steps(rests()[1100:2000], lambda _: 0.1)
    assert loop.watch.regime == "equilibrium"
    assert loop.watch.log[-1].phase_step < 1000


def warm_restarts(step: int) -> float:
    return (1 + cos(pi * (step % 1000) / 1000)) / 2


def step_after_warm_up(step: int) -> float:
    return min(1.0, (step + 1) / 900) * (0.1 if step >= 1000 else 1.0)


@pytest.mark.parametrize("factor", [warm_restarts, step_after_warm_up])
def test_a_jump_against_the_way_of_the_learning_rate_starts_the_tests_again(factor: Callable[[int], float]):
    loop = Loop()
    loop.steps(rests()[:1400], factor)
    loop.watch.close()
    assert loop.watch.log[-1].phase_step <= 401


def test_jumps_that_a_function_explains_do_not_start_again():
    def factor(step: int) -> float:
        return 0.1 ** (step // 500)

    jumps, explained = Loop(), Loop(schedule=factor)
    jumps.steps(rests()[:1800], factor)
    explained.steps(rests()[:1800], factor)
    assert jumps.watch.log[-1].phase_step < 400
    assert explained.watch.log[-1].phase_step == explained.watch.log[-1].step
    explained.steps(rests()[:300], lambda _: 1.0)  # not what the function says
    explained.watch.close()
    assert explained.watch.log[-1].phase_step < 310


def test_a_schedule_from_zero_is_followed():
    def factor(step: int) -> float:
        return min(step / 300, 1.0)

    for schedule in (False, factor):
        loop = Loop(schedule=schedule)
        loop.steps(rests(), factor)
        assert loop.watch.regime == "equilibrium"
        assert loop.watch.log[-1].phase_step == loop.watch.log[-1].step


def test_learning_rates_that_are_tensors_are_followed():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=torch.tensor(0.1))
    seen = watch(optimizer)
    for at, loss in enumerate(rests()[:1500]):
        optimizer.param_groups[0]["lr"].fill_(0.1 * (1 - at / 1500))
        weight.grad = torch.ones(1)
        optimizer.step()
        seen(loss)
    assert seen.log[-1].lr_moves
    assert seen.regime == "undecided"


def test_the_learning_rate_of_several_groups_is_their_geometric_mean():
    loop = Loop(groups=2)
    looks = loop.steps(rests()[:300])
    assert looks[-1].lr == pytest.approx((0.1 * 0.01) ** 0.5)
    one = Loop(groups=2)
    for at, loss in enumerate(rests()):
        one.optimizer.param_groups[1]["lr"] = 0.01 * SCHEDULES["cosine"](at)
        one.step(loss)
    assert one.watch.regime == "undecided"
    assert one.watch.log[-1].lr_moves


def test_a_state_of_a_moving_learning_rate_is_resumed():
    losses, factor = follows(SCHEDULES["cosine"]), SCHEDULES["cosine"]
    whole, first, second = (Loop(schedule=True) for _ in range(3))
    whole.steps(losses, factor)
    first.steps(losses[:1600], factor)
    second.watch.load_state_dict(first.watch.state_dict())
    second.steps(losses[1600:], lambda step: factor(step + 1600))
    for name in ("regime", "course", "lr_low", "lr_high", "loss"):
        expected = getattr(whole.watch.log[-1], name)
        found = getattr(second.watch.log[-1], name)
        assert found == (pytest.approx(expected, rel=0.02) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("schedule", ["step", 3, None])
def test_what_is_no_schedule_is_refused(schedule: object):
    with pytest.raises(SpecError, match="schedule is"):
        Loop(schedule=schedule)


@pytest.mark.parametrize("factor", [-1.0, None, float("nan")])
def test_a_factor_that_no_learning_rate_has_is_refused(factor: object):
    def schedule(_: int) -> object:
        return factor

    with pytest.raises(SpecError, match=r"schedule\(0\) is"):
        Loop(schedule=schedule)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("declared", [False, True])
def test_a_real_training_that_converges_under_a_cosine_is_no_equilibrium(kind: str, declared: bool):
    model, steps = mlp(), 1200
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    if kind == "adamw":
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with watch(optimizer, schedule=declared) as seen:
        train(model, optimizer, steps, after=lambda loss, _: (schedule.step(), seen(loss)))
    said = [look.regime for look in seen.log]
    assert "equilibrium" not in said
    assert "diverging" not in said
    assert "converging" in said
    assert "the learning rate fell from" in seen.report()


def test_a_real_plateau_is_an_equilibrium():
    # Targets that are noise: the loss soon rests at their variance
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(optimizer) as seen:
        for _ in range(1500):
            x = torch.randn(32, 4)
            loss = (model(x) - 3 * x.sum(1, keepdim=True) - torch.randn(32, 1)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen(loss)
    assert seen.regime == "equilibrium"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=16, max_size=40))
def test_the_pace_of_a_learning_rate_that_never_rises_is_at_most_one(falls: list[float]):
    lrs = np.array(sorted(falls, reverse=True))
    found = LRs.of(lrs, judged=len(lrs) // 2)
    assert found is not None
    assert 0.0 <= found.pace <= 1.0
    constant = LRs.of(np.full(len(lrs), 0.3), judged=len(lrs) // 2)
    assert constant is not None
    assert constant.pace == pytest.approx(1.0)
    assert not constant.moves


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=600), st.floats(-1e6, 1e6))
def test_cells_have_the_mean_and_the_variance_of_their_losses(losses: list[float], offset: float):
    history = History()
    for loss in losses:
        history.add(Cell(loss + offset, 0.5, 0.1), steps=1)
    for at, cell in enumerate(history.cells):
        inside = np.array(losses[at * history.length : (at + 1) * history.length])
        assert cell.loss == pytest.approx(inside.mean() + offset, abs=1e-6)
        assert cell.variance == pytest.approx(inside.var(), abs=1e-5)
    restored = History.from_state(history.state_dict())
    assert restored == history
