"""One test for a falling loss, for finished trainings and for running ones."""

import numpy as np
from numpy.typing import NDArray

FEWEST_BLOCKS = 5  # with four, even a loss that falls throughout has p = 1/24


def falling_p(losses: NDArray[np.float64]) -> float | None:
    """One-sided p value of the Mann-Kendall test for a fall.

    Ranks make it robust to spikes and to the loss's scale. It is exact for independent values, so means over
    blocks longer than the correlation time go in.

    Args:
        losses: Means over successive blocks of steps, shape (blocks,).

    Returns:
        The p value; 1 for a constant loss, None for fewer than five blocks.
    """
    if len(losses) < FEWEST_BLOCKS:
        return None
    if np.ptp(losses) == 0:
        return 1.0
    from scipy import stats  # takes a second to import, and a finished study is read without it

    result = stats.kendalltau(np.arange(len(losses)), losses, alternative="less")
    return float(np.asarray(result)[1])
