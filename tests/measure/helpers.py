"""What the tests of geometry share: random stacks of 2 seeds and 3 lanes, rotations, models between models."""

import copy
import math

import torch
from torch import Tensor, nn

from lratlas.training.sphere import Weights
from training.helpers import trained_parameters


def drawn(seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (2, 3, 2, 2), "b": (2, 3, 3)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def flat(weights: Weights) -> Tensor:
    """The vector of each run, [2, 3, 7]."""
    return torch.cat([value.reshape(2, 3, -1) for value in weights.values()], -1)


def turned(weights: Weights, towards: Weights, angle: float) -> Weights:
    """The weights, at norm 1, turned by an angle in their plane with others, built from an orthonormal pair."""
    u = flat(weights) / flat(weights).norm(dim=-1, keepdim=True)
    v = flat(towards) - (flat(towards) * u).sum(-1, keepdim=True) * u
    # Once more, for rounding left along u would change angles near 0.
    v = v - (v * u).sum(-1, keepdim=True) * u
    result = math.cos(angle) * u + math.sin(angle) * v / v.norm(dim=-1, keepdim=True)
    return {"a": result[..., :4].reshape(2, 3, 2, 2), "b": result[..., 4:]}


@torch.no_grad()
def model_between(first: nn.Module, last: nn.Module, alpha: float, *, turning: bool) -> nn.Module:
    """The model at ``alpha`` between two, on the straight line, or turning by a constant angle by the usual formula."""
    u, v = (torch.cat([value.flatten() for value in trained_parameters(end)]) for end in (first, last))
    one, other = 1 - alpha, alpha
    if turning:
        size = (1 - alpha) * u.norm() + alpha * v.norm()
        angle = torch.acos(u @ v / u.norm() / v.norm())
        one = float(torch.sin((1 - alpha) * angle) / torch.sin(angle) * size / u.norm())
        other = float(torch.sin(alpha * angle) / torch.sin(angle) * size / v.norm())
    between = copy.deepcopy(first)
    for value, end in zip(trained_parameters(between), trained_parameters(last), strict=True):
        value.copy_(one * value + other * end)
    return between
