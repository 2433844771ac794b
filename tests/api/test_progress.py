"""The progress of a study, as people see it."""

import sys
from typing import Any

import pytest

from lratlas.api.progress import shown, state_of
from lratlas.execute.scheduler import Progress


def progress(*, trained: int, done: int) -> Progress:
    return Progress(jobs_done=1, jobs=1234, work_done=done, work=100_000, trained=trained, doing="pre-training")


def test_the_pace_is_that_of_this_session_only() -> None:
    # 20,000 of the 60,000 steps were trained in these 10 s; 40,000 are left.
    found = state_of(progress(trained=20_000, done=60_000), 10.0, "1: 1e-3")
    assert (found.doing, found.count, found.percent) == ("pre-training", "1 of 1,234 jobs", "60%")
    assert (found.left, found.more) == ("0:00:20 left", "2,000 steps/s · 1: 1e-3")
    slow = state_of(progress(trained=20, done=80_000), 10.0)
    assert (slow.left, slow.more) == ("2:46:40 left", "2 steps/s")
    none = state_of(progress(trained=0, done=60_000), 10.0)
    assert (none.left, none.more) == ("", "")


def test_a_function_is_called_as_it_is_and_false_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    told = list[Any]()
    with shown(told.append, lambda: "") as function:
        assert function is not None
        function(progress(trained=1, done=1))
    assert len(told) == 1
    for nothing in (False, None):
        with shown(nothing, lambda: "") as function:
            assert function is None
