"""The progress of a search, as people see it."""

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
    """How far a search is.

    Attributes:
        cost: What was trained so far, in full trainings.
        budget: What may be.
        best: The best LR so far; None before there is one.
    """

    cost: float
    budget: float
    best: float | None


@contextmanager
def shown(progress: Callable[[SearchProgress], None] | bool | None) -> "Generator[Callable[[Finder], None]]":
    """What is called with the finder after each stretch of training.

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
    """How far a finder's search is."""
    best = None
    with suppress(SearchError):  # nothing has gone well yet
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
