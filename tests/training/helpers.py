"""What the tests of training and measuring share: modules as a stack, and the loop that one would write by hand."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lratlas.training.sphere import Weights
from lratlas.training.state import Samples


@dataclass(frozen=True, kw_only=True)
class Point:
    """One seed's modules, lane by lane, as the tensors of a stack."""

    weights: Weights
    buffers: Weights
    frozen: Weights


def point_of(modules: Sequence[nn.Module]) -> Point:
    """The modules as the lanes of one seed; the frozen parameters are those of the first."""

    def lanes(values: Sequence[Tensor]) -> Tensor:
        return torch.stack([value.detach().clone() for value in values])[None]

    named = dict(modules[0].named_parameters())
    return Point(
        weights={
            name: lanes([module.get_parameter(name) for module in modules])
            for name, value in named.items()
            if value.requires_grad
        },
        buffers={
            name: lanes([module.get_buffer(name) for module in modules]) for name, _ in modules[0].named_buffers()
        },
        frozen={name: value.detach()[None] for name, value in named.items() if not value.requires_grad},
    )


def samples_of(x: Tensor, y: Tensor, point: Point, *, classes: int = 3) -> Samples:
    """One data set for one seed; every class has the same share."""
    dtype = x.dtype if x.is_floating_point() else torch.float64
    shares = torch.full((1, classes), 1 / classes, dtype=dtype)
    return Samples(x=x[None], y=y[None], which=torch.tensor([0]), shares=shares, frozen=point.frozen)


def lane(tensors: Mapping[str, Tensor], at: int) -> Weights:
    """One run's tensors, the stack's axes taken off."""
    return {name: value[0, at] for name, value in tensors.items()}


def trained_parameters(module: nn.Module) -> list[nn.Parameter]:
    return [value for value in module.parameters() if value.requires_grad]


@torch.no_grad()
def projected(parameters: Sequence[nn.Parameter], radius: float) -> None:
    """Rescale the parameters, all together, to a norm."""
    size = torch.cat([value.flatten() for value in parameters]).norm()
    for value in parameters:
        value.mul_(radius / size)


def plain_training(
    module: nn.Module,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    radius: float | None = None,
) -> nn.Module:
    """A copy of the module after an ordinary training loop, projected after every step where there is a radius."""
    module = copy.deepcopy(module).train()
    made = optimizer(trained_parameters(module))
    for x, y in batches:
        made.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        made.step()
        if radius:
            projected(trained_parameters(module), radius)
    return module


def same(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], atol: float) -> None:
    """Compare all tensors that were got with those of the same name, which must be there."""
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name].detach().to(value), rtol=0, atol=atol)
