import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lratlas.config.grid import lr_grid
from lratlas.errors import SpecError

LR = st.floats(min_value=1e-12, max_value=1e6)


@given(
    low=st.floats(min_value=1e-9, max_value=1.0),
    decades=st.integers(0, 6),
    per_decade=st.integers(1, 12),
)
def test_a_grid_over_whole_decades_has_both_ends_and_equal_ratios(low: float, decades: int, per_decade: int):
    high = low * 10.0**decades
    grid = lr_grid(low, high, per_decade=per_decade)
    assert len(grid) == decades * per_decade + 1
    assert (grid[0], grid[-1]) == (low, high)
    for index, lr in enumerate(grid):
        assert math.isclose(lr, low * 10 ** (index / per_decade), rel_tol=1e-12)


@given(low=LR, high=LR, per_decade=st.integers(1, 20))
def test_a_grid_stays_inside_its_ends_and_leaves_no_room_for_another_point(low: float, high: float, per_decade: int):
    assume(low <= high)
    grid = lr_grid(low, high, per_decade=per_decade)
    assert list(grid) == sorted(set(grid))
    assert grid[0] == low
    assert grid[-1] <= high < grid[-1] * 10 ** (1 / per_decade) * (1 + 1e-8)


def test_whole_decades_are_exact():
    assert lr_grid(1e-5, 1e1, per_decade=1) == (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    assert lr_grid(3e-4, 0.3, per_decade=1) == (3e-4, 3e-3, 0.03, 0.3)


@pytest.mark.parametrize(
    ("low", "high", "per_decade", "why"),
    [
        (0.0, 1.0, 3, "low must be a positive finite number"),
        (1e-3, math.inf, 3, "high must be a positive finite number"),
        (1e-40, 1.0, 3, r"low must be from 1\.18e-38 to 3\.4e\+38, the range of float32"),
        (1.0, 1e39, 3, r"high must be from 1\.18e-38 to 3\.4e\+38, the range of float32"),
        (True, 1.0, 3, "low must be a positive finite number"),
        (1.0, 0.1, 3, "low must not exceed high"),
        (0.1, 1.0, 0, "per_decade must be a whole number of at least 1"),
        (1e-9, 1.0, 10**400, "at most 10,000 are allowed"),
    ],
)
def test_faulty_grids_are_refused(low: float, high: float, per_decade: int, why: str):
    with pytest.raises(SpecError, match=why):
        lr_grid(low, high, per_decade=per_decade)


def test_numbers_of_other_libraries_make_the_same_grid():
    wanted = lr_grid(0.25, 8.0, per_decade=2)
    ends: Any = (np.float32(0.25), torch.tensor(8.0))
    density: Any = np.int64(2)
    found = lr_grid(*ends, per_decade=density)
    assert found == wanted
    assert {type(lr) for lr in found} == {float}
