"""The sentences of an advice."""

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lratlas.report.search_page import recipes
from lratlas.search.advice import Advice, advise
from lratlas.search.regimes import Bracket
from lratlas.search.rungs import enough
from lratlas.search.segments import Segment, SegmentResult
from lratlas.search.settings import Search
from lratlas.text import format_lr
from report.search_helpers import advice, row
from search.find_helpers import STEPS, Answer, Valley, a_search, diverged, failed, result, scaled, searched


def advised(search: Search, answer: Answer) -> Advice:
    return advise(search, searched(search, answer))


def made(**fields: Any) -> Advice:
    """An advice with these fields."""
    return advice(row(0.1, 100, 0.8), **fields)


def test_a_statement_says_what_to_do_and_what_it_cost():
    found = made(lr=0.0123, low=0.01, high=0.0316, finish="anneal", cost=1.487, steps=12345)
    assert found.statement.startswith("Use an initial LR of 1.2e-2 (good range 1e-2 to 3.2e-2).\nTo finish, ")
    assert found.statement.endswith("\nThe search cost 1.49 full trainings of 12,345 steps.")


@pytest.mark.parametrize(
    ("finish", "said", "averages"),
    [
        ("average", "average the weights of the last tenth of the steps at a constant LR.", True),
        ("anneal", "anneal the LR linearly to zero over the last fifth of the steps.", True),
        ("either", "try both and use the better one.", True),
        ("constant", "Keep the LR constant: the search could test neither averaged weights nor", False),
        ("schedule", "Your schedule multiplies this LR.", False),
    ],
)
def test_a_statement_says_how_to_finish(finish: str, said: str, averages: bool):
    statement = made(finish=finish).statement
    assert said in statement
    assert ("Also validate the averages" in statement) == averages


@pytest.mark.parametrize("answer", [Valley(), diverged])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("budget", [0.5, 1.5])
def test_where_epochs_are_counted_steps_are_not_spoken_of(answer: Answer, schedule: str, budget: float):
    found = advised(a_search(steps=20, counted="epochs", schedule=schedule, budget=budget), answer)
    words = [str(found), *(f"{each.words} {each.code}" for each in recipes(found))]
    assert "full trainings of 20 epochs." in words[0]
    assert not [each for each in words if re.search(r"\bsteps?\b|_step\b", each)]


@pytest.mark.parametrize(("verdict", "low"), [("tie", 0.1), ("not_learned", None), ("diverged", None)])
def test_without_an_lr_a_statement_says_why(verdict: str, low: float | None):
    none = made(verdict=verdict, reason="It is so.", lr=None, low=low, high=low)
    assert none.statement == "No LR is recommended.\nIt is so.\nThe search cost 1.50 full trainings of 6,400 steps."


def test_thresholds_are_said_where_they_were_seen():
    assert "hreshold" not in made().statement
    assert "failed to learn" not in made().statement
    found = made(convergence=Bracket(below=0.01, above=0.0316), divergence=Bracket(below=1, above=3.16))
    assert "\nThe convergence threshold is between 1e-2 and 3.2e-2. LR 3.2e0 failed to learn;" in found.statement
    assert "the next smaller LR tried is 1e0.\n" in found.statement


def test_warnings_follow_on_lines_of_their_own():
    found = made(warnings=("One thing.", "Another."))
    assert str(found) == f"{found.statement}\nNote: One thing.\nNote: Another."


def test_a_search_without_surprises_has_no_warnings():
    assert advised(a_search(), Valley()).warnings == ()


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("wrong", [False, True])
def test_a_wrong_direction_is_noticed(direction: str, wrong: bool):
    """The metric is the loss or its negative; losses are those of training."""
    sign = 1 if (direction == "minimize") != wrong else -1

    def answer(asked: Segment) -> SegmentResult:
        loss = Valley().loss(asked.lr, asked.stop)
        return result(asked, value=sign * loss, losses=(4.0, loss, loss))

    said = [each for each in advised(a_search(direction=direction), answer).warnings if "direction" in each]
    other = {
        "minimize": "larger values are better, set the direction to maximize",
        "maximize": "smaller values are better, set the direction to minim",
    }
    assert [other[direction] in each for each in said] == [True] * wrong


def test_a_search_that_is_not_over_says_so():
    search = a_search()
    part = searched(search, Valley(), choose=lambda _: 0)[:25]
    (warning,) = [each for each in advise(search, part).warnings if "unfinished" in each]
    # 21 segments of a 64th, and four that continue by as much.
    assert warning == f"The search is unfinished: it has used {25 / 64:.2f} of at most 1.5 full trainings."


@pytest.mark.parametrize("resumable", [True, False])
def test_a_small_budget_is_said_with_what_would_be_enough(resumable: bool):
    search = a_search(budget=0.6, resumable=resumable)
    (warning,) = [each for each in advised(search, Valley()).warnings if "budget is small" in each]
    share, budget = re.findall(r"after ([\d.]+)% .*With a budget of ([\d.]+),", warning)[0]
    assert any(float(share) / 100 == pytest.approx(part, abs=1e-3) for part in (1 / 64, 1 / 32, 1 / 16))
    # Rounded up to a tenth, it must do.
    assert enough(search) <= float(budget) + 1e-6 < enough(search) + 0.1 + 1e-6
    larger = advised(a_search(budget=float(budget), resumable=resumable), Valley())
    assert not any("budget is small" in each for each in larger.warnings)
    assert larger.longest()["steps"].max() == STEPS // 4


