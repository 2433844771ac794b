"""Regimes of the LRs of a search: whether each LR learns."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lratlas.monitor.rules import Rules
from lratlas.monitor.tracker import RegimeTracker
from lratlas.search.evidence import Evidence, Level, Trial, not_finite, results_at, trials
from lratlas.search.segments import SegmentResult
from lratlas.text import is_finite

LEARNED = 3.0
"""Standard errors by which a metric must exceed that of a model that has learned nothing."""
_COMPARED = 3  # LRs that make a comparison, at least
_STILL = 0.03  # share of the largest difference to the losses of the smallest LR; less means hardly any movement
_ROUNDING = 1e-6  # share of the loss; smaller differences are rounding
_HARM = 0.01  # share of the loss of an untrained model; a larger excess shows too large an LR
_ENOUGH = 0.1  # share of the loss; larger differences are clipped to it
_SPIKE = 0.5  # `_HARM` for the mean over a segment
_FALL = 0.05  # share of the first training loss; a smaller fall does not count


def learners(evidence: Evidence, level: Level) -> list[float]:
    """The LRs of a level that have learned something: their metric exceeds that of a model that has learned nothing.

    If the search does not know that metric, the median over all LRs replaces it, since most LRs of a wide grid have
    learned nothing at first. An LR whose training loss fell then counts as learned too.
    """
    search, results = evidence.search, evidence.results
    if not level.lrs:
        return []
    if search.chance is not None:
        nothing = search.score(search.chance)
        of = _by_lr(results_at(results, level.steps))
        errors = [evidence.validation_error(of.get(lr, []), nothing) for lr in level.lrs]
        return [
            lr
            for at, lr in enumerate(level.lrs)
            if level.scores[at] - nothing > LEARNED * max(errors[at], level.spread(at))
        ]
    middle = float(np.median(evidence.first.scores)) if evidence.first.scores else 0.0
    ahead = {lr for lr, score in zip(level.lrs, level.scores, strict=True) if score - middle > LEARNED * level.noise}
    start = loss_at_start(results)
    return [lr for lr in level.lrs if lr in ahead or _loss_fell(start, evidence.trial(lr))]


def levels(evidence: Evidence) -> list[Level]:
    """The lengths at which LRs were compared, ascending.

    A length counts if three LRs were trained to it. Two LRs are enough if one of them was the best at the length
    before, if one has learned, or if none had learned before.
    """
    found = list[Level]()
    for steps in sorted({each.segment.stop for each in evidence.results if not each.segment.annealed}):
        level = evidence.level(steps)
        if not level.lrs:
            continue
        best = found[-1].lrs[found[-1].best] if found else None
        counts = best in {*level.lrs, *level.failed} or learners(evidence, level)
        counts = counts or not (found and learners(evidence, found[-1]))
        alone = len(found[-1].lrs) == 1 if found else False
        if best is None or len(level.lrs) >= _COMPARED or ((len(level.lrs) > 1 or alone) and counts):
            found.append(level)
    return found


def loss_at_start(results: Sequence[SegmentResult]) -> float | None:
    """First loss of the smallest LR, which has hardly changed the model; None if no losses are known."""
    fresh = [each for each in results if each.segment.start == 0 and each.losses and is_finite(each.losses[0])]
    if not fresh:
        return None
    return min(fresh, key=lambda each: (each.segment.lr, each.segment.stop, each.segment.seed)).losses[0]


def last_loss(of: Sequence[SegmentResult]) -> float:
    """Mean over the last eighth of the known losses of a trial; NaN if there are none."""
    losses = [loss for each in of for loss in each.losses]
    return float(np.mean(losses[-max(1, len(losses) // 8) :])) if losses else math.nan


def _loss_fell(start: float | None, of: Sequence[SegmentResult]) -> bool:
    end = last_loss(of)
    return start is not None and is_finite(end) and start - end > _FALL * abs(start)


def alike(results: Sequence[SegmentResult], steps: int) -> bool:
    """Whether all LRs have identical results after that many steps: equal metrics, equal losses up to rounding.

    Either the LR has no effect, or all LRs are far too small. All LRs share the batches and weights of a seed.
    """
    of = results_at(results, steps)
    seeds = {each.segment.seed: each for each in of}
    return len({each.segment.lr for each in of}) > 1 and all(
        (each.value, each.averaged) == (seeds[each.segment.seed].value, seeds[each.segment.seed].averaged)
        and _greatest_difference(each, seeds[each.segment.seed]) <= _ROUNDING
        for each in of
    )


def undecided_lrs(results: Sequence[SegmentResult]) -> set[float]:
    """LRs whose losses have moved most, but not up: neither too small nor too large, judged by the losses.

    All LRs of a seed see identical batches, so the losses of the smallest LR show the effect of no training.
    """
    first = [each for each in results if each.segment.start == 0 and each.losses]
    if not first:
        return set()
    still = min(first, key=lambda each: (each.segment.lr, each.segment.stop, each.segment.seed))
    moved, untrained = dict[float, float](), _untrained_losses(results)
    for lr, known in _by_lr(results).items():
        of = sorted((each for each in known if each.losses), key=lambda each: each.segment.stop)
        if of and not _is_harmed(of[-1], untrained(of[-1])):
            # Larger differences carry no information: one spike would hide all others.
            moved[lr] = min(max(_greatest_difference(each, still) for each in of), _ENOUGH)
    return {lr for lr, far in moved.items() if far > _STILL * max(moved.values())}


def _by_lr(results: Sequence[SegmentResult]) -> dict[float, list[SegmentResult]]:
    found = dict[float, list[SegmentResult]]()
    for each in results:
        found.setdefault(each.segment.lr, []).append(each)
    return found


def _is_harmed(result: SegmentResult, nothing: float | None) -> bool:
    """Whether a segment ends with losses above those of an untrained model, or had far larger losses on the way."""
    if nothing is None:
        return False
    mean = float(np.mean(result.losses))
    return last_loss([result]) - nothing > _HARM * abs(nothing) or mean - nothing > _SPIKE * abs(nothing)


def _untrained_losses(results: Sequence[SegmentResult]) -> Callable[[SegmentResult], float | None]:
    """Map a segment to the loss of an untrained model at its end; None if no losses are known.

    The loss is that of the smallest LR, which hardly changes the model, in the same batches, which may be harder than
    others. The loss of its first segment replaces it if that is higher, since the smallest LR may have learned since
    then.
    """
    fresh, smallest = dict[int, float](), dict[tuple[int, int, int], SegmentResult]()
    for each in sorted(results, key=lambda each: (each.segment.lr, each.segment.stop)):
        if not each.losses:
            continue
        of = each.segment
        smallest.setdefault((of.seed, of.start, of.stop), each)
        # A sum is finite only if all losses are.
        if of.start == 0 and of.seed not in fresh and math.isfinite(sum(each.losses)):
            fresh[of.seed] = max(each.losses[0], float(np.mean(each.losses)))

    def untrained(result: SegmentResult) -> float | None:
        of = result.segment
        if of.seed not in fresh:
            return None
        same = smallest.get((of.seed, of.start, of.stop))
        alongside = last_loss([same]) if same else math.nan
        return max(fresh[of.seed], alongside) if is_finite(alongside) else fresh[of.seed]

    return untrained


def _greatest_difference(one: SegmentResult, other: SegmentResult) -> float:
    """Largest difference between the losses of two segments of equal length, as a share; 0 if unknown."""
    ends = [(each.segment.start, each.segment.stop) for each in (one, other)]
    if ends[0] != ends[1] or len(one.losses) != len(other.losses) or not one.losses:
        return 0.0
    size = float(np.max(np.abs(other.losses))) or 1.0
    return float(np.max(np.abs(np.subtract(one.losses, other.losses)))) / size


def restarted_segments(results: Sequence[SegmentResult]) -> list[str]:
    """Names of segments whose losses begin at the level of fresh weights, although they have a parent.

    Only checked if the parent's losses fell by more than their scatter.
    """
    by_name = {each.segment.name: each for each in results}
    start, found = loss_at_start(results), list[str]()
    for each in results:
        parent = by_name.get(str(each.segment.parent))
        if start is None or parent is None or len(parent.losses) < 2 or not each.losses:
            continue
        before, after = last_loss([parent]), each.losses[0]
        scatter = float(np.std(parent.losses[-max(2, len(parent.losses) // 2) :]))
        fell = start - before
        if is_finite(after) and fell > max(3 * scatter, _FALL * abs(start)) and after - before > fell / 2:
            found.append(each.segment.name)
    return found


def trusted_results(results: Sequence[SegmentResult]) -> list[SegmentResult]:
    """The reliable results. If most children did not load their parent's state, only segments without a parent."""
    doubtful, resumed = restarted_segments(results), [each for each in results if each.segment.parent]
    if len(doubtful) * 2 <= len(resumed) or len(doubtful) < 2:
        return list(results)
    return [each for each in results if each.segment.parent is None]


