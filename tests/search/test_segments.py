"""Segments of training, and schedules in them, compared with those of PyTorch and Transformers."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR

from lratlas.search.segments import Segment, block_losses, factor, make_segment, sample_schedule
from lratlas.search.settings import make_search
from lratlas.text import first_not_finite
from search.find_helpers import result

LOSS = st.floats(min_value=-1e6, max_value=1e6)
BROKEN = st.sampled_from([math.nan, math.inf, -math.inf])
LENGTHS = st.tuples(st.integers(0, 10**6), st.integers(1, 10**6))


def test_a_constant_lr_is_the_same_in_every_step():
    whole = make_segment(lr=0.3, seed=0, start=10, stop=20, parent=None)
    assert not whole.annealed
    assert {whole.lr_at(step) for step in range(10, 20)} == {0.3}
    assert {whole.share_at(step) for step in range(10, 20)} == {1.0}


def test_an_annealed_lr_goes_down_evenly_and_would_be_zero_at_the_end():
    branch = make_segment(lr=0.8, seed=0, start=0, stop=12, parent=None, anneal_from=8)
    assert branch.annealed
    assert [branch.share_at(step) for step in range(6, 12)] == [1, 1, 1, 0.75, 0.5, 0.25]
    assert [branch.lr_at(step) for step in range(8, 12)] == pytest.approx([0.8, 0.6, 0.4, 0.2])


@given(lengths=LENGTHS, share=st.floats(0, 1, exclude_max=True), lr=st.floats(1e-6, 1e3))
def test_an_annealed_lr_is_a_line_from_the_lr_to_zero(lengths: tuple[int, int], share: float, lr: float):
    start, steps = lengths
    down = int(share * steps)
    branch = make_segment(
        lr=lr, seed=0, start=start, stop=start + steps, parent="it" if start else None, anneal_from=start + down
    )
    # The share of the descent that is left when the step begins.
    for step in {start, start + down, start + steps // 2, start + steps - 1}:
        left = min(1.0, (branch.stop - step) / (steps - down))
        assert branch.share_at(step) == pytest.approx(left)
        assert branch.lr_at(step) == pytest.approx(lr * left)
        assert 0 < branch.lr_at(step) <= lr


def test_a_name_says_what_the_segment_is():
    assert make_segment(lr=0.001, seed=2, start=0, stop=400, parent=None).name == "lr0.001-seed2-to400"
    branch = make_segment(lr=1e-5, seed=0, start=100, stop=125, parent="lr1e-05-seed0-to100", anneal_from=100)
    assert branch.name == "lr1e-05-seed0-to125-annealed"


@pytest.mark.parametrize("change", [{"lr": 0.1001}, {"seed": 1}, {"stop": 101}, {"anneal_from": 90}])
def test_segments_that_differ_have_different_names_fit_for_files(change: dict[str, float]):
    plain: dict[str, Any] = {"lr": 0.1, "seed": 0, "start": 0, "stop": 100, "parent": None}
    make: Callable[..., Segment] = make_segment
    names = {make(**plain).name, make(**(plain | change)).name}
    assert len(names) == 2
    assert not any(sign in name for name in names for sign in '/\\:*?"<>| +')


@given(lengths=LENGTHS)
def test_the_last_tenth_is_averaged_as_far_as_the_segment_reaches(lengths: tuple[int, int]):
    start, steps = lengths
    stop = start + steps
    average_from = make_segment(lr=0.1, seed=0, start=start, stop=stop, parent=None).average_from
    assert start <= average_from < stop  # one step at least is averaged, and none of another segment
    tenth = max(1, stop // 10)
    assert stop - average_from == min(tenth, steps)


def test_the_averaged_weights_count_where_they_were_told():
    of = make_segment(lr=0.1, seed=0, start=0, stop=100, parent=None)
    assert of.steps == 100
    assert result(of, 0.5, averaged=0.4).quality == 0.4
    assert result(of, 0.5, averaged=0.0).quality == 0.0
    assert result(of, 0.5).quality == 0.5
    assert result(of, failure="it broke").quality is None


def test_losses_become_means_over_equal_parts():
    assert block_losses([]) == ()
    assert block_losses([3.0, 1.0]) == (3.0, 1.0)
    assert block_losses([float(step) for step in range(128)]) == tuple(2 * part + 0.5 for part in range(64))


@given(losses=st.lists(LOSS, min_size=1, max_size=300))
def test_parts_of_losses_are_even_and_lose_nothing(losses: list[float]):
    means = block_losses(losses)
    assert len(means) == min(64, len(losses))
    # Parts as NumPy cuts them: the first ones are one longer.
    small, longer = divmod(len(losses), len(means))
    sizes = [small + (part < longer) for part in range(len(means))]
    total = sum(size * mean for size, mean in zip(sizes, means, strict=True))
    assert total == pytest.approx(math.fsum(losses), rel=1e-9, abs=1e-6)
    assert all(min(losses) - 1e-6 <= mean <= max(losses) + 1e-6 for mean in means)


@given(losses=st.lists(LOSS, min_size=1, max_size=300), place=st.integers(0, 299), broken=BROKEN)
def test_a_broken_loss_spoils_its_own_part_only(losses: list[float], place: int, broken: float):
    place %= len(losses)
    spoilt = [*losses[:place], broken, *losses[place + 1 :]]
    before, after = block_losses(losses), block_losses(spoilt)
    (part,) = [number for number, mean in enumerate(after) if math.isnan(mean)]
    assert part == pytest.approx(place * len(after) // len(losses), abs=1)
    assert [*after[:part], *after[part + 1 :]] == [*before[:part], *before[part + 1 :]]


@given(good=st.lists(LOSS, max_size=20), broken=BROKEN, rest=st.lists(LOSS | BROKEN, max_size=20))
def test_the_first_loss_that_is_not_finite_is_found(good: list[float], broken: float, rest: list[float]):
    assert first_not_finite(good) is None
    assert first_not_finite([*good, broken, *rest]) == len(good)


def lrs_of(make: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
    """The LR of each step under a scheduler that is stepped after each."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler, lrs = make(optimizer), list[float]()
    for _ in range(steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs


def ours(steps: int, **settings: Any) -> list[float]:
    segment = make_segment(lr=0.3, seed=0, start=0, stop=steps, parent=None, **settings)
    return [segment.lr_at(step) for step in range(steps)]


@pytest.mark.parametrize("steps", [1, 10, 137])
def test_cosine_is_that_of_pytorch(steps: int):
    theirs = lrs_of(lambda optimizer: CosineAnnealingLR(optimizer, T_max=steps), steps)
    assert ours(steps, schedule="cosine") == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0), (100, 0), (100, 13), (137, 136)])
