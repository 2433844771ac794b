"""Made-up losses and small trainings for the tests of watching."""

from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lratlas.watching.rules import Rules
from lratlas.watching.tracker import RegimeTracker

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
