"""Numbers of any library: which are finite, and which can be LRs."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from lratlas.text import (
    LARGEST_LR,
    SMALLEST_LR,
    first_not_finite,
    is_finite,
    lr_fault,
    number,
    replace_nonfinite,
    to_python,
)


def test_numbers_of_other_libraries_become_pythons() -> None:
    given = {
        "array": np.array([0.5, 1.0]),
        "numbers": [np.int64(3), np.float32(0.5), np.array(2), torch.tensor(1.5), Fraction(1, 2), np.longdouble(2)],
        "pair": (np.int8(1), "text", None),
        "inside": {"truth": np.bool_(True), "table": torch.ones(1, 2)},
    }
    found = to_python(given)
    assert repr(found) == (
        "{'array': [0.5, 1.0], 'numbers': [3, 0.5, 2, 1.5, 0.5, 2.0], 'pair': (1, 'text', None),"
        " 'inside': {'truth': True, 'table': [[1.0, 1.0]]}}"
    )


def test_other_values_stay_as_they_are() -> None:
    value = object()
    assert to_python(value) is value
    assert to_python([value])[0] is value
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    to_python(deep)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -(10**400)])
@pytest.mark.parametrize("kind", [float, np.float64, np.float32, torch.tensor, np.array, str])
def test_one_rule_for_what_is_not_finite(value: float, kind: Any) -> None:
    given = value if isinstance(value, int) else kind(value)
    assert not is_finite(given)
    assert first_not_finite([1.0, given, 2.0]) == 1
    assert lr_fault(given) == "a positive finite number"


@pytest.mark.parametrize("value", [0.5, 3, np.float32(0.5), torch.tensor([2.0]), np.array(3), "0.5", "1e3"])
def test_what_is_finite(value: object) -> None:
    assert is_finite(value)
    assert first_not_finite([value]) is None


@pytest.mark.parametrize("value", [True, np.bool_(False), None, "much", [1.0], {}, np.ones(2), b"1", object()])
def test_what_is_no_number(value: object) -> None:
    assert number(value) is None
    assert not is_finite(value)


def test_json_has_none_for_what_is_not_finite() -> None:
    given = {"a": math.nan, "b": [1.0, (math.inf, "nan")], "c": np.float64("nan"), "d": 3}
    assert replace_nonfinite(given) == {"a": None, "b": [1.0, [None, "nan"]], "c": None, "d": 3}


def test_lrs_are_what_float32_can_hold() -> None:
    assert pytest.approx(float(np.finfo(np.float32).tiny), rel=0) == SMALLEST_LR
    assert float(np.finfo(np.float32).max) == LARGEST_LR
    for lr in (SMALLEST_LR, 1e-5, 1, LARGEST_LR, np.float32(0.1), torch.tensor(0.1)):
        assert lr_fault(lr) is None
    for lr in (math.nextafter(SMALLEST_LR, 0), math.nextafter(LARGEST_LR, math.inf), 1e-300, 5e-324, 1e39):
        assert lr_fault(lr) == "from 1.18e-38 to 3.4e+38, the range of float32"
    for lr in (0, -0.1, True, "0.1", None):
        assert lr_fault(lr) == "a positive finite number"
