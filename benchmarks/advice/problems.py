"""The eighteen problems: different models, data, optimizers and horizons, each a few seconds on one core."""

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

from benchmarks.advice.data import autoencoding, diamonds, digits, images, text
from benchmarks.advice.finetuning import NEW, pretrained
from benchmarks.advice.models import Recurrent, SmallResNet, Transformer, normalised_mlp, plain_convnet, plain_mlp
from benchmarks.advice.problem import Problem
from lratlas.config.grid import lr_grid
from lratlas.data.augment import crop_and_flip
from lratlas.data.images import Normalise
from lratlas.models.convnet import ConvNet

_MOMENTUM = MappingProxyType({"name": "sgd", "momentum": 0.9})
_ADAMW = MappingProxyType({"name": "adamw"})


def digits_mlp() -> Problem:
    return Problem(
        name="digits-mlp",
        description="plain MLP on the digits of scikit-learn; SGD with momentum",
        split=digits(train=800, validation=400),
        model=lambda: plain_mlp(64, 64, 64, 10),
        rule=_MOMENTUM,
        batch_size=32,
        steps=4096,
        lrs=_grid(0.0003, 1),
    )


def noisy_mlp() -> Problem:
    return Problem(
        name="noisy-mlp",
        description="MLP with layer norm, Fashion-MNIST, 20% wrong labels, long; SGD with momentum and weight decay",
        split=images("fashion-mnist", train=5000, validation=2000, test=4000, wrong=0.2),
        model=lambda: normalised_mlp(784, 128, 128, 10),
        rule={"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4},
        batch_size=128,
        steps=3904,
        lrs=_grid(0.0001, 5.6),
    )


def noisy_adamw() -> Problem:
    return Problem(
        name="noisy-adamw",
        description="plain MLP on Fashion-MNIST, 30% wrong labels, in validation too; AdamW",
        split=images("fashion-mnist", train=4000, validation=2000, test=4000, wrong=0.3, wrong_validation=True),
        model=lambda: plain_mlp(784, 128, 64, 10),
        rule=_ADAMW,
        batch_size=64,
        steps=2048,
        lrs=_grid(1e-05, 0.1),
    )


def convnet() -> Problem:
    return Problem(
        name="convnet",
        description="ConvNet without norm layers on small Fashion-MNIST; SGD with momentum",
        split=images("fashion-mnist", train=4000, validation=1000, test=2000, shrunk=True),
        model=lambda: plain_convnet(channels=1, classes=10, width=12, size=14),
        rule=_MOMENTUM,
        batch_size=64,
        steps=1024,
        lrs=_grid(0.0001, 0.56),
    )


def convnet_norm() -> Problem:
    return Problem(
        name="convnet-norm",
        description="ConvNet with batch norm on small Fashion-MNIST; SGD with momentum and weight decay",
        split=images("fashion-mnist", train=3000, validation=1000, test=2000, shrunk=True),
        model=lambda: ConvNet(channels=1, classes=10, width=6),
        rule={"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4},
        batch_size=64,
        steps=640,
        lrs=_grid(0.001, 1.8),
    )


def resnet() -> Problem:
    return Problem(
        name="resnet",
        description="small ResNet on small CIFAR-10, crops and flips; SGD with Nesterov momentum and weight decay",
        split=images("cifar10", train=2000, validation=1000, test=2000, shrunk=True, as_bytes=True),
        model=lambda: SmallResNet(channels=3, classes=10, width=8),
        rule={"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
        batch_size=64,
        steps=448,
        lrs=_grid(0.001, 3.2),
        augment=crop_and_flip(padding=2),
        transform=Normalise(mean=(0.49, 0.48, 0.45), std=(0.23, 0.23, 0.24)),
    )


def transformer() -> Problem:
    split, characters = text(length=32, train=16384, validation=256, test=768)
    return Problem(
        name="transformer",
        description="causal transformer on the characters of a text, seen once; AdamW with warm-up",
        split=split,
        model=lambda: Transformer(vocabulary=characters, length=32, width=48, depth=2, heads=3),
        rule={"name": "adamw", "betas": (0.9, 0.95), "weight_decay": 0.1},
        batch_size=32,
        steps=512,
        lrs=_grid(3.2e-05, 0.18),
        metric="loss",
        warmup=32,
    )


def table() -> Problem:
    return Problem(
        name="table",
        description="plain MLP predicts the cut of diamonds from a table; AdamW",
        split=diamonds("cut", train=8000, validation=2000, test=6000),
        model=lambda: plain_mlp(9, 64, 64, 5),
        rule=_ADAMW,
        batch_size=128,
        steps=3072,
        lrs=_grid(1e-05, 0.32),
    )


def regression() -> Problem:
    return Problem(
        name="regression",
        description="plain MLP predicts the price of diamonds from a table; SGD with momentum, mean squared error",
        split=diamonds("price", train=8000, validation=2000, test=6000),
        model=lambda: plain_mlp(9, 64, 64, 1),
        rule=_MOMENTUM,
        batch_size=64,
        steps=3072,
        lrs=_grid(0.0001, 0.56),
        loss="mse",
        metric="loss",
    )


def autoencoder() -> Problem:
    whole = images("fashion-mnist", train=5000, validation=1000, test=2000, shrunk=True, as_bytes=True)
    return Problem(
        name="autoencoder",
        description="autoencoder with a bottleneck of 16 on small Fashion-MNIST; Adam, mean squared error",
        split=autoencoding(whole),
        model=lambda: plain_mlp(196, 128, 16, 128, 196),
        rule={"name": "adam"},
        batch_size=64,
        steps=2048,
        lrs=_grid(3.2e-05, 0.1),
        loss="mse",
        metric="loss",
    )


def finetuning() -> Problem:
    return Problem(
        name="finetuning",
        description="ConvNet pre-trained on five classes of Fashion-MNIST, 250 images of the others; SGD with momentum",
        split=images("fashion-mnist", train=250, validation=500, test=2000, shrunk=True, labels=NEW),
        model=pretrained,
        rule=_MOMENTUM,
        batch_size=25,
        steps=1024,
        lrs=_grid(0.0001, 0.32),
    )


def few_images() -> Problem:
    return Problem(
        name="few-images",
        description="plain MLP on 300 images of Fashion-MNIST; SGD without momentum",
        split=images("fashion-mnist", train=300, validation=500, test=4000, shrunk=True),
        model=lambda: plain_mlp(196, 64, 64, 10),
        rule={"name": "sgd"},
        batch_size=20,
        steps=3072,
        lrs=_grid(0.00032, 3.2),
    )


def deep_mlp() -> Problem:
    return Problem(
        name="deep-mlp",
        description="plain MLP with six hidden layers on digits: no progress at first; SGD with momentum",
        split=digits(train=1080, validation=120),
        model=lambda: plain_mlp(64, *[64] * 6, 10),
        rule=_MOMENTUM,
        batch_size=32,
        steps=2048,
        lrs=_grid(0.001, 1),
    )


def gru() -> Problem:
    split, characters = text(length=32, train=8192, validation=256, test=768)
    return Problem(
        name="gru",
        description="GRU on the characters of a text, twice; Adam",
        split=split,
        model=lambda: Recurrent(vocabulary=characters, width=64),
        rule={"name": "adam"},
        batch_size=32,
        steps=512,
        lrs=_grid(0.0001, 0.32),
        metric="loss",
    )


def wrong_labels() -> Problem:
    return Problem(
        name="wrong-labels",
        description="ConvNet on small Fashion-MNIST, 40% wrong labels, in validation too; SGD with momentum",
        split=images(
            "fashion-mnist", train=3000, validation=1000, test=2000, shrunk=True, wrong=0.4, wrong_validation=True
        ),
        model=lambda: plain_convnet(channels=1, classes=10, width=12, size=14),
        rule=_MOMENTUM,
        batch_size=64,
        steps=960,
        lrs=_grid(0.001, 0.32),
    )


def forty_images() -> Problem:
    return Problem(
        name="forty-images",
        description="ConvNet pre-trained on five classes of Fashion-MNIST, 40 images of the others; Adam",
        split=images("fashion-mnist", train=40, validation=100, test=2000, shrunk=True, labels=NEW),
        model=pretrained,
        rule={"name": "adam"},
        batch_size=10,
        steps=512,
        lrs=_grid(0.00001, 0.1),
    )


def no_effect() -> Problem:
    return Problem(
        name="no-effect",
        description="plain MLP on digits with an optimizer that ignores its LR",
        split=digits(train=800, validation=400),
        model=lambda: plain_mlp(64, 64, 10),
        rule={"name": "self-tuned"},
        batch_size=32,
        steps=1024,
        lrs=_grid(0.001, 1),
    )


def too_deep() -> Problem:
    return Problem(
        name="too-deep",
        description="plain MLP with 24 hidden layers on digits: nothing is learned; SGD with momentum",
        split=digits(train=800, validation=400),
        model=lambda: plain_mlp(64, *[64] * 24, 10),
        rule=_MOMENTUM,
        batch_size=32,
        steps=768,
        lrs=_grid(0.001, 1),
    )


_ALL = (
    digits_mlp,
    noisy_mlp,
    noisy_adamw,
    convnet,
    convnet_norm,
    resnet,
    transformer,
    table,
    regression,
    autoencoder,
    finetuning,
    few_images,
    deep_mlp,
    gru,
    wrong_labels,
    forty_images,
    no_effect,
    too_deep,
)
PROBLEMS: Mapping[str, Callable[[], Problem]] = MappingProxyType(
    {made.__name__.replace("_", "-"): made for made in _ALL}
)
"""What makes each problem, by name."""


@cache
def problem_named(name: str) -> Problem:
    """A problem; its data are read the first time."""
    return PROBLEMS[name]()


def _grid(low: float, high: float) -> tuple[float, ...]:
    """Points of one common grid, of which the default LRs are part, from about ``low`` to about ``high``."""
    return tuple(lr for lr in lr_grid(1e-5, 10, per_decade=4) if 0.9 * low < lr < 1.1 * high)
