"""Which LR is used, and which are as good."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lratlas.config.grid import lr_grid
from lratlas.search.choice import Choice, choose
from lratlas.search.evidence import Evidence
from lratlas.search.regimes import levels
from lratlas.search.segments import SegmentResult
from lratlas.search.settings import Search
from search.find_helpers import STEPS, Valley, a_search, diverged, moved, searched, trained

LRS = lr_grid(1e-3, 1.0, per_decade=4)


def chosen(search: Search, results: list[SegmentResult]) -> Choice:
    return choose(known := Evidence(search, results), levels(known))


def at_once(valley: Valley, *, steps: int = STEPS) -> list[SegmentResult]:
    """All LRs, trained to one length."""
    return [trained(lr, steps, valley.loss(lr, steps)) for lr in LRS]


def valleys() -> st.SearchStrategy[Valley]:
    return st.builds(
        Valley,
        best=st.floats(-4, 0).map(lambda decades: 10**decades),
        drift=st.sampled_from([0.0, -0.5, 0.5]),
        width=st.sampled_from([0.3, 0.05, 0.01, 0.0]),
        seeds=st.sampled_from([0.0, 0.2]),
        noise=st.sampled_from([0.0, 0.01, 0.1]),
    )


@settings(max_examples=40, deadline=None)
@given(valley=valleys(), budget=st.sampled_from([0.2, 1.5, 4.0]))
def test_the_lr_is_in_the_range_with_all_that_cannot_be_told_from_the_best(valley: Valley, budget: float):
    search = a_search(lrs=LRS, budget=budget)
    results = searched(search, valley)
    found = chosen(search, results)
    assert found.low <= found.lr <= found.high
    last = levels(Evidence(search, results))[-1]
    near, best = last.near(), last.best
    for direction in (-1, 1):
        at = best
        while 0 <= at < len(last.lrs) and last.lrs[at] in near:
            assert found.low <= last.lrs[at] <= found.high
            at += direction


@settings(max_examples=25, deadline=None)
@given(valley=valleys(), factor=st.floats(-3, 3).map(lambda decades: 10**decades))
def test_the_unit_of_the_lr_does_not_matter(valley: Valley, factor: float):
    search = a_search(lrs=LRS)
    results = searched(search, valley)
    found = chosen(search, results)
    others = [moved(each, factor) for each in results]
    other = chosen(search.model_copy(update={"lrs": tuple(factor * lr for lr in LRS)}), others)
    assert [other.lr, other.low, other.high] == pytest.approx([factor * lr for lr in (found.lr, found.low, found.high)])


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_unit_of_the_metric_does_not_matter(scale: float):
    results = at_once(Valley(noise=0.02), steps=STEPS // 4)
    other = [trained(each.segment.lr, STEPS // 4, scale * (each.value or 0.0)) for each in results]
    one, same = chosen(a_search(lrs=LRS), results), chosen(a_search(lrs=LRS), other)
    assert [same.lr, same.low, same.high] == pytest.approx([one.lr, one.low, one.high])


@given(place=st.floats(-2.5, -0.5))
def test_after_a_full_training_the_lr_is_the_middle_of_those_that_could_be_the_best(place: float):
    found = chosen(a_search(lrs=LRS), at_once(Valley(best=10**place, width=0.3)))
    # Within a half of the distance between two LRs of the grid: the valley is the same on both sides.
    assert math.log10(found.lr) == pytest.approx(place, abs=0.125 + 1e-9)


def test_a_sharp_valley_has_a_narrow_range_and_a_flat_one_a_wide_one():
    widths = [
        found.high / found.low
        for found in (chosen(a_search(lrs=LRS), at_once(Valley(best=0.03, width=width))) for width in (3.0, 0.3, 0.03))
    ]
    assert widths[0] < widths[1] < widths[2]


def test_a_tolerance_widens_the_range():
    widths = [
        found.high / found.low
        for found in (
            chosen(a_search(lrs=LRS, tolerance=share), at_once(Valley(best=0.03))) for share in (0.0, 0.1, 0.5)
        )
    ]
    assert widths[0] < widths[1] < widths[2]


def test_an_edge_is_where_the_metric_is_as_far_behind_as_it_may_be():
    # Without noise (the best possible metric is reached) what may be behind is the tolerance alone.
    search = a_search(lrs=LRS, limit=0.5, tolerance=0.1)
    metrics = [0.5 + abs(math.log10(lr / 0.1)) for lr in LRS]
    results = [trained(lr, STEPS, metric) for lr, metric in zip(LRS, metrics, strict=True)]
    found = chosen(search, results)
    assert found.lr == pytest.approx(0.1)
    # Between LRs the metric is taken for linear in the logarithm, as it is here: 0.55 is a twentieth of a decade away.
    assert [math.log10(edge) for edge in (found.low, found.high)] == pytest.approx([-1.05, -0.95])


@given(places=st.lists(st.integers(0, len(LRS) - 1), min_size=1, max_size=4, unique=True))
def test_what_diverged_is_outside_of_the_range(places: list[int]):
    limit = LRS[min(places)]
    results = [diverged(each.segment) if each.segment.lr >= limit else each for each in at_once(Valley(best=1.0))]
    assume(limit > LRS[0])
    found = chosen(a_search(lrs=LRS), results)
    assert found.high < limit


def test_in_a_longer_training_smaller_lrs_are_as_good():
    # The same comparison, once at the end of the training and once at a quarter of it.
    whole, part = (chosen(a_search(lrs=LRS), at_once(Valley(), steps=steps)) for steps in (STEPS, STEPS // 4))
    assert part.lr < whole.lr
    assert part.low < whole.low


@pytest.mark.parametrize("seed", range(5))
def test_an_lr_that_is_better_by_noise_moves_the_advice_little(seed: int):
    rng = np.random.default_rng(seed)
    search = a_search(lrs=LRS, direction="maximize", limit=1.0, samples=1000)
    # Accuracies from 1,000 samples of LRs that are all equally good: any of them may come out best.
    shares = rng.binomial(1000, 0.8, size=len(LRS)) / 1000
    results = [trained(lr, STEPS, float(share)) for lr, share in zip(LRS, shares, strict=True)]
    found = chosen(search, results)
    assert 10**-2.3 < found.lr < 10**-0.7
