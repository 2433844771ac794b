"""Where one regime ends and the next begins."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lratlas.analysis.evidence import run_evidence
from lratlas.analysis.gains import COVERAGE
from lratlas.analysis.labels import Bools, Floats, change_point, decide, votes
from lratlas.errors import SpecError
from lratlas.tables import SCHEMAS, Tables
from lratlas.thresholds import DEFAULTS, Thresholds

NAMES = ("convergence", "subregime", "divergence")


@dataclass(frozen=True, kw_only=True)
class Redrawn:
    """The regimes of all PLRs, ascending, over redrawn seeds.

    Attributes:
        plrs: The PLRs.
        seeds: How many seeds there are.
        labels: The regimes, shape (1 + resamples, PLRs); the first row is of the study as it is.
    """

    plrs: Floats
    seeds: int
    labels: NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class Brackets:
    """The decided PLRs on the two sides of a boundary, per weighting of the seeds; NaN for none."""

    below: Floats
    above: Floats


def boundaries(
    tables: Tables,
    *,
    chance_loss: float,
    thresholds: Thresholds = DEFAULTS,
    resamples: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """Locate the three boundaries between regimes.

    Each is a single change point over the sorted PLRs: the cut with the fewest PLRs on the wrong side, the
    lowest of equal ones. The regime of a PLR is the one decided over all seeds, so boundaries agree with the
    regimes table; the interval redraws the seeds and decides all regimes anew. An undecided PLR counts as
    not diverged, but has no say about convergence: if it lies at that boundary, the bracket spans it. Only
    PLRs of 2A and 2B have a say about theirs. A redrawn study that does not reach a boundary puts it at the
    nearest PLR that has a say.

    Args:
        tables: A study's tables; ``runs``, ``traces`` and ``pairs`` (may be missing) are read.
        chance_loss: Loss of the best constant prediction.
        thresholds: The numbers that decide.
        resamples: Number of bootstrap resamples of the seeds.
        seed: Seed of the bootstrap's generator.

    Returns:
        Three rows with the schema of ``boundaries``: ``below`` and ``above`` are the grid points on the two
        sides, ``value`` their geometric mean, ``low`` and ``high`` a 95 % percentile bootstrap interval,
        never narrower than the bracket and null for one seed. All null where the boundary is not reached.

    Raises:
        SpecError: If ``chance_loss`` is not a positive number or ``resamples`` is below 1.
        StudyError: If a PLR has two pre-training runs of one seed, or a finite run has no training trace.
    """
    drawn = redrawn(tables, chance_loss=chance_loss, thresholds=thresholds, resamples=resamples, seed=seed)
    rows = [
        {"boundary": name, **_row(_brackets(drawn.plrs, drawn.labels, upper=upper, decided=decided))}
        for name, upper, decided in zip(NAMES, *_sides(drawn.labels), strict=True)
    ]
    return pl.DataFrame(rows, schema=SCHEMAS["boundaries"])


def redrawn(
    tables: Tables,
    *,
    chance_loss: float,
    thresholds: Thresholds = DEFAULTS,
    resamples: int = 1000,
    seed: int = 0,
) -> Redrawn:
    """Decide the regimes of a study as it is, and as often with its seeds drawn anew.

    Args:
        tables: A study's tables; ``runs``, ``traces`` and ``pairs`` (may be missing) are read.
        chance_loss: Loss of the best constant prediction.
        thresholds: The numbers that decide.
        resamples: Number of bootstrap resamples of the seeds; none are drawn of a single one.
        seed: Seed of the bootstrap's generator.

    Raises:
        SpecError: If ``chance_loss`` is not a positive number or ``resamples`` is below 1.
        StudyError: If a PLR has two pre-training runs of one seed, or a finite run has no training trace.
    """
    if resamples < 1:
        raise SpecError(f"resamples is {resamples}; it must be at least 1")
    evidence = run_evidence(tables, chance_loss=chance_loss, thresholds=thresholds)
    ballot = votes(evidence, tables, thresholds=thresholds)
    count = len(ballot.seeds)
    weights = np.ones((1, count))
    if count > 1:
        draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
        weights = np.vstack([weights, draws.astype(np.float64)])
    return Redrawn(plrs=ballot.plrs, seeds=count, labels=decide(ballot, weights, thresholds=thresholds).labels)


def _sides(labels: NDArray[np.str_]) -> tuple[list[Bools], list[Bools]]:
    """For each boundary, which PLRs belong above it, and which have a say."""
    upper = [labels != "1", labels == "2B", labels == "3"]
    decided = [np.isin(labels, ["1", "2", "2A", "2B", "3"]), np.isin(labels, ["2A", "2B"]), labels != ""]
    return upper, decided


def _brackets(plrs: Floats, labels: NDArray[np.str_], *, upper: Bools, decided: Bools) -> Brackets:
    if not len(plrs):
        nothing = np.full(len(labels), np.nan)
        return Brackets(below=nothing, above=nothing)
    position = np.arange(len(plrs))
    lower_side = position < change_point(upper, decided)[:, None]
    below = np.where(decided & lower_side, plrs, -np.inf).max(axis=1)
    above = np.where(decided & ~lower_side, plrs, np.inf).min(axis=1)
    return Brackets(
        below=np.where(np.isfinite(below), below, np.nan), above=np.where(np.isfinite(above), above, np.nan)
    )


def _row(brackets: Brackets) -> dict[str, float | None]:
    """The boundary of the study, its first entry, with the interval over the other entries."""
    below, above = float(brackets.below[0]), float(brackets.above[0])
    if np.isnan(below) or np.isnan(above):
        return dict.fromkeys(("below", "above", "value", "low", "high"))
    row: dict[str, float | None] = {"below": below, "above": above, "value": float(np.sqrt(below * above))}
    values = _values(brackets)[1:]
    if not len(values):
        return row | {"low": None, "high": None}
    tail = (1 - COVERAGE) / 2
    # The inverted distribution function gives values that occurred, never a mixture of two
    low, high = np.nanquantile(values, [tail, 1 - tail], method="inverted_cdf")
    return row | {"low": min(below, float(low)), "high": max(above, float(high))}


def _values(brackets: Brackets) -> Floats:
    """Geometric means of the brackets; where one side is empty, the PLR on the other."""
    below = np.where(np.isnan(brackets.below), brackets.above, brackets.below)
    above = np.where(np.isnan(brackets.above), brackets.below, brackets.above)
    return np.sqrt(below * above)
