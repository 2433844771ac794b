"""Pre-activation ResNet-18 for small images, ordinary or scale-invariant."""

from torch import Tensor, nn
from torch.nn.functional import relu

from lratlas.models.layers import batch_norm, check_images, convolution, linear_head


class Block(nn.Module):
    """Batch norm, ReLU and a 3x3 convolution, twice, with a shortcut whose output is added to the result.

    The shortcut passes the block's input unchanged. If the number of channels or the image's size changes, it is a
    further batch norm and a 1x1 convolution of the first ReLU's output (Li and Arora, 2020).

    Args:
        inputs: Number of channels of the block's input.
        outputs: Number of channels of its output.
        stride: The factor by which the first convolution and the shortcut reduce the image's size.
        scale_invariant: Whether batch norm has no parameters.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, scale_invariant: bool) -> None:
        super().__init__()
        self.norm1 = batch_norm(inputs, scale_invariant=scale_invariant)
        self.conv1 = convolution(inputs, outputs, stride=stride)
        self.norm2 = batch_norm(outputs, scale_invariant=scale_invariant)
        self.conv2 = convolution(outputs, outputs)
        changes = stride != 1 or inputs != outputs
        self.shortcut = (
            nn.Sequential(
                batch_norm(inputs, scale_invariant=scale_invariant),
                convolution(inputs, outputs, size=1, stride=stride),
            )
            if changes
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """[n, outputs, height / stride, width / stride] from [n, inputs, height, width], sizes rounded up."""
        active = relu(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        return kept + self.conv2(relu(self.norm2(self.conv1(active))))


class ResNet18(nn.Module):
    """Pre-activation ResNet-18: a 3x3 stem, four stages of two blocks, batch norm, the mean over pixels, linear.

    The stages have ``width`` times 1, 2, 4 and 8 channels; all but the first halve the image. The stem has no stride
    and no pooling. All weights have PyTorch's default initialisation; at width 32, the norm of the scale-invariant
    form's trained vector is then close to the paper's 28.

    In the scale-invariant form, batch norm has no parameters, and the linear layer has no bias and stays frozen at its
    random initial values, rescaled to norm 10 (paper, controlled setting). Rescaling the whole trained vector then does
    not change the function. Layers whose outputs are added do not have that property individually, so their relative
    scale matters. The linear layer of the ordinary form has no bias either.

    Args:
        channels: Number of image channels.
        classes: Number of outputs per image.
        width: Number of channels of the first stage.
        scale_invariant: Whether to build the scale-invariant form.
    """

    SMALLEST = 5  # pixels, so that each of the three halvings has at least two

    def __init__(self, *, channels: int, classes: int, width: int = 32, scale_invariant: bool = False) -> None:
        super().__init__()
        self.stem = convolution(channels, width)
        blocks = list[nn.Module]()
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            for stride in (1 if stage == 0 else 2, 1):
                blocks.append(Block(inputs, outputs, stride=stride, scale_invariant=scale_invariant))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = batch_norm(inputs, scale_invariant=scale_invariant)
        self.head = linear_head(inputs, classes, scale_invariant=scale_invariant, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [n, classes] for images [n, channels, height, width].

        Raises:
            ValueError: The input is not a batch of images, or they are smaller than 5x5 pixels.
        """
        check_images(x, model="ResNet18", smallest=self.SMALLEST)
        return self.head(relu(self.norm(self.blocks(self.stem(x)))).mean((2, 3)))
