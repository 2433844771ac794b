"""The regimes of a search's trials by their training losses, and the thresholds between them."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lratlas.numbers import is_finite
from lratlas.search.segments import SegmentResult
from lratlas.watching.rules import Rules
from lratlas.watching.tracker import RegimeTracker

LEARNED = 0.95
"""A trial has learned something if its last losses are below this share of the loss at the start."""

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


def regimes(results: Sequence[SegmentResult], *, good: Collection[float] = ()) -> dict[Trial, str]:
    """The regime of each trial: ``converging``, ``equilibrium``, ``diverging`` or ``undecided``.

    It is that of `lratlas.watch` on the training losses of the constant LR. A trial is diverging that failed on a
    number that was not finite, or that has learned nothing with an LR above one that has learned the most.

    Args:
        results: All that was told.
        good: LRs that are known to have learned something, whatever their loss: that of an equilibrium may be high.
    """
    trials = dict[Trial, list[SegmentResult]]()
    for each in sorted(results, key=lambda each: (each.segment.stop, each.segment.annealed)):
        of = trials.setdefault((each.segment.lr, each.segment.seed), [])
        if not each.segment.annealed:
            of.append(each)
    trials = {trial: _unbroken(of) if of else [] for trial, of in trials.items()}
    reference = _loss_at_start(results)
    lasts = {trial: last for trial, of in trials.items() if is_finite(last := _last_loss(of))}
    learner = min(lasts, key=lambda trial: lasts[trial])[0] if lasts else math.inf
    return {
        trial: _regime(of, reference, too_large=trial[0] > learner, good=trial[0] in good)
        for trial, of in trials.items()
    }


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
    diverged = [lr for (lr, _), regime in told.items() if regime == "diverging" and lr > above]
    if not diverged:
        return None
    return Bracket(below=max(lr for lr, _ in told if lr < min(diverged)), above=min(diverged))


def _regime(of: Sequence[SegmentResult], reference: float | None, *, too_large: bool, good: bool) -> str:
    if any(each.failure is not None and "not finite" in each.failure for each in of):
        return "diverging"
    if reference is None or reference <= 0:
        return "undecided"  # the rules compare with the loss at the start, by ratio
    if not good and _last_loss(of) > (LEARNED * reference if too_large else reference / LEARNED):
        return "diverging"
    tracker = RegimeTracker(rules=Rules(chance_loss=reference))
    for steps, loss in _even(_parts(of)):
        tracker.add(steps=steps, loss=loss)
    return "undecided" if good and tracker.regime == "diverging" else tracker.regime


def _unbroken(of: Sequence[SegmentResult]) -> Sequence[SegmentResult]:
    """The last results of a trial that go on from each other; a search may begin each one afresh."""
    return of[max(place for place, each in enumerate(of) if each.segment.start == 0 or place == 0) :]


def _parts(of: Sequence[SegmentResult]) -> list[tuple[int, float]]:
    """The losses of a trial, each with the number of steps that it is the mean of."""
    parts = list[tuple[int, float]]()
    for each in (each for each in of if each.losses):
        ends = [each.segment.steps * number // len(each.losses) for number in range(len(each.losses) + 1)]
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


def _last_loss(of: Sequence[SegmentResult]) -> float:
    """Mean over the last eighth of what is known of a trial's losses; NaN where nothing is."""
    losses = [loss for each in of for loss in each.losses]
    return float(np.mean(losses[-max(1, len(losses) // 8) :])) if losses else math.nan


def _loss_at_start(results: Sequence[SegmentResult]) -> float | None:
    """The first loss of the smallest LR, which has hardly changed the model; None where no losses are known."""
    fresh = [each for each in results if each.segment.start == 0 and each.losses and is_finite(each.losses[0])]
    return (
        min(fresh, key=lambda each: (each.segment.lr, each.segment.stop, each.segment.seed)).losses[0]
        if fresh
        else None
    )
