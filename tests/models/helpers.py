"""What the tests of the image models share: images, counts, and batch norm written out."""

from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def images(*shape: int) -> Tensor:
    """Random images, float64; the same for the same shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def counts(model: nn.Module) -> tuple[int, int]:
    """Numbers of trained and of frozen parameters."""
    sizes = [(value.numel(), value.requires_grad) for value in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, trained in sizes if not trained)


def trained_vector(model: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters() if value.requires_grad])


def normalised(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Batch norm with the batch's own statistics, from its definition, eps as PyTorch's default."""
    mean = x.mean((0, 2, 3), keepdim=True)
    result = (x - mean) / ((x - mean).square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    if scale is None or shift is None:
        return result
    return result * scale[:, None, None] + shift[:, None, None]


def distinct(model: Model) -> Model:
    """The model in float64 and train mode, with batch-norm scales and shifts that are not all one and zero."""
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.affine:
            nn.init.uniform_(layer.weight, 0.5, 2.0, generator=generator)
            nn.init.normal_(layer.bias, generator=generator)
    return model.double().train()
