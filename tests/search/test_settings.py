import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.config.grid import lr_grid
from lratlas.errors import SpecError
from lratlas.search.settings import make_search


def test_only_the_length_has_to_be_given():
    search = make_search(steps=1000)
    assert search.lrs == lr_grid(1e-5, 1.0, per_decade=4)
    assert (search.budget, search.tolerance, search.direction) == (1.5, 0.01, "minimize")
    assert search.resumable
    assert search.anneal


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "`steps` is missing: optimizer steps of a full training."),
        ({"steps": 0}, "`steps` is 0, but must be greater than or equal to 1."),
        ({"unit": 0}, "`unit` is 0, but must be greater than or equal to 1."),
        ({"unit": 101}, "`unit` is 101, but a full training has 100 steps."),
        ({"steps": 100.5}, "`steps` is 100.5, but must be a valid integer"),
        ({"steps": "100"}, "`steps` is '100', but must be a valid integer"),
        ({"steps": True}, "`steps` is true, but must be a valid integer"),
        ({"budget": 0.0}, "`budget` is 0.0, but must be greater than 0."),
        ({"budget": -1.0}, "`budget` is -1.0, but must be greater than 0."),
        ({"budget": math.inf}, "`budget` is inf, but must be a finite number."),
        ({"budget": math.nan}, "`budget` is nan, but must be a finite number."),
        ({"tolerance": -0.1}, "`tolerance` is -0.1, but must be greater than or equal to 0."),
        ({"tolerance": 1.0}, "`tolerance` is 1.0, but must be less than 1."),
        ({"tolerance": math.nan}, "`tolerance` is nan, but must be"),
        ({"direction": "down"}, "`direction` is 'down', but must be 'minimize' or 'maximize'."),
        ({"resumable": "no"}, "`resumable` is 'no', but must be a valid boolean."),
        ({"anneal": 1}, "`anneal` is 1, but must be a valid boolean."),
        ({"lrs": []}, "`lrs` is empty, but must hold at least one LR."),
        ({"lrs": [0.1, -0.1]}, "`lrs` holds -0.1, but every LR must be a positive finite number."),
        ({"lrs": [0.0]}, "`lrs` holds 0.0, but every LR must be a positive finite number."),
        ({"lrs": [math.inf]}, "`lrs` holds inf, but every LR must be a positive finite number."),
        ({"lrs": [0.1, 0.2, 0.1]}, "`lrs` holds 0.1 twice, but LRs must be different."),
        ({"lrs": [0.1, 1.0, 0.10001]}, "`lrs` holds 0.1 and 0.10001, but LRs must differ by at least 0.1%."),
        ({"lrs": 0.1}, "`lrs` is 0.1, but must be a list of positive numbers"),
        ({"warmup": 100}, "`warmup` is 100, but a full training has 100 steps."),
        ({"warmup": 100, "counted": "epochs"}, "`warmup` is 100, but a full training has 100 epochs."),
        ({"counted": "hours"}, "`counted` is 'hours', but must be 'steps' or 'epochs'."),
        ({"seed": 2**70}, "`seed` is 1180591620717411303424, but must be less than 4294967296."),
        ({"schedule": "cosinus"}, "`schedule` is 'cosinus'; choose constant, linear, cosine, own, or pass a function"),
        (
            {"schedule": [1.0]},
            "`schedule` is [1.0]; choose constant, linear, cosine, own, or pass a function or a list",
        ),
        ({"schedule": [1.0, -0.5]}, "`schedule` is -0.5 at fraction 1 of the training, but must be"),
        (
            {"schedule": (1.0, math.nan, 0.5)},
            "`schedule` is nan at fraction 0.5 of the training, but must be",
        ),
        ({"schedule": [1.0, "half"]}, "`schedule` is 'half' at fraction 1 of the training, but must be"),
        ({"schedule": [0, 0.0]}, "`schedule` is 0 throughout the training"),
        ({"schedule": 3}, "`schedule` is 3; choose constant, linear, cosine, own, or pass a function"),
        (
            {"step": 100},
            "`step` is not a field (did you mean `steps`?); allowed are steps, counted, unit, budget,",
        ),
    ],
)
def test_settings_out_of_range_are_named_with_what_is_allowed(wrong: dict[str, Any], said: str):
    given_too = {} if not wrong else {"steps": 100}
    with pytest.raises(SpecError) as error:
        make_search(**(given_too | wrong))
    assert said in str(error.value)


@pytest.mark.parametrize("right", [{"steps": 1}, {"unit": 100}, {"budget": 1e-9}, {"tolerance": 0.0}, {"lrs": [0.1]}])
def test_settings_at_the_limit_are_allowed(right: dict[str, Any]):
    search = make_search(**({"steps": 100} | right))
    assert {name: getattr(search, name) for name in right} == right | (
        {"lrs": tuple(right["lrs"])} if "lrs" in right else {}
    )


def test_lrs_are_sorted():
    assert make_search(steps=100, lrs=[1.0, 0.01, 0.1]).lrs == (0.01, 0.1, 1.0)


@given(metric=st.floats(allow_nan=False, allow_infinity=False), other=st.floats(allow_nan=False, allow_infinity=False))
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_higher_score_is_a_better_metric(direction: str, metric: float, other: float):
    search = make_search(steps=100, direction=direction)
    assert search.metric(search.score(metric)) == metric
    better = metric < other if direction == "minimize" else metric > other
    assert (search.score(metric) > search.score(other)) == better


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("metric", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_has_the_lowest_score(metric: float | None, direction: str):
    assert make_search(steps=100, direction=direction).score(metric) == -math.inf


@given(steps=st.integers(1, 10**9), units=st.floats(0, 1), share=st.floats(0, 1))
def test_a_horizon_is_the_share_in_whole_units(steps: int, units: float, share: float):
    unit = max(1, int(units * steps))
    horizon = make_search(steps=steps, unit=unit).horizon(share)
    assert unit <= horizon <= steps
    assert horizon % unit == 0 or horizon == steps
    assert horizon == unit or abs(horizon - share * steps) <= unit / 2


@pytest.mark.parametrize(("steps", "unit"), [(63, 1), (20, 1), (10, 1), (1000, 100), (1, 1)])
@pytest.mark.parametrize("budget", [0.5, 1.5, 4.0])
def test_short_trainings_begin_with_fewer_lrs_over_the_same_range(steps: int, unit: int, budget: float):
    lrs = make_search(steps=steps, unit=unit, budget=budget).lrs
    assert (lrs[0], lrs[-1]) == (1e-5, 1.0)
    ratios = [two / one for one, two in itertools.pairwise(lrs)]
    assert max(ratios) / min(ratios) < 1.2
    assert len(lrs) * unit <= max(budget / 2 * steps, 6 * unit)
