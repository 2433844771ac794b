"""The plan of a search, on trainings whose quality is known in closed form."""

import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lratlas.search.advice import advise
from lratlas.search.rungs import enough, needed_states, next_segments, spent
from lratlas.search.segments import Segment, SegmentResult
from lratlas.search.settings import DEFAULT_LRS, Search
from lratlas.study.spec.grid import lr_grid
from search.find_helpers import STEPS, Answer, Valley, a_search, cost, failed, lrs_to, result, scaled, searched

FIRST = STEPS // 64
few = settings(max_examples=25)


def valleys() -> st.SearchStrategy[Valley]:
    return st.builds(
        Valley,
        best=st.floats(-6, 1).map(lambda decades: 10**decades),
        drift=st.sampled_from([0.0, -0.5, 0.5]),
        width=st.sampled_from([0.3, 0.01, 0.0]),
        seeds=st.sampled_from([0.0, 0.2]),
    )


def breaking(valley: Valley, above: float, broken: Callable[[Segment], SegmentResult]) -> Answer:
    """The valley, with trainings at large LRs that break."""
    return lambda asked: broken(asked) if asked.lr > above else valley(asked)


def answers() -> st.SearchStrategy[Answer]:
    """Valleys whose larger LRs, or some trainings at random, fail."""

    def at_random(valley: Valley, seed: int) -> Answer:
        return lambda asked: failed(asked) if random.Random(f"{seed} {asked.name}").random() < 0.2 else valley(asked)

    limits = st.sampled_from([1e-4, 1e-2, 1.0])
    return (
        valleys()
        | st.builds(breaking, valleys(), limits, st.just(failed))
        | st.builds(at_random, valleys(), st.integers())
    )


def searches() -> st.SearchStrategy[Search]:
    return st.builds(
        a_search,
        steps=st.sampled_from([64, 100, 777, STEPS]),
        lrs=st.sampled_from([DEFAULT_LRS, (0.1,), (0.01, 0.1), (0.05, 0.06, 0.07), lr_grid(1e-3, 1.0, per_decade=1)]),
        budget=st.floats(0.01, 5),
        resumable=st.booleans(),
        anneal=st.booleans(),
    )


def rungs(results: Sequence[SegmentResult]) -> list[int]:
    """The step counts to which constant LRs of the first seed were trained, ascending."""
    return sorted({each.segment.stop for each in results if not each.segment.annealed and not each.segment.seed})


def branches(results: Sequence[SegmentResult]) -> list[Segment]:
    return [each.segment for each in results if each.segment.annealed]


def test_all_lrs_get_a_first_look():
    search = a_search()
    asked = next_segments(search, [])
    assert [each.lr for each in asked] == list(search.lrs)
    assert {(each.start, each.stop, each.seed, each.parent, each.annealed) for each in asked} == {
        (0, FIRST, 0, None, False)
    }


@few
@given(search=searches(), answer=answers())
def test_the_budget_is_kept_to_but_for_the_first_look(search: Search, answer: Answer):
    results = searched(search, answer)
    first_look = len(search.lrs) * search.horizon(1 / 64)
    assert cost(results) <= max(search.budget * search.steps + 1e-6, first_look)
    assert spent(search, results) == pytest.approx(cost(results) / search.steps)


@few
@given(search=searches(), answer=answers())
def test_segments_have_names_of_their_own_and_go_on_from_what_was_told_before(search: Search, answer: Answer):
    results = searched(search, answer)
    before = dict[str, SegmentResult]()
    for each in results:
        asked = each.segment
        assert asked.name not in before
        assert asked.start < asked.stop
        if asked.parent is None:
            assert asked.start == 0
        else:
            parent = before[asked.parent]
            assert parent.failure is None
            assert (parent.segment.lr, parent.segment.seed, parent.segment.stop) == (asked.lr, asked.seed, asked.start)
        before[asked.name] = each


@few
@given(search=searches(), answer=answers(), seed=st.integers())
def test_the_order_in_which_segments_are_told_does_not_matter(search: Search, answer: Answer, seed: int):
    rng = random.Random(seed)
    alone = searched(search, answer)
    mixed = searched(search, answer, choose=lambda waiting: rng.randrange(len(waiting)))
    assert {each.segment for each in mixed} == {each.segment for each in alone}
    told = mixed[: rng.randrange(len(mixed) + 1)]
    asked = next_segments(search, told)
    rng.shuffle(told)
    assert next_segments(search, told) == asked