def test_a_wide_range_says_little_of_the_lr():
    def noisy(asked: Segment) -> SegmentResult:
        return replace(Valley(best=0.01, width=0.3)(asked), error=0.2)

    wide, narrow = advised(a_search(), noisy), advised(a_search(), Valley(best=0.01, width=3.0))
    assert any(
        re.match(r"The good range is wide: \d+ LRs from \S+ to \S+ are equal within the noise", each)
        for each in wide.warnings
    )
    assert not any("within the noise" in each for each in narrow.warnings)


def test_two_lrs_are_not_enough_for_a_range():
    def answer(asked: Segment) -> SegmentResult:
        return Valley(best=0.01)(asked) if 0.005 < asked.lr < 0.0101 else failed(asked, "the loss is not finite")

    warnings = advised(a_search(), answer).warnings
    assert "Only 2 LRs could be compared; a good range needs at least 3." in warnings
    warnings = advised(a_search(), lambda asked: answer(asked) if asked.lr > 0.009 else failed(asked)).warnings
    assert "Only 1 LR could be compared; a good range needs at least 3." in warnings


@pytest.mark.parametrize(("best", "end"), [(1e-12, "smallest"), (1e9, "largest")])
def test_a_best_lr_at_the_end_of_all_may_not_be_the_best(best: float, end: str):
    warnings = advised(a_search(), Valley(best=best)).warnings
    assert any(re.match(rf"The best LR, \S+, is the {end} one tried; a better LR", each) for each in warnings)
    assert not any("beyond the grid" in warning for warning in warnings)


@pytest.mark.parametrize(("best", "added"), [(2.0, "1.8e0, 3.2e0"), (5e-6, "3.2e-6, 5.6e-6")])
def test_an_extended_grid_is_said_with_the_lrs_that_were_added(best: float, added: str):
    warnings = advised(a_search(), Valley(best=best)).warnings
    assert f"The search also tried LRs beyond the grid: {added}." in warnings


def overfit(share: float, *, above: float = 0.009) -> Answer:
    """A loss that rises by a share for each doubling after an eighth of the steps, at LRs above one of them."""

    def answer(asked: Segment) -> SegmentResult:
        late = max(0.0, math.log2(asked.stop / 800)) if asked.lr > above else 0.0
        return scaled(Valley(best=0.02, width=0.05)(asked), 1 + share * late)

    return answer


def test_a_metric_that_gets_worse_with_more_steps_is_said():
    found = advised(a_search(anneal=False), overfit(0.5))
    (warning,) = [each for each in found.warnings if "got worse" in each]
    fallen = warning.split("got worse with more steps at ")[1].split(":")[0].split(", ")
    longest = found.longest()
    expected = [lr for lr, steps in longest.select("lr", "steps").iter_rows() if steps == STEPS // 4 and lr > 0.009]
    assert fallen == [format_lr(lr) for lr in expected]
    best = min(found.evidence["averaged"].drop_nulls())
    assert f"At 1.8e-2 it was {best:.4g} after 800 steps." in warning
    assert (found.best_steps, found.best) == (800, best)


@pytest.mark.parametrize("training", [overfit(0.001), overfit(0.5, above=0.05)])
def test_getting_worse_within_the_noise_or_far_from_the_best_lr_is_not_said(training: Answer):
    assert not any("got worse" in each for each in advised(a_search(anneal=False), training).warnings)


def lost(asked: Segment) -> SegmentResult:
    """A training whose state is never loaded: each segment begins with the loss of fresh weights."""
    return replace(Valley()(asked), losses=tuple(np.linspace(2.0, 1.0, 64)))


def test_states_that_are_not_loaded_are_said():
    found = advised(a_search(), lost)
    (warning,) = [each for each in found.warnings if "start as high" in each]
    assert "load the state of the parent segment" in warning


def test_failures_are_named_and_counted():
    def crash(asked: Segment) -> SegmentResult:
        return failed(asked, "the card is full.") if asked.lr > 0.9 else Valley()(asked)

    (said,) = [each for each in advised(a_search(), crash).warnings if "failed" in each]
    assert said.startswith("The segment lr1-seed0-to100 failed: the card is full. After ")
    assert "--retry-failed" in said

    def crashes(asked: Segment) -> SegmentResult:
        return failed(asked, "the card is full") if asked.lr > 0.3 else Valley()(asked)

    said = "The segment lr0.316228-seed0-to100 failed: the card is full, and 2 more. "
    assert any(each.startswith(said) for each in advised(a_search(), crashes).warnings)


def test_divergence_is_a_result_and_no_warning():
    def diverges(asked: Segment) -> SegmentResult:
        return failed(asked, "loss 3 of 9 is not finite") if asked.lr > 0.3 else Valley()(asked)

    assert advised(a_search(), diverges).warnings == ()
