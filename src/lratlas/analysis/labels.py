"""From the evidence of runs to the regime of each PLR, for all seeds or for many resamples."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from lratlas.analysis.estimates import Floats
from lratlas.tables import Tables, direct, drop_diverged_scores, table
from lratlas.thresholds import GEOMETRY_COUNT, Thresholds

Bools = NDArray[np.bool_]

# Seeds with a smaller variance of the excess count as one observation; rounding errors are far smaller.
DEGENERATE_VARIANCE = 1e-14

# Why a PLR is undecided.
UNMOVED = "has not moved"
SLOW = "at chance below a learning rate that converges"
OVERTAKEN = "a larger learning rate has a lower loss that still falls"
FALLING = "still falling"
SHORT = "trace too short"
UNBOUNDED = "losses below 0"
_REASONS = (UNMOVED, SLOW, OVERTAKEN, FALLING, SHORT, UNBOUNDED)


@dataclass(frozen=True, kw_only=True)
class Votes:
    """The evidence of all runs as arrays of shape (PLRs, seeds), PLRs ascending.

    Attributes:
        plrs: The PLRs.
        seeds: The seeds.
        present: Whether there is a run.
        finite: Whether there is a run that did not diverge.
        excess: Accuracy over chance; NaN where not finite.
        loss: Training loss over the last quarter of the steps; infinite if there is none.
        converged: Whether the run is of regime 1.
        unmoved: Whether its test loss has not moved from the start.
        falling: Whether its loss falls by an amount that matters.
        descending: Whether its loss falls at all, by the trend test.
        tested: Whether its trace was long enough for the trend test.
        unbounded: Whether a loss at rest may be at its minimum or on a plateau, since the minimum is unknown.
        barriers: Test barriers, shape (pairs, PLRs, seeds); NaN where not measured.
        spreads: Differences of test accuracy between the best and the worst of the solutions with measured
            barriers; NaN where not measured.
    """

    plrs: Floats
    seeds: NDArray[np.int64]
    present: Bools
    finite: Bools
    excess: Floats
    loss: Floats
    converged: Bools
    unmoved: Bools
    falling: Bools
    descending: Bools
    tested: Bools
    unbounded: bool
    barriers: Floats
    spreads: Floats


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Regimes of each PLR, for each weighting of the seeds; arrays of shape (weightings, PLRs).

    Attributes:
        labels: ``1``, ``2``, ``2A``, ``2B``, ``3``, ``undecided``, or empty if no run has a weight.
        reasons: Why a PLR is undecided; empty for all others.
        above_chance_p: p value of the test against chance; NaN if the test is impossible.
        barrier: Largest of the pairs' medians over seeds; NaN where not measured.
        spread: Median over seeds of the solutions' spread of test accuracy; NaN where not measured.
    """

    labels: NDArray[np.str_]
    reasons: NDArray[np.str_]
    above_chance_p: Floats
    barrier: Floats
    spread: Floats


def votes(evidence: pl.DataFrame, tables: Tables, *, thresholds: Thresholds) -> Votes:
    """Arrange the evidence of runs, and of the solutions made from them, as arrays over PLRs and seeds."""
    plrs = evidence["plr"].unique().sort().to_numpy()
    seeds = evidence["seed"].unique().sort().to_numpy()
    at = (np.searchsorted(plrs, evidence["plr"]), np.searchsorted(seeds, evidence["seed"]))

    def grid(expression: pl.Expr) -> Bools:
        array = np.zeros((len(plrs), len(seeds)), dtype=np.bool_)
        array[at] = evidence.select(expression.fill_null(value=False)).to_series().to_numpy()
        return array

    numbers = partial(_arrange, evidence, plrs=plrs, seeds=seeds)
    loss = numbers("train_loss")
    return Votes(
        plrs=plrs,
        seeds=seeds,
        present=grid(pl.col("seed").is_not_null()),
        finite=grid(~pl.col("diverged")),
        excess=np.where(grid(~pl.col("diverged")), numbers("excess"), np.nan),
        loss=np.where(np.isnan(loss), np.inf, loss),
        converged=grid(pl.col("converged")),
        unmoved=grid(pl.col("unmoved") & ~pl.col("diverged")),
        falling=grid(pl.col("falling")),
        descending=grid(pl.col("trend_p") < thresholds.trend_level),
        tested=grid(pl.col("trend_p").is_not_null()),
        unbounded=evidence["unbounded"].any(),
        barriers=_barriers(table(tables, "pairs"), plrs=plrs, seeds=seeds),
        spreads=_spreads(tables["runs"], plrs=plrs, seeds=seeds),
    )


