"""The nets of the paper's reference code as plain modules, written without the package's layers.

Parameters are registered in the order of the package's models, so that weights can be copied one after the other.
"""

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


@torch.no_grad()
def with_weights_of(plain: nn.Module, model: nn.Module) -> nn.Module:
    """The plain module in float64 with the model's initial weights, frozen where the model's are."""
    plain = copy.deepcopy(plain).double()
    for mine, other in zip(plain.parameters(), model.parameters(), strict=True):
        assert mine.shape == other.shape
        mine.copy_(other)
        mine.requires_grad = other.requires_grad
    return plain


def si_mlp(inputs: int, width: int) -> nn.Module:
    """Linear, layer norm and ReLU, twice, then the head; no parameters but matrices."""

    def norm() -> nn.LayerNorm:
        return nn.LayerNorm(width, eps=1e-7, elementwise_affine=False)

    hidden = [nn.Linear(inputs, width, bias=False), norm(), nn.ReLU(), nn.Linear(width, width, bias=False), norm()]
    return nn.Sequential(*hidden, nn.ReLU(), nn.Linear(width, 1, bias=False), nn.Flatten(0))


def si_convnet(channels: int, classes: int, width: int) -> nn.Module:
    """Four convolutions with batch norm and ReLU; pooling after the second and third, the maximum after the fourth."""
    layers: list[nn.Module] = []
    for at in range(4):
        before, after = channels if at == 0 else width * 2 ** (at - 1), width * 2**at
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after, affine=False), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if at in {1, 2} else []
    head = nn.Linear(8 * width, classes, bias=False)
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), head)


class PlainBlock(nn.Module):
    """A pre-activation block; a shortcut that changes the shape has a batch norm before its 1x1 convolution."""

    def __init__(self, before: int, after: int, stride: int, *, affine: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before, affine=affine)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after, affine=affine)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.down = before != after
        if self.down:
            self.bn = nn.BatchNorm2d(before, affine=affine)
            self.conv = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first = self.bn1(x).relu()
        second = self.conv2(self.bn2(self.conv1(first)).relu())
        return second + (self.conv(self.bn(first)) if self.down else x)


def resnet18(channels: int, classes: int, width: int, *, affine: bool) -> nn.Module:
    """Stem, eight blocks, batch norm, ReLU, the mean over pixels, a head without a bias."""
    widths = [width * 2**stage for stage in range(4)]
    pairs = [(width, width, 1), (width, width, 1)]
    for before, after in pairwise(widths):
        pairs += [(before, after, 2), (after, after, 1)]
    blocks = [PlainBlock(before, after, stride, affine=affine) for before, after, stride in pairs]
    end = [nn.BatchNorm2d(8 * width, affine=affine), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    head = nn.Linear(8 * width, classes, bias=False)
    return nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1, bias=False), *blocks, *end, head)


class PlainViT(nn.Module):
    """A ViT with shifted patches, locality attention and layer norms in its MLPs, without dropout."""

    def __init__(
        self, channels: int, classes: int, side: int, *, patch: int, width: int, depth: int, heads: int, mlp: int
    ) -> None:
        super().__init__()
        self.patch, self.heads = patch, heads
        self.class_token = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(1 + (side // patch) ** 2, width))
        pixels = 5 * channels * patch**2
        self.tokens = nn.Sequential(nn.LayerNorm(pixels), nn.Linear(pixels, width))
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            temperature = nn.ParameterList([nn.Parameter(torch.empty(()))])
            hidden = [nn.LayerNorm(width), nn.Linear(width, mlp), nn.LayerNorm(mlp), nn.GELU()]
            block = [
                nn.LayerNorm(width),
                temperature,
                nn.Linear(width, 3 * width, bias=False),
                nn.Linear(width, width),
                nn.Sequential(*hidden, nn.Linear(mlp, width), nn.LayerNorm(width)),
            ]
            self.blocks.append(nn.ModuleList(block))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        shifts = ((1, -1, 0, 0), (-1, 1, 0, 0), (0, 0, 1, -1), (0, 0, -1, 1))
        seen = torch.cat([x, *(functional.pad(x, shift) for shift in shifts)], 1)
        tokens = self.tokens(functional.unfold(seen, self.patch, stride=self.patch).mT)
        hidden = torch.cat([self.class_token.repeat(len(x), 1, 1), tokens], 1) + self.positions
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            norm, temperature, qkv, out, mlp = block
            assert isinstance(temperature, nn.ParameterList)
            q, k, v = (part.unflatten(2, (self.heads, -1)) for part in qkv(norm(hidden)).chunk(3, 2))
            scores = torch.einsum("nihd,njhd->nhij", q, k) * temperature[0].exp()
            scores = scores - torch.full((hidden.shape[1],), torch.inf, dtype=x.dtype).diag()
            hidden = hidden + out(torch.einsum("nhij,njhd->nihd", scores.softmax(3), v).flatten(2))
            hidden = hidden + mlp(hidden)
        return self.head(hidden[:, 0])
