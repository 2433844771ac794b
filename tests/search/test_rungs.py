"""The plan of a search, on trainings whose quality is known in closed form."""

import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lratlas.config.grid import lr_grid
from lratlas.search.advice import advise
from lratlas.search.choice import choose
from lratlas.search.evidence import Evidence
from lratlas.search.regimes import levels
from lratlas.search.rungs import by_name, enough, next_segments, next_stage, states_to_keep, trainings_spent
from lratlas.search.segments import Segment, SegmentResult
from lratlas.search.settings import DEFAULT_LRS, Search
from search.find_helpers import (
    STEPS,
    Answer,
    Valley,
    a_search,
    cost,
    diverged,
    failed,
    lrs_to,
    result,
    scaled,
    searched,
)

FIRST = STEPS // 64
few = settings(max_examples=25, deadline=None)


def valleys() -> st.SearchStrategy[Valley]:
    return st.builds(
        Valley,
        best=st.floats(-6, 1).map(lambda decades: 10**decades),
        drift=st.sampled_from([0.0, -0.5, 0.5]),
        width=st.sampled_from([0.3, 0.01, 0.0]),
        seeds=st.sampled_from([0.0, 0.2]),
        noise=st.sampled_from([0.0, 0.1]),
        chance=st.sampled_from([math.inf, 1.0]),
    )


def at_chance(until: int, *, salt: int = 0) -> Valley:
    return Valley(chance=2.0, until=until, noise=1e-3, salt=salt)


def breaking(valley: Valley, above: float, broken: Callable[[Segment], SegmentResult]) -> Answer:
    """The valley, with trainings at large LRs that break."""
    return lambda asked: broken(asked) if asked.lr > above else valley(asked)


def answers() -> st.SearchStrategy[Answer]:
    """Valleys, some where nothing is learned at first, some where larger LRs or some trainings at random fail."""

    def at_random(valley: Valley, seed: int) -> Answer:
        return lambda asked: failed(asked) if random.Random(f"{seed} {asked.name}").random() < 0.2 else valley(asked)

    limits, broken = st.sampled_from([1e-7, 1e-4, 1e-2, 1.0]), st.sampled_from([failed, diverged])
    return (
        valleys()
        | st.builds(at_chance, st.sampled_from([50, 800, STEPS + 1]))
        | st.builds(breaking, valleys(), limits, broken)
        | st.builds(at_random, valleys(), st.integers())
    )


def searches() -> st.SearchStrategy[Search]:
    return st.builds(
        a_search,
        steps=st.sampled_from([2, 5, 10, 30, 64, 101, 777, STEPS]),
        unit=st.sampled_from([1, 2]),
        lrs=st.sampled_from([DEFAULT_LRS, (0.1,), (0.01, 0.1), (0.05, 0.06, 0.07), lr_grid(1e-3, 1.0, per_decade=1)]),
        budget=st.floats(0.01, 5),
        resumable=st.booleans(),
        anneal=st.booleans(),
        schedule=st.sampled_from(["constant", "linear"]),
        warmup=st.sampled_from([0, 1]),
        chance=st.sampled_from([None, 2.0]),
        seed=st.sampled_from([0, 3]),
    )


def rungs(results: Sequence[SegmentResult]) -> list[int]:
    """The step counts to which LRs of the first seed were trained and compared, ascending."""
    ends = [each.segment for each in results if not each.segment.annealed and not each.segment.seed]
    return sorted({each.stop for each in ends if round(64 * each.stop / STEPS).bit_count() == 1})


def annealed(results: Sequence[SegmentResult]) -> list[Segment]:
    return [each.segment for each in results if each.segment.annealed]


def known_chance(**settings: object) -> Search:
    return a_search(**({"chance": 2.0} | settings))


def states(search: Search, results: Sequence[SegmentResult]) -> frozenset[str]:
    known = by_name(results)
    return states_to_keep(search, next_stage(search, known), known)


def test_all_lrs_get_a_first_look():
    search = a_search(seed=7)
    asked = next_segments(search, [])
    assert [each.lr for each in asked] == list(search.lrs)
    assert {(each.start, each.stop, each.seed, each.parent, each.annealed) for each in asked} == {
        (0, FIRST, 7, None, False)
    }