def decide(ballot: Votes, weights: Floats, *, thresholds: Thresholds) -> Decision:
    """Decide the regime of each PLR, for each weighting of the seeds.

    A majority is more than half: of the runs for divergence and convergence, of the finite runs for
    trends. Below a PLR of regime 1, a loss that falls by any amount is an unfinished descent, even at chance; a PLR at
    chance without a trend is undecided there, since a larger LR that converges speaks against divergence. The same
    rules apply below a larger LR that is at a lower loss and still falls: the smaller LR is neither in divergence nor
    in an equilibrium, whose loss would be the lower one.
    One check precedes all others: a PLR outside regime 1 is too small if no loss has moved at it or at a smaller PLR.
    Its accuracy does not matter: untrained models may be above chance. A plateau may return to the initial loss,
    but then a smaller PLR has moved the loss.

    Args:
        ballot: The evidence.
        weights: How often each seed counts, shape (weightings, seeds), whole numbers.
        thresholds: The numbers that decide.
    """
    runs, finite = weights @ ballot.present.T, weights @ ballot.finite.T
    p_values = _above_chance_p(ballot, weights, thresholds.chance_trace)
    above = (p_values < thresholds.chance_level) | _unanimous(ballot, weights, thresholds.chance_margin)
    broken = runs - finite > runs / 2
    at_chance = broken | ~above
    one = ~at_chance & (weights @ ballot.converged.T > runs / 2)
    below_one = np.logical_or.accumulate(one[:, ::-1], axis=1)[:, ::-1] & ~one
    descending = weights @ ballot.descending.T > finite / 2
    falling = weights @ ballot.falling.T > finite / 2
    settled = ~falling & (weights @ ballot.tested.T > finite / 2)
    unmoved = ~broken & ~one & (weights @ ballot.unmoved.T > finite / 2)
    too_small = np.logical_and.accumulate(unmoved | (runs == 0), axis=1)
    slow, overtaken = below_one & at_chance, _is_overtaken(ballot, weights, falling & ~at_chance)
    choices = [
        (runs == 0, ""),
        (broken, "3"),
        (one, "1"),
        (too_small, UNMOVED),
        (below_one & descending, "1"),
        (slow, SLOW),
        (overtaken, OVERTAKEN),
        (at_chance, "3"),
        (settled & ballot.unbounded, UNBOUNDED),
        (settled, "2"),
        (falling, FALLING),
    ]
    found = np.select([case for case, _ in choices], [name for _, name in choices], default=SHORT)
    undecided = np.isin(found, _REASONS)
    labels, reasons = np.where(undecided, "undecided", found), np.where(undecided, found, "")
    barrier, spread = _largest_median(ballot.barriers, weights), _medians(ballot.spreads, weights)
    # Without accuracies, only barriers decide.
    alike = (barrier <= thresholds.barrier) & ~(spread > thresholds.spread)
    return Decision(
        labels=_with_subregimes(labels, alike, known=~np.isnan(barrier)),
        reasons=reasons,
        above_chance_p=p_values,
        barrier=barrier,
        spread=spread,
    )


def change_point(upper: Bools, decided: Bools) -> NDArray[np.int64]:
    """The cut that puts the fewest decided PLRs on the wrong side; the lowest such cut.

    Args:
        upper: Whether a PLR belongs above the boundary, shape (weightings, PLRs).
        decided: Whether it counts, same shape.

    Returns:
        The number of PLRs below the cut, shape (weightings,).
    """
    start = np.zeros((len(upper), 1), dtype=np.int64)
    wrong_below = np.hstack([start, np.cumsum(decided & upper, axis=1)])
    right_below = np.hstack([start, np.cumsum(decided & ~upper, axis=1)])
    return np.argmin(wrong_below + right_below[:, -1:] - right_below, axis=1)


def convergence_cut(labels: NDArray[np.str_]) -> NDArray[np.int64]:
    """The number of PLRs below the convergence threshold; undecided PLRs do not count."""
    return change_point(labels != "1", (labels != "undecided") & (labels != ""))


def _is_overtaken(ballot: Votes, weights: Floats, falling: Bools) -> Bools:
    """Whether a larger PLR is at a lower median loss that still falls."""
    loss = _medians(ballot.loss, weights)
    lowest = np.minimum.accumulate(np.where(falling, loss, np.inf)[:, ::-1], axis=1)[:, ::-1]
    larger = np.full_like(loss, np.inf)
    larger[:, :-1] = lowest[:, 1:]
    return larger < loss


