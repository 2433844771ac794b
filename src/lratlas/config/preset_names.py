"""The names of the studies that come with the package, for help texts too: nothing is imported for them."""

from collections.abc import Mapping
from types import MappingProxyType

PRESETS: Mapping[str, str] = MappingProxyType(
    {
        "ticks": "synthetic ticks, SI MLP: the paper's grid and steps, 5 repetitions (the paper has 50)",
        "ticks-threshold": "ticks near the convergence threshold, ten times as long: epochs to convergence, bisection",
        "ticks-minima": "ticks with a second PLR, norms and sharpness: 4 FLRs, 5 repetitions",
        "digits": "handwritten digits of scikit-learn, SI MLP: 13 PLRs, 3 FLRs, 3 repetitions",
        "digits-label-noise": "300 of the digits, a fifth of their labels wrong: averages gain above the threshold",
        "fashion-convnet": "8,192 images of Fashion-MNIST, SI ConvNet of width 8: sized for two cores",
        "fashion-resnet": "2,048 images of Fashion-MNIST, SI ResNet-18 of width 8: sized for two cores",
        "fashion-resnet-practical": "the same images, ordinary ResNet-18 with momentum, weight decay, crop and flip",
        "fashion-vit": "the same images, a small ViT with Adam, RandAugment, crop and flip",
        "cifar10-convnet": "CIFAR-10, SI ConvNet of width 32, the paper's grid",
        "cifar10-resnet": "CIFAR-10, SI ResNet-18 of width 32, the paper's grid",
        "cifar10-resnet-threshold": "CIFAR-10, SI ResNet-18 near the convergence threshold, up to 3,000 epochs",
        "cifar10-resnet-two-stages": "CIFAR-10, SI ResNet-18 with a second PLR before fine-tuning",
        "cifar100-convnet": "CIFAR-100, SI ConvNet of width 128, the paper's grid",
        "cifar100-resnet": "CIFAR-100, SI ResNet-18 of width 32, the paper's grid",
        "tinyimagenet-resnet": "Tiny ImageNet (64 x 64, 200 classes), SI ResNet-18 of width 32, the paper's grid",
        "cifar10-resnet-practical": "CIFAR-10, ResNet-18 of width 64 with momentum, weight decay, crop and flip",
        "cifar100-resnet-practical": "CIFAR-100, the same",
        "cifar10-vit": "CIFAR-10, ViT with Adam, RandAugment, crop and flip, 500 epochs",
        "cifar100-vit": "CIFAR-100, the same",
    }
)
"""What each of them is."""
