"""The regimes of a search's trials by their training losses, and the thresholds between them."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lratlas.numbers import is_finite
from lratlas.search.evidence import level_at, not_finite, trial
from lratlas.search.learning import last_loss, learners, loss_at_start, untrained_loss
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search
from lratlas.watching.rules import Rules
from lratlas.watching.tracker import RegimeTracker

_RISE = 0.1
"""A training has diverged if its loss rose by more than this share of the loss at the start."""
_EARLY_RISE = 1.0
"""The same in a few steps, whose batches differ by more."""
_FALL = 0.05
"""A training has not begun, or not learned, if its loss fell by less than this share."""
_BLOWN = 10.0
"""The same against the very first batch, which may be an easy one."""
_STEPS = 64
"""Fewer steps say nothing of a regime, unless a number was not finite."""

Trial = tuple[float, int]  # LR and seed


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """Two LRs of a search between which a threshold lies.

    Attributes:
        below: The larger LR that is still below it.
        above: The smallest LR that is above it.
        value: Their geometric mean.
    """

    below: float
    above: float

    @property
    def value(self) -> float:
        """The geometric mean of both."""
        return math.sqrt(self.below * self.above)


def regimes(
    results: Sequence[SegmentResult], *, learned: Collection[float] = (), steps_each: int = 1
) -> dict[Trial, str]:
    """The regime of each trial: ``converging``, ``equilibrium``, ``diverging`` or ``undecided``.

    It is that of `lratlas.watch` on the training losses, without an annealed end. A trial is diverging that failed on a
    number that was not finite, whose loss rose, or that has learned nothing with an LR above one that has.

    Args:
        results: Those of all segments.
        learned: LRs whose metric shows that they have learned something, whatever their loss: that of an equilibrium
            may be high.
        steps_each: Optimizer steps behind each of the steps that segments count.
    """
    trials = dict[Trial, list[SegmentResult]]()
    for each in sorted(results, key=lambda each: (each.segment.stop, each.segment.annealed)):
        of = trials.setdefault((each.segment.lr, each.segment.seed), [])
        if not each.segment.annealed:
            of.append(each)
    trials = {trial: _unbroken(of) if of else [] for trial, of in trials.items()}
    reference, largest = loss_at_start(results), max(learned, default=math.inf)
    return {
        trial: _regime(of, reference, too_large=trial[0] > largest, learned=trial[0] in learned, steps_each=steps_each)
        for trial, of in trials.items()
    }


def diverging(search: Search, results: Sequence[SegmentResult]) -> set[float]:
    """The LRs that diverge, as far as their losses show it: with the first seed, at their longest training."""
    first, found = loss_at_start(results), set[float]()
    for lr in {each.segment.lr for each in results}:
        of = trial(results, lr, seed=search.seed)
        start = untrained_loss(of[-1], results) if of else None
        share = _RISE if of and of[-1].segment.stop * search.steps_each >= _STEPS else _EARLY_RISE
        rose = start is not None and _rose(last_loss(of[-1:]), start, share=share)
        # Where even the smallest LR blows up, nothing shows what an untrained model has.
        blown = first is not None and of and _rose(last_loss(of[-1:]), first, share=_BLOWN)
        if rose or blown or any(not_finite(each) for each in of):
            found.add(lr)
    metrics = level_at(search, results, max((each.segment.stop for each in results), default=0))
    return found - set(learners(search, results, metrics))


def _rose(loss: float, start: float, *, share: float = _RISE) -> bool:
    return is_finite(loss) and loss - start > share * abs(start)


def convergence(told: Mapping[Trial, str]) -> Bracket | None:
    """Where the convergence threshold lies: between the largest converging LR below all in equilibrium, and those."""
    plateau = [lr for (lr, _), regime in told.items() if regime == "equilibrium"]
    below = [lr for (lr, _), regime in told.items() if regime == "converging" and plateau and lr < min(plateau)]
    return Bracket(below=max(below), above=min(plateau)) if below else None


def divergence(told: Mapping[Trial, str], *, above: float) -> Bracket | None:
    """Where the divergence threshold lies: the first diverging LR above a good one, and the largest LR before it.

    Args:
        told: The regimes of all trials.
        above: A good LR. What does not learn below it is too small, not too large.
    """
    diverged = min((lr for (lr, _), regime in told.items() if regime == "diverging" and lr > above), default=math.inf)
    below = max((lr for lr, _ in told if lr < diverged), default=None)
    return None if diverged == math.inf or below is None else Bracket(below=below, above=diverged)


def _regime(
    of: Sequence[SegmentResult], reference: float | None, *, too_large: bool, learned: bool, steps_each: int
) -> str:
    if any(not_finite(each) for each in of):
        return "diverging"
    if reference is None or reference <= 0 or not of or of[-1].segment.stop * steps_each < _STEPS:
        return "undecided"  # the rules compare with the loss at the start, by ratio
    last = last_loss(of)
    if not learned and (_rose(last, reference) or (too_large and last > (1 - _FALL) * reference)):
        return "diverging"
    tracker = RegimeTracker(rules=Rules(chance_loss=reference))
    for steps, loss in _even(_parts(of, steps_each)):
        tracker.add(steps=steps, loss=loss)
    # What this regime would take, a rise or a larger LR, was looked for above.
    return "undecided" if tracker.regime == "diverging" else tracker.regime


def _unbroken(of: Sequence[SegmentResult]) -> Sequence[SegmentResult]:
    """The last results of a trial that go on from each other; a search may begin each one afresh."""
    return of[max(place for place, each in enumerate(of) if each.segment.start == 0 or place == 0) :]


def _parts(of: Sequence[SegmentResult], steps_each: int) -> list[tuple[int, float]]:
    """The losses of a trial, each with the number of steps that it is the mean of."""
    parts = list[tuple[int, float]]()
    for each in (each for each in of if each.losses):
        ends = [each.segment.steps * steps_each * number // len(each.losses) for number in range(len(each.losses) + 1)]
        steps = [end - start for start, end in pairwise(ends)]
        parts += [(count, loss) for count, loss in zip(steps, each.losses, strict=True) if count]
    return parts


def _even(parts: Sequence[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    """The losses as means over about equally many steps each, as the tests want them: early segments are shorter."""
    longest = max((steps for steps, _ in parts), default=0)
    total, weighted = 0, 0.0
    for steps, loss in parts:
        total, weighted = total + steps, weighted + steps * loss
        if total >= longest:
            yield total, weighted / total
            total, weighted = 0, 0.0
