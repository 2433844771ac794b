"""Synthetic losses and small trainings for the tests of watching."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lratlas.monitor.rules import Rules
from lratlas.monitor.tracker import Look, RegimeTracker
from lratlas.monitor.watch import watch

Floats = NDArray[np.float64]


def ar1(count: int, correlation: float, seed: int) -> Floats:
    """Stationary noise of unit variance, the sum of decaying shocks."""
    rng = np.random.default_rng(seed)
    values = [float(rng.normal())]
    for shock in rng.normal(size=count - 1):
        values.append(correlation * values[-1] + np.sqrt(1 - correlation**2) * float(shock))
    return np.array(values)


def followed(losses: Iterable[float], rules: Rules | None = None) -> tuple[RegimeTracker, set[str]]:
    """A tracker after all losses, one a step, and everything that it said on the way."""
    tracker = RegimeTracker(rules=rules or Rules(chance_loss=2.3))
    said = set[str]()
    for loss in losses:
        look = tracker.add(steps=1, loss=loss)
        if look is not None:
            said.add(look.regime)
    return tracker, said


class Loop:
    """One weight per group and an SGD, for synthetic losses."""

    def __init__(self, groups: int = 1, **options: Any) -> None:
        self.weights = [nn.Parameter(torch.zeros(2)) for _ in range(groups)]
        for weight in self.weights:
            weight.grad = torch.ones(2)
        rates = [{"params": [weight], "lr": 0.1 * 10**-at} for at, weight in enumerate(self.weights)]
        self.optimizer = torch.optim.SGD(rates, lr=0.1, foreach=False)
        self.watch = watch(self.optimizer, **options)

    def step(self, loss: float | torch.Tensor, **given: float) -> None:
        self.optimizer.step()
        self.watch(loss, **given)

    def steps(self, losses: Iterable[float], factor: Callable[[int], float] | None = None) -> list[Look]:
        """A step for each loss, at a learning rate of 0.1 times the factor of the step; the looks that were taken."""
        before = len(self.watch.log)
        for at, loss in enumerate(losses):
            if factor is not None:
                for group in self.optimizer.param_groups:
                    group["lr"] = 0.1 * factor(at)
            self.step(loss)
        return self.watch.log[before:]


def plateau(steps: int = 600) -> list[float]:
    return (0.5 + 0.05 * ar1(steps, 0.0, 0)).tolist()


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Scikit-learn's 1,797 digits of 8×8 pixels, in [0, 1]."""
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, *, after: Callable[[Tensor, float], object]
) -> None:
    """Mini-batches of 32 digits; ``after`` gets each one's loss and accuracy after the optimizer's step."""
    x, y = digits()
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(x), (32,), generator=generator)
        outputs = model(x[rows])
        loss = nn.functional.cross_entropy(outputs, y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after(loss, float((outputs.argmax(1) == y[rows]).float().mean()))
