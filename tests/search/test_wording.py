"""The sentences of an advice."""

import math
from typing import Any

import pytest

from lratlas.search.advice import Advice, advise
from lratlas.search.regimes import Bracket
from lratlas.search.rungs import enough
from lratlas.search.segments import Segment, SegmentResult
from lratlas.search.settings import Search
from report.search_helpers import advice, row
from search.find_helpers import STEPS, Answer, Valley, a_search, failed, result, scaled, searched


def advised(search: Search, answer: Answer) -> Advice:
    return advise(search, searched(search, answer))


def made(**fields: Any) -> Advice:
    """An advice with these fields."""
    return advice(row(0.1, 100, 0.8), **fields)


def test_a_statement_says_what_to_do_and_what_it_cost():
    found = made(lr=0.0123, low=0.01, high=0.0316, finish="anneal", cost=1.487, steps=12345)
    assert found.statement == (
        "Use an initial LR of 0.012 (good range 0.01 to 0.032): keep it constant and take it linearly to zero over the"
        " last fifth of the steps. The search cost 1.49 full trainings of 12,345 steps."
    )


@pytest.mark.parametrize(
    ("finish", "said"),
    [
        ("average", "train at this LR throughout and average the weights of the last tenth of the steps"),
        ("anneal", "take it linearly to zero over the last fifth of the steps"),
        ("constant", "keep it constant (neither averaged weights nor an annealed branch were tried)."),
    ],
)
def test_a_statement_says_how_to_finish(finish: str, said: str):
    assert said in made(finish=finish).statement


def test_a_range_of_one_lr_is_about_it():
    assert "(good range about 0.1)" in made(lr=0.1, low=0.1, high=0.1).statement


def test_thresholds_are_said_where_they_were_seen():
    assert "hreshold" not in made().statement
    assert "nothing was learned" not in made().statement
    found = made(convergence=Bracket(below=0.01, above=0.0316), divergence=Bracket(below=1, above=3.16))
    assert " The convergence threshold lies at 0.01 to 0.032. " in found.statement
    assert " Above 1 to 3.2 nothing was learned in the steps that were tried. " in found.statement


def test_warnings_follow_on_lines_of_their_own():
    found = made(warnings=("One thing.", "Another."))
    assert str(found) == f"{found.statement}\nNote: One thing.\nNote: Another."


def test_a_search_without_surprises_has_no_warnings():
    assert advised(a_search(), Valley()).warnings == ()


def test_a_search_that_is_not_over_says_so():
    search = a_search()
    part = searched(search, Valley())[:25]
    (warning,) = advise(search, part).warnings
    # 21 segments of a 64th, and four that go on by as much.
    assert warning == f"The search is not over: it has trained {25 / 64:.2f} of at most 1.5 full trainings."


@pytest.mark.parametrize("resumable", [True, False])
def test_a_small_budget_is_said_with_what_would_be_enough(resumable: bool):
    search = a_search(budget=0.6, resumable=resumable)
    (warning,) = advised(search, Valley()).warnings
    start, budget, *rest = warning.split(" A budget of ")[0], float(warning.split(" A budget of ")[1].split()[0])
    assert not rest
    assert start.startswith("The budget is small: the best LR was trained for ")
    trained = float(start.split(" for ")[1].split("%")[0]) / 100
    assert any(trained == pytest.approx(share, abs=1e-3) for share in (1 / 64, 1 / 32, 1 / 16))
    # Rounded up to a tenth, it must do.
    assert enough(search) <= budget + 1e-6 < enough(search) + 0.1 + 1e-6
    larger = advised(a_search(budget=budget, resumable=resumable), Valley())
    assert larger.warnings == ()
    assert larger.longest()["steps"].max() == STEPS // 4


@pytest.mark.parametrize(("reached", "is_said"), [(0.16, True), (0.12, False)])
def test_a_metric_that_has_far_to_go_is_said(reached: float, is_said: bool):
    def late(asked: Segment) -> SegmentResult:
        """An accuracy near chance until an eighth of the steps, which then begins to rise."""
        plain = 0.1 if asked.stop <= STEPS // 8 else reached
        return result(asked, averaged=plain - 0.01 * math.log10(asked.lr / 0.01) ** 2)

    (warning,) = advised(a_search(direction="maximize"), late).warnings or ("",)
    # From 0.1 to 0.16, and then half of that gain and a quarter.
    assert ("the metric of the best LR is 0.16, far from the 0.205 that is expected" in warning) == is_said


