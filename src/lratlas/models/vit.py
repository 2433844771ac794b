"""The vision transformer for small data sets in the practical setting; it has no scale-invariant form."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

_SHIFTED = ((1, 0), (1, 2), (0, 1), (2, 1))  # first row and column of each shifted copy in the framed image


class ViT(nn.Module):
    """A vision transformer with shifted-patch tokens and locality self-attention.

    The image is cut into square patches, each of which becomes a token (`ShiftedPatches`). A class token is prepended,
    learned positions are added, and ``depth`` blocks follow; a layer norm and a linear layer compute the outputs from
    the class token. Class token and positions start from a standard normal distribution; all other weights have
    PyTorch's default initialisation. The defaults are the paper's (practical setting). Shifted patches and locality
    self-attention, which make a transformer use nearby pixels, are from Lee, Lee and Song, *Vision Transformer for
    Small-Size Datasets*, 2021.

    Args:
        channels: Number of image channels.
        classes: Number of outputs per image.
        size: Height and width of the images in pixels.
        patch: Side of a patch in pixels; it must divide height and width.
        width: Numbers per token; a multiple of ``heads``.
        depth: Number of blocks.
        heads: Number of attention heads per block, each of dimension ``width / heads``.
        mlp: Number of hidden units of a block's MLP.
        dropout: Dropout rate after the positions are added, after the attention, and after each layer of an MLP.

    Raises:
        ValueError: An argument is out of range, or ``patch`` or ``heads`` is not a divisor.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        size: tuple[int, int],
        patch: int = 4,
        width: int = 512,
        depth: int = 6,
        heads: int = 8,
        mlp: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        for name, value in {"patch": patch, "width": width, "depth": depth, "heads": heads, "mlp": mlp}.items():
            if value < 1:
                raise ValueError(f"ViT: {name} is {value}; it must be at least 1.")
        if not 0 <= dropout < 1:
            raise ValueError(f"ViT: dropout is {dropout:g}; it must be at least 0 and below 1.")
        if width % heads:
            raise ValueError(f"ViT: width is {width} and heads is {heads}; width must be a multiple of heads.")
        _check_patch(patch, *size)
        self.takes = (channels, *size)
        patches = (size[0] // patch) * (size[1] // patch)
        self.tokens = ShiftedPatches(channels, width, patch=patch)
        self.class_token = nn.Parameter(torch.randn(width))
        self.positions = nn.Parameter(torch.randn(1 + patches, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads=heads, mlp=mlp, dropout=dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [n, classes] for images [n, channels, height, width].

        Raises:
            ValueError: The input is not a batch of images of the model's size.
        """
        if x.shape[1:] != self.takes:
            wanted = ", ".join(map(str, self.takes))
            raise ValueError(f"This ViT needs images of shape [n, {wanted}], not {tuple(x.shape)}.")
        first = self.class_token.expand(len(x), 1, -1)
        tokens = torch.cat([first, self.tokens(x)], 1) + self.positions
        return self.head(self.norm(self.blocks(self.dropout(tokens))[:, 0]))


class ShiftedPatches(nn.Module):
    """Tokens from patches of the image and of its copies, shifted by one pixel right, left, down and up.

    A token contains its patch and the adjacent pixels, with zeros outside the image. All five patches of a position are
    concatenated, normalised by a layer norm and embedded by one linear layer.

    Args:
        channels: Number of image channels.
        width: Numbers per token.
        patch: Side of a patch in pixels.
    """

    def __init__(self, channels: int, width: int, *, patch: int) -> None:
        super().__init__()
        self.patch = patch
        inputs = 5 * channels * patch**2
        self.norm = nn.LayerNorm(inputs)
        self.embed = nn.Linear(inputs, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [n, patches, width], row by row, of images [n, channels, height, width]."""
        height, width = x.shape[2:]
        framed = pad(x, (1, 1, 1, 1))
        copies = [framed[:, :, top : top + height, left : left + width] for top, left in _SHIFTED]
        cut = torch.cat([x, *copies], 1).unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        # From [n, channels, rows, patch, columns, patch].
        return self.embed(self.norm(cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)))


class LocalityAttention(nn.Module):
    """Self-attention in which no token attends to itself and the temperature is learned.

    The scores ``exp(log_temperature) * q @ k`` go through a softmax over all other tokens; the temperature starts at
    the usual ``1 / sqrt(width / heads)`` and is one number for all heads.

    Args:
        width: Numbers per token.
        heads: Number of attention heads.
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.log_temperature = nn.Parameter(torch.tensor(-0.5 * math.log(width // heads)))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [n, tokens, width] to tokens of the same shape."""
        parts = self.qkv(x).unflatten(2, (3, self.heads, -1))
        queries, keys, values = (part.transpose(1, 2) for part in parts.unbind(2))  # [n, heads, tokens, dimension]
        # Written out: PyTorch's fused attention has no second derivative, which sharpness needs.
        scores = self.log_temperature.exp() * queries @ keys.transpose(2, 3)
        itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        shares = scores.masked_fill(itself, -math.inf).softmax(3)
        return self.out((shares @ values).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and an MLP, each after a layer norm and added to its input.

    The MLP has a layer norm after each of its two linear layers, and GELU between them.

    Args:
        width: Numbers per token.
        heads: Number of attention heads.
        mlp: Number of hidden units of the MLP.
        dropout: Dropout rate after the attention and after each layer of the MLP.
    """

    def __init__(self, width: int, *, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.LayerNorm(width),
            LocalityAttention(width, heads=heads),
            nn.Dropout(dropout),
        )
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, mlp),
            nn.LayerNorm(mlp),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp, width),
            nn.LayerNorm(width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [n, tokens, width] to tokens of the same shape."""
        x = x + self.attention(x)
        return x + self.mlp(x)


def _check_patch(patch: int, height: int, width: int) -> None:
    if height % patch or width % patch:
        common = math.gcd(height, width)
        allowed = ", ".join(str(side) for side in range(1, common + 1) if common % side == 0)
        raise ValueError(
            f"ViT: patch is {patch}, which does not divide images of {height}x{width} pixels; allowed are {allowed}."
        )
