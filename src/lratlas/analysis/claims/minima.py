"""Claims about the minima: connected just above the threshold, left from far below it, and sharp or not."""

from dataclasses import replace

import polars as pl

from lratlas.analysis.claims.evidence import (
    Evidence,
    Judgement,
    NotMeasured,
    Unanswered,
    clip_gain,
    describe_effect,
    exceeds,
    mean_of,
    opposite,
    per_seed,
    together,
    what_would_tell,
)
from lratlas.analysis.estimates import Gain, over_seeds
from lratlas.analysis.minima import at_equal_loss, flatness_correlation
from lratlas.analysis.scores import complete_seeds
from lratlas.errors import StudyError
from lratlas.tables import table
from lratlas.text import format_lr, plain, signed_interval

# "Far below" the threshold is a tenth of it or less.
FAR_BELOW = 0.1
# The paper's high FLRs are about the threshold; an FLR below half of it does not test the effect of a high one.
HIGH = 0.5
# A rank correlation above this, half of the ranks' variance, orders the models.
ORDERS = 0.7
# A diverging PLR within this factor of the last one on the plateau leaves little room for a longer plateau.
CLOSE = 2.0
_NO_PAIRS = "Needs two fine-tuning learning rates, averages, and measure.geometry = true in the spec."


def connected_basin(evidence: Evidence) -> Judgement:
    """At the lower end of regime 2 the solutions of a PLR are in one basin, at the upper end they are not (Fig. 3).

    The ends are the lowest and the highest PLR on a plateau, regardless of their barriers, since these decide between
    2A and 2B. The effect is the difference of the largest test error barriers among the solutions fine-tuned with the
    lowest and the highest FLR and the weight average.
    """
    pairs = evidence.table("pairs")
    if pairs["test_barrier"].null_count() == pairs.height:
        raise NotMeasured(_NO_PAIRS)
    plateau, lost = evidence.sides.of("2", "2A", "2B"), evidence.sides.of("3")
    if len(plateau) < 2 or not evidence.sides.below:
        need = "two on a plateau and one that converges" if plateau else "learning rates on a plateau"
        raise Unanswered(f"Inconclusive: needs {need}; add more around the threshold.")
    first, last, limit = plateau[0], plateau[-1], evidence.thresholds.barrier
    largest = pairs.group_by("plr", "seed").agg(value=pl.col("test_barrier").max())
    seeds = complete_seeds(pairs)
    low, high = (per_seed(largest, [plr], pl.col("value"), seeds) for plr in (first, last))
    effect, at_low, at_high = mean_of(high - low), mean_of(low), mean_of(high)
    parts = (opposite(exceeds(at_low, limit)), exceeds(at_high, limit))
    said = (
        f"The largest test error barrier between the solutions of one learning rate is {_barrier(at_low)} at "
        f"{format_lr(first)}, the lowest on the plateau, and {_barrier(at_high)} at {format_lr(last)}, the highest; "
        f"solutions count as connected up to {limit:g}."
    )
    verdict, what = together(*parts), what_would_tell(at_low if parts[0] == "inconclusive" else at_high, limit)
    ends_early = not lost or lost[0] > CLOSE * last
    if parts[1] == "contradicted" and parts[0] != "contradicted" and ends_early:
        larger = f"between {format_lr(last)} and {format_lr(lost[0])}" if lost else f"above {format_lr(last)}"
        verdict, what = "inconclusive", f"the plateau may extend further; add learning rates {larger}"
    return evidence.found(verdict, effect, said, open_because=what)


def high_flr_leaves(evidence: Evidence) -> Judgement:
    """From far below the threshold a high FLR leaves the basin that pre-training found (Fig. 3).

    The effect is the training error barrier, at the smallest PLR, between the solutions fine-tuned with the lowest
    and the highest FLR.
    """
    pairs = evidence.table("pairs").filter(_low_high())
    if pairs["train_barrier"].null_count() == pairs.height:
        raise NotMeasured(_NO_PAIRS)
    plr, flr, threshold = _fast_from_slow(evidence)
    seeds = complete_seeds(pairs)
    barrier, angle = (mean_of(per_seed(pairs, [plr], pl.col(name), seeds)) for name in ("train_barrier", "angle"))
    limit = evidence.thresholds.barrier
    low = format_lr(_smallest(evidence, "flr"))
    said = (
        f"From {format_lr(plr)}, far below the threshold, fine-tuning with {format_lr(flr)} ends {angle.mean:.2f} rad "
        f"from where {low} ends, with a training error barrier of {_barrier(barrier)} "
        f"between them; a barrier above {limit:g} separates basins."
    )
    verdict, what = exceeds(barrier, limit), what_would_tell(barrier, limit)
    if verdict == "contradicted" and flr < HIGH * threshold:
        verdict = "inconclusive"
        what = f"the highest fine-tuning learning rate is far below the threshold; add one near {format_lr(threshold)}"
    return evidence.found(verdict, barrier, said, open_because=what, near=False)


