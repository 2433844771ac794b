"""A running loss kept in bounded memory: means over equally many steps, fewer and longer as it grows."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lratlas.watching.stationarity import block_means

Floats = NDArray[np.float64]

MOST_CELLS = 512


@dataclass(kw_only=True)
class History:
    """Means of the loss, and of the accuracy where it is given, over cells of equally many steps.

    Attributes:
        length: Steps per cell; twice as many whenever there would be more than 512 cells. Zero before the first mean.
        losses: Mean loss of each full cell, oldest first.
        accuracies: Mean accuracy of each full cell; NaN where it was not given.
        open_steps: Steps in the cell that is being filled.
        open_loss: Sum over these steps.
        open_accuracy: Sum over these steps.
    """

    length: int = 0
    losses: list[float] = field(default_factory=list[float])
    accuracies: list[float] = field(default_factory=list[float])
    open_steps: int = 0
    open_loss: float = 0.0
    open_accuracy: float = 0.0

    def add(self, *, steps: int, loss: float, accuracy: float) -> None:
        """Add means over ``steps`` steps; the first call's steps make the first cell."""
        self.length = self.length or steps
        self.open_steps += steps
        self.open_loss += steps * loss
        self.open_accuracy += steps * accuracy
        if self.open_steps >= self.length:
            self.losses.append(self.open_loss / self.open_steps)
            self.accuracies.append(self.open_accuracy / self.open_steps)
            self.open_steps, self.open_loss, self.open_accuracy = 0, 0.0, 0.0
        if len(self.losses) >= MOST_CELLS:
            self.length *= 2
            self.losses, self.accuracies = _paired(self.losses), _paired(self.accuracies)

    def last_half(self, fewest: int) -> tuple[Floats, Floats]:
        """Losses and accuracies of the last half of the cells, or of ``fewest`` cells where the half has fewer."""
        count = max(len(self.losses) // 2, fewest)
        return np.array(self.losses[-count:]), np.array(self.accuracies[-count:])

    def highest(self, steps: int) -> float:
        """The highest mean loss over about ``steps`` steps, or over a cell where cells are longer."""
        count = min(-(-steps // self.length), len(self.losses))
        return float(block_means(np.array(self.losses), count).max())


def _paired(values: list[float]) -> list[float]:
    return [(first + second) / 2 for first, second in zip(values[::2], values[1::2], strict=True)]
