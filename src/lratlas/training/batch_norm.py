"""Batch-norm statistics of averaged and interpolated models, pooled exactly over the training set in float64."""

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - the base class of all of them

from lratlas.devices import widened
from lratlas.training.sphere import Weights

_MEAN, _VARIANCE, _COUNT = "running_mean", "running_var", "num_batches_tracked"


def norm_names(model: nn.Module) -> list[str]:
    """Names of the model's batch norms that have running statistics."""
    return [name for name, module in model.named_modules() if _keeps_statistics(module)]


def other_statistics(model: nn.Module, changed: Iterable[str]) -> list[str]:
    """The buffers changed by a pass in train mode that belong to no batch norm, so they cannot be pooled."""
    owned = {f"{name}.{kind}".lstrip(".") for name in norm_names(model) for kind in (_MEAN, _VARIANCE, _COUNT)}
    return [name for name in changed if name not in owned]


def batch_dependent(model: nn.Module) -> list[str]:
    """Names of batch norms whose running statistics are missing, or an average over all batches so far."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    return [name for name, norm in norms.items() if norm.running_mean is None or norm.momentum is None]


def with_moments(model: nn.Module) -> nn.Module:
    """A copy of the model whose batch norms store the batch's moments in their running statistics.

    In train mode each batch norm still normalises with its batch's statistics, but stores in its buffers the mean and
    the variance (divided by the count) of its inputs, and their count per channel.
    """
    model = copy.deepcopy(model)
    for name in norm_names(model):
        parent, _, own = name.rpartition(".")
        if not own and not parent:
            return _Measuring(cast("nn.BatchNorm2d", model))
        setattr(model.get_submodule(parent), own, _Measuring(cast("nn.BatchNorm2d", model.get_submodule(name))))
    return model


class PooledMoments:
    """Mean and variance of every batch norm's inputs over batches of any size, in float64.

    Batches are weighted by their number of values. The variance is that of all values together, so it includes the
    spread of the batch means; it is unbiased, as in PyTorch's running statistics.
    """

    def __init__(self, norms: Iterable[str], buffers: Weights) -> None:
        self._buffers = buffers
        self._parts: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._norms = list(norms)

    def add(self, moments: Weights) -> None:
        """Add a batch: the buffers [seeds, lanes, ...] of a model made by `with_moments`."""
        for name in self._norms:
            mean, variance, count = (
                widened(moments[f"{name}.{kind}".lstrip(".")]) for kind in (_MEAN, _VARIANCE, _COUNT)
            )
            count = count[..., None]
            squares = variance * count
            if name in self._parts:
                old_mean, old_squares, old_count = self._parts[name]
                apart, total = mean - old_mean, old_count + count
                squares = old_squares + squares + apart.square() * old_count * count / total
                mean, count = old_mean + apart * count / total, total
            self._parts[name] = mean, squares, count

    def buffers(self) -> Weights:
        """All buffers, with the pooled statistics as running statistics."""
        pooled = dict(self._buffers)
        for name, (mean, squares, count) in self._parts.items():
            for kind, value in ((_MEAN, mean), (_VARIANCE, squares / (count - 1))):
                key = f"{name}.{kind}".lstrip(".")
                pooled[key] = value.to(pooled[key])
        return pooled


class _Measuring(nn.Module):
    """A batch norm that stores the moments of its batch in its buffers."""

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.register_parameter("weight", cast("nn.Parameter | None", norm.weight))
        self.register_parameter("bias", cast("nn.Parameter | None", norm.bias))
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        dims = [0, *range(2, x.dim())]
        wide = x.float() if x.dtype == torch.bfloat16 else x
        variance, mean = torch.var_mean(wide, dims, correction=0)
        self.running_mean.copy_(mean)
        self.running_var.copy_(variance)
        self.num_batches_tracked.fill_(x.numel() // x.shape[1])
        return batch_norm(x, mean, variance, self.weight, self.bias, training=False, eps=self.eps)


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None