def _above_chance_p(ballot: Votes, weights: Floats, trace: float) -> Floats:
    """The p values of the one-sided t test, across seeds, that the excess is above ``trace``; NaN if all are equal."""
    count = weights @ ballot.finite.T
    runs = np.maximum(ballot.finite.sum(axis=1), 1)
    excess = np.where(ballot.finite, ballot.excess, 0.0)
    centre = excess.sum(axis=1) / runs
    # Centred, since cancellation would spoil the variance
    centred = np.where(ballot.finite, excess - centre[:, None], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = weights @ centred.T / count
        variance = (weights @ (centred**2).T - count * shift**2) / (count - 1)
        testable = (count > 1) & (variance > DEGENERATE_VARIANCE)
        statistic = np.where(testable, (centre + shift - trace) / np.sqrt(variance / count), np.nan)
    return special.stdtr(np.maximum(count - 1, 1), -statistic)


def _unanimous(ballot: Votes, weights: Floats, margin: float) -> Bools:
    """Whether every finite run exceeds chance by the margin, and there is one."""
    short = ballot.finite & ~(ballot.excess > margin)
    return (weights @ ballot.finite.T > 0) & (weights @ short.T == 0)


def _barriers(pairs: pl.DataFrame, *, plrs: Floats, seeds: NDArray[np.int64]) -> Floats:
    """Test barriers of shape (kinds of pair, PLRs, seeds); NaN where a pair was not measured."""
    kinds = pairs.filter(pl.col("test_barrier").is_finite()).partition_by("a", "b", maintain_order=True)
    arrays = [_arrange(kind, "test_barrier", plrs=plrs, seeds=seeds) for kind in kinds]
    return np.array(arrays).reshape(len(kinds), len(plrs), len(seeds))


def _spreads(runs: pl.DataFrame, *, plrs: Floats, seeds: NDArray[np.int64]) -> Floats:
    """Spreads of test accuracy of shape (PLRs, seeds), of two solutions or more; NaN where not measured."""
    own = direct(drop_diverged_scores(runs)).filter(pl.col("test_accuracy").is_finite())
    flr, off = pl.col("flr"), (pl.col("count") - GEOMETRY_COUNT).abs() + pl.col("count") * 1e-9  # the lower of two
    ends = (flr == flr.min().over("plr")) | (flr == flr.max().over("plr"))
    solutions = pl.concat(
        [
            own.filter(pl.col("stage") == "finetune").filter(ends),
            own.filter(pl.col("stage") == "average").filter(off == off.min().over("plr")),
        ]
    )
    accuracy = pl.col("test_accuracy")
    found = solutions.group_by("plr", "seed").agg(spread=accuracy.max() - accuracy.min(), count=pl.len())
    return _arrange(found.filter(pl.col("count") > 1), "spread", plrs=plrs, seeds=seeds)


def _arrange(rows: pl.DataFrame, name: str, *, plrs: Floats, seeds: NDArray[np.int64]) -> Floats:
    """A column by PLR and seed; NaN for a missing row or value. Rows of other PLRs and seeds are left out."""
    known = rows.filter(pl.col("plr").is_in(plrs.tolist()), pl.col("seed").is_in(seeds.tolist()))
    array = np.full((len(plrs), len(seeds)), np.nan)
    places = np.searchsorted(plrs, known["plr"]), np.searchsorted(seeds, known["seed"])
    array[places] = known[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return array


def _largest_median(barriers: Floats, weights: Floats) -> Floats:
    """Per weighting and PLR, the largest over pairs of the weighted median over seeds."""
    largest = np.full((len(weights), barriers.shape[1]), np.nan)
    for medians in (_medians(kind, weights) for kind in barriers):
        largest = np.fmax(largest, medians)
    return largest


def _medians(values: Floats, weights: Floats) -> Floats:
    """Medians of each row of ``values`` with each row of ``weights`` as counts; NaN values do not count."""
    known = ~np.isnan(values)
    columns = [_median(row[k], weights[:, k]) for row, k in zip(values, known, strict=True)]
    return np.array(columns).T.reshape(len(weights), len(values))


def _median(values: Floats, weights: Floats) -> Floats:
    if not len(values):
        return np.full(len(weights), np.nan)
    order = np.argsort(values)
    reached = np.cumsum(weights[:, order], axis=1)
    total = reached[:, -1:]
    middles = [np.argmax(reached > place, axis=1) for place in ((total - 1) // 2, total // 2)]
    median = (values[order][middles[0]] + values[order][middles[1]]) / 2
    return np.where(total[:, 0] > 0, median, np.nan)


def _with_subregimes(labels: NDArray[np.str_], alike: Bools, *, known: Bools) -> NDArray[np.str_]:
    """Split regime 2 into 2A and 2B, going up from the threshold; unknown PLRs neither extend nor end 2A."""
    upper = np.arange(labels.shape[1]) >= convergence_cut(labels)[:, None]
    told = (labels == "2") & upper & known
    gap = np.logical_or.accumulate((told & ~alike) | ((labels == "3") & upper), axis=1)
    return np.select([told & alike & ~gap, told], ["2A", "2B"], default=labels)
