"""What a worker tells its driver."""

import io
import json
from types import SimpleNamespace

import pytest

from lratlas.study.execute.worker import Worked


def test_work_is_reported_at_once_then_now_and_then_and_all_of_it_in_the_end(monkeypatch: pytest.MonkeyPatch):
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr("lratlas.study.execute.worker.time", SimpleNamespace(monotonic=lambda: clock.now))
    out = io.StringIO()
    worked = Worked(out)
    for steps in range(1, 101):
        worked(steps)
        clock.now += 0.05
    worked.rest()
    told = [json.loads(line)["work"] for line in out.getvalue().splitlines()]
    assert told[0] == 1
    assert sum(told) == 5050
    assert len(told) <= 7  # five seconds: the first, at most one a second, and the rest


def test_nothing_is_reported_of_a_job_without_steps():
    out = io.StringIO()
    Worked(out).rest()
    assert not out.getvalue()