def test_two_lrs_are_not_enough_for_a_range():
    def answer(asked: Segment) -> SegmentResult:
        return Valley(best=0.01)(asked) if 0.005 < asked.lr < 0.0101 else failed(asked, "the loss is not finite")

    warnings = advised(a_search(), answer).warnings
    assert "Only 2 LRs could be compared; a good range takes 3 at least." in warnings
    warnings = advised(a_search(), lambda asked: answer(asked) if asked.lr > 0.009 else failed(asked)).warnings
    assert "Only 1 LR could be compared; a good range takes 3 at least." in warnings


@pytest.mark.parametrize(("best", "end"), [(1e-12, "smallest"), (1e9, "largest")])
def test_a_best_lr_at_the_end_of_all_is_said_to_lie_beyond_perhaps(best: float, end: str):
    warnings = advised(a_search(), Valley(best=best)).warnings
    assert f"The best LR is the {end} that was tried; it may lie beyond." in warnings
    assert not any("extended" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("best", "added", "tried"),
    [(2.0, "1.8, 3.2", "1e-05 to 3.2"), (5e-6, "3.2e-06, 5.6e-06", "3.2e-06 to 1")],
)
def test_an_extended_grid_is_said_with_the_lrs_that_were_added(best: float, added: str, tried: str):
    assert advised(a_search(), Valley(best=best)).warnings == (
        f"The best LR stood at an end of the grid, which was extended by {added}; LRs were tried from {tried}.",
    )


def test_a_metric_that_gets_worse_with_more_steps_is_said():
    def overfit(asked: Segment) -> SegmentResult:
        # Best after an eighth of the steps; small LRs are slower.
        late = max(0.0, math.log2(asked.stop / 800)) if asked.lr > 0.009 else 0.0
        return scaled(Valley(best=0.02, width=0.05)(asked), 1 + 0.2 * late)

    found = advised(a_search(anneal=False), overfit)
    (warning,) = [each for each in found.warnings if "got worse" in each]
    fallen = warning.split("got worse at ")[1].split(":")[0].split(", ")
    longest = found.longest()
    expected = [lr for lr, steps in longest.select("lr", "steps").iter_rows() if steps == STEPS // 4 and lr > 0.009]
    assert fallen == [f"{lr:.2g}" for lr in expected]
    best = min(found.evidence["averaged"].drop_nulls())
    assert f"The best so far is {best:.4g}, at 0.018 after 800 steps." in warning
    assert (found.best_steps, found.best) == (800, best)


@pytest.mark.parametrize(("worse", "said"), [(0.004, False), (0.006, True)])
def test_getting_worse_by_less_than_the_tolerance_is_not_said(worse: float, said: bool):
    def answer(asked: Segment) -> SegmentResult:
        value = 1 + 0.3 * math.log10(asked.lr / 0.01) ** 2 + (worse if asked.stop >= STEPS // 4 else 0)
        return result(asked, averaged=value)

    warnings = advised(a_search(anneal=False), answer).warnings
    assert any("got worse at 0.01" in warning or "got worse at 0.0056, 0.01" in warning for warning in warnings) == said


def test_failures_are_named_and_counted():
    def crash(asked: Segment) -> SegmentResult:
        return failed(asked, "the card is full.") if asked.lr > 0.9 else Valley()(asked)

    assert advised(a_search(), crash).warnings == ("The segment lr1-seed0-to100 failed: the card is full.",)

    def crashes(asked: Segment) -> SegmentResult:
        return failed(asked, "the card is full") if asked.lr > 0.3 else Valley()(asked)

    assert advised(a_search(), crashes).warnings == (
        "The segment lr0.316228-seed0-to100 failed: the card is full, and 2 more.",
    )


def test_divergence_is_a_result_and_no_warning():
    def diverges(asked: Segment) -> SegmentResult:
        return failed(asked, "loss 3 of 9 is not finite") if asked.lr > 0.3 else Valley()(asked)

    assert advised(a_search(), diverges).warnings == ()
