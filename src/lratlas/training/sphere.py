"""Weights on a sphere: norms, projection and the check of scale invariance.

Weights of a stack are dictionaries from parameter name to a tensor of shape [seeds, lanes, *parameter]. The functions
act on the whole trained vector of each run, which contains all parameters.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def expand(values: Tensor, like: Tensor) -> Tensor:
    """Append axes of size 1 to ``values`` [seeds, lanes], to match ``like`` [seeds, lanes, *]."""
    return values.reshape(values.shape + (1,) * (like.dim() - values.dim()))


def dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
    """Inner product of the trained vectors of each run, shape [seeds, lanes]."""
    # Sum over rows first: one vectorised pass for the compiler, whatever the parameter's shape.
    return torch.stack([(a[name] * b[name]).reshape(*a[name].shape[:2], -1).sum(-1) for name in a]).sum(0)


def norm(weights: Mapping[str, Tensor]) -> Tensor:
    """Norm of the trained vector of each run, shape [seeds, lanes]."""
    return dot(weights, weights).sqrt()


def project(weights: Mapping[str, Tensor], radius: float) -> Weights:
    """Rescale each run's trained vector to norm ``radius`` (paper, controlled setting)."""
    scale = radius / norm(weights)
    return {name: value * expand(scale, value) for name, value in weights.items()}


def scale_dependent(
    function: Callable[[Mapping[str, Tensor]], Tensor],
    weights: Mapping[str, Tensor],
    *,
    tolerance: float = 0.01,
) -> list[str]:
    """Names of the parameters that prevent ``function`` from being scale-invariant; empty if it is.

    A function of the trained vector is scale-invariant if multiplying the vector by a positive number does not change
    it. The test uses factors 1/2 and 2 at the given weights and, to cover parameters that start at zero, after a
    random perturbation of every parameter.

    Args:
        function: Maps one model's parameters to its outputs, any shape.
        weights: One model's trained parameters (no stack axes).
        tolerance: Maximum change, as root mean square relative to that of the outputs. A norm layer's eps causes
            changes of about 1e-3; a parameter that is at fault causes changes of order 1.
    """
    generator = torch.Generator().manual_seed(0)
    shaken = {name: perturb(value, generator) for name, value in weights.items()}
    at_fault: dict[str, None] = {}
    for point in (dict(weights), shaken):
        if _changes(function, point, list(point), tolerance):
            # A layer's weight and bias may be scale-invariant together but not separately.
            layers = group_by_layer(point).values()
            faulty = [names for names in layers if _changes(function, point, names, tolerance)]
            at_fault.update(dict.fromkeys(name for names in faulty or layers for name in names))
    return list(at_fault)


def group_by_layer(names: Iterable[str]) -> dict[str, list[str]]:
    """Group parameter names by layer."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return layers


def perturb(value: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise of a tenth of a parameter's size, or of 0.1 if the parameter is zero, so that it has an effect."""
    size = float(value.square().mean().sqrt()) or 1.0
    return value + 0.1 * size * torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)


def _changes(
    function: Callable[[Mapping[str, Tensor]], Tensor],
    weights: Mapping[str, Tensor],
    names: list[str],
    tolerance: float,
) -> bool:
    before = function(weights)
    size = float(before.square().mean().sqrt()) or 1.0
    for factor in (0.5, 2.0):
        after = function({name: value * factor if name in names else value for name, value in weights.items()})
        change = float((after - before).square().mean().sqrt()) / size
        if not math.isfinite(change) or change > tolerance:
            return True
    return False
