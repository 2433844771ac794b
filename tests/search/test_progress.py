"""The progress of a search, as people see it."""

from lratlas.search.progress import SearchProgress, state_of


def test_cost_and_the_best_lr_so_far_are_shown() -> None:
    found = state_of(SearchProgress(cost=0.75, budget=1.5, best=0.03))
    assert (found.percent, found.count, found.more) == ("50%", "0.75 of 1.5 full trainings", "best LR so far 3e-2")
    assert state_of(SearchProgress(cost=0.0, budget=1.5, best=None)).more == ""