@few
@given(search=searches(), answer=answers())
def test_the_budget_is_kept_to_but_for_the_first_look(search: Search, answer: Answer):
    results = searched(search, answer)
    assert trainings_spent(search, results) == pytest.approx(cost(results) / search.steps)
    first = [each for each in results if each.segment.stop == search.horizon(1 / 64)]
    assert cost(results) <= max(search.budget * search.steps, cost(first)) + 1e-6
    given = [each for each in first if each.segment.lr in search.lrs]
    if not all(each.failure and "not finite" in each.failure for each in given):
        # Where all diverge, the first look continues below the LRs that were given.
        assert cost(results) <= max(search.budget * search.steps, len(search.lrs) * search.horizon(1 / 64)) + 1e-6


@few
@given(search=searches(), answer=answers())
def test_segments_have_different_names_and_continue_what_was_trained_before(search: Search, answer: Answer):
    results = searched(search, answer)
    before = dict[str, SegmentResult]()
    for each in results:
        asked = each.segment
        assert asked.name not in before
        assert asked.start < asked.stop <= search.steps
        assert search.seed <= asked.seed
        if asked.parent is None:
            assert asked.start == 0
        else:
            parent = before[asked.parent]
            assert parent.failure is None
            assert not parent.segment.annealed
            assert (parent.segment.lr, parent.segment.seed, parent.segment.stop) == (asked.lr, asked.seed, asked.start)
            assert search.continues
        before[asked.name] = each


@few
@given(search=searches(), answer=answers(), seed=st.integers())
def test_the_order_in_which_segments_are_told_does_not_matter(search: Search, answer: Answer, seed: int):
    rng = random.Random(seed)
    together = searched(search, answer)
    mixed = searched(search, answer, choose=lambda waiting: rng.randrange(len(waiting)))
    assert {each.segment for each in mixed} == {each.segment for each in together}
    told = mixed[: rng.randrange(len(mixed) + 1)]
    asked = next_segments(search, told)
    rng.shuffle(told)
    assert next_segments(search, told) == asked


@few
@given(search=searches(), answer=answers(), seed=st.integers())
def test_a_state_that_a_training_continues_from_is_kept_until_then(search: Search, answer: Answer, seed: int):
    rng = random.Random(seed)
    results, kept = list[SegmentResult](), set[str]()
    while waiting := next_segments(search, results):
        # A real search removes what is not needed each time, so that nothing can come back.
        asked = rng.choice(waiting)
        assert asked.parent is None or asked.parent in kept
        results.append(answer(asked))
        kept = (kept | {asked.name}) & states(search, results)
    assert states(search, results) == frozenset()


def test_no_more_states_are_kept_than_lrs_are_compared():
    search, valley, results = a_search(), Valley(), list[SegmentResult]()
    while waiting := next_segments(search, results):
        results.append(valley(waiting[0]))
        stop = waiting[0].stop
        if stop > FIRST and not waiting[0].annealed:
            assert len(states(search, results)) <= len(search.lrs)
    assert not states(a_search(resumable=False), results[:30])


@pytest.mark.parametrize("steps", [64, 640, 1000, STEPS, 12345])
def test_each_length_doubles_and_fewer_lrs_continue(steps: int):
    search = a_search(steps=steps)
    results = searched(search, Valley(full=steps))
    stops = [level.steps for level in levels(Evidence(search, results)) if level.steps in map(search.horizon, SHARES)]
    assert stops == [round(steps * share) for share in SHARES]
    counts = [len(lrs_to(results, stop)) for stop in stops]
    assert counts[0] == len(search.lrs)
    assert counts == sorted(counts, reverse=True)
    assert counts[1] < counts[0] / 2
    assert counts[-1] >= 2
    for shorter, longer in pairwise(stops):
        assert set(lrs_to(results, longer)) <= set(lrs_to(results, shorter))


SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)


def test_those_with_the_best_metric_continue():
    valley = Valley(best=0.013)
    results = searched(a_search(), valley)
    for shorter, longer in pairwise(rungs(results)):
        going = lrs_to(results, longer)
        best = sorted(lrs_to(results, shorter), key=lambda lr: valley.loss(lr, shorter))[: len(going)]
        assert going == sorted(best)


