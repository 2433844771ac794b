import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.search.evidence import Evidence, Trial
from lratlas.search.regimes import Bracket, convergence, divergence, diverging, regimes
from lratlas.search.segments import SegmentResult, block_losses, make_segment
from monitor.watch_helpers import Floats, ar1
from search.find_helpers import STEPS, a_search, failed

STOPS = (STEPS // 64, STEPS // 32, STEPS // 16, STEPS // 8, STEPS // 4)
START = 2.3

Losses = Callable[[Floats], Floats]


def noise(seed: int = 0) -> Floats:
    return ar1(STEPS, 0.3, seed)


def falling(rate: float) -> Losses:
    return lambda steps: START * np.exp(-rate * steps) * (1 + 0.05 * noise()[: len(steps)])


def plateau(level: float, seed: int = 0) -> Losses:
    """A quick descent to a level around which the loss is noisy."""
    return lambda steps: level + (START - level) * np.exp(-steps / 20) + 0.05 * level * noise(seed)[: len(steps)]


def stuck(level: float = START) -> Losses:
    return lambda steps: np.where(steps < 1, START, level + 0.02 * noise()[: len(steps)])


def trial(lr: float, losses: Losses, *, stops: Sequence[int] = STOPS, seed: int = 0) -> list[SegmentResult]:
    """A training in segments that continue from each other."""
    every, results = losses(np.arange(STEPS, dtype=np.float64)), list[SegmentResult]()
    for start, stop in pairwise((0, *stops)):
        asked = make_segment(lr=lr, seed=seed, start=start, stop=stop, parent="the one before" if start else None)
        kept = block_losses(every[start:stop].tolist())
        results.append(SegmentResult(segment=asked, value=kept[-1], averaged=kept[-1], losses=kept))
    return results


def test_losses_tell_the_regimes():
    results = [
        *trial(1e-5, stuck(), stops=STOPS[:1]),
        *trial(1e-3, falling(2e-3)),
        *trial(1e-2, falling(8e-3)),
        *trial(1e-1, plateau(0.5)),
        *trial(3e-1, plateau(0.8, seed=1)),
        *trial(1.0, stuck(), stops=STOPS[:1]),
        *trial(3.0, stuck(30.0), stops=STOPS[:1]),
    ]
    learned = [1e-3, 1e-2, 1e-1, 3e-1]
    told = regimes(results, learned=learned)
    assert told == {
        (1e-5, 0): "undecided",  # too small to have learned anything yet
        (1e-3, 0): "converging",
        (1e-2, 0): "converging",
        (1e-1, 0): "equilibrium",
        (3e-1, 0): "equilibrium",
        (1.0, 0): "diverging",  # it has learned nothing either, but stands above those that have
        (3.0, 0): "diverging",
    }
    assert regimes(results[::-1], learned=learned) == told
    assert convergence(told) == Bracket(below=1e-2, above=1e-1)
    assert divergence(told, above=1e-1) == Bracket(below=3e-1, above=1.0)


def test_epochs_have_the_regimes_of_their_steps():
    lrs = {1e-3: falling(2e-3), 1e-1: plateau(0.5), 3.0: stuck(30.0)}
    results = [each for lr, losses in lrs.items() for each in trial(lr, losses, stops=(64, 128, 512, 1024))]
    epochs = [
        replace(each, segment=replace(each.segment, start=each.segment.start // 64, stop=each.segment.stop // 64))
        for each in results
    ]
    assert regimes(epochs, learned=[1e-3, 1e-1], steps_each=64) == regimes(results, learned=[1e-3, 1e-1])
    search = a_search(steps=STEPS // 64, counted="epochs")
    assert diverging(Evidence(search, epochs)) == diverging(Evidence(a_search(), results)) == {3.0}


def test_an_lr_that_has_learned_has_not_diverged_however_high_its_loss():
    results = [*trial(1e-2, falling(8e-3)), *trial(1.0, stuck(30.0))]
    assert regimes(results)[1.0, 0] == "diverging"
    assert regimes(results, learned=[1.0])[1.0, 0] not in {"diverging", "converging"}


@pytest.mark.parametrize("reason", ["loss 2 of 64 is not finite", "the validation metric is not finite"])
def test_what_is_not_finite_has_diverged(reason: str):
    broken = make_segment(lr=0.3, seed=0, start=0, stop=100, parent=None)
    results = [*trial(1e-2, falling(8e-3)), SegmentResult(segment=broken, losses=(START, math.nan), failure=reason)]
    assert regimes(results) == {(1e-2, 0): "converging", (0.3, 0): "diverging"}


def test_a_crash_is_no_divergence():
    results = [*trial(1e-2, falling(8e-3)), failed(make_segment(lr=0.3, seed=0, start=0, stop=100, parent=None))]
    assert regimes(results)[0.3, 0] == "undecided"


def test_a_training_that_breaks_late_has_diverged():
    results = trial(0.3, plateau(0.5))
    last = make_segment(lr=0.3, seed=0, start=1600, stop=3200, parent=results[-1].segment.name)
    assert regimes(results)[0.3, 0] == "equilibrium"
    results.append(SegmentResult(segment=last, losses=(0.5, math.nan), failure="loss 2 of 2 is not finite"))
    assert regimes(results)[0.3, 0] == "diverging"


def test_a_loss_far_above_the_start_has_diverged_even_below_the_others():
    results = [*trial(1e-4, stuck(), stops=STOPS[:1]), *trial(1e-3, stuck(9.0), stops=STOPS[:1])]
    results += trial(1e-2, falling(8e-3))
    assert regimes(results)[1e-3, 0] == "diverging"


def test_without_losses_nothing_is_said():
    results = [SegmentResult(segment=make_segment(lr=0.1, seed=0, start=0, stop=100, parent=None), value=0.3)]
    assert regimes(results) == {(0.1, 0): "undecided"}
    assert regimes([]) == {}


def test_losses_around_zero_are_left_open():
    # Ratios to a loss that is not above zero mean nothing.
    results = trial(0.1, lambda steps: -3 - steps / 100)
    assert regimes(results) == {(0.1, 0): "undecided"}


def test_an_annealed_branch_says_nothing_of_its_lr():
    results = trial(0.1, plateau(0.5))
    asked = make_segment(lr=0.1, seed=0, start=1600, stop=2000, parent=results[-1].segment.name, anneal_from=1600)
    branch = SegmentResult(segment=asked, value=0.1, losses=tuple(np.geomspace(0.5, 0.001, 64).tolist()))
    assert regimes([*results, branch]) == {(0.1, 0): "equilibrium"}


def test_while_nothing_has_learned_only_a_rise_is_a_divergence():
    results = [*trial(1e-2, stuck()), *trial(0.3, stuck()), *trial(1.0, stuck(1.2 * START))]
    assert regimes(results) == {(1e-2, 0): "undecided", (0.3, 0): "undecided", (1.0, 0): "diverging"}


def test_diverging_lrs_are_those_whose_loss_rose_or_was_not_finite():
    search = a_search()
    broken = make_segment(lr=3.0, seed=0, start=0, stop=100, parent=None)
    results = [*trial(1e-2, falling(8e-3)), *trial(0.1, stuck()), *trial(0.3, stuck(1.2 * START))]
    results += [SegmentResult(segment=broken, losses=(START, math.nan), failure="loss 2 of 2 is not finite")]
    results += [failed(make_segment(lr=10.0, seed=0, start=0, stop=100, parent=None))]
    assert diverging(Evidence(search, results)) == {0.3, 3.0}
    assert diverging(Evidence(search, [])) == set()
    # What breaks with another seed only is not lost.
    other = [
        SegmentResult(segment=replace(each.segment, lr=1e-2, seed=1), losses=each.losses, failure=each.failure)
        for each in results[-2:-1]
    ]
    assert diverging(Evidence(search, [*results, *other])) == {0.3, 3.0}


def test_batches_that_differ_are_no_divergence():
    # All LRs see the same batches: of few steps, the last ones may be harder than the first one for an untrained model.
    search = a_search(steps=128, chance=0.5)
    for losses, lost in (((1.0, 1.5), set[float]()), ((1.0, 15.0), {1e-9, 1e-8})):
        results = [
            SegmentResult(segment=make_segment(lr=lr, seed=0, start=0, stop=2, parent=None), value=0.5, losses=losses)
            for lr in (1e-9, 1e-8)
        ]
        assert diverging(Evidence(search, results)) == lost


def test_a_noisy_loss_of_an_untrained_model_does_not_rise():
    search = a_search(chance=0.5)
    rng = np.random.default_rng(0)
    for _ in range(20):
        losses = tuple(rng.normal(1.0, 0.1, 64).tolist())
        results = [
            SegmentResult(segment=make_segment(lr=lr, seed=0, start=0, stop=100, parent=None), value=0.5, losses=losses)
            for lr in (1e-9, 1e-8)
        ]
        assert diverging(Evidence(search, results)) == set()


def test_an_lr_whose_metric_is_good_does_not_diverge_though_its_loss_rises():
    # Under a large LR the loss of each step may be high, and that of the averaged weights low.
    search = a_search(direction="maximize", chance=0.1, limit=1.0, samples=1000)
    results = [*trial(1e-2, falling(8e-3)), *trial(0.3, stuck(1.2 * START))]
    good = [replace(each, averaged=0.8) for each in results]
    bad = [replace(each, averaged=0.1 if each.segment.lr == 0.3 else 0.8) for each in results]
    assert diverging(Evidence(search, good)) == set()
    assert diverging(Evidence(search, bad)) == {0.3}


def test_seeds_are_different_trials():
    results = [*trial(0.1, plateau(0.5)), *trial(0.1, falling(8e-3), seed=1)]
    assert regimes(results) == {(0.1, 0): "equilibrium", (0.1, 1): "converging"}


def test_trainings_that_begin_afresh_are_not_joined():
    # Joined, the loss would seem to jump up again and again.
    afresh = [each for stop in (598, 599, 600) for each in trial(0.1, falling(4e-3), stops=[stop])]
    assert regimes(afresh) == regimes(trial(0.1, falling(4e-3), stops=[600])) == {(0.1, 0): "converging"}


@pytest.mark.parametrize(("share", "regime"), [(0.9, "equilibrium"), (0.98, "diverging")])
def test_what_is_above_the_best_learner_must_have_learned_a_twentieth(share: float, regime: str):
    results = [*trial(1e-2, falling(8e-3)), *trial(0.3, plateau(share * START))]
    assert regimes(results, learned=[1e-2])[0.3, 0] == regime


def test_segments_of_unequal_length_count_by_their_steps():
    # Early segments have as many means, of fewer steps: as many values at the start of the descent as at rest.
    parts = trial(0.1, plateau(0.5))
    whole = trial(0.1, plateau(0.5), stops=[1600])
    assert [len(each.losses) for each in parts] == [64] * 5
    assert regimes(parts) == regimes(whole)


def told_in_order(counts: tuple[int, int, int, int]) -> dict[Trial, str]:
    names = ("undecided", "converging", "equilibrium", "diverging")
    order = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
    return {(10.0**place, 0): name for place, name in enumerate(order)}


COUNTS = st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))


@given(counts=COUNTS)
def test_thresholds_lie_where_the_regime_changes(counts: tuple[int, int, int, int]):
    told = told_in_order(counts)
    small, falls, rests, breaks = counts
    found = convergence(told)
    if falls and rests:
        assert found == Bracket(below=10.0 ** (small + falls - 1), above=10.0 ** (small + falls))
    else:
        assert found is None
    if small + falls + rests == 0:
        return
    last = small + falls + rests - 1
    for good in (1.0, 10.0**last):
        above = divergence(told, above=good)
        assert above == (Bracket(below=10.0**last, above=10.0 ** (last + 1)) if breaks else None)


def test_the_value_of_a_bracket_is_the_geometric_mean():
    assert Bracket(below=0.01, above=1.0).value == pytest.approx(0.1)


def test_the_convergence_threshold_is_below_all_in_equilibrium():
    told: dict[Trial, str] = {(1.0, 0): "converging", (2.0, 0): "equilibrium", (4.0, 0): "converging"}
    assert convergence(told) == Bracket(below=1.0, above=2.0)
    seeds: dict[Trial, str] = {(1.0, 0): "converging", (2.0, 0): "converging", (2.0, 1): "equilibrium"}
    assert convergence(seeds) == Bracket(below=1.0, above=2.0)
    assert convergence({(1.0, 0): "equilibrium", (2.0, 0): "converging"}) is None


def test_an_undecided_lr_between_widens_the_bracket_of_convergence():
    told: dict[Trial, str] = {(1.0, 0): "converging", (2.0, 0): "undecided", (4.0, 0): "equilibrium"}
    assert convergence(told) == Bracket(below=1.0, above=4.0)


def test_where_all_diverge_there_is_no_threshold_between():
    told: dict[Trial, str] = {(1.0, 0): "diverging", (2.0, 0): "diverging"}
    assert divergence(told, above=0.0) is None


def test_what_breaks_below_a_good_lr_is_not_too_large():
    told: dict[Trial, str] = {(1.0, 0): "diverging", (2.0, 0): "converging", (4.0, 0): "diverging"}
    assert divergence(told, above=2.0) == Bracket(below=2.0, above=4.0)
    assert divergence(told, above=4.0) is None
