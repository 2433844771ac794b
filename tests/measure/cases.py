"""Small nets with their data, and their Hessians built row by row from modules' own parameters."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from lratlas.measure.curvature import Sharpness, sharpness_measure
from lratlas.measure.hessian import copy_for_hessian, hessian_product, mini_batches, outputs_of, vector_of
from lratlas.models.mlp import MLP
from lratlas.training.objective import LOSSES, Objective
from lratlas.training.rules import Rule
from lratlas.training.state import Samples
from training.helpers import lane, point_of, samples_of, trained_parameters

Batch = tuple[Tensor, Tensor]
SIZES = [(13,), (5, 5, 3), (2, 11)]  # of the mini-batches that the samples are cut into


class Attention(nn.Module):
    """One head over rows of the input, through PyTorch's fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.head = nn.Linear(3, 9), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        # [n, heads, rows, 3], the form that the fused kernels take.
        q, k, v = self.inputs(x.unflatten(1, (1, 2, 3))).chunk(3, -1)
        return self.head(functional.scaled_dot_product_attention(q, k, v).mean((1, 2)))


def convnet(*, affine: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(3, affine=affine),
        nn.Softplus(),
        nn.Dropout(0.5),
        nn.Conv2d(3, 2, 2),
        nn.BatchNorm2d(2, affine=affine),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, 3, bias=False),
    )


def first_frozen(module: nn.Sequential) -> nn.Sequential:
    module[1].requires_grad_(False)
    return module


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "tanh": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)), "mse"),
    "layer norm, frozen head": (lambda: MLP(6, (5, 4), 3, scale_invariant=True), "cross_entropy"),
    "batch norm": (lambda: convnet(affine=True), "cross_entropy"),
    "batch norm, frozen layer": (lambda: first_frozen(convnet(affine=False)), "cross_entropy"),
    "binary": (lambda: MLP(6, (5,), 1), "binary_cross_entropy"),
    "attention": (Attention, "cross_entropy"),
}
WITHOUT_BATCH_NORM = [name for name in MODELS if "batch" not in name]
REFERENCE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "cross_entropy": functional.cross_entropy,
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
}


class Options(TypedDict, total=False):
    """Options of `sharpness_measure`; mini-batches of 5 where none is given."""

    batch_size: int
    limit: int
    probes: int
    draws: int
    tolerance: float
    iterations: int


@dataclass(frozen=True, kw_only=True)
class Case:
    """A module in float64 with its data, as the tensors of one run."""

    module: nn.Module
    objective: Objective
    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]
    samples: Samples

    def of(self, seed: int, batch_size: int) -> list[Batch]:
        return [*mini_batches(self.samples, batch_size=batch_size, seed=seed)]

    def measure(self, rule: Rule, *, seed: int = 3, **options: Unpack[Options]) -> Sharpness:
        chosen: Options = {"batch_size": 5, **options}
        measure = sharpness_measure(self.module, self.objective, rule, **chosen)
        return measure(self.weights, self.buffers, self.samples, seed)

    def product(self, batches: Sequence[Batch]) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        frozen = {name: value[0] for name, value in self.samples.frozen.items()}
        outputs = outputs_of(copy_for_hessian(self.module), self.weights, {**frozen, **self.buffers})
        vector = vector_of(self.weights)
        return hessian_product(outputs, self.objective, vector, batches), vector


def case(name: str, *, count: int = 13) -> Case:
    torch.manual_seed(5)
    make, loss = MODELS[name]
    module = make().double()
    x = torch.randn(count, 6, dtype=torch.float64)
    y = {
        "mse": torch.randn(count, 2, dtype=torch.float64),
        "cross_entropy": torch.randint(3, (count,)),
        "binary_cross_entropy": torch.randint(2, (count,)).double(),
    }[loss]
    point = point_of([module])
    return Case(
        module=module,
        objective=LOSSES[loss],
        weights=lane(point.weights, 0),
        buffers=lane(point.buffers, 0),
        samples=samples_of(x, y, point),
    )


def prepared(case: Case) -> nn.Module:
    """The module as the loss is defined: dropout off, batch norms normalising with their batch."""
    module = copy.deepcopy(case.module).eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.train()
    return module


def flat_gradient(value: Tensor, module: nn.Module, *, again: bool = False) -> Tensor:
    parts = torch.autograd.grad(
        value, trained_parameters(module), create_graph=again, retain_graph=True, materialize_grads=True
    )
    return torch.cat([part.flatten() for part in parts])


def mean_loss(module: nn.Module, case: Case, batches: Sequence[Batch]) -> Tensor:
    """The count-weighted mean, from PyTorch's own losses."""
    count = sum(len(y) for _, y in batches)
    loss = REFERENCE[case.objective.name]
    with sdpa_kernel(SDPBackend.MATH):  # fused attention cannot be differentiated twice
        return torch.stack([loss(module(x), y) * len(y) / count for x, y in batches]).sum()


def explicit_hessian(case: Case, batches: Sequence[Batch]) -> Tensor:
    module = prepared(case)
    slope = flat_gradient(mean_loss(module, case, batches), module, again=True)
    return torch.stack([flat_gradient(each, module) for each in slope])


def cut(case: Case, *sizes: int) -> list[Batch]:
    """The samples in their own order in batches of these sizes."""
    return [*zip(case.samples.x[0].split(sizes), case.samples.y[0].split(sizes), strict=True)]


def exact_fisher_trace(case: Case, batches: Sequence[Batch]) -> float:
    """Mean over samples of the expected squared norm of the gradient of the log-likelihood, label by label."""
    module, total = prepared(case), 0.0
    for x, _ in batches:
        outputs = module(x)
        logits = torch.stack([torch.zeros_like(outputs), outputs], -1) if outputs.dim() == 1 else outputs
        scores = logits.log_softmax(-1)
        for each in scores.flatten():
            total += float(each.detach().exp()) * float(flat_gradient(each, module).square().sum())
    return total / sum(len(y) for _, y in batches)


def known_hessian(spectrum: Tensor) -> Case:
    """Linear regression whose Hessian is the diagonal of these numbers."""
    module = nn.Linear(len(spectrum), 1, bias=False).double()
    x = (spectrum * len(spectrum) / 2).sqrt().diag()
    point = point_of([module])
    return Case(
        module=module,
        objective=LOSSES["mse"],
        weights=lane(point.weights, 0),
        buffers={},
        samples=samples_of(x, torch.ones(len(spectrum), 1, dtype=torch.float64), point),
    )
