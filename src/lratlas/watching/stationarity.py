"""Tests on a running loss: does it fall, or is it settled? Exact for blocks longer than the correlation time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lratlas.analysis.trend import falling_p
from lratlas.errors import SpecError

Floats = NDArray[np.float64]

FEWEST_BLOCKS = 8  # with seven, a loss that falls throughout has p = 2e-4, and one swapped pair makes it 1.4e-3
MOST_BLOCKS = 16
BLOCK_PER_EXCESS = 5.0  # block length over the sum of autocorrelations: neighbouring block means correlate by 0.1
NOTICED_FALL = 0.15  # what a descent like t^(-1/2) falls by; less is not told from a settled loss

# Share of the trend's range below which what the trend leaves over cannot make a trend by itself.
_HARMLESS = 0.1

# A remainder as small as this beside the values is rounding.
_ROUNDING = 1e-10

# Measured on AR(1) noise of 32 to 256 values: 16 to 30 for ρ from 0.8 to 1, where it matters.
_LOST = 25.0


@dataclass(frozen=True, kw_only=True)
class Trend:
    """What the tests say of a stretch of a running loss.

    Attributes:
        blocks: How many block means were compared; 0 where the loss varies too slowly to tell.
        length: Values per block.
        falling_p: p value of a loss that does not fall, against a fall; None without blocks.
        settled_p: p value of a loss that falls by 15 % or more between the two halves, against a slower one.
        fall: Relative fall of the mean from the first to the second half; negative for a rise.
        level: Mean of the second half.
        lowest: Lowest mean of an eighth.
    """

    blocks: int
    length: int
    falling_p: float | None
    settled_p: float | None
    fall: float
    level: float
    lowest: float


def trend(values: Floats, *, noticed_fall: float = NOTICED_FALL) -> Trend:
    """Test a stretch of losses for a fall, and for the absence of a fall.

    Blocks of equal length, at least five times the sum of the autocorrelations, are compared by the
    Mann-Kendall test: as they are, and with the fall that a descent would have had added back, in which case
    a significant *rise* shows that there was no such descent.

    Args:
        values: Successive losses or their means over equally many steps, shape (values,), finite.
        noticed_fall: The fall between the halves that a settled loss must be seen not to have.

    Raises:
        SpecError: If there are fewer than eight values.
    """
    if len(values) < FEWEST_BLOCKS:
        raise SpecError(f"the trend of {len(values)} losses was asked for; at least {FEWEST_BLOCKS} are needed")
    length = max(-(-len(values) // MOST_BLOCKS), int(np.ceil(BLOCK_PER_EXCESS * correlation_excess(values))))
    count = len(values) // length
    # Without independent blocks there are no tests, but how much the loss fell can still be said
    tested = count >= FEWEST_BLOCKS
    if not tested:
        length = len(values) // FEWEST_BLOCKS
        count = len(values) // length
    blocks = block_means(values, length)
    half = count // 2
    first, second = float(blocks[:half].mean()), float(blocks[-half:].mean())
    # The halves' centres lie count - half blocks apart
    descent = noticed_fall * abs(first) * np.arange(count) / (count - half)
    return Trend(
        blocks=count if tested else 0,
        length=length,
        falling_p=falling_p(blocks) if tested else None,
        settled_p=falling_p(-(blocks + descent)) if tested else None,
        fall=(first - second) / abs(first) if first else 0.0,
        level=second,
        lowest=float(blocks.min()),
    )


def block_means(values: Floats, length: int) -> Floats:
    """Means of successive blocks of ``length`` values, counted from the end; what is left at the start is dropped."""
    return values[len(values) % length :].reshape(-1, length).mean(axis=1)


def correlation_excess(values: Floats) -> float:
    """Sum of the autocorrelations of what a smooth trend leaves over, up to the first that is not significant.

    Zero for independent values, about ``ρ / (1 − ρ)`` for an AR(1) process. Where all values are positive the trend
    is a straight line in their logarithms. What it leaves over counts for no more than it is: a remainder that is
    small beside the trend's own range is no noise that could have made the trend.
    """
    count = len(values)
    if values.min() > 0:
        values = np.log(np.maximum(values, 0.01 * np.median(values)))
    position = np.linspace(-1.0, 1.0, count)
    smooth = values.mean() + position * (position @ values) / (position @ position)
    rest = values - smooth
    floor = (_HARMLESS * float(np.ptp(smooth))) ** 2
    products = np.correlate(rest, rest, mode="full")[count - 1 :] / count
    if products[0] <= (_ROUNDING * float(np.abs(values).max())) ** 2:
        return 0.0
    correlations = products[1:] / (products[0] + floor)
    small = np.flatnonzero(correlations < 1.645 / np.sqrt(count))
    excess = float(correlations[: small[0] if len(small) else count].sum())
    # Removing a trend and stopping at the first small one make the sum too small; beyond the bound it cannot be told
    share = _LOST * excess / count
    return excess / (1 - share) if share < 1 else float(count)
