"""The words of an advice."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lratlas.search.ranking import Ranked, gain, trial
from lratlas.search.regimes import Bracket
from lratlas.search.rungs import enough, next_segments, spent
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search

if TYPE_CHECKING:
    from lratlas.search.advice import Advice

_FINISHES = {
    "average": (
        "train at this LR throughout and average the weights of the last tenth of the steps; do the same after an"
        " eighth, a quarter and a half of them, and keep the average that validates best"
    ),
    "anneal": "keep it constant and take it linearly to zero over the last fifth of the steps",
    "constant": "keep it constant (neither averaged weights nor an annealed branch were tried)",
}
_LITTLE = 1 / 8  # of a full training; advice from less is a guess
_FEW = 3  # LRs
_FAR = 0.2  # of the metric: where so much is still expected to come, what is slow at first may overtake


def statement_of(advice: "Advice") -> str:
    """The advice in two or three sentences."""
    good = f"{advice.low:.2g} to {advice.high:.2g}" if advice.low < advice.high else f"about {advice.lr:.2g}"
    sentences = [
        f"Use an initial LR of {advice.lr:.2g} (good range {good}): {_FINISHES[advice.finish]}.",
    ]
    if advice.convergence:
        sentences.append(f"The convergence threshold lies at {_bracket(advice.convergence)}.")
    if advice.divergence:
        sentences.append(f"Above {_bracket(advice.divergence)} nothing was learned in the steps that were tried.")
    sentences.append(f"The search cost {advice.cost:.2f} full trainings of {advice.steps:,} steps.")
    return " ".join(sentences)


def warnings_of(search: Search, results: Sequence[SegmentResult], ranked: Sequence[Ranked]) -> Iterator[str]:
    """What a reader should know, each a sentence.

    Args:
        search: The settings.
        results: All that was told; one of them at least went well.
        ranked: The ranking that follows from it.
    """
    best = max(ranked, key=lambda each: (each.score, each.lr))
    tried = sorted({each.segment.lr for each in results})
    yield from _on_little(search, results, ranked, best)
    if best.lr in {tried[0], tried[-1]}:
        end = "smallest" if best.lr == tried[0] else "largest"
        yield f"The best LR is the {end} that was tried; it may lie beyond."
    elif extended := [lr for lr in tried if not search.lrs[0] * 0.999 <= lr <= search.lrs[-1] * 1.001]:
        yield (
            f"The best LR stood at an end of the grid, which was extended by {_listed(extended)}; LRs were tried from"
            f" {tried[0]:.2g} to {tried[-1]:.2g}."
        )
    yield from _overfitting(search, results, ranked)
    if failures := [each for each in results if each.failure and "not finite" not in each.failure]:
        first = failures[0]
        others = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        yield f"The segment {first.segment.name} failed: {str(first.failure).rstrip('.')}{others}."


def _on_little(
    search: Search, results: Sequence[SegmentResult], ranked: Sequence[Ranked], best: Ranked
) -> Iterator[str]:
    """Sentences where too little was trained, or too few LRs, to rely on."""
    share, last = f"{best.steps / search.steps:.1%} of a full training", trial(results, best.lr)[-1].quality
    if next_segments(search, results):
        yield (
            f"The search is not over: it has trained {spent(search, results):.2f} of at most {search.budget:g} full"
            " trainings."
        )
        return
    compared = sum(each.score > -math.inf for each in ranked)
    if compared < _FEW:
        lrs = "LR" if compared == 1 else "LRs"
        yield f"Only {compared} {lrs} could be compared; a good range takes {_FEW} at least."
    elif min(each.steps for each in ranked) < _LITTLE * search.steps and search.budget < enough(search):
        yield (
            f"The budget is small: the best LR was trained for {share}. A budget of"
            f" {math.ceil(10 * enough(search) - 1e-6) / 10:g} takes the best four to a quarter of it."
        )
    elif best.score - search.score(last) > _FAR * abs(best.score):
        yield (
            f"After {share} the metric of the best LR is {last:.3g}, far from the {search.metric(best.score):.3g} that"
            " is expected at its end: LRs that are slow at first may overtake. A larger budget looks farther."
        )


def _overfitting(search: Search, results: Sequence[SegmentResult], ranked: Sequence[Ranked]) -> Iterator[str]:
    """A sentence where the metric fell with twice the steps: a shorter training is then as good."""
    fallen = list[float]()
    for each in ranked:
        of = trial(results, each.lr)
        if gain(search, of) < -search.tolerance * abs(search.score(of[-1].quality)):
            fallen.append(each.lr)
    if fallen:
        best = max((each for each in results if each.failure is None), key=lambda each: search.score(each.quality))
        yield (
            f"With twice the steps the metric got worse at {_listed(fallen)}: shorter trainings with averaged weights"
            f" may be as good. The best so far is {best.quality:.4g}, at {best.segment.lr:.2g} after"
            f" {best.segment.stop:,} steps."
        )


def _listed(lrs: Sequence[float]) -> str:
    return ", ".join(f"{lr:.2g}" for lr in lrs)


def _bracket(bracket: Bracket) -> str:
    return f"{bracket.below:.2g} to {bracket.above:.2g}"
