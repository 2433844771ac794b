"""How many threads hold a turn at once."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from lratlas.search.program.command import Turns


def most_at_once(turns: Turns, alone: Sequence[bool]) -> dict[bool, int]:
    """How many turns were held at once, at most, while one of each kind was held."""
    lock, held, seen = threading.Lock(), list[bool](), {False: 0, True: 0}

    def hold(own: bool) -> None:
        with turns.turn(alone=own):
            with lock:
                held.append(own)
                for each in held:
                    seen[each] = max(seen[each], len(held))
            time.sleep(0.005)
            with lock:
                held.remove(own)

    with ThreadPoolExecutor(len(alone)) as pool:
        list(pool.map(hold, alone))
    return seen


@pytest.mark.parametrize("most", [1, 2, 4])
def test_no_more_than_that_many_run_at_once(most: int) -> None:
    assert most_at_once(Turns(most), [False] * 8) == {False: most, True: 0}


def test_one_that_runs_alone_does() -> None:
    seen = most_at_once(Turns(4), [False, False, True, False, True, False])
    assert seen[True] == 1
    assert 1 <= seen[False] <= 4


def test_a_turn_ends_with_an_error() -> None:
    turns = Turns(1)
    for alone in (False, True, False):
        with pytest.raises(ZeroDivisionError), turns.turn(alone=alone):
            raise ZeroDivisionError
