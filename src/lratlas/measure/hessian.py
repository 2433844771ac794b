"""Exact products of the Hessian of a run's loss with vectors, over mini-batches weighted by their sample counts."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from lratlas.data.parts import Parts, arguments, count
from lratlas.data.parts import rows as first
from lratlas.devices import widened
from lratlas.rng import stream
from lratlas.training.batch_norm import batch_dependent, norm_names
from lratlas.training.objective import Objective
from lratlas.training.state import Samples

Outputs = Callable[[Tensor, Parts], Any]  # (trained vector [P], inputs [n, ...]) -> the model's outputs
Product = Callable[[Tensor], Tensor]  # float64 [P] -> float64 [P]


class Batches(Protocol):
    """A re-iterable collection of mini-batches of inputs and targets, such as a list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Parts, Parts]]: ...


@dataclass(frozen=True, kw_only=True)
class MiniBatches:
    """The samples of one seed in mini-batches, prepared for the model lazily.

    Attributes:
        samples: Data of one seed.
        parts: Indices of the samples of each mini-batch.
    """

    samples: Samples
    parts: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[tuple[Parts, Parts]]:
        for rows in self.parts:
            x, y = self.samples.take_samples(rows[None])
            yield first(x, 0), first(y, 0)


def seed_samples(samples: Samples, at: int) -> Samples:
    """The samples of the seed at place ``at`` of a stack, as the samples of a stack of one seed."""
    only = slice(at, at + 1)
    frozen = {name: value[only] for name, value in samples.frozen.items()}
    return replace(samples, which=samples.which[only], shares=samples.shares[only], frozen=frozen)


def mini_batches(samples: Samples, *, batch_size: int, seed: int, limit: int | None = None) -> MiniBatches:
    """The samples of one seed, shuffled, in mini-batches whose sizes differ by at most one.

    Even sizes avoid a short last batch, whose batch-norm statistics would be poor. The order is a function of only
    ``seed``, so that all runs of a repetition are measured on the same mini-batches.

    Args:
        samples: Data of one seed (see `seed_samples`).
        batch_size: Largest size.
        seed: Seed of the order.
        limit: Number of samples; None for all.
    """
    order = stream(seed, "sharpness").permutation(samples.count)[:limit]
    rows = torch.from_numpy(order).to(samples.which.device)
    return MiniBatches(samples=samples, parts=rows.tensor_split(-(-len(rows) // batch_size)))


def copy_for_hessian(model: nn.Module) -> nn.Module:
    """A copy of the model in eval mode whose batch norms still normalise with the statistics of their mini-batch."""
    module = copy.deepcopy(model).eval().requires_grad_(False)
    for name in joining_norms(model):
        module.get_submodule(name).train()
    return module


def joining_norms(model: nn.Module) -> set[str]:
    """Names of the model's batch norms, which make the loss of a sample depend on the others of its mini-batch."""
    return {*norm_names(model), *batch_dependent(model)}


def vector_of(weights: Mapping[str, Tensor]) -> Tensor:
    """One run's trained parameters, [*parameter] each, concatenated: [P]."""
    return torch.cat([value.detach().flatten() for value in weights.values()])


def outputs_of(module: nn.Module, weights: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Outputs:
    """A module's outputs as a function of its trained vector (see `vector_of`) and of the inputs.

    Args:
        module: The module to call, for example a `copy_for_hessian`; it is not changed.
        weights: The trained parameters, which define the names, shapes and order in the vector.
        fixed: All other parameters and the buffers. Writes of the module to its buffers are discarded.
    """
    shapes = {name: value.shape for name, value in weights.items()}
    sizes = [shape.numel() for shape in shapes.values()]

    def outputs(vector: Tensor, x: Parts) -> Any:
        parts = zip(shapes.items(), vector.split(sizes), strict=True)
        own = {name: part.view(shape) for (name, shape), part in parts}
        kept = {name: value.clone() for name, value in fixed.items()}
        # Fused attention has no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            positional, named = arguments(x)
            return functional_call(module, {**own, **kept}, positional, named)

    return outputs


def hessian_product(outputs: Outputs, objective: Objective, vector: Tensor, batches: Batches) -> Product:
    """The map from v to Hv, where H is the Hessian of the mean loss over all samples at ``vector``.

    The mean loss is the sum over mini-batches of their mean loss times their share of the samples, so a short last
    batch counts by its size. The products are exact, by differentiating the gradient once more; sums are in float64.

    Args:
        outputs: The model as a function of its trained vector.
        objective: The loss.
        vector: The trained vector, [P].
        batches: The samples. The graph of a single batch is reused between products; several graphs are rebuilt.
    """

    def slopes(x: Parts, y: Parts) -> tuple[Tensor, Tensor]:
        point = vector.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(objective.batch(outputs(point, x), y), point, create_graph=True)
        return point, slope

    kept = [(count(y), slopes(x, y)) for x, y in batches] if len(batches) == 1 else None

    def product(direction: Tensor) -> Tensor:
        total, seen = torch.zeros_like(widened(vector)), 0
        for size, (point, slope) in kept or ((count(y), slopes(x, y)) for x, y in batches):
            seen += size
            if slope.requires_grad:  # the loss is not linear
                along = direction.to(slope)
                (part,) = torch.autograd.grad(
                    slope, point, along, retain_graph=kept is not None, allow_unused=True, materialize_grads=True
                )
                total += size * widened(part)
        return total / seen

    return product
