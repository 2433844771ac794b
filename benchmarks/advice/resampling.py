"""Standard errors by the bootstrap, over the seeds of searches and the seeds of judges at once.

A replicate draws one search less than there are, and one judge less, with replacement: the variance of the mean of
n - 1 draws of n values is that of the mean of n values, without the bias that n draws of so few have.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.advice.surface import Values
from lratlas.rng import stream

REPLICATES = 2000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{_short(self.value)} ± {_short(self.error)}"


@dataclass(frozen=True, kw_only=True)
class Replicated:
    """A figure of the whole sample, and of each replicate, [replicates]; NaN where it is not defined."""

    whole: float
    replicates: Values

    @property
    def estimate(self) -> Estimate | None:
        """The figure with the deviation of its replicates; None where the figure is not defined."""
        if not np.isfinite(self.whole):
            return None
        finite = self.replicates[np.isfinite(self.replicates)]
        return Estimate(value=self.whole, error=float(finite.std(ddof=1)) if len(finite) > 1 else 0.0)


@dataclass(frozen=True, kw_only=True)
class Resamples:
    """The places that each replicate takes.

    Attributes:
        searches: Of the searches, [replicates, S - 1].
        judges: Of the judges, [replicates, J - 1].
    """

    searches: NDArray[np.int64]
    judges: NDArray[np.int64]

    def means(self, values: Values) -> Values:
        """The mean of values [S, J] in each replicate, [replicates]."""
        return values[self.searches[:, :, None], self.judges[:, None, :]].mean((1, 2))


def resamples(problem: str, *, searches: int, judges: int) -> Resamples:
    """The replicates of a problem, the same for all methods with as many searches and judges."""
    return Resamples(
        searches=_drawn(f"advice/searches/{problem}", searches), judges=_drawn(f"advice/judges/{problem}", judges)
    )


def combined(parts: Sequence[Replicated], combine: Callable[[Values], Values]) -> Replicated:
    """One figure from those of several problems; ``combine`` reduces the last axis of an array of them."""
    whole = combine(np.array([[part.whole for part in parts]]))
    replicates = combine(np.stack([part.replicates for part in parts], axis=-1))
    return Replicated(whole=float(whole[0]), replicates=replicates)


def known_mean(values: Values) -> Values:
    """The mean over the last axis of what is defined; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(-1)
    return np.where(count > 0, np.where(known, values, 0).sum(-1) / np.maximum(count, 1), np.nan)


def _drawn(purpose: str, count: int) -> NDArray[np.int64]:
    return stream(0, purpose).integers(0, count, size=(REPLICATES, max(count - 1, 1)))


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 99.5 else f"{value:.0f}"
