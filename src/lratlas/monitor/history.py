"""The history of a loss, and whether it is stationary."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lratlas.analysis.regimes import falling_p
from lratlas.errors import SpecError

Floats = NDArray[np.float64]

FEWEST_BLOCKS = 8  # with seven, a loss that falls throughout has p = 2e-4, and one swapped pair makes it 1.4e-3
MOST_BLOCKS = 16
BLOCK_PER_EXCESS = 5.0  # block length over the sum of autocorrelations: neighbouring block means correlate by 0.1
NOTICED_FALL = 0.15  # fall of a descent like t^(-1/2); smaller falls cannot be distinguished from a settled loss

# The height of a loss whose floor is unknown, in spreads: a mini-batch's loss often spreads by a third of its level
_SPREADS = 3.0

# And at least this share of the fall since the start, for losses with hardly any spread
_SHARE_OF_FALL = 0.05

# The median absolute difference of two normal values has this share of their standard deviation
_MEDIAN_DIFFERENCE = 0.9539

# Share of the trend's range below which the remainder cannot produce a trend by itself
_HARMLESS = 0.1

# A remainder as small as this relative to the values is rounding
_ROUNDING = 1e-10

# By the degree of the trend's polynomial; measured on AR(1) noise of 32 to 256 values with ρ from 0.8 to 1
_LOST = {1: 25.0, 2: 60.0}


@dataclass(frozen=True, kw_only=True)
class Trend:
    """The results of the tests on a stretch of a running loss.

    Attributes:
        blocks: Number of block means compared; 0 if the loss varies too slowly for a test.
        length: Values per block.
        falling_p: p value of a loss that does not fall, against a fall; None without blocks.
        settled_p: p value of a loss that falls by 15% of the height or more between the two halves, against a
            slower fall.
        fall: Fall of the mean from the first to the second half; negative for a rise.
        height: The scale for falls: the level of a loss whose floor is zero, otherwise an estimate from its spread and
            its fall since the start.
        spread: Standard deviation of the single losses, from the differences between neighbours.
        level: Mean of the second half.
        lowest: Lowest mean of a block.
    """

    blocks: int
    length: int
    falling_p: float | None
    settled_p: float | None
    fall: float
    height: float
    spread: float
    level: float
    lowest: float


def trend(values: Floats, *, variances: Floats | None = None, start: float | None = None, pace: float = 1.0) -> Trend:
    """Test a stretch of losses for a fall, and for the absence of a fall.

    Blocks of equal length, at least five times the sum of the autocorrelations, are compared by the Mann-Kendall test
    twice: unchanged, and with the fall of a descent added back. In the second test, a significant *rise* shows that
    there was no such descent.

    Args:
        values: Successive losses or their means over equally many steps, shape (values,), finite.
        variances: Variances of the losses inside each mean; None if the values are single losses.
        start: Loss at the start of the training. The result then depends on neither the zero nor the unit of the loss.
            If None, the floor of the loss is zero.
        pace: Share of the height that counts: less than 1 if a falling learning rate slows the training down.

    Raises:
        SpecError: If there are fewer than eight values.
    """
    if len(values) < FEWEST_BLOCKS:
        raise SpecError(f"the trend of {len(values)} losses is undefined; at least {FEWEST_BLOCKS} losses are needed")
    excess = correlation_excess(values, floor_is_zero=start is None)
    length = max(-(-len(values) // MOST_BLOCKS), int(np.ceil(BLOCK_PER_EXCESS * excess)))
    count = len(values) // length
    # Without independent blocks there are no tests, but the size of the fall is still known
    tested = count >= FEWEST_BLOCKS
    if not tested:
        length = len(values) // FEWEST_BLOCKS
        count = len(values) // length
    blocks = block_means(values, length)
    half = count // 2
    first, second = float(blocks[:half].mean()), float(blocks[-half:].mean())
    spread = _spread(values, variances)
    height = abs(first) if start is None else max(_SPREADS * spread, _SHARE_OF_FALL * abs(start - second))
    height *= pace
    # The halves' centres are count - half blocks apart
    noticed = max(NOTICED_FALL * height, _ROUNDING * float(np.abs(values).max()))
    descent = noticed * np.arange(count) / (count - half)
    return Trend(
        blocks=count if tested else 0,
        length=length,
        falling_p=falling_p(blocks) if tested else None,
        settled_p=falling_p(-(blocks + descent)) if tested else None,
        fall=first - second,
        height=height,
        spread=spread,
        level=second,
        lowest=float(blocks.min()),
    )


def block_means(values: Floats, length: int) -> Floats:
    """Means of successive blocks of ``length`` values, counted from the end; a remainder at the start is dropped."""
    return values[len(values) % length :].reshape(-1, length).mean(axis=1)


def correlation_excess(values: Floats, *, floor_is_zero: bool = True) -> float:
    """Sum of the autocorrelations of the remainder of a smooth trend, up to the first that is not significant.

    Zero for independent values, about ``ρ / (1 − ρ)`` for an AR(1) process. A remainder that is small compared with the
    trend's range counts less: it is not a noise that could have produced the trend.

    Args:
        values: Successive losses.
        floor_is_zero: The trend is a straight line, in the logarithms if all values are positive. Otherwise it is a
            parabola, which depends on neither the zero nor the unit of the loss.
    """
    count, degree = len(values), 1 if floor_is_zero else 2
    if floor_is_zero and values.min() > 0:
        values = np.log(np.maximum(values, 0.01 * np.median(values)))
    smooth = _smooth(values, degree)
    rest = values - smooth
    floor = (_HARMLESS * float(np.ptp(smooth))) ** 2
    products = np.correlate(rest, rest, mode="full")[count - 1 :] / count
    if products[0] <= (_ROUNDING * float(np.abs(values).max())) ** 2:
        return 0.0
    correlations = products[1:] / (products[0] + floor)
    small = np.flatnonzero(correlations < 1.645 / np.sqrt(count))
    excess = float(correlations[: small[0] if len(small) else count].sum())
    # Removing a trend and stopping at the first small one make the sum too small; beyond the bound it is unknown
    share = _LOST[degree] * excess / count
    return excess / (1 - share) if share < 1 else float(count)


def _smooth(values: Floats, degree: int) -> Floats:
    """Least-squares polynomial, by projection onto orthogonal ones."""
    position = np.linspace(-1.0, 1.0, len(values))
    powers = np.vander(position, degree + 1, increasing=True)
    basis, _ = np.linalg.qr(powers)
    return np.asarray(basis @ (basis.T @ values), dtype=np.float64)


def _spread(values: Floats, variances: Floats | None) -> float:
    """Standard deviation of the single losses; uses medians, so that a few spikes or steps do not count."""
    inside = 0.0 if variances is None else float(np.median(variances))
    between = float(np.median(np.abs(np.diff(values)))) / _MEDIAN_DIFFERENCE
    return float(np.sqrt(inside + between * between))


MOST_CELLS = 512


class Cell(NamedTuple):
    """Means over some steps, and how much the losses inside vary.

    Attributes:
        loss: Mean loss.
        accuracy: Mean accuracy; NaN if it is unknown.
        lr: Mean learning rate; NaN if it is unknown.
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
        self.open_cell = cell if self.open_cell is None else _merge_cells(self.open_cell, cell, share)
        self.open_steps += steps
        if self.open_steps >= self.length:
            self.cells.append(self.open_cell)
            self.open_steps, self.open_cell = 0, None
        if len(self.cells) >= MOST_CELLS:
            self.length *= 2
            pairs = zip(self.cells[::2], self.cells[1::2], strict=True)
            self.cells = [_merge_cells(first, second, 0.5) for first, second in pairs]

    def last_half(self, fewest: int) -> Stretch:
        """The last half of the cells, or the last ``fewest`` cells if the half has fewer."""
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
        """The highest mean loss over about ``steps`` steps, or over a cell if cells are longer."""
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


def _merge_cells(first: Cell, second: Cell, share: float) -> Cell:
    """The cell over the steps of both; ``share`` of them are the second's."""
    apart = second.loss - first.loss
    return Cell(
        loss=first.loss + share * apart,
        accuracy=first.accuracy + share * (second.accuracy - first.accuracy),
        lr=first.lr + share * (second.lr - first.lr),
        variance=(1 - share) * first.variance + share * second.variance + share * (1 - share) * apart * apart,
    )
