"""Sentences of an advice."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from lratlas.search.evidence import STOPPED, Evidence, Level, has_other_failure, has_stopped_early
from lratlas.search.regimes import last_loss, restarted_segments, trusted_results
from lratlas.search.rungs import enough, next_segments, trainings_spent
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search, in_words
from lratlas.text import format_lr

if TYPE_CHECKING:
    from lratlas.search.advice import Advice

_FINISHES = {
    "average": "To finish, average the weights of the last tenth of the {counted} at a constant LR.",
    "anneal": "To finish, anneal the LR linearly to zero over the last fifth of the {counted}.",
    "either": "To finish, average the weights of the last tenth of the {counted}, or anneal the LR linearly to zero"
    " over the last fifth; try both and use the better one.",
    "constant": "Keep the LR constant: the search could test neither averaged weights nor annealing.",
    "schedule": "Your schedule multiplies this LR.",
}
TRY_AGAIN = (
    "After fixing the cause, retrain failed segments with `lratlas find --retry-failed` (Finder: `retry_failed()`)."
)
"""Advice after segments that failed."""
UNMEASURED = (
    ", without a metric at that point. If this is early stopping, disable it for the search, or let the"
    " training print or return its metric at the end."
)
"""Continues `describe_stopped` if no metric is known."""
LESS_MEMORY = (
    "Its result is not recorded. Free memory and rerun to resume, or use a smaller batch (and a new folder if"
    " the search has results)."
)
"""Advice after running out of memory."""
_KEEP = "Also validate the averages taken after 1/8, 1/4 and 1/2 of the training, and use the best."
_LITTLE = 1 / 8  # share of a full training; advice from less is a guess
_SHORT, _LARGE = 100, 10  # steps of a full training, and a budget; with less of both, LRs often cannot be compared
_FEW = 3  # LRs that make a good range, at least
_MANY = 8  # LRs that show a correlation of metric and loss, at least
_WRONG = 0.9  # rank correlation of loss and score; negative if the direction is right
_WIDE = 10.0  # ratio of a good range that is too wide to pin down the LR


def statement_of(advice: "Advice") -> Iterator[str]:
    """Yield the advice in short lines: the LR, how to finish, the expected metric, thresholds, cost."""
    if advice.lr is None or advice.low is None or advice.high is None:
        yield "No LR is recommended."
        yield advice.reason
    else:
        yield f"Use an initial LR of {format_lr(advice.lr)} ({_good_range(advice.low, advice.high)})."
        yield _FINISHES[advice.finish].format(counted=advice.counted)
        if advice.finish in {"average", "anneal", "either"}:
            yield _KEEP
        if advice.expected is not None:
            yield (
                f"Expected validation metric of a full training: {advice.expected:.3g} (90% interval"
                f" {advice.expected_low:.3g} to {advice.expected_high:.3g})."
            )
    if thresholds := list(_thresholds(advice)):
        yield " ".join(thresholds)
    yield f"The search cost {advice.cost:.2f} full trainings of {advice.length(advice.steps)}."


def _good_range(low: float, high: float) -> str:
    ends = dict.fromkeys((f"{format_lr(low)}", f"{format_lr(high)}"))
    return f"good range {' to '.join(ends)}" if len(ends) > 1 else f"good range about {format_lr(low)}"


def _thresholds(advice: "Advice") -> Iterator[str]:
    if advice.convergence:
        below, above = advice.convergence.below, advice.convergence.above
        yield f"The convergence threshold is between {format_lr(below)} and {format_lr(above)}."
    if advice.divergence:
        below, above = advice.divergence.below, advice.divergence.above
        yield f"LR {format_lr(above)} failed to learn; the next smaller LR tried is {format_lr(below)}."


def warnings_of(evidence: Evidence, found: Sequence[Level], advice: "Advice") -> Iterator[str]:
    """Yield warnings for the reader, one sentence each.

    Args:
        evidence: All results.
        found: The lengths at which LRs were compared.
        advice: The advice without warnings.
    """
    search, results = evidence.search, evidence.results
    yield from _lost_states(results)
    if next_segments(search, results):
        yield (
            f"The search is unfinished: it has used {trainings_spent(search, results):.2f} of at most"
            f" {search.budget:g} full trainings."
        )
    elif advice.lr is not None:
        yield from _on_little(search, found)
    elif found and search.counted == "steps" and search.steps < _SHORT and search.budget < _LARGE:
        yield (
            f"A full training of {search.steps} steps is too short to compare LRs with a budget of"
            f" {search.budget:g}: use a larger budget (--budget {_LARGE})."
        )
    yield from _wrong_way(evidence)
    if advice.lr is not None:
        yield from _at_an_end(search, results, found)
        yield from _unsure(found, advice)
        yield from _overfitting(search, found)
    shortest = min(each.segment.stop for each in results)
    first = sum(each.segment.steps for each in results if each.segment.stop == shortest)
    if first > search.budget * search.steps:
        yield (
            f"The first comparison of all LRs already cost {first / search.steps:.2f} full trainings, more than the"
            " budget."
        )
    yield from failures_in_words(results)


def failures_in_words(results: Sequence[SegmentResult]) -> Iterator[str]:
    """Yield sentences on the segments that failed for a reason other than divergence, and on those that stopped."""
    if failures := [each for each in results if has_other_failure(each) and not has_stopped_early(each)]:
        first = failures[0]
        others = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        yield f"The segment {first.segment.name} failed: {str(first.failure).rstrip('.')}{others}. {TRY_AGAIN}"
    if ended := {
        each.segment.lr: str(each.failure).partition(STOPPED)[2].strip() for each in results if has_stopped_early(each)
    }:
        yield describe_stopped(ended) + UNMEASURED


def describe_stopped(ended: Mapping[float, str]) -> str:
    """Name the LRs that stopped by themselves, without a full stop.

    Args:
        ended: By LR, the steps at the end, such as ``after 28 of 50 steps``.
    """
    lr, steps = next(iter(ended.items()))
    if len(ended) == 1:
        return f"The training at LR {format_lr(lr)} stopped by itself {steps}"
    return f"The trainings at {len(ended)} LRs stopped by themselves, such as at {format_lr(lr)} {steps}"


def _lost_states(results: Sequence[SegmentResult]) -> Iterator[str]:
    if len(trusted_results(results)) < len(results):
        doubtful = restarted_segments(results)
        yield (
            f"The losses of {len(doubtful)} segments, such as {doubtful[0]}, start as high as those of untrained"
            " weights: load the state of the parent segment before training. If most segments start this way,"
            " only those from untrained weights count."
        )


def _wrong_way(evidence: Evidence) -> Iterator[str]:
    """Yield a sentence if, at the first length, metrics get worse as training losses fall."""
    first = evidence.first
    losses = [last_loss(evidence.trial(lr)[:1]) for lr in first.lrs]
    pairs = pl.DataFrame({"loss": losses, "score": first.scores}).filter(pl.col("loss").is_finite())
    # The correlation of a constant is NaN.
    if len(pairs) >= _MANY and pairs.select(pl.corr("loss", "score", method="spearman")).item() > _WRONG:
        other = "minimize" if evidence.search.direction == "maximize" else "maximize"
        yield (
            "The metric gets worse as the training loss falls: if"
            f" {'smaller' if other == 'minimize' else 'larger'} values are better, set the direction to {other}."
        )


def _on_little(search: Search, found: Sequence[Level]) -> Iterator[str]:
    """Yield sentences if the training was too short, or the LRs too few, to rely on."""
    last = found[-1]
    if len(found[0].lrs) < _FEW:
        lrs = "LR" if len(found[0].lrs) == 1 else "LRs"
        yield f"Only {len(found[0].lrs)} {lrs} could be compared; a good range needs at least {_FEW}."
    elif last.steps < _LITTLE * search.steps and search.budget < enough(search):
        yield (
            f"The budget is small: LRs were compared after {last.steps / search.steps:.1%} of a full training."
            f" With a budget of {math.ceil(10 * enough(search) - 1e-6) / 10:g}, the best LRs reach a quarter."
        )


def _at_an_end(search: Search, results: Sequence[SegmentResult], found: Sequence[Level]) -> Iterator[str]:
    tried = sorted({each.segment.lr for each in results})
    best = found[-1].lrs[found[-1].best]
    if best in {tried[0], tried[-1]}:
        end = "smallest" if best == tried[0] else "largest"
        yield f"The best LR, {format_lr(best)}, is the {end} one tried; a better LR may be beyond it."
    elif extended := [lr for lr in tried if not search.lrs[0] * 0.999 <= lr <= search.lrs[-1] * 1.001]:
        yield f"The search also tried LRs beyond the grid: {_list_lrs(extended)}."


def _unsure(found: Sequence[Level], advice: "Advice") -> Iterator[str]:
    """Yield a sentence if the good range is wide."""
    near = found[-1].near()
    if advice.low and advice.high and advice.high / advice.low >= _WIDE:
        yield (
            f"The good range is wide: {len(near)} LRs from {format_lr(near[0])} to {format_lr(near[-1])} are equal"
            " within the noise."
            if len(near) > 1
            else f"The good range is wide: it accounts for the {advice.counted} that were not trained."
        )


def _overfitting(search: Search, found: Sequence[Level]) -> Iterator[str]:
    """Yield a sentence if a shorter training beat the best of the longest ones by more than the noise."""
    last = found[-1]
    best = max(last.scores)
    fallen = [
        (level, at)
        for level in found[:-1]
        for at, lr in enumerate(level.lrs)
        if lr in last.lrs and level.scores[at] - best > 2 * math.hypot(level.noise, last.noise)
    ]
    if fallen:
        level, at = max(fallen, key=lambda each: each[0].scores[each[1]])
        yield (
            f"The metric got worse with more {search.counted} at"
            f" {_list_lrs(sorted({of.lrs[place] for of, place in fallen}))}: a shorter training may be"
            f" better. At {format_lr(level.lrs[at])} it was {search.metric(level.scores[at]):.4g} after"
            f" {in_words(level.steps, search.counted)}."
        )


def _list_lrs(lrs: Sequence[float]) -> str:
    return ", ".join(f"{format_lr(lr)}" for lr in lrs)
