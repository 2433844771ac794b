from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as some

from lratlas.search.segments import BLOCKS, make_segment
from lratlas.search.states import stops


@given(
    start=some.integers(0, 10_000),
    steps=some.integers(1, 10_000),
    count=some.integers(1, 10),
)
def test_between_two_stops_a_stack_trains_an_eighth_of_its_steps(start: int, steps: int, count: int):
    segments = [
        make_segment(lr=0.1 * 1.1**at, seed=0, start=start, stop=start + steps, parent=None) for at in range(count)
    ]
    every = max(1, steps // BLOCKS)
    found = stops(segments, every=every)
    assert found == sorted(set(found))
    assert all(start < stop < start + steps and stop % every == 0 for stop in found)
    ends = [start, *found, start + steps]
    longest = max(after - before for before, after in pairwise(ends))
    # Rows of the trace are a 64th of the steps apart, or one step.
    assert longest <= max(every, steps / 8) + every
