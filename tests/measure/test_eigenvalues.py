"""Eigenvalues against dense solvers; what is not reached or not finite says so."""

import math

import numpy as np
import pytest
import torch

from lratlas.measure.curvature import top_eigenvalue
from measure.cases import case, cut, explicit_hessian


@pytest.mark.parametrize("name", ["tanh", "batch norm"])
def test_the_largest_eigenvalue(name: str) -> None:
    given = case(name)
    batches = cut(given, 5, 5, 3)
    product, vector = given.product(batches)
    start = np.random.default_rng(0).standard_normal(len(vector))
    found = top_eigenvalue(
        lambda v: product(torch.from_numpy(v)).numpy(), len(vector), start=start, tolerance=1e-8, iterations=99
    )
    expected = torch.linalg.eigvalsh(explicit_hessian(given, batches))[-1]
    assert found.converged
    assert found.value == pytest.approx(float(expected), rel=1e-6)


def test_the_best_that_was_reached_is_reported() -> None:
    values = np.linspace(0, 1, 400)  # so close together that Lanczos needs many restarts
    start = np.random.default_rng(0).standard_normal(400)
    found = [
        top_eigenvalue(lambda v: values * v, 400, start=start, tolerance=1e-13, iterations=iterations)
        for iterations in (1, 3, 6)
    ]
    assert not any(each.converged for each in found)
    residuals = [each.residual for each in found]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[-1] < 0.1 * residuals[0]
    assert all(each.value <= 1 + 1e-12 and np.abs(values - each.value).min() <= each.residual for each in found)
    patient = top_eigenvalue(lambda v: values * v, 400, start=start, tolerance=1e-8, iterations=500)
    assert patient.converged
    assert patient.value == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("size", [1, 2, 5, 20, 21, 40])
def test_eigenvalues_of_any_size_and_sign(size: int) -> None:
    draws = np.random.default_rng(size).standard_normal((size, size))
    for shift in (0.0, -100.0, 100.0):
        matrix = draws + draws.T + shift * np.eye(size)
        start = np.random.default_rng(1).standard_normal(size)
        found = top_eigenvalue(lambda v: matrix @ v, size, start=start, tolerance=1e-9, iterations=500)  # noqa: B023
        assert found.value == pytest.approx(np.linalg.eigvalsh(matrix)[-1])
        assert found.converged


def test_a_zero_matrix_has_the_eigenvalue_zero() -> None:
    for size in (3, 50):
        found = top_eigenvalue(np.zeros_like, size, start=np.ones(size), tolerance=1e-3, iterations=5)
        assert (found.value, found.residual, found.converged) == (0, 0, True)


@pytest.mark.parametrize("size", [3, 50])
def test_products_that_are_not_finite_say_nothing(size: int) -> None:
    found = top_eigenvalue(lambda v: np.full_like(v, np.inf), size, start=np.ones(size), tolerance=1e-3, iterations=5)
    assert not found.converged
    assert math.isnan(found.value)
    assert math.isnan(found.residual)


@pytest.mark.parametrize("unit", [1e-300, 1e-30, 1e-12, 1e200])
def test_the_unit_does_not_matter(unit: float) -> None:
    draws = np.random.default_rng(0).standard_normal((60, 60))
    matrix = draws + draws.T
    start = np.random.default_rng(1).standard_normal(60)
    plain, rescaled = (
        top_eigenvalue(lambda v: factor * matrix @ v, 60, start=start, tolerance=1e-6, iterations=50)  # noqa: B023
        for factor in (1.0, unit)
    )
    assert rescaled.converged
    assert rescaled.value / unit == pytest.approx(plain.value, rel=1e-9)


def test_products_that_contradict_each_other_say_nothing() -> None:
    answers = iter([np.ones(50)])
    found = top_eigenvalue(
        lambda v: next(answers, np.zeros_like(v)), 50, start=np.ones(50), tolerance=1e-3, iterations=5
    )
    assert not found.converged
    assert math.isnan(found.value)