@few
@given(search=searches(), answer=answers(), seed=st.integers())
def test_a_state_that_will_be_gone_on_from_is_kept_until_then(search: Search, answer: Answer, seed: int):
    rng = random.Random(seed)
    results, kept = list[SegmentResult](), set[str]()
    while waiting := next_segments(search, results):
        # A real search removes what is not needed each time, so that nothing can come back.
        asked = rng.choice(waiting)
        assert asked.parent is None or asked.parent in kept
        results.append(answer(asked))
        kept = (kept | {asked.name}) & needed_states(search, results)
    assert needed_states(search, results) == frozenset()


def test_no_more_states_are_kept_than_lrs_are_compared():
    search, valley, results = a_search(), Valley(), list[SegmentResult]()
    while waiting := next_segments(search, results):
        results.append(valley(waiting[0]))
        stop = waiting[0].stop
        if stop > FIRST and not waiting[0].annealed:
            assert len(needed_states(search, results)) <= 7
    assert not needed_states(a_search(resumable=False), results[:30])


@pytest.mark.parametrize("steps", [64, 640, 1000, STEPS, 12345])
def test_each_rung_doubles_and_fewer_lrs_go_on(steps: int):
    search = a_search(steps=steps)
    results = searched(search, Valley(full=steps))
    stops = rungs(results)
    assert stops == [round(steps * share) for share in (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)]
    assert [len(lrs_to(results, stop)) for stop in stops] == [21, 7, 6, 5, 4]
    for shorter, longer in pairwise(stops):
        assert set(lrs_to(results, longer)) <= set(lrs_to(results, shorter))


def test_those_with_the_best_metric_go_on():
    valley = Valley(best=0.013)
    results = searched(a_search(), valley)
    for shorter, longer in pairwise(rungs(results)):
        going = lrs_to(results, longer)
        best = sorted(lrs_to(results, shorter), key=lambda lr: valley.loss(lr, shorter))[: len(going)]
        assert going == sorted(best)


