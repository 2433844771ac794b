"""Programs run and end with all that they started."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lratlas.search.program import process
from lratlas.search.program.process import Ended, Limits, Stop, Stopped, run_program
from search.command_helpers import gone, runs

SRC = Path(__file__).parents[3] / "src"
# The supervisor as on a system where it inherits no processes.
ELSEWHERE = """
import psutil, runpy, sys
sys.platform = "elsewhere"
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def ran(tmp_path: Path) -> Callable[..., Ended]:
    def run(
        script: str,
        *words: str,
        timeout: float | None = None,
        stall: float | None = None,
        look: Callable[[], str | None] = lambda: None,
        stop: Stop | None = None,
    ) -> Ended:
        return run_program(
            ["/bin/sh", "-c", script, "sh", *words],
            environment={"PATH": os.environ["PATH"], "GIVEN": "a b"},
            stdout=tmp_path / "out",
            stderr=tmp_path / "err",
            watched=[tmp_path / "more"],
            look=look,
            limits=Limits(timeout=timeout, stall=stall),
            stop=stop or Stop(),
        )

    return run


def awaited(path: Path, count: int = 1) -> list[int]:
    """The numbers that a file holds, once there are this many."""
    for _ in range(6000):  # a minute, on a busy machine
        if path.exists() and len(words := path.read_text(encoding="utf-8").split()) >= count:
            return [int(word) for word in words]
        time.sleep(0.01)
    raise AssertionError(path)


def test_what_a_program_prints_is_kept(ran: Callable[..., Ended], tmp_path: Path) -> None:
    ended = ran('echo "$1 $GIVEN"; echo bad >&2; exit 3', "one  word")
    assert (ended.code, ended.cut) == (3, None)
    assert (tmp_path / "out").read_text() == "one  word a b\n"
    assert (tmp_path / "err").read_text() == "bad\n"


def test_a_signal_is_a_negative_code(ran: Callable[..., Ended]) -> None:
    assert ran("kill -KILL $$").code == -signal.SIGKILL


def test_a_program_that_reads_finds_no_input(ran: Callable[..., Ended]) -> None:
    assert ran("read line", timeout=5).code == 1


def test_a_time_limit_ends_the_whole_group(ran: Callable[..., Ended], tmp_path: Path) -> None:
    ended = ran(
        f"sleep 60 & echo $! $$ > '{tmp_path}/pids'; while :; do echo busy; sleep 0.05; done", timeout=2, stall=20
    )
    assert ended.cut == "it was not finished after 2 s (--timeout)"
    assert gone(awaited(tmp_path / "pids", 2))


def test_silence_ends_a_program_and_any_output_counts(ran: Callable[..., Ended], tmp_path: Path) -> None:
    assert ran("echo once; sleep 60", stall=0.3).cut == "it printed nothing for 0.3 s (--stall)"
    talks = f"for i in 1 2 3 4 5; do sleep 0.2; echo x >> '{tmp_path}/more'; done"
    assert ran(talks, stall=5).cut is None


def test_a_look_can_end_a_program(ran: Callable[..., Ended], tmp_path: Path) -> None:
    ended = ran("echo enough; sleep 60", look=lambda: "enough" if (tmp_path / "out").read_text() else None)
    assert ended.cut == "enough"
    assert ended.code == -signal.SIGTERM


def test_what_a_program_leaves_running_is_ended(ran: Callable[..., Ended], tmp_path: Path) -> None:
    assert ran(f"sleep 60 & echo $! > '{tmp_path}/pids'").code == 0
    assert gone(awaited(tmp_path / "pids"))


def test_a_program_that_ignores_the_request_is_ended_at_once_if_asked(
    ran: Callable[..., Ended], tmp_path: Path
) -> None:
    stop = Stop()
    raised = list[BaseException]()

    def run() -> None:
        try:
            ran(f"trap '' TERM; echo $$ > '{tmp_path}/pids'; while :; do sleep 0.05; done", stop=stop)
        except Stopped as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    pids = awaited(tmp_path / "pids")
    stop.asked.set()
    time.sleep(0.3)
    assert runs(pids[0])
    stop.at_once.set()
    thread.join(5)
    assert raised
    assert gone(pids)


def test_a_program_ends_when_the_search_is_killed(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from lratlas.search.program import process
from lratlas.search.program.process import *
folder = Path({str(tmp_path)!r})
run_program(
    ["/bin/sh", "-c", f"setsid sleep 60 & own=$!; sleep 60 & echo $own $! $$ > '{{folder}}/pids'; wait"],
    environment={{"PATH": "/usr/bin:/bin"}},
    stdout=folder / "out",
    stderr=folder / "err",
    look=lambda: None,
    limits=Limits(timeout=None, stall=None),
    stop=Stop(),
)
"""
    search = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(SRC)})
    pids = awaited(tmp_path / "pids", 3)
    time.sleep(0.2)
    search.kill()
    search.wait()
    assert gone(pids)


@pytest.mark.parametrize("system", ["linux", "elsewhere"])
@pytest.mark.parametrize("how", ["ended", "cut", "killed"])
def test_what_a_program_starts_in_sessions_of_their_own_ends_with_it(
    how: str, system: str, ran: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torchrun starts its workers; one is the child of a process that has ended."""
    if system == "elsewhere":
        started = (sys.executable, "-c", ELSEWHERE, process.__file__.replace("process.py", "supervisor.py"))
        monkeypatch.setattr(process, "_SUPERVISOR", started)
    nested = f"sleep 60 & echo $! >> {shlex.quote(str(tmp_path / 'pids'))}; exec sleep 61"
    script = f"setsid sh -c {shlex.quote(nested)} & (setsid sleep 62 & echo $! >> '{tmp_path}/pids'; sleep 0.5)\n"
    script += f"while [ $(wc -l < '{tmp_path}/pids') -lt 2 ]; do sleep 0.02; done\n"
    if how != "ended":
        script += f"trap '' TERM; touch '{tmp_path}/ready'; sleep 60 & wait $!"
    stop = Stop()
    if how == "killed":
        stop.at_once.set()
    (tmp_path / "pids").touch()
    ended = ran(script, look=lambda: "enough" if (tmp_path / "ready").exists() else None, stop=stop)
    assert (ended.cut is None) == (how == "ended")
    assert gone(awaited(tmp_path / "pids", 2), within=0.5)


def test_a_program_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        run_program(
            [str(tmp_path)],
            environment={},
            stdout=tmp_path / "out",
            stderr=tmp_path / "err",
            look=lambda: None,
            limits=Limits(timeout=None, stall=None),
            stop=Stop(),
        )
