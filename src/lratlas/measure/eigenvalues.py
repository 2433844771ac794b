"""Largest eigenvalues of a symmetric matrix that is known by its products alone, each with its residual."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

Vector = NDArray[np.float64]
Multiply = Callable[[Vector], Vector]

# What type checkers infer from SciPy's code is narrower than what it takes and gives.
_operator = cast("Callable[..., LinearOperator]", LinearOperator)
_solve = cast("Callable[..., tuple[Vector, Vector]]", eigsh)


@dataclass(frozen=True, kw_only=True)
class Eigenvalue:
    """An eigenvalue as far as it was found.

    Attributes:
        value: The Ritz value λ; NaN if nothing can be said.
        residual: ``‖Hv - λv‖ / |λ|`` of the unit Ritz vector v: an eigenvalue of H lies within ``residual * |λ|`` of λ.
        converged: Whether the residual is within the tolerance.
    """

    value: float
    residual: float
    converged: bool


UNKNOWN = Eigenvalue(value=math.nan, residual=math.nan, converged=False)


def top_eigenvalues(
    multiply: Multiply,
    size: int,
    *,
    count: int,
    start: Vector,
    tolerance: float,
    iterations: int,
) -> list[Eigenvalue]:
    """The largest (most positive) eigenvalues of a symmetric matrix H, largest first.

    They are found by ARPACK's implicitly restarted Lanczos iteration and judged by what they are: each residual is
    computed from one more product, and it alone decides about convergence. Where ARPACK gives up, the Ritz
    values of the tightest tolerance that can be reached are returned, by powers of ten; if even 1 is missed, those of
    the first Krylov space.

    Args:
        multiply: From v to Hv.
        size: Rows of H.
        count: How many eigenvalues, from 1 to ``size``.
        start: Start vector, [size], generic.
        tolerance: Largest residual that counts as converged.
        iterations: Largest number of restarts; each takes about 10 products for one eigenvalue.

    Returns:
        ``count`` eigenvalues; they are NaN and not converged if a product is not finite or ARPACK breaks down.
    """

    def checked(v: Vector) -> Vector:
        product = multiply(v.reshape(size))
        if not np.isfinite(product).all():
            raise FloatingPointError
        return product

    try:
        # ARPACK takes eigenvalues far below 1 for zero, so H is measured in units of its own.
        unit = float(np.abs(checked(start)).max() / np.abs(start).max())
        if unit == 0:
            # Only the zero matrix takes a generic vector to zero.
            return [Eigenvalue(value=0.0, residual=0.0, converged=True)] * count

        def scaled(v: Vector) -> Vector:
            return checked(v) / unit

        values, vectors = _ritz_pairs(scaled, size, count, start, tolerance, iterations)
        found = [_judged(scaled, *pair, tolerance) for pair in zip(values.tolist(), vectors.T, strict=True)]
    except (FloatingPointError, ArpackError):
        return [UNKNOWN] * count
    found.sort(key=lambda each: each.value, reverse=True)
    return [replace(each, value=each.value * unit) for each in found]


def _judged(multiply: Multiply, value: float, vector: Vector, tolerance: float) -> Eigenvalue:
    error = float(np.linalg.norm(multiply(vector) - value * vector))
    residual = error / abs(value) if value else (math.inf if error else 0.0)
    return Eigenvalue(value=value, residual=residual, converged=residual <= tolerance)


def _ritz_pairs(
    multiply: Multiply, size: int, count: int, start: Vector, tolerance: float, iterations: int
) -> tuple[Vector, Vector]:
    """Values [count] and unit vectors [size, count]."""
    krylov = max(20, 2 * count + 1)  # vectors in memory
    if size <= krylov:
        # ARPACK has nothing to gain.
        matrix = np.stack([multiply(row) for row in np.eye(size)])
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        return values[-count:], vectors[:, -count:]
    operator = _operator((size, size), matvec=multiply, dtype=np.float64)
    # Half of it, for ARPACK's own estimate differs from the residual by rounding.
    for accepted in (tolerance / 2, *_looser(tolerance), math.inf):
        try:
            return _solve(operator, k=count, which="LA", v0=start, ncv=krylov, maxiter=iterations, tol=accepted)
        except ArpackNoConvergence:
            continue
    raise AssertionError  # with an infinite tolerance the first Krylov space is enough


def _looser(tolerance: float) -> list[float]:
    """Tolerances to fall back to: tenfold, hundredfold, up to 1."""
    return [tolerance * 10**power for power in range(1, 1 - math.ceil(math.log10(tolerance)))]
