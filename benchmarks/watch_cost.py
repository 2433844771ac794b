"""The processor time of training steps with a watch, over that without."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lratlas.models.convnet import ConvNet
from lratlas.monitor.watch import watch

CLASSES = 10
Loop = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A training to be measured."""

    model: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of a mini-batch
    steps: int
    turn: int  # steps in a turn


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One training with and without a watch."""

    model: str
    batch_size: int
    weights: int
    average: bool
    steps: int
    microseconds: float  # processor time of a plain step
    ratio: float
    low: float
    high: float


def costs(*, quick: bool) -> list[Cost]:
    """An MLP and a ConvNet, without and with a running average."""
    return [measure(setup, average=average) for setup in _setups(quick=quick) for average in (False, True)]


def measure(setup: Setup, *, average: bool) -> Cost:
    """Both loops taking turns, the one that goes first alternating."""
    loops = [loop(setup, watched=False), loop(setup, watched=True, average=average)]
    for each in loops:
        each(0)
    times = np.zeros((setup.steps // setup.turn, 2))
    for turn in range(len(times)):
        for which in (turn % 2, 1 - turn % 2):
            began = time.process_time()
            loops[which](setup.turn)
            times[turn, which] = time.process_time() - began
    rng = np.random.default_rng(0)
    sums = times[rng.integers(len(times), size=(2000, len(times)))].sum(axis=1)
    low, high = np.quantile(sums[:, 1] / sums[:, 0], [0.025, 0.975])
    plain, watched = times.sum(axis=0)
    return Cost(
        model=setup.model,
        batch_size=setup.shape[0],
        weights=sum(value.numel() for value in setup.make().parameters()),
        average=average,
        steps=len(times) * setup.turn,
        microseconds=1e6 * plain / (len(times) * setup.turn),
        ratio=watched / plain,
        low=float(low),
        high=float(high),
    )


def loop(setup: Setup, *, watched: bool, average: bool = False) -> Loop:
    """What trains a model by SGD with momentum, continuing with every call; asked for no steps it only warms up."""
    torch.manual_seed(0)
    model = setup.make().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.randn(setup.shape), torch.randint(CLASSES, setup.shape[:1])

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(5):
        step()
    follow = watch(optimizer, average=average) if watched else None

    def advance(steps: int) -> None:
        for _ in range(steps):
            loss = step()
            if follow is not None:
                follow(loss)

    return advance


def _setups(*, quick: bool) -> list[Setup]:
    def mlp() -> nn.Module:
        layers = [nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, CLASSES)]
        return nn.Sequential(*layers)

    def convnet() -> nn.Module:
        return ConvNet(channels=3, classes=CLASSES, width=8)

    if quick:
        return [Setup(model="MLP", make=mlp, shape=(8, 784), steps=40, turn=10)]
    return [
        Setup(model="MLP", make=mlp, shape=(128, 784), steps=4000, turn=40),
        Setup(model="ConvNet", make=convnet, shape=(64, 3, 32, 32), steps=400, turn=10),
    ]
