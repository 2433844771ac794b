import math
import random
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lratlas.errors import SearchError
from lratlas.recommendation import COMPARED as RECOMMENDED
from lratlas.search.advice import COMPARED, EVIDENCE, Advice, advise
from lratlas.search.evidence import Evidence
from lratlas.search.regimes import Bracket, levels
from lratlas.search.segments import Segment, SegmentResult, make_segment
from lratlas.search.settings import Search
from lratlas.tables import SCHEMAS
from lratlas.text import format_lr
from search.find_helpers import STEPS, Answer, Valley, a_search, cost, diverged, failed, normal, result, searched


def advised(search: Search, answer: Answer) -> Advice:
    return advise(search, searched(search, answer))


def known_chance(**settings: object) -> Search:
    return a_search(**({"chance": 2.0} | settings))


def found(advice: Advice) -> tuple[float, float, float]:
    """The LR and its range, of an advice that has one."""
    assert advice.verdict == "found"
    assert advice.reason == ""
    assert advice.lr is not None
    assert advice.low is not None
    assert advice.high is not None
    assert advice.low <= advice.lr <= advice.high
    return advice.lr, advice.low, advice.high


def test_an_advice_has_what_the_search_found():
    search, valley = a_search(), Valley(best=0.01)
    results = searched(search, valley)
    advice = advise(search, results)
    lr, low, high = found(advice)
    # Smaller LRs are as good in a training four times as long.
    assert 0.002 < lr < 0.01
    assert low <= 0.01 <= high
    assert advice.steps == STEPS
    assert advice.cost == cost(results) / STEPS
    assert advice.best_steps == STEPS // 4
    assert advice.best == valley.loss(0.01, STEPS // 4)
    assert advice.expected is not None
    assert advice.expected_low is not None
    assert advice.expected_high is not None
    # A full training continues falling, but by less with every doubling.
    assert 0 <= advice.expected_low < advice.expected < advice.best
    assert advice.expected_low <= valley.loss(0.01, STEPS) <= advice.expected_high
    assert (advice.convergence, advice.divergence) == (None, None)
    assert advice.segment == f"lr0.01-seed0-to{STEPS // 4}"
    assert advice.checkpoint is None


def test_a_search_recommends_and_places_boundaries_as_a_study_does():
    advice = advised(a_search(), Valley(best=0.01))
    recommended = advice.recommendation
    assert recommended is not None
    assert (recommended.lr, recommended.low, recommended.high) == found(advice)
    assert (recommended.finish, recommended.value, recommended.statement) == (
        advice.finish, advice.expected, advice.statement,
    )  # fmt: skip
    assert recommended.evidence.schema == RECOMMENDED
    assert recommended.evidence["lr"].is_sorted()
    assert recommended.evidence.filter("as_good")["lr"].is_between(recommended.low, recommended.high).all()
    assert not recommended.at_edge
    assert advice.boundaries.schema == SCHEMAS["boundaries"]
    assert advice.boundaries["boundary"].to_list() == ["convergence", "subregime", "divergence"]
    assert advised(a_search(), lambda asked: result(asked, value=1.0)).recommendation is None


def test_accuracies_are_told_as_accuracies():
    def accuracy(asked: Segment) -> SegmentResult:
        return result(asked, averaged=0.9 - 0.1 * math.log10(asked.lr / 0.01) ** 2 - 0.01 * STEPS / asked.stop)

    search = a_search(direction="maximize", limit=1.0, samples=10_000)
    advice = advised(search, accuracy)
    _, low, high = found(advice)
    assert low <= 0.01 <= high
    assert advice.best == pytest.approx(0.86)
    assert advice.expected is not None
    assert advice.expected_low is not None
    assert advice.expected_high is not None
    assert 0.86 < advice.expected < 1
    assert 0 <= advice.expected_low < advice.expected < advice.expected_high <= 1


def equal(asked: Segment) -> SegmentResult:
    """Metrics that are the same but for noise, of models that have learned."""
    return result(asked, averaged=0.5 + 1e-3 * normal(asked.name), losses=(2.0, 1.0 + 1e-3 * asked.lr))


@pytest.mark.parametrize("search", [a_search(), known_chance(), a_search(budget=5.0)])
def test_equal_lrs_tie(search: Search):
    advice = advised(search, equal)
    assert (advice.verdict, advice.lr, advice.expected) == ("tie", None, None)
    # Of a tie, the range is that of all LRs.
    assert (advice.low, advice.high) == (search.lrs[0], search.lrs[-1])
    assert re.search(r"from 1e-5 to 1e0 tie: their differences are below 0\.0\d+", advice.reason)
    assert advice.statement.startswith("No LR is recommended.\nThe LRs from 1e-5 to 1e0 tie")


def test_lrs_without_effect_are_said_to_have_none():
    advice = advised(known_chance(), lambda asked: result(asked, averaged=0.5 + 1 / asked.stop, losses=(2.0, 1.0)))
    assert advice.verdict == "tie"
    assert "the LR has no effect. Is it passed to the optimizer?" in advice.reason


def test_a_metric_that_is_always_the_same_leaves_it_open_why():
    advice = advised(a_search(), lambda asked: result(asked, averaged=0.5, losses=(2.0, 2.0)))
    assert advice.verdict == "tie"
    assert "the metric is always 0.5" in advice.reason
    assert "is it passed to the optimizer?" in advice.reason


def test_a_single_lr_has_nothing_to_be_compared_with():
    advice = advised(a_search(lrs=(0.1,), budget=0.01), Valley())
    assert advice.verdict == "tie"
    assert advice.reason == "Only LR 1e-1 was tried: at least two LRs are needed for a comparison."


@pytest.mark.parametrize("budget", [0.4, 1.5, 5.0])
def test_while_metrics_are_at_chance_nothing_was_learned(budget: float):
    search = known_chance(budget=budget)
    advice = advised(search, Valley(chance=2.0, until=10**9, noise=1e-3))
    assert (advice.verdict, advice.lr, advice.low, advice.high) == ("not_learned", None, None, None)
    assert re.match(r"No LR learned anything yet: within [\d,]+ steps none from 1e-5 to 1e0 beat", advice.reason)
    assert advice.reason.endswith("(2). Train for longer, or try LRs above 1e0.")
    assert advice.segment is None


def test_where_larger_lrs_diverge_none_are_recommended_to_be_tried():
    answer = Valley(chance=2.0, until=10**9, noise=1e-3, breaks=0.1)
    advice = advised(known_chance(), answer)
    assert advice.verdict == "not_learned"
    assert "none from 1e-5 to 1e-1 beat" in advice.reason
    assert "LRs above" not in advice.reason


def test_where_all_diverge_smaller_ones_are_recommended():
    advice = advised(a_search(lrs=(1.0, 10.0)), diverged)
    assert (advice.verdict, advice.lr, advice.low) == ("diverged", None, None)
    smallest = advice.evidence["lr"].min()
    assert isinstance(smallest, float)
    assert smallest < 1.0
    assert f"even {format_lr(smallest)}: try LRs below {format_lr(smallest / 10)}" in advice.reason
    assert math.isnan(advice.best)
    assert (advice.convergence, advice.divergence, advice.segment) == (None, None, None)
    assert str(advice).startswith("No LR is recommended.\nAll ")


def test_losses_that_rise_without_end_are_divergence():
    def rising(asked: Segment) -> SegmentResult:
        return result(asked, averaged=2.0 + 100 * asked.lr, losses=(2.0, 50 + 100 * asked.lr))

    advice = advised(known_chance(lrs=(1.0, 10.0, 100.0), budget=0.1), rising)
    assert advice.verdict == "diverged"


@settings(max_examples=30, deadline=None)
@given(
    best=st.floats(-4.5, -0.5).map(lambda decades: 10**decades),
    drift=st.sampled_from([-0.5, 0.0, 0.5]),
    noise=st.sampled_from([0.0, 0.02]),
    breaks=st.sampled_from([math.inf, 0.3]),
)
def test_an_lr_that_a_longer_comparison_showed_to_be_worse_is_not_advised(
    best: float, drift: float, noise: float, breaks: float
):
    search = a_search()
    results = searched(search, Valley(best=best, drift=drift, noise=noise, breaks=breaks))
    lr, _, _ = found(advise(search, results))
    (*_, last) = levels(Evidence(search, results))
    near = last.near()
    # The advice may be below all that were compared, for a longer training, but not beyond a worse one.
    assert lr <= near[-1] * 1.0001
    worse = [other for other in last.lrs if other > near[-1]]
    assert all(lr < other for other in worse)
    assert lr < breaks


def test_what_was_compared_is_a_table():
    search = a_search(budget=3.0)
    results = searched(search, Valley(noise=0.01, shared=0.1))
    advice = advise(search, results)
    assert advice.compared.schema == COMPARED
    of = levels(Evidence(search, results))
    assert advice.compared["steps"].unique().sort().to_list() == [level.steps for level in of]
    rows = advice.compared.filter(pl.col("steps") == STEPS // 4)
    (level,) = [level for level in of if level.steps == STEPS // 4]
    assert rows["lr"].to_list() == list(level.lrs)
    assert rows["seeds"].to_list() == list(level.seeds)
    assert rows.filter("near")["lr"].to_list() == level.near()
    # The best one of a length is the one with the lowest loss.
    assert rows.sort("metric")["lr"][0] == level.lrs[level.best]


def test_metrics_with_a_wide_error_tie():
    def noisy(asked: Segment) -> SegmentResult:
        return replace(Valley()(asked), error=10.0)

    assert advised(a_search(), Valley()).verdict == "found"
    assert advised(a_search(), noisy).verdict != "found"


def test_the_evidence_has_a_row_for_each_segment():
    search = a_search()
    results = searched(search, Valley())
    evidence = advise(search, results).evidence
    assert evidence.schema == EVIDENCE
    assert evidence.height == len(results)
    keys = evidence.select("lr", "seed", "steps", "annealed").rows()
    assert keys == sorted(
        (each.segment.lr, each.segment.seed, each.segment.stop, each.segment.annealed) for each in results
    )
    told = {(each.segment.lr, each.segment.stop): each.averaged for each in results if not each.segment.annealed}
    for row in evidence.filter(~pl.col("annealed")).iter_rows(named=True):
        assert row["averaged"] == told[row["lr"], row["steps"]]


def test_the_longest_trainings_are_one_row_per_lr():
    search = a_search()
    results = searched(search, Valley())
    longest = advise(search, results).longest()
    assert longest["lr"].to_list() == sorted({each.segment.lr for each in results})
    row = longest.row(by_predicate=pl.col("lr") == 0.01, named=True)
    assert (row["steps"], row["value"]) == (STEPS // 4, Valley().loss(0.01, STEPS // 4))


@settings(max_examples=10)
@given(seed=st.integers())
def test_the_order_of_telling_changes_nothing(seed: int):
    search = a_search()
    results = searched(search, lambda asked: result(asked, averaged=0.5))
    plain = advise(search, results)
    random.Random(seed).shuffle(results)
    mixed = advise(search, results)
    assert mixed.evidence.equals(plain.evidence)
    assert str(mixed) == str(plain)
    assert (mixed.lr, mixed.best_steps) == (plain.lr, plain.best_steps)


def with_end(factor: float, *, averaged: bool = True, noise: float = 0.0) -> Answer:
    """A search whose annealed end reaches a factor times what the averaged weights reach at that length."""
    valley = Valley(noise=noise)

    def answer(asked: Segment) -> SegmentResult:
        loss = valley.loss(asked.lr, asked.stop, asked.seed)
        if asked.annealed:
            return result(asked, factor * loss)
        return result(asked, loss, averaged=loss if averaged else None)

    return answer


@pytest.mark.parametrize(
    ("factor", "finish"), [(2.0, "average"), (1.0, "either"), (1.001, "either"), (0.999, "either"), (0.5, "anneal")]
)
def test_a_way_to_finish_is_advised_where_it_was_better_by_more_than_the_noise(factor: float, finish: str):
    assert advised(a_search(), with_end(factor)).finish == finish


@pytest.mark.parametrize(("factor", "finish"), [(0.5, "average"), (1.0, "either"), (1.4, "anneal")])
def test_of_accuracies_the_larger_one_is_better(factor: float, finish: str):
    def accuracy(asked: Segment) -> SegmentResult:
        plain = 0.6 - 0.1 * math.log10(asked.lr / 0.01) ** 2
        return result(asked, factor * plain) if asked.annealed else result(asked, plain, averaged=plain)

    assert advised(a_search(direction="maximize", samples=1000), accuracy).finish == finish


def test_few_validation_samples_leave_the_finish_open():
    def accuracy(asked: Segment) -> SegmentResult:
        plain = 0.6 - 0.3 * math.log10(asked.lr / 0.01) ** 2
        return result(asked, plain + 0.05) if asked.annealed else result(asked, plain, averaged=plain)

    finishes = [
        advised(a_search(direction="maximize", limit=1.0, samples=count), accuracy).finish for count in (30, 10**6)
    ]
    assert finishes == ["either", "anneal"]


def test_an_annealed_lr_goes_linearly_to_zero_over_the_last_fifth():
    advice = advised(a_search(), with_end(0.5))
    lr, _, _ = found(advice)
    places = (0, 4 * STEPS // 5, 9 * STEPS // 10, STEPS - STEPS // 100)
    assert [advice.lr_at(step) / lr for step in places] == pytest.approx([1, 1, 0.5, 0.05])
    # It is the LR of a training that the search annealed, at full length.
    end = make_segment(lr=lr, seed=0, start=0, stop=STEPS, parent=None, anneal_from=4 * STEPS // 5)
    assert [advice.lr_at(step) for step in range(STEPS)] == pytest.approx([end.lr_at(step) for step in range(STEPS)])


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_an_lr_that_is_not_surely_to_be_annealed_stays_unless_asked_for(factor: float):
    advice = advised(a_search(), with_end(factor))
    assert {advice.lr_at(step) for step in range(0, STEPS, 100)} == {advice.lr}
    assert {advice.lr_at(step, finish="average") for step in range(0, STEPS, 100)} == {advice.lr}
    assert advice.lr is not None
    assert advice.lr_at(9 * STEPS // 10, finish="anneal") == pytest.approx(advice.lr / 2)


def test_a_warm_up_is_that_of_the_search():
    advice = advised(a_search(warmup=STEPS // 10), Valley())
    lr, _, _ = found(advice)
    full = make_segment(lr=lr, seed=0, start=0, stop=STEPS, parent=None, anneal_from=4 * STEPS // 5, warmup=STEPS // 10)
    lrs = [advice.lr_at(step, finish="anneal") for step in range(STEPS)]
    assert lrs == pytest.approx([full.lr_at(step) for step in range(STEPS)])
    assert advice.lr_at(0) < lr == advice.lr_at(STEPS // 10) == advice.lr_at(STEPS - 1)


def test_without_an_lr_there_is_none_at_any_step():
    with pytest.raises(SearchError, match=r"^No recommended LR\. The LRs from 1e-5 to 1e0 tie"):
        advised(a_search(), equal).lr_at(0)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_without_averaged_weights_annealing_is_advised(factor: float):
    assert advised(a_search(), with_end(factor, averaged=False)).finish == "anneal"


def test_without_averaged_weights_and_annealing_the_lr_stays_constant():
    assert advised(a_search(anneal=False), with_end(1.0, averaged=False)).finish == "constant"


def test_without_annealing_averaging_is_advised():
    assert advised(a_search(anneal=False), Valley()).finish == "average"


def test_what_the_search_could_not_try_is_left_open():
    assert advised(a_search(budget=0.4), Valley()).finish == "either"
    assert advised(a_search(), lambda asked: failed(asked) if asked.annealed else Valley()(asked)).finish == "either"


@pytest.mark.parametrize(("limit", "known"), [(None, 1.0), (2.0, 2.0), (0.5, None)])
def test_a_limit_that_is_exceeded_is_none(limit: float | None, known: float | None):
    def accuracy(asked: Segment) -> SegmentResult:
        return result(asked, averaged=0.9 - 0.1 * min(math.log10(asked.lr / 0.01) ** 2, 8))

    advice = advised(a_search(direction="maximize", **({} if limit is None else {"limit": limit})), accuracy)
    assert 0.5 < advice.best < 1
    assert advice.limit == known


def test_a_schedule_is_kept():
    advice = advised(a_search(schedule="cosine", warmup=50), with_end(1.0, averaged=False))
    assert (advice.finish, advice.schedule, advice.warmup) == ("schedule", "cosine", 50)
    lr, _, _ = found(advice)
    assert advice.lr_at(0) == advice.lr_at(STEPS - 1) == lr  # which the schedule, warm-up included, multiplies
    assert advice.segment is None


def test_a_threshold_of_divergence_lies_above_the_advised_lr():
    def breaking(asked: Segment) -> SegmentResult:
        if asked.lr > 0.05:
            return result(asked, losses=(2.3, math.nan), failure="loss 2 of 2 is not finite")
        return Valley()(asked)

    search = a_search()
    advice = advised(search, breaking)
    below = max(lr for lr in search.lrs if lr <= 0.05)
    above = min(lr for lr in search.lrs if lr > 0.05)
    assert advice.divergence == Bracket(below=below, above=above)
    assert advice.boundaries.row(2) == ("divergence", below, above, math.sqrt(below * above), None, None)


def test_the_threshold_of_convergence_follows_from_the_losses():
    def answer(asked: Segment) -> SegmentResult:
        steps = np.linspace(asked.start, asked.stop, 64)
        noise = np.random.default_rng([asked.stop, round(1e9 * asked.lr)]).normal(0, 0.02, 64)
        level = 0.5 if asked.lr > 0.02 else 0.0
        losses = (level + (2.3 - level) * np.exp(-steps / (400 if level == 0 else 30))) * (1 + noise)
        return result(asked, Valley(best=0.02)(asked).value, losses=losses.tolist())

    search = a_search()
    advice = advised(search, answer)
    below, above = max(lr for lr in search.lrs if lr <= 0.02), min(lr for lr in search.lrs if lr > 0.02)
    assert advice.convergence == Bracket(below=below, above=above)


def test_one_lr_that_can_be_trained_is_enough():
    def answer(asked: Segment) -> SegmentResult:
        told = Valley()(asked) if asked.lr == 0.1 else failed(asked)
        return replace(told, losses=(2.0, 1.0))

    lr, low, high = found(advised(a_search(), answer))
    assert low <= lr <= high == pytest.approx(0.1)
    assert lr > 0.01


def test_without_results_there_is_no_advice():
    with pytest.raises(SearchError, match="No results yet"):
        advise(a_search(), [])


def test_where_all_fail_the_first_failure_is_named():
    search = a_search()
    with pytest.raises(
        SearchError, match=r"None of the LRs could be .* failed: no disk, lr1e-05, and .*--retry-failed"
    ):
        advised(search, lambda asked: failed(asked, f"no disk, {asked.name.split('-seed')[0]}."))


def test_an_lr_that_breaks_on_its_way_is_not_advised():
    search = a_search()

    def breaking(asked: Segment) -> SegmentResult:
        broken = asked.lr > 0.009 and asked.stop == STEPS // 4
        return diverged(asked) if broken else Valley(width=0.1)(asked)

    lr, _, high = found(advised(search, breaking))
    assert lr <= high < 0.009


def test_metrics_of_the_last_weights_do_for_an_advice():
    advice = advised(a_search(), lambda asked: result(asked, Valley().loss(asked.lr, asked.stop)))
    other = advised(a_search(), Valley())
    assert found(advice) == found(other)
    assert advice.best == other.best


def test_advices_are_compared_by_what_they_say():
    search = a_search()
    one, same = (advised(search, Valley()) for _ in range(2))
    other, poorer = advised(search, Valley(best=0.02)), replace(one, evidence=one.evidence.head(3))
    assert one == same
    assert hash(one) == hash(same)
    assert {one, same, other, poorer} == {one, other, poorer}
    assert len({other, one, poorer}) == 3
    assert one != "advice"


def test_an_advice_is_one_line_for_developers_and_sentences_for_people():
    advice = advised(a_search(), Valley(best=0.01))
    pattern = r"Advice\(verdict='found', finish='\w+', lr=\S+, low=\S+, high=\S+, expected=\S+, cost=\S+\)"
    assert re.fullmatch(pattern, repr(advice))
    assert str(advice).startswith("Use an initial LR of ")


def test_a_notebook_shows_the_statement_the_warnings_and_how_far_each_lr_came():
    advice = replace(advised(a_search(), Valley(best=0.01)), warnings=("Less than <half>.",))
    html = advice._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert f"<b>{advice.statement.splitlines()[0]}</b>" in html
    assert "<li>Less than &lt;half&gt;.</li>" in html
    lrs = advice.longest()["lr"].to_list()
    assert html.count("<tr>") == 1 + len(lrs)
    assert all(f">{format_lr(lr)}</th>" in html for lr in lrs)
