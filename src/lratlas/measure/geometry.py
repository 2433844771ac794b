"""Geometry of minima: angles between solutions and error barriers on the straight line between them (Fig. 3)."""

import torch
from torch import Tensor

from lratlas.training.program import Program
from lratlas.training.sphere import Weights, dot, expand, norm, project
from lratlas.training.trainer import Samples, evaluate_stack


def angular_distance(a: Weights, b: Weights) -> Tensor:
    """Angle in radians between the trained vectors of corresponding runs, float64 [seeds, lanes].

    Computed as ``2 atan2(|u - v|, |u + v|)`` of the unit vectors, which is exact near 0 and near π where the
    arccosine of a rounded inner product is not.
    """
    first, second = _units(a), _units(b)
    apart = norm({name: first[name] - second[name] for name in first})
    together = norm({name: first[name] + second[name] for name in first})
    return 2 * torch.atan2(apart, together)


def interpolate(a: Weights, b: Weights, alpha: float, *, radius: float | None) -> Weights:
    """The point at ``alpha`` in [0, 1] on the straight line from ``a`` to ``b``, rescaled to the sphere if any."""
    point = {name: torch.lerp(a[name], b[name], alpha) for name in a}
    return point if radius is None else project(point, radius)


def path_errors(
    program: Program, a: Weights, b: Weights, buffers: Weights, samples: Samples, *, points: int, radius: float | None
) -> Tensor:
    """Error rates at ``points`` equidistant points from ``a`` to ``b``, ends included, float64 [points, seeds, lanes].

    Args:
        program: The stack's program.
        a: Weights at one end, [seeds, lanes, *parameter].
        b: Weights at the other.
        buffers: The models' buffers, constant along the path.
        samples: The data set.
        points: Number of points, at least 2.
        radius: Norm of the sphere the path is put back on; None for unconstrained weights.
    """
    alphas = torch.linspace(0, 1, points, dtype=torch.float64).tolist()
    along = (interpolate(a, b, alpha, radius=radius) for alpha in alphas)
    return torch.stack([1 - evaluate_stack(program, point, buffers, samples).accuracy for point in along])


def barrier(errors: Tensor) -> Tensor:
    """Error barrier: the largest excess of the error over the straight line between its values at the two ends.

    Args:
        errors: Error rates at equidistant points of the path, [points, ...]. Both ends count, so the result is
            never negative.
    """
    alphas = torch.linspace(0, 1, len(errors), dtype=errors.dtype, device=errors.device)
    alphas = alphas.reshape(-1, *(1,) * (errors.dim() - 1))
    chord = (1 - alphas) * errors[0] + alphas * errors[-1]
    # The ends' own excess is zero; writing so keeps rounding from making the result negative.
    return (errors - chord)[1:-1].max(0).values.clamp(min=0)


def _units(weights: Weights) -> Weights:
    exact = {name: value.double() for name, value in weights.items()}
    scale = 1 / dot(exact, exact).sqrt()
    return {name: value * expand(scale, value) for name, value in exact.items()}