_RISE = 0.1
"""A training has diverged if its loss rose by more than this share of the loss at the start."""
_EARLY_RISE = 1.0
"""`_RISE` for trainings of a few steps, whose batches differ by more."""
_BLOWN = 10.0
"""`_RISE` relative to the very first batch, which may be an easy one."""
_STEPS = 64
"""Fewer steps show no regime, unless a number was not finite."""


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """Two LRs of a search on both sides of a threshold.

    Attributes:
        below: The larger LR, below the threshold.
        above: The smallest LR above the threshold.
        value: Their geometric mean.
    """

    below: float
    above: float

    @property
    def value(self) -> float:
        """Geometric mean of both LRs."""
        return math.sqrt(self.below * self.above)

    @property
    def facts(self) -> dict[str, float]:
        """``below``, ``above`` and ``value`` by name."""
        return {"below": self.below, "above": self.above, "value": self.value}


def regimes(
    results: Sequence[SegmentResult], *, learned: Collection[float] = (), steps_each: int = 1
) -> dict[Trial, str]:
    """Regime of each trial: ``converging``, ``equilibrium``, ``diverging`` or ``undecided``.

    The regime is that of `lratlas.watch` on the training losses, without an annealed end. A trial diverges if a number
    was not finite, if its loss rose, or if it learned nothing and its LR is above all that learned.

    Args:
        results: The results of all segments.
        learned: LRs whose metric shows that they have learned something, whatever their loss: it may be high in an
            equilibrium.
        steps_each: Optimizer steps per step of a segment.
    """
    reference, largest = loss_at_start(results), max(learned, default=math.inf)
    return {
        trial: _regime(
            _last_continuous(of) if of else [],
            reference,
            too_large=trial[0] > largest,
            learned=trial[0] in learned,
            steps_each=steps_each,
        )
        for trial, of in trials(results).items()
    }


