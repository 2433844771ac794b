"""Schedules, compared with those of PyTorch and Transformers."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR

from lratlas.search.segments import factor, make_segment, sample_schedule
from lratlas.search.settings import make_search


def lrs_of(make: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
    """The LR of each step under a scheduler that is stepped after each."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler, lrs = make(optimizer), list[float]()
    for _ in range(steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs


def ours(steps: int, **settings: Any) -> list[float]:
    segment = make_segment(lr=0.3, seed=0, start=0, stop=steps, parent=None, **settings)
    return [segment.lr_at(step) for step in range(steps)]


@pytest.mark.parametrize("steps", [1, 10, 137])
def test_cosine_is_that_of_pytorch(steps: int):
    theirs = lrs_of(lambda optimizer: CosineAnnealingLR(optimizer, T_max=steps), steps)
    assert ours(steps, schedule="cosine") == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0), (100, 0), (100, 13), (137, 136)])
def test_linear_with_warm_up_is_that_of_transformers(steps: int, warmup: int):
    transformers = pytest.importorskip("transformers")
    theirs = lrs_of(lambda optimizer: transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps), steps + 1)
    # Transformers begins a warm-up with a step at an LR of zero, which trains nothing; here it is one step ahead.
    assert ours(steps, schedule="linear", warmup=warmup)[:warmup] == pytest.approx(theirs[1 : warmup + 1])
    assert ours(steps, schedule="linear", warmup=warmup)[warmup:] == pytest.approx(theirs[warmup:steps])


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0), (100, 13)])
def test_cosine_with_warm_up_is_that_of_transformers(steps: int, warmup: int):
    transformers = pytest.importorskip("transformers")
    theirs = lrs_of(lambda optimizer: transformers.get_cosine_schedule_with_warmup(optimizer, warmup, steps), steps)
    assert ours(steps, schedule="cosine", warmup=warmup)[warmup:] == pytest.approx(theirs[warmup:], abs=1e-9)


def test_a_constant_lr_after_a_warm_up_stays():
    lrs = ours(100, warmup=4)
    assert lrs[:5] == pytest.approx([0.075, 0.15, 0.225, 0.3, 0.3])
    assert set(lrs[4:]) == {0.3}


def half_cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


@given(share=st.floats(0, 1))
def test_a_function_is_sampled_finely_enough(share: float):
    assert factor(sample_schedule(half_cosine), share) == pytest.approx(factor("cosine", share), abs=1e-4)
    assert factor(sample_schedule(lambda part: 1 - part), share) == pytest.approx(factor("linear", share), abs=1e-4)


@given(share=st.floats(0, 1))
def test_between_points_a_schedule_is_linear(share: float):
    assert factor((2.0, 0.0), share) == pytest.approx(2 * (1 - share))
    assert factor((0.0, 1.0, 0.0), share) == pytest.approx(1 - abs(1 - 2 * share))
    assert factor("constant", share) == 1.0


def torch_number(share: float) -> torch.Tensor:
    return torch.tensor(1 - share)


def test_a_function_may_return_numbers_of_other_libraries():
    search = make_search(steps=100, schedule=torch_number)
    assert factor(search.schedule, 0.25) == pytest.approx(0.75)


def constant(value: object) -> Callable[[float], object]:
    return lambda _: value


def fails(share: float) -> float:
    return 1 / abs(share - 0.5)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (fails, "fails at the share 0.5 of the training"),
        (constant(-1.0), "is -1.0 at the share 0 of the training, but must be a number of at least 0"),
        (constant(math.nan), "is nan at the share 0"),
        (constant("much"), "is 'much' at the share 0"),
        (constant(0.0), "is 0 throughout the training"),
    ],
)
def test_a_function_that_is_no_schedule_is_refused(schedule: Callable[[float], Any], said: str):
    with warnings.catch_warnings(), pytest.raises(ValueError, match=said):
        sample_schedule(schedule)