def sharpness_unrelated(evidence: Evidence) -> Judgement:
    """At equal training loss, sharpness does not order the test error across PLRs (Fig. 26).

    The effect is Spearman's rank correlation of top Hessian eigenvalue and test error over PLRs, computed for each
    seed.
    """
    table = evidence.table("sharpness")
    if table.is_empty():
        raise NotMeasured("Needs measure.sharpness = true in the spec.")
    level = at_equal_loss(evidence.tables)
    if level.is_empty():
        raise Unanswered("Inconclusive: no model with a measured sharpness has a positive training loss.")
    loss = float(level["level"][0])
    coefficients = pl.Series([_correlation(evidence, seed, at_loss=loss) for seed in evidence.seeds], dtype=pl.Float64)
    if coefficients.null_count() == len(coefficients):
        raise Unanswered("Inconclusive: fewer than five learning rates have a model at equal training loss; add more.")
    effect = clip_gain(over_seeds(coefficients.drop_nulls().to_numpy()), -1.0, 1.0)
    said = (
        f"Among models from different learning rates with a training loss of about {loss:.2g}, the rank correlation "
        f"between sharpness (top Hessian eigenvalue) and test error is {describe_effect(effect, factor=1, unit='')}; "
        f"above {ORDERS} or below −{ORDERS}, sharpness would predict the test error."
    )
    # Neither larger nor smaller than the correlation of an order
    mirrored = replace(effect, mean=-effect.mean, low=_minus(effect.high), high=_minus(effect.low))
    steeper = max(effect, mirrored, key=lambda side: side.mean)
    verdict = opposite(exceeds(steeper, ORDERS))
    return evidence.found(verdict, effect, said, open_because=what_would_tell(steeper, ORDERS), near=False)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _fast_from_slow(evidence: Evidence) -> tuple[float, float, float]:
    """The smallest PLR, the highest FLR and the threshold, if the PLR is far below it and the FLR above the PLR."""
    if (threshold := evidence.sides.threshold["value"]) is None:
        raise Unanswered("Inconclusive: the convergence threshold is not reached.")
    plr, flr = _smallest(evidence, "plr"), evidence.table("runs")["flr"].max()
    if plr > (far := FAR_BELOW * threshold):
        raise Unanswered(
            f"Inconclusive: no learning rate is far below the threshold; extend the grid down to {format_lr(far)}."
        )
    if not isinstance(flr, float) or flr <= plr:
        raise Unanswered(
            "Inconclusive: no fine-tuning learning rate is above the smallest pre-training one; add one to [finetune]."
        )
    return plr, flr, threshold


def _correlation(evidence: Evidence, seed: int, *, at_loss: float) -> float | None:
    """The rank correlation of one seed; None if it has too few models near the loss."""
    others = {name: table(evidence.tables, name) for name in ("runs", "regimes")}
    own = {**others, "sharpness": evidence.table("sharpness").filter(seed=seed)}
    try:
        return flatness_correlation(at_equal_loss(own, at_loss=at_loss)).coefficient
    except StudyError:  # no model near the loss
        return None


def _low_high() -> pl.Expr:
    return pl.concat_list("a", "b").list.sort().list.join(" ") == "high low"


def _smallest(evidence: Evidence, column: str) -> float:
    return float(evidence.table("runs")[column].min())  # pyright: ignore[reportArgumentType] - polars' min() is wider


def _barrier(effect: Gain) -> str:
    interval = "" if effect.low is None or effect.high is None else f" ({signed_interval(effect.low, effect.high)})"
    return f"{plain(effect.mean)}{interval}"