def diverging(evidence: Evidence) -> set[float]:
    """The LRs that diverge, judged by the losses of their longest training with the first seed."""
    search, results, found = evidence.search, evidence.results, set[float]()
    first, untrained = loss_at_start(results), _untrained_losses(results)
    for lr in {each.segment.lr for each in results}:
        of = evidence.trial(lr)
        start = untrained(of[-1]) if of else None
        share = _RISE if of and of[-1].segment.stop * search.steps_each >= _STEPS else _EARLY_RISE
        rose = start is not None and _has_risen(last_loss(of[-1:]), start, share=share)
        # If even the smallest LR blows up, the loss of an untrained model is unknown.
        blown = first is not None and of and _has_risen(last_loss(of[-1:]), first, share=_BLOWN)
        if rose or blown or any(not_finite(each) for each in of):
            found.add(lr)
    longest = evidence.level(max((each.segment.stop for each in results), default=0))
    return found - set(learners(evidence, longest))


def _has_risen(loss: float, start: float, *, share: float = _RISE) -> bool:
    return is_finite(loss) and loss - start > share * abs(start)


def convergence(by_trial: Mapping[Trial, str]) -> Bracket | None:
    """Convergence threshold: between the largest converging LR below every equilibrium, and the smallest of those."""
    plateau = [lr for (lr, _), regime in by_trial.items() if regime == "equilibrium"]
    below = [lr for (lr, _), regime in by_trial.items() if regime == "converging" and plateau and lr < min(plateau)]
    return Bracket(below=max(below), above=min(plateau)) if below else None


def divergence(by_trial: Mapping[Trial, str], *, above: float) -> Bracket | None:
    """Divergence threshold: between the first diverging LR above a good one and the largest LR before it.

    Args:
        by_trial: The regimes of all trials.
        above: A good LR. An LR below it that does not learn is too small, not too large.
    """
    diverged = min(
        (lr for (lr, _), regime in by_trial.items() if regime == "diverging" and lr > above), default=math.inf
    )
    below = max((lr for lr, _ in by_trial if lr < diverged), default=None)
    return None if diverged == math.inf or below is None else Bracket(below=below, above=diverged)


def _regime(
    of: Sequence[SegmentResult], reference: float | None, *, too_large: bool, learned: bool, steps_each: int
) -> str:
    if any(not_finite(each) for each in of):
        return "diverging"
    if reference is None or reference <= 0 or not of or of[-1].segment.stop * steps_each < _STEPS:
        return "undecided"  # the rules compare with the loss at the start, by ratio
    last = last_loss(of)
    if not learned and (_has_risen(last, reference) or (too_large and last > (1 - _FALL) * reference)):
        return "diverging"
    tracker = RegimeTracker(rules=Rules(chance_loss=reference))
    for steps, loss in _even(_parts(of, steps_each)):
        tracker.add(steps=steps, loss=loss)
    # The causes of this regime, a rise or a larger LR, were checked above.
    return "undecided" if tracker.regime == "diverging" else tracker.regime


def _last_continuous(of: Sequence[SegmentResult]) -> Sequence[SegmentResult]:
    """The last results of a trial that continue from each other; a search may start each one from fresh weights."""
    return of[max(place for place, each in enumerate(of) if each.segment.start == 0 or place == 0) :]


def _parts(of: Sequence[SegmentResult], steps_each: int) -> list[tuple[int, float]]:
    """Losses of a trial, each with the number of steps that it averages."""
    parts = list[tuple[int, float]]()
    for each in (each for each in of if each.losses):
        ends = [each.segment.steps * steps_each * number // len(each.losses) for number in range(len(each.losses) + 1)]
        steps = [end - start for start, end in pairwise(ends)]
        parts += [(count, loss) for count, loss in zip(steps, each.losses, strict=True) if count]
    return parts


def _even(parts: Sequence[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    """Losses as means over about equally many steps each, as the tests require: early segments are shorter."""
    longest = max((steps for steps, _ in parts), default=0)
    total, weighted = 0, 0.0
    for steps, loss in parts:
        total, weighted = total + steps, weighted + steps * loss
        if total >= longest:
            yield total, weighted / total
            total, weighted = 0, 0.0
