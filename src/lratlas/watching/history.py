"""A running loss in bounded memory: means over equally many steps, fewer and longer as it grows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lratlas.watching.stationarity import block_means

Floats = NDArray[np.float64]

MOST_CELLS = 512


class Cell(NamedTuple):
    """Means over some steps, and how much the losses inside vary.

    Attributes:
        loss: Mean loss.
        accuracy: Mean accuracy; NaN where it was not given.
        lr: Mean learning rate; NaN where it was not given.
        variance: Variance of the single losses around the mean.
    """

    loss: float
    accuracy: float
    lr: float
    variance: float = 0.0


class Stretch(NamedTuple):
    """Successive cells as arrays, each of shape (cells,)."""

    losses: Floats
    accuracies: Floats
    variances: Floats


@dataclass(kw_only=True)
class History:
    """Cells of equally many steps.

    Attributes:
        length: Steps per cell; doubles whenever there would be more than 512 cells. Zero before the first mean.
        cells: The full cells, oldest first.
        open_steps: Steps in the cell that is being filled.
        open_cell: Means over these steps; None without any.
    """

    length: int = 0
    cells: list[Cell] = field(default_factory=list[Cell])
    open_steps: int = 0
    open_cell: Cell | None = None

    def add(self, cell: Cell, *, steps: int) -> None:
        """Add means over ``steps`` steps; the first call's steps make the first cell."""
        self.length = self.length or steps
        share = steps / (self.open_steps + steps)
        self.open_cell = cell if self.open_cell is None else _merged(self.open_cell, cell, share)
        self.open_steps += steps
        if self.open_steps >= self.length:
            self.cells.append(self.open_cell)
            self.open_steps, self.open_cell = 0, None
        if len(self.cells) >= MOST_CELLS:
            self.length *= 2
            pairs = zip(self.cells[::2], self.cells[1::2], strict=True)
            self.cells = [_merged(first, second, 0.5) for first, second in pairs]

    def last_half(self, fewest: int) -> Stretch:
        """The last half of the cells, or the last ``fewest`` cells where the half has fewer."""
        count = max(len(self.cells) // 2, fewest)
        cells = self.cells[-count:]
        return Stretch(
            losses=np.array([cell.loss for cell in cells]),
            accuracies=np.array([cell.accuracy for cell in cells]),
            variances=np.array([cell.variance for cell in cells]),
        )

    @property
    def lrs(self) -> Floats:
        """The learning rates of all cells."""
        return np.array([cell.lr for cell in self.cells])

    def highest(self, steps: int) -> float:
        """The highest mean loss over about ``steps`` steps, or over a cell where cells are longer."""
        count = min(-(-steps // self.length), len(self.cells))
        return float(block_means(np.array([cell.loss for cell in self.cells]), count).max())

    def state_dict(self) -> dict[str, Any]:
        """The fields as numbers and lists."""
        last = None if self.open_cell is None else list(self.open_cell)
        cells = [list(cell) for cell in self.cells]
        return {"length": self.length, "cells": cells, "open_steps": self.open_steps, "open_cell": last}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The history with this `state_dict`."""
        last = state["open_cell"]
        return cls(
            length=state["length"],
            cells=[Cell(*cell) for cell in state["cells"]],
            open_steps=state["open_steps"],
            open_cell=None if last is None else Cell(*last),
        )


def _merged(first: Cell, second: Cell, share: float) -> Cell:
    """The cell over the steps of both; ``share`` of them are the second's."""
    apart = second.loss - first.loss
    return Cell(
        loss=first.loss + share * apart,
        accuracy=first.accuracy + share * (second.accuracy - first.accuracy),
        lr=first.lr + share * (second.lr - first.lr),
        variance=(1 - share) * first.variance + share * second.variance + share * (1 - share) * apart * apart,
    )
