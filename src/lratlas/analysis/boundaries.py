"""The boundaries between regimes."""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from lratlas.analysis.estimates import COVERAGE, Floats, student
from lratlas.analysis.labels import Bools, change_point, decide, votes
from lratlas.analysis.regimes import run_evidence
from lratlas.tables import SCHEMAS, Tables
from lratlas.thresholds import DEFAULTS, Thresholds

NAMES = ("convergence", "subregime", "divergence")


@dataclass(frozen=True, kw_only=True)
class SeedLabels:
    """The regimes of all PLRs, ascending, decided over all seeds and by each single seed.

    Attributes:
        plrs: The PLRs.
        together: Over all seeds, shape (PLRs,).
        alone: By each single seed, shape (seeds, PLRs).
    """

    plrs: Floats
    together: NDArray[np.str_]
    alone: NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class Brackets:
    """The decided PLRs on the two sides of a boundary, of each row of labels; NaN for none."""

    below: Floats
    above: Floats


def boundaries(
    tables: Tables,
    *,
    chance_loss: float,
    thresholds: Thresholds = DEFAULTS,
    evidence: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Locate the three boundaries between regimes.

    Each boundary is a single change point over the sorted PLRs: the cut with the fewest PLRs on the wrong side, the
    lowest of equal ones. The regime of a PLR is the one decided over all seeds, so boundaries agree with the
    regimes table: with many seeds they are at the median of the boundaries of single seeds. An undecided PLR counts as
    not diverged, but does not count for convergence: if it is at that boundary, the bracket spans it. Only
    PLRs of 2A and 2B count for the boundary between these two.

    The interval is for that median, from the boundaries of single seeds. With six seeds or more it reaches
    from the lower grid point of one seed to the upper one of another, by the ranks of the sign test: for every
    distribution, the median is below it in at most 2.5% of all studies, and above it in at most 2.5%. With fewer
    seeds no ranks reach this level, and the interval is Student's t in the logarithm of the LR; its variance is that of
    the seeds' values plus that of a uniform error within their brackets. If a single seed leaves a PLR undecided, the
    decision of all seeds counts; if it does not reach a boundary, the nearest PLR that counts is its boundary.
    ``benchmarks/intervals.py`` simulates how often the interval contains the true boundary.

    Args:
        tables: A study's tables; ``runs``, ``traces`` and ``pairs`` (may be missing) are read.
        chance_loss: Loss of the best constant prediction.
        thresholds: The numbers that decide.
        evidence: The result of `run_evidence` for them; None to compute it here.

    Returns:
        Three rows with the schema of ``boundaries``: ``below`` and ``above`` are the grid points on the two
        sides, ``value`` their geometric mean, ``low`` and ``high`` a 95% interval over seeds, never narrower than
        the bracket, within the PLRs and null for one seed. All null if the boundary is not reached.

    Raises:
        SpecError: If ``chance_loss`` is not a positive number.
        StudyError: If a PLR has two pre-training runs of one seed, or a finite run has no training trace.
    """
    found = seed_labels(tables, chance_loss=chance_loss, thresholds=thresholds, evidence=evidence)
    alone = np.where(found.alone == "undecided", found.together, found.alone)
    labels = np.vstack([found.together, alone])
    rows = [
        {"boundary": name, **_row(found.plrs, _brackets(found.plrs, labels, upper=upper, decided=decided))}
        for name, upper, decided in zip(NAMES, *_sides(labels), strict=True)
    ]
    return pl.DataFrame(rows, schema=SCHEMAS["boundaries"])


def seed_labels(
    tables: Tables,
    *,
    chance_loss: float,
    thresholds: Thresholds = DEFAULTS,
    evidence: pl.DataFrame | None = None,
) -> SeedLabels:
    """Decide the regimes of a study over all seeds, and by each single seed.

    Args:
        tables: A study's tables; ``runs``, ``traces`` and ``pairs`` (may be missing) are read.
        chance_loss: Loss of the best constant prediction.
        thresholds: The numbers that decide.
        evidence: The result of `run_evidence` for them; None to compute it here.

    Raises:
        SpecError: If ``chance_loss`` is not a positive number.
        StudyError: If a PLR has two pre-training runs of one seed, or a finite run has no training trace.
    """
    if evidence is None:
        evidence = run_evidence(tables, chance_loss=chance_loss, thresholds=thresholds)
    ballot = votes(evidence, tables, thresholds=thresholds)
    count = len(ballot.seeds)
    labels = decide(ballot, np.vstack([np.ones((1, count)), np.eye(count)]), thresholds=thresholds).labels
    return SeedLabels(plrs=ballot.plrs, together=labels[0], alone=labels[1:])


def _sides(labels: NDArray[np.str_]) -> tuple[list[Bools], list[Bools]]:
    """For each boundary, which PLRs belong above it, and which count."""
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


def _row(plrs: Floats, brackets: Brackets) -> dict[str, float | None]:
    """The boundary over all seeds (the first entry), with its interval from single seeds (the other entries)."""
    below, above = float(brackets.below[0]), float(brackets.above[0])
    if np.isnan(below) or np.isnan(above):
        return dict.fromkeys(("below", "above", "value", "low", "high"))
    value = math.sqrt(below * above)
    row: dict[str, float | None] = {"below": below, "above": above, "value": value}
    ends = _ends(Brackets(below=brackets.below[1:], above=brackets.above[1:]))
    if ends is None:
        return row | {"low": None, "high": None}
    # Nothing is known beyond the trained PLRs, although an interval from few seeds may reach further.
    low, high = np.clip(ends, plrs[0], plrs[-1]).tolist()
    return row | {"low": min(below, low), "high": max(above, high)}


def _ends(brackets: Brackets) -> tuple[float, float] | None:
    """The ends of the interval for the median of the seeds' boundaries; None if fewer than two seeds have one."""
    below = np.where(np.isnan(brackets.below), brackets.above, brackets.below)
    above = np.where(np.isnan(brackets.above), brackets.below, brackets.above)
    below, above = np.sort(below[~np.isnan(below)]), np.sort(above[~np.isnan(above)])
    seeds = len(below)
    if seeds < 2:
        return None
    # The number of seeds that the sign test leaves outside at each end, plus one
    rank = int((special.bdtr(np.arange(seeds), seeds, 0.5) <= (1 - COVERAGE) / 2).sum())
    if rank:
        return float(below[rank - 1]), float(above[-rank])
    own, width = np.log(below * above) / 2, np.log(above / below)
    reach = student(seeds) * math.sqrt((own.var(ddof=1) + (width**2).mean() / 12) / seeds)
    return math.exp(own.mean() - reach), math.exp(own.mean() + reach)
