"""The paper's ConvNet: four convolutions, ordinary or scale-invariant, for images of any size."""

from torch import Tensor, nn

from lratlas.models.layers import MaxPool, batch_norm, check_images, convolution, linear_head


class ConvNet(nn.Module):
    """Four 3x3 convolutions of growing width, each with batch norm and ReLU, then a linear layer.

    The convolutions have ``width`` times 1, 2, 4 and 8 channels. 2x2 max pooling after the second and the third halves
    the image, and a maximum over all pixels follows the fourth. All weights have PyTorch's default initialisation; at
    width 32, the norm of the scale-invariant form's trained vector is then close to the paper's 12.

    In the scale-invariant form, batch norm has no parameters, and the linear layer has no bias and stays frozen at its
    random initial values, rescaled to norm 10 (paper, controlled setting). Each convolution precedes a norm layer, so
    the function does not change when the trained vector, or any one convolution, is rescaled.

    Args:
        channels: Number of image channels.
        classes: Number of outputs per image.
        width: Number of channels of the first convolution.
        scale_invariant: Whether to build the scale-invariant form.
    """

    SMALLEST = 4  # pixels, so that the image can be halved twice

    def __init__(self, *, channels: int, classes: int, width: int = 32, scale_invariant: bool = False) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int) -> list[nn.Module]:
            return [
                convolution(inputs, outputs),
                batch_norm(outputs, scale_invariant=scale_invariant),
                nn.ReLU(),
            ]

        self.layers = nn.Sequential(
            *layer(channels, width),
            *layer(width, 2 * width),
            MaxPool(),
            *layer(2 * width, 4 * width),
            MaxPool(),
            *layer(4 * width, 8 * width),
        )
        self.head = linear_head(8 * width, classes, scale_invariant=scale_invariant)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [n, classes] for images [n, channels, height, width].

        Raises:
            ValueError: The input is not a batch of images, or they are smaller than 4x4 pixels.
        """
        check_images(x, model="ConvNet", smallest=self.SMALLEST)
        return self.head(self.layers(x).amax((2, 3)))
