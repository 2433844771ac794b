"""The small models of the problems that the package itself has none for."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, scaled_dot_product_attention

from lratlas.models.resnet import Block as ResidualBlock


def plain_mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes, inputs to outputs, with ReLU between them and no norm layer."""
    layers: list[nn.Module] = [nn.Flatten()]
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers += [nn.ReLU()] * (number > 0) + [nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)


def normalised_mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes with layer norm and ReLU between them; the norms have no parameters."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs, elementwise_affine=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def plain_convnet(*, channels: int, classes: int, width: int, size: int) -> nn.Sequential:
    """Two 3x3 convolutions with ReLU and 2x2 pooling, then a hidden and a last linear layer; no norm layer."""
    side = size // 4
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * side**2, 4 * width),
        nn.ReLU(),
        nn.Linear(4 * width, classes),
    )


class SmallResNet(nn.Module):
    """A pre-activation residual net of three blocks, the last two of which halve the image."""

    def __init__(self, *, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(
            ResidualBlock(width, width, stride=1, scale_invariant=False),
            ResidualBlock(width, 2 * width, stride=2, scale_invariant=False),
            ResidualBlock(2 * width, 4 * width, stride=2, scale_invariant=False),
        )
        self.norm = nn.BatchNorm2d(4 * width)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [n, classes] for images [n, channels, height, width]."""
        return self.head(relu(self.norm(self.blocks(self.stem(x)))).mean((2, 3)))


class Transformer(nn.Module):
    """A causal transformer over tokens: learned positions, pre-norm blocks, a last layer norm, a linear head."""

    def __init__(self, *, vocabulary: int, length: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(CausalBlock(width, heads=heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n, length, vocabulary] of each next token, for tokens [n, length]."""
        return self.head(self.norm(self.blocks(self.tokens(x) + self.positions)))


class CausalBlock(nn.Module):
    """Self-attention to what came before, and an MLP, each after a layer norm and added to its input."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [n, length, width] from as many."""
        parts = self.qkv(self.norm(x)).unflatten(2, (3, self.heads, -1))
        queries, keys, values = (part.transpose(1, 2) for part in parts.unbind(2))
        attended = scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class Recurrent(nn.Module):
    """Predicts each next character from those before it: embedding, GRU, linear layer."""

    def __init__(self, *, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores [n, length, vocabulary] of the characters after each of ``tokens`` [n, length]."""
        states, _ = self.recurrent(self.embedding(tokens))
        return self.head(states)
