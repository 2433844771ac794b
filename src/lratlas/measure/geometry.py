"""Geometry of minima: angles between solutions and error barriers on the straight line between them (Fig. 3)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lratlas.training.evaluating import evaluate_stack, pooled_buffers
from lratlas.training.program import Program
from lratlas.training.rules import Rule
from lratlas.training.sphere import Weights, dot, expand, norm
from lratlas.training.stacks import Samples


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
    return rule.constrained({name: torch.lerp(a[name], b[name], alpha) for name in a})


def path_errors(
    program: Program,
    a: Weights,
    b: Weights,
    buffers: Weights,
    sets: Mapping[str, Samples],
    *,
    points: int,
    batch_size: int,
) -> dict[str, Tensor]:
    """Error rates at ``points`` equidistant points from ``a`` to ``b``, ends included, float64 [points, seeds, lanes].

    Batch-norm statistics are pooled over the training set at every point, the ends too, so that all are treated alike.

    Args:
        program: The stack's program.
        a: Weights at one end, [seeds, lanes, *parameter].
        b: Weights at the other.
        buffers: The models' buffers; those that are not batch norm's are constant along the path.
        sets: The data sets by name, ``train`` among them.
        points: Number of points, at least 2.
        batch_size: Samples per pass over the training set for batch norm's statistics.

    Returns:
        The error rates on each data set.
    """
    errors: dict[str, list[Tensor]] = {name: [] for name in sets}
    for alpha in torch.linspace(0, 1, points, dtype=torch.float64).tolist():
        point = interpolate(a, b, alpha, rule=program.rule)
        own = pooled_buffers(program, point, buffers, sets["train"], batch_size=batch_size)
        for name, samples in sets.items():
            errors[name].append(1 - evaluate_stack(program, point, own, samples).accuracy)
    return {name: torch.stack(each) for name, each in errors.items()}


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
