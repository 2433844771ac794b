"""The words of an advice."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lratlas.search.evidence import Level, restarted
from lratlas.search.regimes import Bracket
from lratlas.search.rungs import enough, next_segments, spent
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search

if TYPE_CHECKING:
    from lratlas.search.advice import Advice

_FINISHES = {
    "average": "keep the LR constant and average the weights of the last tenth of the steps",
    "anneal": "keep the LR constant, then take it linearly to zero over the last fifth of the steps",
    "either": "average the weights of the last tenth of the steps, also try taking the LR to zero over the last fifth,"
    " and keep the better one",
    "constant": "keep the LR constant (the search could try neither averaged weights nor an annealed end)",
    "schedule": "with the schedule as it is",
}
_KEEP = (
    "Also validate the average of the weights after an eighth, a quarter and a half of the training, and keep the best."
)
_LITTLE = 1 / 8  # of a full training; advice from less is a guess
_FEW = 3  # LRs
_WIDE = 10.0  # a good range of this ratio says little of the LR itself


def statement_of(advice: "Advice") -> str:
    """The advice in a few sentences."""
    cost = f"The search cost {advice.cost:.2f} full trainings of {advice.steps:,} steps."
    if advice.lr is None or advice.low is None or advice.high is None:
        return f"No LR is advised. {advice.reason} {cost}"
    sentences = [
        f"Use an initial LR of {advice.lr:.2g} (good range {advice.low:.2g} to {advice.high:.2g}).",
        f"To finish: {_FINISHES[advice.finish]}.",
    ]
    if advice.finish in {"average", "anneal", "either"}:
        sentences.append(_KEEP)
    if advice.convergence:
        sentences.append(f"The convergence threshold is between {_bracket(advice.convergence)}.")
    if advice.divergence:
        sentences.append(
            f"LR {advice.divergence.above:.2g} failed to learn; the largest LR below it that was tried is"
            f" {advice.divergence.below:.2g}."
        )
    return " ".join([*sentences, cost])


def warnings_of(
    search: Search, results: Sequence[SegmentResult], found: Sequence[Level], advice: "Advice"
) -> Iterator[str]:
    """What a reader should know, each a sentence.

    Args:
        search: The settings.
        results: All of them.
        found: The lengths at which LRs were compared.
        advice: The advice, without warnings yet.
    """
    yield from _lost_states(results)
    if next_segments(search, results):
        yield (
            f"The search is not over: it has trained {spent(search, results):.2f} of at most {search.budget:g} full"
            " trainings."
        )
    elif advice.lr is not None:
        yield from _on_little(search, found)
    if advice.lr is not None:
        yield from _at_an_end(search, results, found)
        yield from _unsure(found, advice)
        yield from _overfitting(search, found)
    if failures := [each for each in results if each.failure and "not finite" not in each.failure]:
        first = failures[0]
        others = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        yield f"The segment {first.segment.name} failed: {str(first.failure).rstrip('.')}{others}."


def _lost_states(results: Sequence[SegmentResult]) -> Iterator[str]:
    if doubtful := restarted(results):
        yield (
            f"The losses of {len(doubtful)} segments, such as {doubtful[0]}, begin as high as those of fresh weights: a"
            " training that continues must load the state of its parent segment. Where that is the rule, only segments"
            " from fresh weights are relied on."
        )


def _on_little(search: Search, found: Sequence[Level]) -> Iterator[str]:
    """Sentences where too little was trained, or too few LRs, to rely on."""
    last = found[-1]
    if len(found[0].lrs) < _FEW:
        lrs = "LR" if len(found[0].lrs) == 1 else "LRs"
        yield f"Only {len(found[0].lrs)} {lrs} could be compared; a good range takes {_FEW} at least."
    elif last.steps < _LITTLE * search.steps and search.budget < enough(search):
        yield (
            f"The budget is small: the LRs were compared after {last.steps / search.steps:.1%} of a full training. A"
            f" budget of {math.ceil(10 * enough(search) - 1e-6) / 10:g} takes the best of them to a quarter."
        )


def _at_an_end(search: Search, results: Sequence[SegmentResult], found: Sequence[Level]) -> Iterator[str]:
    tried = sorted({each.segment.lr for each in results})
    best = found[-1].lrs[found[-1].best]
    if best in {tried[0], tried[-1]}:
        end = "smallest" if best == tried[0] else "largest"
        yield f"The best LR is the {end} that was tried, {best:.2g}; a better one may be beyond it."
    elif extended := [lr for lr in tried if not search.lrs[0] * 0.999 <= lr <= search.lrs[-1] * 1.001]:
        yield f"The grid was extended by {_listed(extended)}, since LRs at its end were among the best."


def _unsure(found: Sequence[Level], advice: "Advice") -> Iterator[str]:
    """A sentence where the evidence leaves the LR open, within a wide range or against a comparison at less steps."""
    near = found[-1].near()
    if advice.low and advice.high and advice.high / advice.low >= _WIDE:
        apart = f"{len(near)} LRs from {near[0]:.2g} to {near[-1]:.2g} apart" if len(near) > 1 else "many LRs apart"
        yield (
            f"The search cannot tell {apart}: any LR of the good range may be the best. A larger budget or more"
            " validation samples would narrow it."
        )


def _overfitting(search: Search, found: Sequence[Level]) -> Iterator[str]:
    """A sentence where the metric got worse with the steps by more than the noise: a shorter training is as good."""
    last = found[-1]
    fallen = [
        (level, at)
        for level in found[:-1]
        for at, lr in enumerate(level.lrs)
        if lr in last.lrs
        and level.scores[at] - last.scores[last.lrs.index(lr)] > 2 * math.hypot(level.noise, last.noise)
    ]
    if fallen:
        level, at = max(fallen, key=lambda each: each[0].scores[each[1]])
        yield (
            f"The metric got worse with more steps at {_listed(sorted({of.lrs[place] for of, place in fallen}))}: a"
            f" shorter training may be better. At {level.lrs[at]:.2g} it was"
            f" {search.metric(level.scores[at]):.4g} after {level.steps:,} steps."
        )


def _listed(lrs: Sequence[float]) -> str:
    return ", ".join(f"{lr:.2g}" for lr in lrs)


def _bracket(bracket: Bracket) -> str:
    return f"{bracket.below:.2g} and {bracket.above:.2g}"
