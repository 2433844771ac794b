"""Layers that the models share: the frozen head of the scale-invariant forms, and parts of image models."""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

HEAD_NORM = 10.0


def linear_head(inputs: int, outputs: int, *, scale_invariant: bool, bias: bool = True) -> nn.Linear:
    """The last linear layer: trained, or frozen at norm 10 without a bias.

    Args:
        inputs: Number of features per sample.
        outputs: Number of outputs per sample.
        scale_invariant: Whether to build the frozen form (paper, controlled setting).
        bias: Whether the trained form has a bias.
    """
    head = nn.Linear(inputs, outputs, bias=bias and not scale_invariant)
    if scale_invariant:
        freeze_head(head)
    return head


@torch.no_grad()
def freeze_head(head: nn.Linear) -> None:
    """Rescale the weights of ``head`` to norm 10 and exclude them from training, in place."""
    head.weight.mul_(HEAD_NORM / head.weight.norm())
    head.weight.requires_grad = False


def convolution(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A ``size`` x ``size`` convolution without bias that keeps the image's size, or divides it by ``stride``."""
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


def batch_norm(channels: int, *, scale_invariant: bool) -> nn.BatchNorm2d:
    """Batch norm over images, with a trained scale and shift per channel unless the model is scale-invariant."""
    return nn.BatchNorm2d(channels, affine=not scale_invariant)


class MaxPool(nn.Module):
    """2x2 max pooling, like `torch.nn.MaxPool2d`; an odd last row or column is dropped.

    Gradients agree with those of `torch.nn.MaxPool2d` if a tile has one largest element. If several are equal, such as
    zeros after a ReLU, compiled code distributes the gradient among them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, height // 2, width // 2] from [n, channels, height, width]."""
        if not torch.compiler.is_compiling():
            return max_pool2d(x, 2)
        # The compiler fuses this with the layers around it: a step of the ConvNet takes 15 to 20% less time on a CPU.
        rows, columns = x.shape[2] // 2, x.shape[3] // 2
        tiles = x[:, :, : 2 * rows, : 2 * columns].unflatten(3, (columns, 2)).unflatten(2, (rows, 2))
        return tiles.amax((3, 5))


def check_images(x: Tensor, *, model: str, smallest: int) -> None:
    """Check that a model that halves its images can process a batch.

    Args:
        x: The input of the model.
        model: The model's name, for the message.
        smallest: Minimum height and width in pixels.

    Raises:
        ValueError: ``x`` is not [n, channels, height, width], or its images are too small.
    """
    if x.dim() != 4:
        raise ValueError(f"{model} needs images of shape [n, channels, height, width], not {tuple(x.shape)}.")
    height, width = x.shape[2:]
    if min(height, width) < smallest:
        raise ValueError(f"{model} needs images of at least {smallest}x{smallest} pixels, not {height}x{width}.")
