"""Your own model, data and optimizer: a small convolutional net on 8 x 8 images of handwritten digits.

With the spec next to it, in this folder:  lratlas explore own_model.toml --folder own-study
Without a spec, from Python:              python own_model.py
"""

import torch
from torch import Tensor, nn

import lratlas
from lratlas.data import digits


def make_model() -> nn.Module:
    """An ordinary net with batch norm; called again for each seed."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def load() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test set, each a pair of images [n, 1, 8, 8] and labels [n]."""
    (train_x, train_y), (test_x, test_y) = digits()
    mean, deviation = train_x.mean(), train_x.std()
    train_x, test_x = ((x.view(-1, 1, 8, 8) - mean) / deviation for x in (train_x, test_x))
    return (train_x, train_y), (test_x, test_y)


def make_optimizer(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Any optimizer, PyTorch's or your own; it must use the learning rate that it is given."""
    return torch.optim.NAdam(parameters, lr=lr, weight_decay=1e-4, decoupled_weight_decay=True)


def main() -> None:
    """The study of `own_model.toml`, without its spec."""
    train, test = load()
    task = lratlas.Task(
        model=make_model, train=train, test=test, batch_size=64, rule=make_optimizer, name="own net on digits"
    )
    atlas = lratlas.explore(
        task,
        folder="own-study-from-python",
        pretrain={"lrs": lratlas.lr_grid(1e-3, 1.0, per_decade=2), "epochs": 40},
        finetune={"lrs": [1e-4, 1e-3], "epochs": 5},
        average={"counts": [2, 5]},
        training={"compile": False},
    )
    print(*atlas.summary, sep="\n")
    print(f"Report: {atlas.folder}/report.html")


if __name__ == "__main__":
    main()
