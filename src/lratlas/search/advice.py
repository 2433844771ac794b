"""The advice that a search comes to: an initial LR, how to finish, and the evidence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import polars as pl

from lratlas.errors import SearchError
from lratlas.numbers import first_not_finite
from lratlas.search.ranking import near_best, projected, ranking, trial
from lratlas.search.regimes import Bracket, convergence, divergence, regimes
from lratlas.search.rungs import spent
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search
from lratlas.search.wording import statement_of, warnings_of

ANNEALED_PART = 0.2
"""The last part of a full training, over which an annealed LR goes linearly to zero."""

EVIDENCE = pl.Schema(
    {
        "lr": pl.Float64,
        "seed": pl.Int64,
        "steps": pl.Int64,  # from fresh weights
        "annealed": pl.Boolean,
        "value": pl.Float64,  # validation metric of the last weights
        "averaged": pl.Float64,  # validation metric of the averaged weights
        "regime": pl.String,  # of the trial, by its training losses so far
        "failure": pl.String,
        "seconds": pl.Float64,
    }
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Advice:
    """Which initial LR to use; `print` shows it in sentences.

    Attributes:
        lr: The recommended initial LR.
        low: The lower end of the good range.
        high: The upper end of the good range.
        finish: How to finish: ``average`` (the weights of the last tenth of the steps) or ``anneal`` (the LR to zero
            over the last fifth); ``constant`` where the search tried neither.
        expected: The validation metric that a full training at the LR is expected to reach, averaged weights.
        best_steps: The steps after which the best validation metric so far was seen.
        best: That metric.
        direction: Whether a metric is better when it is larger, ``maximize``, or smaller, ``minimize``.
        convergence: Where the convergence threshold lies, above which the loss stops falling; None where it was not
            seen.
        divergence: Where the divergence threshold lies, above which nothing is learned; None where it was not seen.
        cost: What the search trained, in full trainings.
        steps: Optimizer steps of a full training.
        evidence: One row per segment (see `EVIDENCE`), ascending in LR, seed and steps.
        warnings: What a reader should know before relying on it, each a sentence.
    """

    lr: float
    low: float
    high: float
    finish: Literal["average", "anneal", "constant"]
    expected: float
    best_steps: int
    best: float
    direction: Literal["maximize", "minimize"]
    convergence: Bracket | None
    divergence: Bracket | None
    cost: float
    steps: int
    evidence: pl.DataFrame
    warnings: tuple[str, ...]

    @property
    def statement(self) -> str:
        """The advice in two or three sentences."""
        return statement_of(self)

    def lr_at(self, step: int) -> float:
        """The LR of a step of a full training that finishes as advised; steps count from 0.

        Args:
            step: Optimizer steps done before, less than ``steps``.

        Returns:
            The advised LR; over the last fifth of the steps less and less of it where it is to be annealed.
        """
        left = (self.steps - step) / (ANNEALED_PART * self.steps)
        return self.lr * min(1.0, left) if self.finish == "anneal" else self.lr

    def longest(self) -> pl.DataFrame:
        """Of each LR, the row of the evidence with the most steps at a constant LR, first seed; ascending in LR."""
        constant = self.evidence.filter(~pl.col("annealed") & (pl.col("seed") == 0))
        longest = constant.group_by("lr").agg(pl.all().sort_by("steps").last()).sort("lr")
        return longest.select("lr", "steps", "value", "averaged", "regime")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Advice):
            return NotImplemented
        return self._values == other._values and self.evidence.equals(other.evidence)

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        return (
            f"Advice(lr={self.lr:.4g}, low={self.low:.4g}, high={self.high:.4g}, finish={self.finish!r},"
            f" expected={self.expected:.4g}, cost={self.cost:.4g})"
        )

    def __str__(self) -> str:
        """The statement and the warnings, a line each."""
        return "\n".join([self.statement, *(f"Note: {warning}" for warning in self.warnings)])

    @property
    def _values(self) -> tuple[object, ...]:
        """All fields but the evidence, whose ``==`` is a table."""
        return tuple(getattr(self, field.name) for field in fields(self) if field.name != "evidence")


def advise(search: Search, results: Sequence[SegmentResult]) -> Advice:
    """The advice that follows from what was told so far.

    Args:
        search: The settings.
        results: All that was told, in any order.

    Raises:
        SearchError: Nothing has been told yet, or all LRs failed.
    """
    # Ties must not fall as the workers happened to finish.
    results = sorted(
        results, key=lambda each: (each.segment.stop, each.segment.lr, each.segment.seed, each.segment.annealed)
    )
    ranked = ranking(search, results)
    if not results:
        raise SearchError("Nothing has been told yet; there is no advice without a trained segment.")
    if not any(each.score > -math.inf for each in ranked):
        raise SearchError(f"None of the LRs could be trained. The first failure: {_first_failure(results)}.")
    near = near_best(search, ranked)
    lr = peak([each.lr for each in ranked], [each.score for each in ranked])
    best = max((each for each in results if each.failure is None), key=lambda each: search.score(each.quality))
    told = regimes(results, good={each.lr for each in near})
    nearest = min(near, key=lambda each: abs(math.log(each.lr / lr)))
    return Advice(
        lr=lr,
        low=min(near[0].lr, lr),
        high=max(near[-1].lr, lr),
        finish=_finish(search, results),
        expected=search.metric(nearest.score),
        best_steps=best.segment.stop,
        best=search.metric(search.score(best.quality)),
        direction=search.direction,
        convergence=convergence(told),
        divergence=divergence(told, above=nearest.lr),
        cost=spent(search, results),
        steps=search.steps,
        evidence=_evidence(results, told),
        warnings=tuple(warnings_of(search, results, ranked)),
    )


def peak(lrs: Sequence[float], scores: Sequence[float]) -> float:
    """The LR at which a parabola through the best score and its two neighbours, over log LR, is highest.

    Args:
        lrs: Ascending.
        scores: Of each LR, more being better; minus infinity where it failed.

    Returns:
        That LR, between the two neighbours; the best LR itself where it stands at an end or beside a failure.
    """
    best = max(range(len(lrs)), key=lambda place: (scores[place], lrs[place]))
    around = slice(best - 1, best + 2)
    if best == 0 or best == len(lrs) - 1 or first_not_finite(scores[around]) is not None:
        return lrs[best]
    x = np.log10(lrs[around]) - math.log10(lrs[best])
    curvature, slope, _ = np.polyfit(x, np.subtract(scores[around], scores[best]), 2)
    if curvature >= 0:
        return lrs[best]
    return lrs[best] * 10 ** float(np.clip(-slope / (2 * curvature), x[0], x[-1]))


def _finish(search: Search, results: Sequence[SegmentResult]) -> Literal["average", "anneal", "constant"]:
    """Whether averaged weights, the annealed branch or neither was best where both were tried."""
    if not any(each.averaged is not None for each in results):
        annealed = any(each.segment.annealed and each.failure is None for each in results)
        return "anneal" if annealed else "constant"
    branch = next((each for each in results if each.segment.annealed and each.failure is None), None)
    if branch is None:
        return "average"
    constant = trial(results, branch.segment.lr, seed=branch.segment.seed)
    average = projected(search, constant, doublings=math.log2(branch.segment.stop / constant[-1].segment.stop))
    # An average costs nothing, so that annealing has to be better by more than counts as equal.
    margin = search.tolerance * abs(average)
    return "anneal" if search.score(branch.value) > average + margin else "average"


def _evidence(results: Sequence[SegmentResult], told: dict[tuple[float, int], str]) -> pl.DataFrame:
    rows = [
        {
            "lr": each.segment.lr,
            "seed": each.segment.seed,
            "steps": each.segment.stop,
            "annealed": each.segment.annealed,
            "value": each.value,
            "averaged": each.averaged,
            "regime": told[each.segment.lr, each.segment.seed],
            "failure": each.failure,
            "seconds": each.seconds,
        }
        for each in results
    ]
    return pl.DataFrame(rows, schema=EVIDENCE).sort("lr", "seed", "steps", "annealed")


def _first_failure(results: Sequence[SegmentResult]) -> str:
    return next((each.failure.rstrip(".") for each in results if each.failure), "unknown")
