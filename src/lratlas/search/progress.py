"""Progress of a search, for people."""

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lratlas.bars import State, bar
from lratlas.errors import SearchError
from lratlas.search.rungs import trainings_spent
from lratlas.text import format_lr

if TYPE_CHECKING:
    from lratlas.search.finder import Finder


@dataclass(frozen=True, kw_only=True)
class SearchProgress:
    """Progress of a search.

    Attributes:
        cost: Training done so far, in full trainings.
        budget: Limit of the cost, in full trainings.
        best: Best LR so far; None if there is none yet.
    """

    cost: float
    budget: float
    best: float | None


@contextmanager
def shown(progress: Callable[[SearchProgress], None] | bool | None) -> "Generator[Callable[[Finder], None]]":
    """Make the callback that receives the finder after each stretch of training.

    Args:
        progress: A function; True for a progress bar; False or None for nothing.
    """
    if progress is True:
        with bar() as show:
            yield lambda finder: show(state_of(progress_of(finder)))
    elif progress:
        told = progress
        yield lambda finder: told(progress_of(finder))
    else:
        yield lambda _: None


def progress_of(finder: "Finder") -> SearchProgress:
    """Progress of a finder's search."""
    best = None
    with suppress(SearchError):  # no segment has succeeded yet
        best = finder.advice().lr
    cost = trainings_spent(finder.search, finder.results)
    return SearchProgress(cost=cost, budget=finder.search.budget, best=best)


def state_of(progress: SearchProgress) -> State:
    """The progress in words."""
    return State(
        doing="searching",
        done=progress.cost,
        total=progress.budget,
        count=f"{progress.cost:.2f} of {progress.budget:g} full trainings",
        more="" if progress.best is None else f"best LR so far {format_lr(progress.best)}",
    )
