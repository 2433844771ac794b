"""How much worse a choice is than the best that the oracle knows.

Every choice is judged by trainings that no method has seen, those of the seeds `oracle.JUDGES`. In each of them the
best model by the validation metric of that training is stored: of the averages on the way and the finish at the end.
The regret is the test metric of the best LR minus that of the chosen LR, in points of accuracy; 2.5% of a loss count
as a point. The best LR has the best mean of the test metric over the judges, kept in the same way; since the same
judges find it, its mean is slightly too good.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import polars as pl

from benchmarks.advice.choices import Choice
from benchmarks.advice.oracle import JUDGES
from benchmarks.advice.resampling import Replicated, resamples
from benchmarks.advice.surface import Surface, Values, Way

LOSS_PER_POINT = 2.5  # percent of the loss that count as a point of accuracy
MATTERS = 2.0
"""Points between the best and the worst LR from which on the choice of an LR matters."""
ENDS: Mapping[str, tuple[Way, ...]] = MappingProxyType(
    {
        "average": (("average10", 1.0),),
        "anneal": (("anneal", 1.0),),
        "either": (("average10", 1.0), ("anneal", 1.0)),
        "constant": (("constant", 1.0),),
    }
)
"""The models at the end of a training that can be kept, by the finish that a method advises."""
ON_THE_WAY: tuple[Way, ...] = (("average10", 1 / 2), ("average10", 1 / 4), ("average10", 1 / 8))
"""The averages that can be kept too, whatever the finish."""
JUDGED = pl.Schema(
    {
        "method": pl.String,
        "problem": pl.String,
        "seed": pl.Int64,
        "draw": pl.Int64,
        "judge": pl.Int64,
        "test": pl.Float64,
    }
)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The model of each training that validates best.

    Attributes:
        validation: Its validation metric, [seeds] or [seeds, L].
        test: Its test metric.
    """

    validation: Values
    test: Values


def kept(known: Surface, lr: float, finish: str = "either") -> Kept:
    """What is stored of trainings at an LR; of models that validate alike, the one that was trained longest."""
    ways = ENDS[finish] + ON_THE_WAY
    return _kept(known, [known.validation_at(way, lr) for way in ways], test=[known.test_at(way, lr) for way in ways])


def kept_on_grid(known: Surface) -> Kept:
    """What is stored of the trainings at every LR of the grid, [seeds, L]."""
    ways = ENDS["either"] + ON_THE_WAY
    return _kept(known, [known.validation[way] for way in ways], test=[known.test[way] for way in ways])


def best_of(known: Surface, means: Values) -> Values:
    """The mean test metric of the best LR, for those of all LRs, [..., L]."""
    return known.problem.sign * (known.problem.sign * means).max(-1)


def points(known: Surface, best: Values, tests: Values) -> Values:
    """How many points test metrics are worse than the best one."""
    difference = known.problem.sign * (best - tests)
    return difference if known.problem.higher_is_better else 100 * difference / best / LOSS_PER_POINT


def matters(known: Surface) -> bool:
    """Whether some LR is more than `MATTERS` points better than another."""
    means = kept_on_grid(known).test.mean(0)
    return bool(points(known, best_of(known, means), means).max() > MATTERS)


def regret(known: Surface, tests: Values) -> Replicated:
    """The regret of a method on a problem in points; each replicate finds its own best LR.

    Args:
        known: What the judges know.
        tests: The test metrics of what is stored, [searches, judges].
    """
    grid = kept_on_grid(known).test
    drawn = resamples(known.problem.name, searches=len(tests), judges=len(grid))
    best, bests = best_of(known, grid.mean(0)), best_of(known, grid[drawn.judges].mean(1))
    return Replicated(
        whole=float(points(known, best, tests.mean())), replicates=points(known, bests, drawn.means(tests))
    )


def judge(choices: Iterable[Choice], surfaces: Mapping[str, Surface]) -> pl.DataFrame:
    """Train as chosen; a choice without an LR counts as the customary LR of the optimizer.

    Args:
        choices: Those of other problems are left out.
        surfaces: Of the judges, by the name of the problem.

    Returns:
        One row per choice and judge, rows of `JUDGED`.
    """
    rows = list[dict[str, object]]()
    for choice in choices:
        if known := surfaces.get(choice.problem):
            if choice.lr is None:
                tests = kept(known, known.problem.default_lr).test
            else:
                tests = kept(known, choice.lr, choice.finish).test
            named = {"method": choice.method, "problem": choice.problem, "seed": choice.seed, "draw": choice.draw}
            rows += [named | {"judge": one, "test": value} for one, value in zip(JUDGES, tests, strict=True)]
    return pl.DataFrame(rows, schema=JUDGED)


def _kept(known: Surface, validation: Sequence[Values], *, test: Sequence[Values]) -> Kept:
    """The best of the models of each training, given one array per model."""
    best = (known.problem.sign * np.array(validation)).argmax(0)[None]
    return Kept(
        validation=np.take_along_axis(np.array(validation), best, 0)[0],
        test=np.take_along_axis(np.array(test), best, 0)[0],
    )
