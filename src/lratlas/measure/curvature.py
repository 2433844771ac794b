"""Sharpness of minima: top eigenvalue and trace of the Hessian, and the Fisher trace."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from lratlas.data.parts import count as samples_in
from lratlas.devices import moved, widened
from lratlas.errors import SpecError
from lratlas.measure.hessian import (
    Batches,
    Outputs,
    Product,
    copy_for_hessian,
    hessian_product,
    joining_norms,
    mini_batches,
    outputs_of,
    vector_of,
)
from lratlas.rng import stream
from lratlas.training.objective import Objective
from lratlas.training.rules import Rule
from lratlas.training.state import Samples

Vector = NDArray[np.float64]


# For networks of up to _SMALL weights, _CHUNK independent samples are differentiated at once: the cost of a small
# network is calls, not arithmetic.
_SMALL, _CHUNK = 100_000, 512


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """The curvature of the training loss at a run's weights; at unit weight norm for rules on a sphere.

    Attributes:
        top_eigenvalue: Largest eigenvalue of the Hessian; NaN if unknown.
        residual: ``‖Hv - λv‖ / |λ|`` of that eigenpair.
        converged: Whether the residual is within the tolerance; otherwise the eigenvalue is not reliable.
        trace: Trace of the Hessian.
        trace_error: Its standard error over probes.
        fisher_trace: Trace of the Fisher information, for labels distributed as the model predicts; NaN for losses
            that are not a log-likelihood of labels.
        gradient_norm: Mean over mini-batches of the norm of the gradient of their loss, weighted by their sizes.
        train_loss: Mean loss over the samples.
    """

    top_eigenvalue: float
    residual: float
    converged: bool
    trace: float
    trace_error: float
    fisher_trace: float
    gradient_norm: float
    train_loss: float


@dataclass(frozen=True, kw_only=True)
class Trace:
    """An estimated trace and its standard error."""

    value: float
    error: float


@dataclass(frozen=True, kw_only=True)
class Slopes:
    """Statistics of first derivatives over mini-batches: the mean loss, the mean gradient norm and the Fisher trace."""

    loss: float
    gradient_norm: float
    fisher_trace: float


Measure = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Samples, int], Sharpness]


def sharpness_measure(
    model: nn.Module,
    objective: Objective,
    rule: Rule,
    *,
    batch_size: int,
    limit: int | None = None,
    probes: int = 30,
    draws: int = 5,
    tolerance: float = 1e-3,
    iterations: int = 100,
) -> Measure:
    """The function that measures the sharpness of a run, for a model's structure; the model's weights are ignored.

    The loss is the mean over the samples, without any weight decay. Dropout is off, and batch norms normalise with the
    statistics of their mini-batch as in training, since a scale-invariant model is scale-invariant only then.
    Parameters that a rule on a sphere leaves off the sphere count as fixed. On a sphere the numbers are at unit weight
    norm: second derivatives times ``‖w‖²``, gradient norms times ``‖w‖``.

    Args:
        model: Any module; batch norms keep running statistics.
        objective: Loss and labels.
        rule: The update rule of the runs' training.
        batch_size: Samples per mini-batch, as in training.
        limit: Number of samples of the training set, drawn by the seed; None for all.
        probes: Random vectors for the trace, at least 2.
        draws: Random vectors for the Fisher trace.
        tolerance: Largest relative residual of a converged eigenvalue.
        iterations: Largest number of restarts of the eigenvalue iteration, about 10 products each.

    Returns:
        ``(weights, buffers, samples, seed) -> Sharpness``: one run's trained parameters and buffers, without the axes
        of a stack; the training samples of its seed (see `lratlas.measure.hessian.seed_samples`), which contain the
        frozen parameters too; and the seed of all draws. The function does not change its arguments.

    Raises:
        SpecError: A number is out of range.
    """
    least = {"batch_size": 1, "limit": 1, "probes": 2, "draws": 1, "iterations": 1}
    _check(least, batch_size=batch_size, limit=limit, probes=probes, draws=draws, iterations=iterations)
    if not 0 < tolerance < 1:
        raise SpecError(f"Sharpness: tolerance is {tolerance}, but must be above 0 and below 1.")
    module = copy_for_hessian(model)
    apart = not joining_norms(model) and objective.losses is not None

    def measure(weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], samples: Samples, seed: int) -> Sharpness:
        own = rule.vector(weights)
        vector = vector_of(own)
        fixed = {name: value for name, value in weights.items() if name not in own}
        fixed |= {name: value[0] for name, value in samples.frozen.items()} | dict(buffers)
        outputs = outputs_of(module, own, fixed)
        size = float(widened(vector).norm()) if rule.radius is not None else 1.0

        batches = mini_batches(samples, batch_size=batch_size, seed=seed, limit=limit)
        slopes = mean_slopes(outputs, objective, vector, batches, draws=draws, seed=seed)
        top, trace = UNKNOWN, Trace(value=math.nan, error=math.nan)
        if math.isfinite(slopes.loss + slopes.gradient_norm):
            wide = max(batch_size, _CHUNK) if apart and len(vector) <= _SMALL else batch_size
            passes = mini_batches(samples, batch_size=wide, seed=seed, limit=limit)
            product = hessian_product(outputs, objective, vector, passes)
            start = stream(seed, "eigenvector").standard_normal(len(vector))
            multiply = _on_arrays(product, vector.device)
            top = top_eigenvalue(multiply, len(vector), start=start, tolerance=tolerance, iterations=iterations)
            trace = hutchinson_trace(product, vector, probes=probes, seed=seed)
        return Sharpness(
            top_eigenvalue=top.value * size**2,
            residual=top.residual,
            converged=top.converged,
            trace=trace.value * size**2,
            trace_error=trace.error * size**2,
            fisher_trace=slopes.fisher_trace * size**2,
            gradient_norm=slopes.gradient_norm * size,
            train_loss=slopes.loss,
        )

    return measure


def hutchinson_trace(product: Product, like: Tensor, *, probes: int, seed: int) -> Trace:
    """Trace of a Hessian: the mean of ``zᵀHz`` over random sign vectors z, exact for a diagonal H.

    Args:
        product: The map from v to Hv, float64.
        like: A vector of the size and on the device of z.
        probes: Number of vectors, at least 2.
        seed: The seed of their draws.
    """
    found: list[float] = []
    for probe in range(probes):
        signs = 2.0 * stream(seed, "probes", probe).integers(0, 2, len(like)) - 1.0
        z = moved(torch.from_numpy(signs), like.device)
        found.append(float(z @ product(z)))
    return Trace(value=float(np.mean(found)), error=float(np.std(found, ddof=1)) / math.sqrt(probes))


def mean_slopes(
    outputs: Outputs, objective: Objective, vector: Tensor, batches: Batches, *, draws: int, seed: int
) -> Slopes:
    """Mean loss, mean norm of the mini-batch gradient, and Fisher trace; batches are weighted by their sizes.

    The Fisher trace is the mean over samples of the expected squared norm of the gradient of the log-likelihood, for a
    label distributed as the model predicts. Instead of labels, the function draws slopes of the loss in the outputs,
    from random signs, with mean zero and the covariance that labels would give: drawn labels would hardly ever differ
    from a confident prediction. The slopes are independent given the inputs, so ``n * ‖gradient of the mean over n
    samples‖²`` has that expectation, also if batch norm joins the samples.

    Args:
        outputs: The model as a function of its trained vector.
        objective: The loss.
        vector: The trained vector, [P].
        batches: Mini-batches.
        draws: Random vectors per sample.
        seed: The seed of their draws.
    """
    root = _ROOTS.get(objective.name) if objective.named else None
    sums, count = np.zeros(3), 0  # loss, gradient norm, n times squared norms
    for index, (x, y) in enumerate(batches):
        n, point = samples_in(y), vector.detach().requires_grad_()
        with torch.enable_grad():
            predicted = outputs(point, x)
            loss = objective.batch(predicted, y)
        (slope,) = torch.autograd.grad(loss, point, retain_graph=True)
        expected = math.nan
        # The mean over several labels of a sample is not a log-likelihood.
        if root and isinstance(predicted, Tensor) and (objective.labels == "classes" or predicted.numel() == n):
            signs = 2.0 * stream(seed, "fisher", index).integers(0, 2, (draws, *predicted.shape)) - 1.0
            drawn = [root(widened(predicted.detach()), moved(row, predicted.device)) for row in torch.from_numpy(signs)]
            slopes = [
                torch.autograd.grad(predicted, point, each.to(predicted) / n, retain_graph=True) for each in drawn
            ]
            expected = sum(float(widened(own).square().sum()) for (own,) in slopes) / draws
        sums += n * np.array([float(loss.detach()), float(widened(slope).norm()), n * expected])
        count += n
    loss, size, fisher = (sums / count).tolist()
    return Slopes(loss=loss, gradient_norm=size, fisher_trace=fisher)


def _class_root(scores: Tensor, signs: Tensor) -> Tensor:
    """A square root of diag(p) - ppᵀ, the covariance of the slopes in the scores, times signs."""
    shares = scores.softmax(-1)
    spread = shares.sqrt() * signs
    return spread - shares * spread.sum(-1, keepdim=True)


def _binary_root(logits: Tensor, signs: Tensor) -> Tensor:
    return (logits.sigmoid() * (-logits).sigmoid()).sqrt() * signs


_ROOTS = {"cross_entropy": _class_root, "binary_cross_entropy": _binary_root}


def _on_arrays(product: Product, device: torch.device) -> Callable[[Vector], Vector]:
    def multiply(v: Vector) -> Vector:
        return product(moved(torch.from_numpy(v), device)).cpu().numpy()

    return multiply


def _check(least: Mapping[str, int], **given: int | None) -> None:
    for name, value in given.items():
        if value is not None and value < least[name]:
            raise SpecError(f"Sharpness: {name} is {value}, but must be at least {least[name]}.")


Multiply = Callable[[Vector], Vector]

# The types inferred from SciPy's code are narrower than its actual types.
_operator = cast("Callable[..., LinearOperator]", LinearOperator)
_solve = cast("Callable[..., tuple[Vector, Vector]]", eigsh)


@dataclass(frozen=True, kw_only=True)
class Eigenvalue:
    """An eigenvalue with its accuracy.

    Attributes:
        value: The Ritz value λ; NaN if unknown.
        residual: ``‖Hv - λv‖ / |λ|`` of the unit Ritz vector v: an eigenvalue of H is within ``residual * |λ|`` of λ.
        converged: Whether the residual is within the tolerance.
    """

    value: float
    residual: float
    converged: bool


_KRYLOV = 20  # vectors in memory
UNKNOWN = Eigenvalue(value=math.nan, residual=math.nan, converged=False)


def top_eigenvalue(multiply: Multiply, size: int, *, start: Vector, tolerance: float, iterations: int) -> Eigenvalue:
    """The largest (most positive) eigenvalue of a symmetric matrix H.

    ARPACK's implicitly restarted Lanczos iteration finds it. One more product gives its residual, and only the
    residual decides about convergence. If ARPACK gives up, the result is the Ritz value at the tightest reachable
    tolerance, by powers of ten; if even 1 is out of reach, the Ritz value of the first Krylov space.

    Args:
        multiply: The map from v to Hv.
        size: Rows of H.
        start: Start vector, [size], generic.
        tolerance: Largest residual that counts as converged.
        iterations: Largest number of restarts; each takes about 10 products.

    Returns:
        The eigenvalue; it is NaN and not converged if a product is not finite or ARPACK breaks down.
    """

    def check_finite(v: Vector) -> Vector:
        product = multiply(v.reshape(size))
        if not np.isfinite(product).all():
            raise FloatingPointError
        return product

    try:
        # ARPACK treats eigenvalues far below 1 as zero, so H is rescaled.
        unit = float(np.abs(check_finite(start)).max() / np.abs(start).max())
        if unit == 0:
            # Only the zero matrix maps a generic vector to zero.
            return Eigenvalue(value=0.0, residual=0.0, converged=True)

        def multiply_scaled(v: Vector) -> Vector:
            return check_finite(v) / unit

        value, vector = _ritz_pair(multiply_scaled, size, start, tolerance, iterations)
        error = float(np.linalg.norm(multiply_scaled(vector) - value * vector))
    except (FloatingPointError, ArpackError):
        return UNKNOWN
    residual = error / abs(value) if value else (math.inf if error else 0.0)
    return Eigenvalue(value=value * unit, residual=residual, converged=residual <= tolerance)


def _ritz_pair(multiply: Multiply, size: int, start: Vector, tolerance: float, iterations: int) -> tuple[float, Vector]:
    """A value and its unit vector, [size]."""
    if size <= _KRYLOV:
        # ARPACK has no advantage here.
        matrix = np.stack([multiply(row) for row in np.eye(size)])
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        return float(values[-1]), vectors[:, -1]
    operator = _operator((size, size), matvec=multiply, dtype=np.float64)
    # Half of it, since ARPACK's estimate differs from the residual by rounding.
    for accepted in (tolerance / 2, *_looser(tolerance), math.inf):
        try:
            values, vectors = _solve(operator, k=1, which="LA", v0=start, ncv=_KRYLOV, maxiter=iterations, tol=accepted)
            return float(values[0]), vectors[:, 0]
        except ArpackNoConvergence:
            continue
    raise AssertionError  # with an infinite tolerance the first Krylov space is enough


def _looser(tolerance: float) -> list[float]:
    """Tolerances to fall back to: tenfold, hundredfold, up to 1."""
    return [tolerance * 10**power for power in range(1, 1 - math.ceil(math.log10(tolerance)))]
