"""What runs on a node of a cluster: it needs no cluster to pass on what a worker says."""

from pathlib import Path

import pytest

from lratlas.execute.ray import Station

# An actor's pipes end with its process; here they are left to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore")

WORKER = """
import json, sys

def say(**message):
    print(json.dumps(message), flush=True)

sys.stdin.readline()
say(ready=True)
for line in sys.stdin:
    message = json.loads(line)
    if "stop" in message:
        break
    say(work=1)
    say(work=2)
    if "job" in message:
        say(done=message["job"])
"""


def test_progress_waits_for_company_and_all_else_is_passed_on_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "talking_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    station = Station({}, "talking_worker", {})
    # Were any of these not passed on at once, the test would take a minute and more.
    assert station.heard(60.0) == [{"ready": True}]
    station.tell({"job": "first"})
    assert station.heard(60.0) == [{"work": 1}, {"work": 2}, {"done": "first"}]
    assert station.heard(0.01) == []
    station.tell({"nothing": "done"})
    station.tell({"stop": True})
    assert station.heard(60.0) == [{"work": 1}, {"work": 2}, {"ended": "with exit code 0"}]


def test_progress_alone_is_passed_on_when_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "talking_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    station = Station({}, "talking_worker", {})
    assert station.heard(60.0) == [{"ready": True}]
    station.tell({"nothing": "done"})
    heard = station.heard(0.5)
    while len(heard) < 2:  # a slow machine
        heard += station.heard(0.5)
    assert heard == [{"work": 1}, {"work": 2}]
    station.tell({"stop": True})
    assert station.heard(60.0) == [{"ended": "with exit code 0"}]
