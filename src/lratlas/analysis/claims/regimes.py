"""Claims about training: three regimes in order, and epochs that grow without bound at the threshold."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lratlas.analysis.boundaries import seed_labels
from lratlas.analysis.claims.evidence import (
    Evidence,
    Judgement,
    NotMeasured,
    Unanswered,
    clip_gain,
    describe_effect,
    exceeds,
    mean_of,
    what_would_tell,
)
from lratlas.analysis.estimates import Floats, Gain
from lratlas.analysis.power_law import rising
from lratlas.text import format_lr, join_words

# Share of the pairs of PLRs from different regimes that must be in order: one stray PLR in a dozen is acceptable.
IN_ORDER = 0.8
# Neighbours closer than this factor leave no room for a regime between them.
NO_ROOM = 1.5
# Epochs diverge if they grow by at least the first factor towards the threshold, and do not below the second.
DIVERGING, STEADY = 10.0, 3.0
# At this factor from the threshold, a divergence must be visible.
NEAR = 1.1
_RANKS = {"1": 1.0, "2": 2.0, "2A": 2.0, "2B": 2.0, "3": 3.0}


def three_regimes(evidence: Evidence) -> Judgement:
    """With rising PLR training converges, then stays on a noisy plateau, then diverges (Section 3).

    The effect is the share of pairs of PLRs from different regimes that are in this order, by the regimes of single
    seeds.
    """
    regimes = evidence.table("regimes").sort("plr")
    ends = {
        name: regimes.filter(pl.col("regime").is_in(labels))["plr"].to_list()
        for name, labels in (("1", ["1"]), ("2", ["2", "2A", "2B"]), ("3", ["3"]))
    }
    if not any(ends.values()):
        raise Unanswered("Inconclusive: the regime of every learning rate is unclear; train longer.")
    if sum(map(bool, ends.values())) == 1:
        raise Unanswered(f"All learning rates with a clear regime have the same regime: {_missing(ends)}.")
    found = seed_labels(
        evidence.tables, chance_loss=evidence.chance_loss, thresholds=evidence.thresholds, evidence=evidence.runs
    )
    order = clip_gain(mean_of(_shares(found.alone)), 0.0, 1.0)
    ordered = exceeds(order, IN_ORDER)
    said = (
        f"As the learning rate rises, training {_course(ends)}; "
        f"{describe_effect(order, unit='%')} of the pairs of learning rates from different regimes are in the order "
        "convergence, plateau, divergence."
    )
    if ordered == "contradicted":
        return evidence.found(ordered, order, said, open_because="", near=False)
    if all(ends.values()):
        return evidence.found(ordered, order, said, open_because=what_would_tell(order, IN_ORDER), near=False)
    told = (ordered != "inconclusive") & ("undecided" not in regimes["regime"].to_list())
    straight = told and bool(ends["1"] and ends["3"]) and ends["3"][0] <= NO_ROOM * ends["1"][-1]
    verdict = "contradicted" if straight else "inconclusive"
    return evidence.found(verdict, order, said, open_because=_missing(ends), near=False)


def epochs_diverge(evidence: Evidence) -> Judgement:
    """The epochs until every training sample is fitted grow without bound towards the threshold (Fig. 11).

    The effect is the ratio, a geometric mean over seeds, of the epochs at the last PLR where a seed converges to its
    fewest epochs, over the PLRs on which the epochs rise: below, small steps take many epochs too.
    """
    table = evidence.table("convergence")
    if table.is_empty():
        raise NotMeasured("Needs measure.convergence = true in the spec.")
    part = rising(table)
    if part.is_empty():
        raise Unanswered("No run fits all training samples in any epoch: add smaller learning rates, or train longer.")
    start, last = part["plr"][0], part["plr"][-1]
    never = table.filter(pl.col("plr") > last, pl.col("epochs").is_null().all().over("plr"))["plr"].min()
    if not isinstance(never, float):
        raise Unanswered("The largest tested learning rate still converges: add larger ones.")
    logs = (
        table.filter(pl.col("plr").is_between(start, last))
        .drop_nulls("epochs")
        .sort("plr")
        .group_by("seed", maintain_order=True)
        .agg(pl.col("epochs").cast(pl.Float64).log10())
    )
    effect = mean_of(logs.select(pl.col("epochs").list.last() - pl.col("epochs").list.min())["epochs"].to_numpy())
    much, little = math.log10(DIVERGING), math.log10(STEADY)
    verdict, what = exceeds(effect, much, negligible=little), what_would_tell(effect, much, negligible=little)
    if verdict != "supported" and never > NEAR * last:
        verdict = "inconclusive"
        bracket = f"{format_lr(last)} and {format_lr(never)}"
        what = f"the grid is too coarse there; bisect the boundary between {bracket}"
    factor = describe_effect(_exponentiate(effect), factor=1, unit="")
    said = (
        "The number of epochs until every training sample is fitted grows from "
        f"{part['epochs'][0]:,.0f} at {format_lr(start)} to {part['epochs'][-1]:,.0f} at {format_lr(last)}, "
        f"medians over seeds; the factor within a seed is {factor}. "
        f"From {format_lr(never)} on, no run ever fits them all."
    )
    return evidence.found(verdict, _exponentiate(effect), said, open_because=what, near=False)


def _exponentiate(log: Gain) -> Gain:
    """The factor of an averaged logarithm."""
    low, high = (None if end is None else 10**end for end in (log.low, log.high))
    return replace(log, mean=10**log.mean, low=low, high=high)


def _shares(labels: NDArray[np.str_]) -> Floats:
    """For each row of labels, PLRs ascending, the share of pairs from different regimes that are in order."""
    ranks = np.select([labels == name for name in _RANKS], list(_RANKS.values()), default=np.nan)
    first, second = np.triu_indices(labels.shape[1], k=1)
    steps = ranks[:, second] - ranks[:, first]
    right, wrong = (steps > 0).sum(axis=1), (steps < 0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return right / (right + wrong)


def _course(ends: dict[str, list[float]]) -> str:
    words = {"1": "converges up to {}", "2": "stays on a noisy plateau from {} to {}", "3": "diverges from {}"}
    shown = {"1": ends["1"][-1:], "2": [*ends["2"][:1], *ends["2"][-1:]], "3": ends["3"][:1]}
    parts = [words[name].format(*(format_lr(plr) for plr in plrs)) for name, plrs in shown.items() if plrs]
    return join_words(parts)


def _missing(ends: dict[str, list[float]]) -> str:
    """The regimes that were not reached, and where to look."""
    if ends["1"] and ends["3"] and not ends["2"]:
        return (
            f"no plateau was found; add learning rates between {format_lr(ends['1'][-1])} and {format_lr(ends['3'][0])}"
        )
    needed = {"1": "smaller learning rates or more steps for convergence", "2": "learning rates for a plateau"}
    parts = [needed.get(name, "larger learning rates for divergence") for name, plrs in ends.items() if not plrs]
    return f"add {' and '.join(parts)}"
