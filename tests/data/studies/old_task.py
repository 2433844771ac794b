"""A small task of a user's own, as the kept studies of earlier versions name it."""

import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


def data() -> tuple[Pair, Pair]:
    """Sixteen training and sixteen test samples of two classes."""
    x = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    return (x[:16], y[:16]), (x[16:], y[16:])


def model() -> nn.Module:
    """Two small layers."""
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