@pytest.mark.parametrize(
    ("course", "going"),
    [({400: 0.62, 800: 0.55}, True), ({400: 0.62, 800: 0.58}, False), ({100: 0.505, 400: 0.51, 800: 0.525}, False)],
    ids=["late", "too late", "losing"],
)
def test_who_goes_on_is_decided_one_doubling_ahead(course: dict[int, float], going: bool):
    # Four of five go on from an eighth to a quarter; the last place is between this one and 0.53.
    others = dict(zip((1e-3, 1e-2, 0.1, 1.0, 10.0), (0.50, 0.51, 0.52, 0.53, 0.56), strict=True))
    course = {100: 0.8} | {200: course.get(100, 0.8)} | course

    def answer(asked: Segment) -> SegmentResult:
        return result(asked, averaged=others[asked.lr] if asked.lr in others else course.get(asked.stop, 0.4))

    results = searched(a_search(lrs=(1e-4, *others), budget=10.0), answer)
    assert lrs_to(results, STEPS // 8) == [1e-4, 1e-3, 1e-2, 0.1, 1.0]
    assert (1e-4 in lrs_to(results, STEPS // 4)) == going
    assert (1.0 in lrs_to(results, STEPS // 4)) != going


def test_an_lr_that_is_good_by_chance_does_not_go_on_alone():
    def answer(asked: Segment) -> SegmentResult:
        found = Valley(best=0.01, width=0.1)(asked)
        return scaled(found, 0.65) if asked.lr == 1e-4 and asked.stop == FIRST else found

    search = a_search()
    results = searched(search, answer)
    first = {each.segment.lr: search.score(each.quality) for each in results if each.segment.stop == FIRST}
    assert max(first, key=lambda lr: first[lr]) == 1e-4
    assert lrs_to(results, STEPS // 4) == lrs_to(searched(search, Valley(best=0.01, width=0.1)), STEPS // 4)


def test_a_large_budget_trains_one_lr_to_the_end():
    results = searched(a_search(budget=4.0), Valley())
    assert rungs(results)[-2:] == [STEPS // 2, STEPS]
    assert lrs_to(results, STEPS) == [0.01]
    assert len(lrs_to(results, STEPS // 2)) == 2


@few
@given(decades=st.floats(-5.8, 0.8), width=st.floats(0.01, 10), tilt=st.sampled_from(["minimize", "maximize"]))
def test_the_bottom_of_the_valley_is_found_wherever_it_is(decades: float, width: float, tilt: str):
    valley, sign = Valley(best=10**decades, width=width), 1 if tilt == "minimize" else -1
    search = a_search(direction=tilt)
    found = advise(search, searched(search, lambda asked: scaled(valley(asked), sign)))
    # Where all gain alike, the parabola through three of them is the valley itself; losses fall by factors.
    assert found.lr == pytest.approx(valley.best, rel=1e-6 if tilt == "maximize" else 0.03)
    assert found.low <= found.lr <= found.high


@few
@given(decades=st.floats(-4, -1), drift=st.floats(-0.2, 0.2))
def test_a_best_lr_that_moves_is_followed(decades: float, drift: float):
    search, valley = a_search(direction="maximize"), Valley(best=10**decades, drift=drift)
    found = advise(search, searched(search, lambda asked: scaled(valley(asked), -1)))
    # At a quarter of the steps it stands two doublings from its end, and three at an eighth. With half of the last gain
    # and half of that to come, a parabola's bottom goes three quarters of the way between these two further on.
    assert math.log2(found.lr / valley.best) == pytest.approx(drift * (-2 + 3 / 4), abs=1e-6)


@pytest.mark.parametrize(("best", "inside"), [(2e-6, False), (6.0, False), (0.01, True)])
def test_the_grid_grows_at_the_edge_where_the_best_lr_stands(best: float, inside: bool):
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
    ("lrs", "ratio"), [((0.1, 0.101, 0.102), 10**0.25), ((1e-4, 1e-3, 1e-1), 10.0), ((0.01, 0.04, 0.16), 4.0)]
)
def test_what_is_added_is_as_far_apart_as_the_grid_within_limits(lrs: tuple[float, ...], ratio: float):
    search = a_search(lrs=lrs, budget=10.0)
    added = [lr for lr in lrs_to(searched(search, Valley(best=1e9)), FIRST) if lr > lrs[-1] * 1.0001]
    assert added[:2] == pytest.approx([lrs[-1] * ratio, lrs[-1] * ratio**2][: len(added)])
    assert added


def test_a_single_lr_grows_to_a_grid():
    search = a_search(lrs=(0.1,))
    assert advise(search, searched(search, Valley(best=0.004))).lr == pytest.approx(0.004, rel=1e-3)


def test_the_grid_does_not_grow_where_the_edge_fails():
    search = a_search()
    results = searched(search, breaking(Valley(best=1e3), 0.9, failed))
    assert lrs_to(results, FIRST) == list(search.lrs)  # 0.56 is the best, and not at the end


@pytest.mark.parametrize(("share", "grows"), [(1 / 16, True), (1 / 8, False)])
def test_late_in_the_search_the_grid_grows_no_more(share: float, grows: bool):
    # All five stay in the search until an eighth; from a share on the best LR stands at their end.
    search = a_search(lrs=(0.01, 0.03, 0.1, 0.3, 1.0), budget=10.0)
    results = searched(search, lambda asked: Valley(best=0.1 if asked.stop < share * STEPS else 1.2)(asked))
    assert lrs_to(results, STEPS // 8)[-1] >= 1.0
    assert (max(each.segment.lr for each in results) > 1.0) == grows


def not_a_number(asked: Segment) -> SegmentResult:
    return result(asked, failure="loss 3 of 9 is not finite")


@pytest.mark.parametrize("broken", [failed, not_a_number])
def test_what_fails_is_not_gone_on_with(broken: Callable[[Segment], SegmentResult]):
    results = searched(a_search(), breaking(Valley(best=0.01), 0.004, broken))
    assert max(lrs_to(results, FIRST)) == 1.0
    for stop in rungs(results)[1:]:
        assert max(lrs_to(results, stop)) < 0.004
    assert max(each.lr for each in branches(results)) < 0.004


def test_what_fails_on_its_way_is_left_behind():
    def falls(asked: Segment) -> SegmentResult:
        return failed(asked) if asked.lr == 0.01 and asked.stop == STEPS // 16 else Valley()(asked)

    results = searched(a_search(), falls)
    assert 0.01 in lrs_to(results, STEPS // 16)
    assert 0.01 not in lrs_to(results, STEPS // 8)


def test_a_search_in_which_all_fail_comes_to_an_end():
    results = searched(a_search(), failed)
    assert {each.segment.stop for each in results} == {FIRST}
    assert len(results) == 21


def test_the_best_lr_of_the_longest_rung_is_annealed_from_there():
    results = searched(a_search(), Valley(best=0.03))
    (branch,) = branches(results)
    best = min(lrs_to(results, STEPS // 4), key=lambda lr: Valley(best=0.03).loss(lr, STEPS // 4))
    assert (branch.lr, branch.seed, branch.start, branch.stop) == (best, 0, STEPS // 4, STEPS // 4 * 5 // 4)
    assert branch.anneal_from == STEPS // 4
    assert (branch.stop - branch.start) / branch.stop == 1 / 5


def test_without_annealing_there_is_no_branch():
    assert not branches(searched(a_search(anneal=False), Valley()))


def test_without_checkpoints_all_is_trained_from_the_beginning():
    search = a_search(resumable=False, budget=3.0)
    results = searched(search, Valley())
    assert {(each.segment.start, each.segment.parent) for each in results} == {(0, None)}
    assert rungs(results) == [STEPS // 64, STEPS // 32, STEPS // 16, STEPS // 8, STEPS // 4]
    (branch,) = branches(results)
    assert (branch.stop, branch.anneal_from) == (2000, 1600)
    assert advise(search, results).lr == pytest.approx(0.01)


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize("anneal", [True, False])
@pytest.mark.parametrize("count", [5, 21, 41])
def test_enough_is_the_least_budget_for_four_lrs_at_a_quarter_and_a_branch(count: int, anneal: bool, resumable: bool):
    lrs = [1e-5 * 10 ** (number / 8) for number in range(count)]
    given_too: dict[str, Any] = {"lrs": lrs, "resumable": resumable, "anneal": anneal}
    wanted = enough(a_search(**given_too))
    reached = dict[float, bool]()
    for share in (1.0, 0.999):
        results = searched(a_search(**given_too, budget=share * wanted), Valley(best=lrs[count // 2]))
        reached[share] = len(lrs_to(results, STEPS // 4)) == 4 and len(branches(results)) == anneal
    assert reached == {1.0: True, 0.999: False}


def test_what_is_left_goes_to_further_seeds_of_the_last_lrs():
    # All are as good as the others here, so that more seeds are wanted.
    results = searched(a_search(budget=4.5), lambda asked: result(asked, averaged=0.5))
    repeated = [each.segment for each in results if each.segment.seed]
    compared = lrs_to(results, STEPS // 4)
    seeds = sorted({each.seed for each in repeated})
    assert seeds == list(range(1, len(seeds) + 1))
    assert seeds
    for seed in seeds:
        of = [each for each in repeated if each.seed == seed]
        assert sorted(each.lr for each in of) == compared
        assert {(each.start, each.stop, each.parent) for each in of} == {(0, STEPS // 4, None)}
    # Another whole seed could not be paid for.
    assert 4.5 * STEPS - cost(results) < len(compared) * STEPS // 4


def test_seeds_end_once_the_near_best_lie_within_an_octave():
    search = a_search(lrs=lr_grid(1e-3, 1e-1, per_decade=4), budget=20.0, tolerance=0.02)

    def as_noisy(asked: Segment) -> SegmentResult:
        # The first seed sees two neighbours as equal, 10^0.5 apart; the second one tells them apart.
        distance = abs(math.log10(asked.lr / 0.01))
        return result(asked, averaged=1 + (0 if asked.seed == 0 and distance < 0.3 else distance))

    results = searched(search, as_noisy)
    assert {each.segment.seed for each in results} == {0, 1}


def test_clear_winners_need_no_further_seed():
    assert {each.segment.seed for each in searched(a_search(budget=20.0), Valley(width=3.0))} == {0}


def test_the_number_of_seeds_is_limited():
    results = searched(a_search(budget=1e3, tolerance=0.9), Valley(width=1e-3))
    assert max(each.segment.seed for each in results) == 15


@pytest.mark.parametrize("seconds_best", [0.002, 0.2])
def test_more_being_better_is_the_same_search_upside_down(seconds_best: float):
    valley = Valley(best=seconds_best, width=0.02)
    down = searched(a_search(budget=3.0), valley)
    up = searched(a_search(budget=3.0, direction="maximize"), lambda asked: scaled(valley(asked), -1))
    assert [each.segment for each in up] == [each.segment for each in down]


def test_the_unit_of_the_metric_does_not_matter():
    valley = Valley(width=0.02)
    plain = searched(a_search(budget=3.0), valley)
    other = searched(a_search(budget=3.0), lambda asked: scaled(valley(asked), 1024.0))
    assert [each.segment for each in other] == [each.segment for each in plain]
