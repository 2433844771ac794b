"""Made-up trainings for the tests of the search: their quality is a closed-form function of LR, steps and seed."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lratlas.advise.search import next_slices
from lratlas.advise.search_settings import Search, make_search
from lratlas.advise.slices import Outcome, Slice

STEPS = 6400

Answer = Callable[[Slice], Outcome]
Choose = Callable[[Sequence[Slice]], int]


@dataclass(frozen=True, kw_only=True)
class Valley:
    """A loss that is a parabola in log LR, falls with the steps, and whose best LR moves with them.

    Attributes:
        best: The best LR after a full training.
        drift: The best LR grows with this power of the steps.
        width: Curvature, per decade squared.
        floor: The lowest loss after a full training.
        seeds: How far the logarithm of the best LR moves per seed, in decades.
    """

    best: float = 0.01
    drift: float = 0.0
    width: float = 0.3
    floor: float = 0.4
    seeds: float = 0.0
    full: int = STEPS

    def best_after(self, steps: int) -> float:
        return self.best * (steps / self.full) ** self.drift

    def loss(self, lr: float, steps: int, seed: int = 0) -> float:
        distance = math.log10(lr / self.best_after(steps)) - self.seeds * seed
        return self.floor * (0.5 + 0.5 * (self.full / steps) ** 0.25) + self.width * distance**2

    def __call__(self, asked: Slice) -> Outcome:
        loss = self.loss(asked.lr, asked.stop, asked.seed)
        return outcome(asked, value=loss, averaged=loss)


def a_search(**settings: object) -> Search:
    return make_search(**({"steps": STEPS} | settings))


def outcome(
    asked: Slice,
    value: float | None = None,
    *,
    averaged: float | None = None,
    losses: Iterable[float] = (),
    failure: str | None = None,
) -> Outcome:
    return Outcome(slice=asked, value=value, averaged=averaged, losses=tuple(losses), failure=failure)


def failed(asked: Slice, reason: str = "the command exited with code 1") -> Outcome:
    return outcome(asked, failure=reason)


def scaled(of: Outcome, factor: float) -> Outcome:
    """The outcome with metrics that are multiplied by a factor."""
    value, averaged = (None if metric is None else factor * metric for metric in (of.value, of.averaged))
    return replace(of, value=value, averaged=averaged)


def searched(search: Search, answer: Answer, *, choose: Choose = lambda _: 0, most: int = 2000) -> list[Outcome]:
    """All outcomes of a search whose slices are trained one after the other; fails if it does not come to an end.

    Args:
        search: The settings.
        answer: What comes of a slice.
        choose: Which of the slices that could be trained is the next.
        most: More slices than any search may ask for.
    """
    outcomes = list[Outcome]()
    while waiting := next_slices(search, outcomes):
        outcomes.append(answer(waiting[choose(waiting)]))
        assert len(outcomes) < most
    return outcomes


def cost(outcomes: Sequence[Outcome]) -> int:
    """Steps that were trained."""
    return sum(each.slice.stop - each.slice.start for each in outcomes)


def lrs_to(outcomes: Sequence[Outcome], stop: int) -> list[float]:
    """The LRs that were trained to a step at a constant LR, ascending, seed 0."""
    first = [each.slice for each in outcomes if each.slice.seed == 0 and not each.slice.annealed]
    return sorted(each.lr for each in first if each.stop == stop)
