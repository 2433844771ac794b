"""Geometry of minima: angles between solutions, and error barriers on the paths between them (Fig. 3)."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from lratlas.devices import widened
from lratlas.training.evaluate import evaluate_stack, pool_buffers
from lratlas.training.program import Program
from lratlas.training.rules import Rule
from lratlas.training.sphere import Weights, dot, expand, norm
from lratlas.training.state import Samples

_OPPOSITE = 1e-8  # length of the sum of two unit vectors; below it rounding would choose their plane
_TINY = 1e-300


class Path(Protocol):
    """A function from two ends and ``alpha`` in [0, 1] to the point between them: `interpolate` or `arc`."""

    def __call__(self, a: Weights, b: Weights, alpha: float, *, rule: Rule) -> Weights:
        """The point at ``alpha`` on the way from ``a`` to ``b``."""
        ...


def angular_distance(a: Weights, b: Weights) -> Tensor:
    """Angle in radians between the trained vectors of corresponding runs, float64 [seeds, lanes].

    Computed as ``2 atan2(|u - v|, |u + v|)`` of the unit vectors, which is exact near 0 and near π where the
    arccosine of a rounded inner product is not.
    """
    first, second = _units(a), _units(b)
    apart = norm({name: first[name] - second[name] for name in first})
    together = norm({name: first[name] + second[name] for name in first})
    return 2 * torch.atan2(apart, together)


def interpolate(a: Weights, b: Weights, alpha: float, *, rule: Rule) -> Weights:
    """The point at ``alpha`` in [0, 1] on the straight line from ``a`` to ``b``, put back on the rule's sphere."""
    return rule.constrain({name: torch.lerp(a[name], b[name], alpha) for name in a})


def arc(a: Weights, b: Weights, alpha: float, *, rule: Rule) -> Weights:
    """The point at ``alpha`` in [0, 1] on the great circle from ``a`` to ``b``.

    The vector on the rule's sphere, or all weights for rules without a sphere, rotates in the plane of its two
    ends at a constant angle per step of ``alpha``, while its norm changes linearly from one end to the other; all other
    weights are interpolated linearly. On a sphere these are the points of `interpolate`, at other values of ``alpha``.
    Antiparallel ends do not define a plane: the path is then the half circle through a fixed random direction,
    regardless of the order of the ends. The ends must not be zero. Computed in float64.
    """
    first, second = rule.vector(a), rule.vector(b)
    turned = (alpha - 0.5) * angular_distance(first, second)  # from the middle, to treat both ends equally
    middle, across = _axes(_units(first), _units(second))
    size = torch.lerp(_norm(first), _norm(second), alpha)
    along, aside = size * turned.cos(), size * turned.sin()
    point = {
        name: (expand(along, value) * value + expand(aside, value) * across[name]).to(a[name])
        for name, value in middle.items()
    }
    return rule.constrain({name: point[name] if name in point else torch.lerp(a[name], b[name], alpha) for name in a})


def path_errors(
    program: Program,
    a: Weights,
    b: Weights,
    buffers: Weights,
    sets: Mapping[str, Samples],
    *,
    points: int,
    batch_size: int,
    path: Path = interpolate,
) -> dict[str, Tensor]:
    """Error rates at ``points`` equidistant values of ``alpha``, from ``a`` to ``b``, float64 [points, seeds, lanes].

    Batch-norm statistics are pooled over the training set at every point, the ends included, to treat all equally.

    Args:
        program: The stack's program.
        a: Weights at one end, [seeds, lanes, *parameter].
        b: Weights at the other end.
        buffers: The models' buffers; all except those of batch norms are constant along the path.
        sets: The data sets by name, including ``train``.
        points: Number of points, at least 2.
        batch_size: Samples per pass over the training set for batch norm's statistics.
        path: `interpolate` for the straight line, `arc` for the great circle.

    Returns:
        The error rates on each data set.
    """
    errors: dict[str, list[Tensor]] = {name: [] for name in sets}
    for alpha in torch.linspace(0, 1, points, dtype=torch.float64).tolist():
        point = path(a, b, alpha, rule=program.rule)
        own = pool_buffers(program, point, buffers, sets["train"], batch_size=batch_size)
        for name, samples in sets.items():
            errors[name].append(1 - evaluate_stack(program, point, own, samples).accuracy)
    return {name: torch.stack(each) for name, each in errors.items()}


def barrier(errors: Tensor) -> Tensor:
    """Error barrier: the largest excess of the error over the straight line between its values at the two ends.

    Args:
        errors: Error rates at equidistant values of ``alpha``, [points, ...]. Both ends count, so the result is
            never negative.
    """
    alphas = torch.linspace(0, 1, len(errors), dtype=errors.dtype, device=errors.device)
    alphas = alphas.reshape(-1, *(1,) * (errors.dim() - 1))
    chord = (1 - alphas) * errors[0] + alphas * errors[-1]
    # The excess at the ends is zero; the clamp prevents a negative result from rounding.
    return (errors - chord)[1:-1].max(0).values.clamp(min=0)


def _axes(u: Weights, v: Weights) -> tuple[Weights, Weights]:
    """Unit vectors half-way between two unit vectors, and across from the first to the second."""
    across = {name: v[name] - u[name] for name in u}
    scale = 1 / norm(across).clamp(min=_TINY)  # equal ends have no second axis: it is 0
    across = {name: value * expand(scale, value) for name, value in across.items()}
    middle = {name: u[name] + v[name] for name in u}
    opposite = norm(middle) < _OPPOSITE
    if opposite.any():
        generator = torch.Generator().manual_seed(0)
        drawn = {
            name: torch.randn(value.shape[2:], generator=generator, dtype=value.dtype).to(value.device).expand_as(value)
            for name, value in middle.items()
        }
        along = dot(drawn, across)
        middle = {
            name: torch.where(expand(opposite, value), drawn[name] - expand(along, value) * across[name], value)
            for name, value in middle.items()
        }
    return _units(middle), across


def _norm(weights: Weights) -> Tensor:
    return norm({name: widened(value) for name, value in weights.items()})


def _units(weights: Weights) -> Weights:
    exact = {name: widened(value) for name, value in weights.items()}
    scale = 1 / norm(exact)
    return {name: value * expand(scale, value) for name, value in exact.items()}