def test_an_lr_that_is_good_by_chance_does_not_continue_without_others():
    def answer(asked: Segment) -> SegmentResult:
        found = Valley(best=0.01, width=0.1)(asked)
        return scaled(found, 0.65) if asked.lr == 1e-4 and asked.stop == FIRST else found

    search = a_search()
    results = searched(search, answer)
    first = {each.segment.lr: search.score(each.quality) for each in results if each.segment.stop == FIRST}
    assert max(first, key=lambda lr: first[lr]) == 1e-4
    assert 1e-4 not in lrs_to(results, STEPS // 4)
    assert 0.01 in lrs_to(results, STEPS // 4)


def test_at_first_training_losses_rank_what_the_metric_cannot_tell_apart():
    def answer(asked: Segment) -> SegmentResult:
        # The metric has two values, as that of few validation samples; the losses are a valley.
        loss = Valley(best=0.05, width=0.3).loss(asked.lr, asked.stop)
        return result(asked, averaged=0.8 if abs(math.log10(asked.lr / 0.05)) < 1.5 else 0.3, losses=(3.0, loss))

    search = a_search(direction="maximize", samples=50)
    results = searched(search, answer)
    going = lrs_to(results, 2 * FIRST)
    assert going == sorted(sorted(search.lrs, key=lambda lr: abs(math.log(lr / 0.05)))[: len(going)])


@pytest.mark.parametrize("search", [a_search(), known_chance()], ids=["without chance", "with chance"])
def test_while_nothing_was_learned_lrs_are_thinned_out_evenly(search: Search):
    results = searched(search, at_chance(STEPS + 1))
    every = list(search.lrs)
    for stop in rungs(results)[1:]:
        places = [every.index(lr) for lr in lrs_to(results, stop)]
        gaps = [after - before for before, after in pairwise(places)]
        assert max(gaps) - min(gaps) <= 1 or stop > 2 * FIRST  # of the whole grid; later of what is left
        assert places[0] <= len(every) / 2 <= places[-1]
    assert not annealed(results)
    assert {each.segment.seed for each in results} == {0}


@pytest.mark.parametrize("salt", range(5))
@pytest.mark.parametrize("until", [STEPS // 32, STEPS // 16, STEPS // 8])
def test_noise_at_chance_ranks_nobody(until: int, salt: int):
    # The same LRs continue whatever the noise of those that have learned nothing.
    one, other = (searched(known_chance(), at_chance(until, salt=number)) for number in (100, salt))
    for stop in [stop for stop in rungs(one) if stop <= until]:
        assert lrs_to(other, stop) == lrs_to(one, stop)


@pytest.mark.parametrize("until", [2 * FIRST, 4 * FIRST, STEPS // 8])
@pytest.mark.parametrize("best", [1e-4, 0.01, 0.3])
def test_what_was_left_behind_while_nothing_was_learned_comes_back(until: int, best: float):
    search = known_chance()
    results = searched(search, Valley(chance=2.0, until=until, best=best, width=3.0, noise=1e-3))
    # The grid has an LR at the bottom of the valley, which may have been thinned out before.
    last = lrs_to(results, STEPS // 4)
    assert min(abs(math.log10(lr / best)) for lr in last) <= 0.25 + 1e-9
    advice = advise(search, results)
    assert advice.verdict == "found"
    assert advice.lr is not None
    assert abs(math.log10(advice.lr / best)) < 1


@pytest.mark.parametrize("steps", [64, 777, 1001, STEPS])
def test_a_large_budget_trains_to_the_end_while_nothing_was_learned(steps: int):
    search = known_chance(steps=steps, budget=5.0)
    results = searched(search, at_chance(10**9))
    assert max(each.segment.stop for each in results) == steps
    assert len(lrs_to(results, steps)) >= 2


@pytest.mark.parametrize("limit", [1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("broken", [failed, diverged])
@pytest.mark.parametrize("answer", [Valley(best=0.01), at_chance(STEPS + 1)], ids=["valley", "at chance"])
def test_what_fails_is_not_continued(answer: Valley, broken: Callable[[Segment], SegmentResult], limit: float):
    results = searched(known_chance(budget=4.0), breaking(answer, limit, broken))
    assert max(lrs_to(results, FIRST)) == 1.0
    assert all(each.segment.lr <= limit for each in results if each.segment.stop > FIRST)


@pytest.mark.parametrize("end", [2.5, 1e9])
def test_an_lr_whose_loss_rises_is_not_continued(end: float):
    def answer(asked: Segment) -> SegmentResult:
        rises = asked.lr > 0.1
        losses = (2.0, end) if rises else (2.0, 2.0)
        return result(asked, averaged=2.0, losses=losses)

    results = searched(known_chance(), answer)
    assert all(each.segment.lr <= 0.1 for each in results if each.segment.stop > FIRST)


def test_what_fails_on_its_way_is_left_behind():
    def falls(asked: Segment) -> SegmentResult:
        return failed(asked) if asked.lr == 0.01 and asked.stop == STEPS // 16 else Valley()(asked)

    results = searched(a_search(), falls)
    assert 0.01 in lrs_to(results, STEPS // 16)
    assert 0.01 not in lrs_to(results, STEPS // 8)


def test_a_search_in_which_all_crash_ends_after_the_first_look():
    results = searched(a_search(), failed)
    assert {each.segment.stop for each in results} == {FIRST}
    assert len(results) == 21


def test_a_search_in_which_all_diverge_looks_below():
    lrs = (0.1, 1.0, 10.0)
    results = searched(a_search(lrs=lrs), diverged)
    assert {each.segment.stop for each in results} == {FIRST}
    tried = lrs_to(results, FIRST)
    assert tried[-3:] == list(lrs)
    assert tried[0] < 0.1 / 100
    # As soon as one does not, the search continues there.
    found = searched(a_search(lrs=lrs), Valley(best=1e-3, breaks=5e-3))
    assert max(lrs_to(found, STEPS // 4)) < 5e-3
    assert advise(a_search(lrs=lrs), found).verdict == "found"


@pytest.mark.parametrize(("best", "inside"), [(2e-6, False), (6.0, False), (0.01, True)])
def test_the_grid_grows_at_the_end_where_the_best_lr_is(best: float, inside: bool):
    search = a_search()
    results = searched(search, Valley(best=best))
    tried = lrs_to(results, FIRST)
    assert tried[0] < best < tried[-1]
    if inside:
        assert tried == list(search.lrs)
        return
    # On the other side nothing is added.
    assert (tried[0] == search.lrs[0]) != (tried[-1] == search.lrs[-1])
    ratios = [other / one for one, other in pairwise(tried)]
    assert ratios == pytest.approx([10**0.25] * len(ratios))


@pytest.mark.parametrize("best", [1e-12, 1e12])
def test_the_grid_grows_by_a_factor_of_a_hundred_at_most(best: float):
    search = a_search(budget=10.0)
    tried = {each.segment.lr for each in searched(search, Valley(best=best))}
    low, high = (1e-7, 1.0) if best < 1 else (1e-5, 100.0)
    assert (min(tried), max(tried)) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("lrs", "ratio"), [((0.1, 0.12, 0.144), 10**0.25), ((1e-4, 1e-3, 1e-1), 10.0), ((0.01, 0.04, 0.16), 4.0)]
)
def test_what_is_added_is_as_far_apart_as_the_grid_within_limits(lrs: tuple[float, ...], ratio: float):
    search = a_search(lrs=lrs, budget=10.0)
    # On the side of a steep valley neighbours differ clearly.
    added = [lr for lr in lrs_to(searched(search, Valley(best=10.0, width=100.0)), FIRST) if lr > lrs[-1] * 1.0001]
    assert added[:2] == pytest.approx([lrs[-1] * ratio, lrs[-1] * ratio**2][: len(added)])
    assert added


def test_where_lrs_tie_the_grid_does_not_grow():
    def equal(asked: Segment) -> SegmentResult:
        return result(asked, averaged=0.5, losses=(2.0, 2.0 - 0.1 * math.log10(asked.lr / 1e-6)))

    search = a_search()
    assert {each.segment.lr for each in searched(search, equal)} == set(search.lrs)


def test_where_all_lrs_do_the_very_same_larger_ones_are_looked_at():
    # Either the LR has no effect, or all are far too small.
    def untouched(asked: Segment) -> SegmentResult:
        return result(asked, averaged=2.0, losses=(2.0, 2.0))

    search = a_search(lrs=(1e-8, 1e-7, 1e-6))
    tried = {each.segment.lr for each in searched(search, untouched)}
    assert max(tried) == pytest.approx(1e-4)
    assert min(tried) == 1e-8

    def small(asked: Segment) -> SegmentResult:
        return untouched(asked) if asked.lr < 3e-6 else Valley(best=5e-5, width=0.1)(asked)

    advice = advise(search, searched(search, small))
    assert advice.lr is not None
    assert 1e-5 < advice.lr < 1e-4


def test_the_grid_does_not_grow_where_the_end_fails():
    search = a_search()
    results = searched(search, breaking(Valley(best=1e3), 0.9, failed))
    assert lrs_to(results, FIRST) == list(search.lrs)  # 0.56 is the best, and not at the end


def test_late_in_the_search_the_grid_grows_no_more():
    def late(share: float) -> Answer:
        return lambda asked: Valley(best=0.1 if asked.stop < share * STEPS else 1.2)(asked)

    # All five stay in the search until an eighth; from a share on the best LR is at their end.
    search = a_search(lrs=(0.01, 0.03, 0.1, 0.3, 1.0), budget=10.0)
    assert max(each.segment.lr for each in searched(search, late(1 / 32))) > 1.0
    assert max(each.segment.lr for each in searched(search, late(1 / 8))) == 1.0


def test_the_best_lr_is_annealed_to_the_end_of_the_comparison():
    valley = Valley(best=0.03)
    results = searched(a_search(), valley)
    (end,) = annealed(results)
    best = min(lrs_to(results, STEPS // 4), key=lambda lr: valley.loss(lr, STEPS // 4))
    assert (end.lr, end.seed, end.stop) == (best, 0, STEPS // 4)
    # The LR falls over the last fifth, from where the training at the constant LR passed by.
    assert end.anneal_from == end.start == STEPS // 4 * 4 // 5
    by_name = {each.segment.name: each.segment for each in results}
    parent = by_name[str(end.parent)]
    assert (parent.lr, parent.seed, parent.stop) == (end.lr, end.seed, end.start)
    # What it is compared with ends at the same step.
    assert any((each.lr, each.seed, each.stop) == (end.lr, end.seed, end.stop) for each in by_name.values())


@pytest.mark.parametrize("settings", [{"anneal": False}, {"schedule": "cosine"}, {"schedule": (1.0, 0.1)}])
def test_without_annealing_there_is_no_annealed_end(settings: dict[str, Any]):
    assert not annealed(searched(a_search(**settings), Valley()))


@pytest.mark.parametrize(
    "settings",
    [{"resumable": False}, {"schedule": "linear"}, {"warmup": 100}],
    ids=["no checkpoints", "linear", "warm-up"],
)
def test_what_cannot_be_continued_is_trained_from_the_beginning(settings: dict[str, Any]):
    search = a_search(budget=3.0, **settings)
    results = searched(search, Valley())
    assert {(each.segment.start, each.segment.parent) for each in results} == {(0, None)}
    assert max(rungs(results)) >= STEPS // 4
    for each in results:
        # Schedule and warm-up are shrunk to the segment's length.
        assert each.segment.schedule == search.schedule
        assert each.segment.warmup == pytest.approx(search.warmup * each.segment.stop / STEPS, abs=0.5)
    advice = advise(search, results)
    assert advice.segment is None
    assert advice.low is not None
    assert advice.high is not None
    assert advice.low <= 0.01 <= advice.high


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize("anneal", [True, False])
@pytest.mark.parametrize("count", [5, 21, 41])
def test_enough_is_the_least_budget_that_reaches_a_quarter(count: int, anneal: bool, resumable: bool):
    lrs = [1e-5 * 10 ** (number / 8) for number in range(count)]
    given_too: dict[str, Any] = {"lrs": lrs, "resumable": resumable, "anneal": anneal}
    wanted = enough(a_search(**given_too))
    reached = dict[float, tuple[int, int]]()
    for share in (100.0, 1.0, 0.99):
        results = searched(a_search(**given_too, budget=share * wanted), Valley(best=lrs[count // 2], width=3.0))
        reached[share] = (len(lrs_to(results, STEPS // 4)), len(annealed(results)))
    assert reached[1.0] == reached[100.0]
    assert reached[0.99] != reached[1.0]


def test_more_is_bought_with_a_larger_budget_seeds_first_and_then_steps():
    # All are as good as the others here but for the noise, so that more is wanted.
    flat = Valley(width=0.003, noise=0.003)
    trained = list[tuple[float, int, int]]()
    for budget in (1.5, 2.5, 4.0, 15.0):
        search = a_search(budget=budget)
        results = searched(search, flat)
        used = trainings_spent(search, results)
        seeds = {each.segment.seed for each in results}
        trained.append((used, len(seeds), max(each.segment.stop for each in results)))
        assert seeds == set(range(len(seeds)))
        assert used <= budget
    costs, seeds_of, stops = zip(*trained, strict=True)
    assert costs[0] < costs[1] < costs[2] < costs[3]
    assert seeds_of[0] == 1
    assert seeds_of[1] > 1
    assert stops[0] == stops[1] == STEPS // 4
    assert stops[3] == STEPS


def test_further_seeds_are_of_those_that_could_be_the_best():
    search = a_search(budget=3.0)
    results = searched(search, Valley(best=0.0133, width=0.3))
    (level, *_) = [level for level in levels(Evidence(search, results)) if level.steps == STEPS // 4]
    first = [each for each in results if each.segment.seed == 0]
    (before, *_) = [level for level in levels(Evidence(search, first)) if level.steps == STEPS // 4]
    again = {each.segment.lr for each in results if each.segment.seed == 1}
    good = choose(known := Evidence(search, first), levels(known))
    assert again == {lr for lr in before.lrs if good.low <= lr <= good.high}
    assert {each.segment.start for each in results if each.segment.seed == 1 and each.segment.stop == STEPS // 4} == {0}
    assert max(level.seeds) > 1


def test_longer_trainings_continue_every_seed():
    results = searched(a_search(budget=8.0), Valley(width=0.003, noise=0.003))
    longer = [each.segment for each in results if each.segment.stop == STEPS // 2]
    assert {each.seed for each in longer} == {0, 1}
    assert {each.start for each in longer} == {STEPS // 4}


@pytest.mark.parametrize("steps", [777, 1001, STEPS])
def test_longer_trainings_double_up_to_the_full_length(steps: int):
    search = a_search(budget=30.0, steps=steps)
    results = searched(search, Valley(width=0.003, noise=0.003, full=steps))
    stops = sorted({each.segment.stop for each in results if each.segment.seed and not each.segment.annealed})
    assert stops == [round(steps / 4), round(steps / 2), steps]


def test_a_clear_winner_needs_less_than_the_budget():
    search = a_search(budget=20.0)
    clear, unclear = (searched(search, Valley(width=width, noise=0.003)) for width in (3.0, 0.003))
    assert trainings_spent(search, clear) < trainings_spent(search, unclear) / 2
    good = choose(known := Evidence(search, clear), levels(known))
    assert good.high / good.low <= 4


def test_the_number_of_seeds_is_limited():
    search = a_search(budget=1e3, seed=5)
    results = searched(search, Valley(width=1e-3, noise=1e-4))
    seeds = {each.segment.seed for each in results}
    assert min(seeds) == 5
    assert 3 < len(seeds) < 40


@pytest.mark.parametrize("best", [0.002, 0.2])
def test_more_being_better_is_the_same_search_upside_down(best: float):
    # With the best possible metric known, as that of a loss is.
    valley = Valley(best=best, width=0.02)
    down = searched(a_search(budget=3.0), valley)
    up = searched(a_search(budget=3.0, direction="maximize", limit=0.0), lambda asked: scaled(valley(asked), -1))
    assert [each.segment for each in up] == [each.segment for each in down]


def test_the_unit_of_the_metric_does_not_matter():
    valley = Valley(width=0.02)
    plain = searched(a_search(budget=3.0), valley)
    other = searched(a_search(budget=3.0), lambda asked: scaled(valley(asked), 1024.0))
    assert [each.segment for each in other] == [each.segment for each in plain]


@few
@given(decades=st.floats(-5.8, 0.8), width=st.floats(0.1, 10), tilt=st.sampled_from(["minimize", "maximize"]))
def test_the_bottom_of_the_valley_is_in_the_good_range_wherever_it_is(decades: float, width: float, tilt: str):
    valley, sign = Valley(best=10**decades, width=width), 1 if tilt == "minimize" else -1
    search = a_search(direction=tilt, limit=0.0)
    found = advise(search, searched(search, lambda asked: scaled(valley(asked), sign)))
    assert found.lr is not None
    assert found.low is not None
    assert found.high is not None
    # A full training is four times as long, in which smaller LRs are as good: the advice is below the best one so far.
    assert 0.1 * valley.best < found.lr < 1.5 * valley.best
    assert found.low <= 10**0.125 * valley.best
    assert found.high >= 10**-0.125 * valley.best
