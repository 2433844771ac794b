"""Multi-layer perceptrons: ordinary, and scale-invariant as in the paper's synthetic example."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lratlas.models.layers import freeze_head

_EPS = 1e-7


class MLP(nn.Module):
    """Linear layers with layer norm and ReLU between them.

    In the scale-invariant form, the norms have no parameters, no layer has a bias, and the last linear layer stays
    frozen at PyTorch's uniform draw, rescaled to norm 10. All other weights precede a norm layer and start from a
    normal distribution, so their direction on a sphere is uniform (paper, controlled setting).

    Args:
        inputs: Number of features per sample; inputs with more axes are flattened.
        widths: Number of outputs of each hidden layer.
        outputs: Number of outputs of the last layer; with 1 the result has shape [n], else [n, outputs].
        scale_invariant: Whether to build the scale-invariant form.
    """

    def __init__(self, inputs: int, widths: Sequence[int], outputs: int, *, scale_invariant: bool = False) -> None:
        super().__init__()
        sizes = [inputs, *widths]
        layers: list[nn.Module] = []
        for size, width in pairwise(sizes):
            layers.append(nn.Linear(size, width, bias=not scale_invariant))
            layers.append(nn.LayerNorm(width, eps=_EPS, elementwise_affine=not scale_invariant))
            layers.append(nn.ReLU())
        head = nn.Linear(sizes[-1], outputs, bias=not scale_invariant)
        self.layers = nn.Sequential(*layers, head)
        if scale_invariant:
            make_scale_invariant(self, head)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for a batch, [n] or [n, outputs]."""
        result = self.layers(x.flatten(1))
        return result.squeeze(-1) if result.shape[-1] == 1 else result


@torch.no_grad()
def make_scale_invariant(model: nn.Module, head: nn.Linear) -> None:
    """Freeze ``head`` at norm 10 and redraw the trained parameters from a normal distribution, in place."""
    freeze_head(head)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
