"""The progress of a study, for people."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from lratlas.bars import State, bar, time_text

if TYPE_CHECKING:
    from lratlas.execute.scheduler import Progress

REGIMES_EVERY = 30.0  # seconds; each update reads all tables
Heard: TypeAlias = "Callable[[Progress], None] | None"


@contextmanager
def shown(progress: "Callable[[Progress], None] | bool | None", regimes: Callable[[], str]) -> "Generator[Heard]":
    """The function to call on every change of progress.

    Args:
        progress: A function; True for a progress bar; False or None for nothing.
        regimes: Returns a short text with the regimes found so far; called occasionally.
    """
    if progress is not True:
        yield progress or None
        return
    with bar() as show:
        began = asked = time.monotonic()
        found = ""

        def show_progress(progress: "Progress") -> None:
            nonlocal asked, found
            now = time.monotonic()
            if now - asked > REGIMES_EVERY:
                found, asked = regimes(), now
            show(state_of(progress, now - began, found))

        yield show_progress


def state_of(progress: "Progress", seconds: float, regimes: str = "") -> State:
    """The progress in words, with the rate of training and the time left once a run was trained.

    Args:
        progress: The progress of the study.
        seconds: Time since this start of the study.
        regimes: The regimes found so far.
    """
    rate = progress.trained / seconds if progress.trained and seconds > 0 else None
    rest = progress.work - progress.work_done
    return State(
        doing=progress.doing or "finishing",
        done=progress.work_done,
        total=progress.work,
        count=f"{progress.jobs_done:,} of {progress.jobs:,} jobs",
        left=f"{time_text(rest / rate)} left" if rate and rest > 0 else "",
        more=" · ".join(filter(None, (f"{rate:,.0f} steps/s" if rate else "", regimes))),
    )