def test_linear_with_warm_up_is_that_of_transformers(steps: int, warmup: int):
    transformers = pytest.importorskip("transformers")
    theirs = lrs_of(lambda optimizer: transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps), steps + 1)
    # Transformers begins a warm-up with a step at an LR of zero, which trains nothing; here it is one step ahead.
    assert ours(steps, schedule="linear", warmup=warmup)[:warmup] == pytest.approx(theirs[1 : warmup + 1])
    assert ours(steps, schedule="linear", warmup=warmup)[warmup:] == pytest.approx(theirs[warmup:steps])


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0), (100, 13)])
def test_cosine_with_warm_up_is_that_of_transformers(steps: int, warmup: int):
    transformers = pytest.importorskip("transformers")
    theirs = lrs_of(lambda optimizer: transformers.get_cosine_schedule_with_warmup(optimizer, warmup, steps), steps)
    assert ours(steps, schedule="cosine", warmup=warmup)[warmup:] == pytest.approx(theirs[warmup:], abs=1e-9)


def test_a_constant_lr_after_a_warm_up_stays():
    lrs = ours(100, warmup=4)
    assert lrs[:5] == pytest.approx([0.075, 0.15, 0.225, 0.3, 0.3])
    assert set(lrs[4:]) == {0.3}


def half_cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


@given(share=st.floats(0, 1))
def test_a_function_is_sampled_finely_enough(share: float):
    assert factor(sample_schedule(half_cosine), share) == pytest.approx(factor("cosine", share), abs=1e-4)
    assert factor(sample_schedule(lambda part: 1 - part), share) == pytest.approx(factor("linear", share), abs=1e-4)


@given(share=st.floats(0, 1))
def test_between_points_a_schedule_is_linear(share: float):
    assert factor((2.0, 0.0), share) == pytest.approx(2 * (1 - share))
    assert factor((0.0, 1.0, 0.0), share) == pytest.approx(1 - abs(1 - 2 * share))
    assert factor("constant", share) == 1.0


def torch_number(share: float) -> torch.Tensor:
    return torch.tensor(1 - share)


def test_a_function_may_return_numbers_of_other_libraries():
    search = make_search(steps=100, schedule=torch_number)
    assert factor(search.schedule, 0.25) == pytest.approx(0.75)


def constant(value: object) -> Callable[[float], object]:
    return lambda _: value


def fails(share: float) -> float:
    return 1 / abs(share - 0.5)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (fails, "fails at fraction 0.5 of the training"),
        (constant(-1.0), "is -1.0 at fraction 0 of the training, but must be a number of at least 0"),
        (constant(math.nan), "is nan at fraction 0"),
        (constant("much"), "is 'much' at fraction 0"),
        (constant(0.0), "is 0 throughout the training"),
    ],
)
def test_a_function_that_is_no_schedule_is_refused(schedule: Callable[[float], Any], said: str):
    with warnings.catch_warnings(), pytest.raises(ValueError, match=said):
        sample_schedule(schedule)
