"""What the LRs of a problem lead to: the rows of the oracle as arrays, readable at any LR."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.advice.problem import Problem, chance

Values = NDArray[np.float64]
Way = tuple[str, float]
"""A finish and the share of a full training after which it is made."""
ABOVE = 1 + 1e-9
"""An LR that exceeds another by more than this factor is larger."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """What the LRs of a problem lead to.

    Attributes:
        problem: The problem.
        lrs: Its LRs, ascending, [L].
        validation: The metric that choices are made on, [seeds, L] for each way.
        test: The metric that choices are judged by, likewise.
        floors: Validation and test metric of a model that has learned nothing.
    """

    problem: Problem
    lrs: Values
    validation: Mapping[Way, Values]
    test: Mapping[Way, Values]
    floors: tuple[float, float]

    def validation_at(self, way: Way, lr: float) -> Values:
        """The validation metric of each seed at any LR, [seeds]: linear in log LR between the LRs of the grid.

        Below the grid it is that of the smallest LR, above the grid chance level.
        """
        return self._at(self.validation[way], lr, self.floors[0])

    def test_at(self, way: Way, lr: float) -> Values:
        """The same for the test metric."""
        return self._at(self.test[way], lr, self.floors[1])

    def _at(self, curves: Values, lr: float, floor: float) -> Values:
        if lr > self.lrs[-1] * ABOVE:
            return np.full(len(curves), floor)
        return np.array([np.interp(np.log(lr), np.log(self.lrs), curve) for curve in curves])


def surface(problem: Problem, runs: pl.DataFrame, seeds: Collection[int]) -> Surface:
    """Collect the rows of a problem that belong to some seeds.

    A loss above chance level counts as chance level: nobody keeps such a model, and a diverging one has no scale.

    Args:
        problem: The problem.
        runs: Rows of the oracle (`measuring.RUNS`), of other problems too.
        seeds: Of weights and batches.

    Raises:
        ValueError: The oracle lacks the problem or some of the seeds.
    """
    own = runs.filter((pl.col("problem") == problem.name) & pl.col("seed").is_in(list(seeds)))
    lacking = sorted(set(seeds) - set(own["seed"]))
    if lacking:
        raise ValueError(f"The oracle has no runs of {problem.name} with seed {', '.join(map(str, lacking))}.")
    floors = chance(problem, problem.split.validation), chance(problem, problem.split.test)
    if not problem.higher_is_better:
        own = own.with_columns(
            pl.col("validation").clip(upper_bound=floors[0]), pl.col("test").clip(upper_bound=floors[1])
        )
    parts = {(str(key[0]), float(key[1])): part for key, part in own.group_by("finish", "horizon")}
    return Surface(
        problem=problem,
        lrs=own["lr"].unique().sort().to_numpy(),
        validation=MappingProxyType({way: _array(part, "validation") for way, part in parts.items()}),
        test=MappingProxyType({way: _array(part, "test") for way, part in parts.items()}),
        floors=floors,
    )


def _array(part: pl.DataFrame, column: str) -> Values:
    ordered = part.sort("seed", "lr")
    return ordered[column].to_numpy().reshape(ordered["seed"].n_unique(), -1)
