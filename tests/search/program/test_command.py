import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from lratlas.errors import SearchError, SpecError
from lratlas.search.advice import Advice
from lratlas.search.finder import Finder
from lratlas.search.program.command import find_by_command, time_limit
from lratlas.search.segments import Segment, SegmentResult, make_segment
from search.command_helpers import gone, program
from search.find_helpers import advised_lr

SRC = Path(__file__).parents[3] / "src"
LRS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


@dataclass
class Seen:
    """What a search did."""

    advice: Advice
    finder: Finder
    started: list[Segment] = field(default_factory=list[Segment])
    ended: list[SegmentResult] = field(default_factory=list[SegmentResult])
    notices: list[str] = field(default_factory=list[str])


def finder(
    tmp_path: Path,
    *,
    resumable: bool = True,
    anneal: bool = True,
    direction: Literal["minimize", "maximize"] = "minimize",
    budget: float = 0.6,
    lrs: Sequence[float] = LRS,
) -> Finder:
    return Finder(
        tmp_path / "search",
        steps=320,
        lrs=lrs,
        budget=budget,
        resumable=resumable,
        anneal=anneal,
        direction=direction,
    )


def search(
    command: str, *finders: Finder, metric: str | None = None, timeout: float | None = None, stall: float | None = None
) -> Seen:
    started, ended, notices = list[Segment](), list[SegmentResult](), list[str]()
    advice = find_by_command(
        command,
        finders,
        metric=metric,
        timeout=timeout,
        stall=stall,
        started=started.append,
        ended=ended.append,
        notice=notices.append,
    )
    return Seen(advice=advice, finder=finders[0], started=started, ended=ended, notices=notices)


def final_loss(lr: float, steps: int = 320) -> float:
    """What the program comes to at a constant LR, computed here."""
    weight = 1.0
    for step in range(steps):
        weight -= lr * (weight + 0.1 * math.cos(12.9898 * step))
    return weight * weight / 2


def test_a_search_finds_an_lr_that_trains_well(tmp_path: Path) -> None:
    seen = search(program(tmp_path), finder(tmp_path, budget=2.5))
    assert advised_lr(seen.advice) < 2  # the parabola diverges above
    assert final_loss(advised_lr(seen.advice)) < 2 * min(map(final_loss, LRS)) + 1e-3
    assert not seen.advice.warnings or not any("training loss" in warning for warning in seen.advice.warnings)
    assert any(result.segment.annealed for result in seen.ended)
    assert [result.segment for result in seen.ended] == seen.started
    assert {each.segment.lr for each in seen.ended if each.failure} <= {3.0, *(lr for lr in LRS if lr > 2)}
    # The full training can continue from one state; what was printed is stored of all segments.
    folders = list((tmp_path / "search" / "segments").iterdir())
    assert {folder.name for folder in folders} == {piece.name for piece in seen.started}
    assert [folder.name for folder in folders if (folder / "state").exists()] == [seen.advice.segment]
    assert all((folder / "stdout.txt").stat().st_size for folder in folders)
    # A finished search is left as it is.
    again = search("sh -c 'exit 1' {lr} {checkpoint} {final_lr}", finder(tmp_path, budget=2.5))
    assert again.started == []
    assert again.advice.lr == seen.advice.lr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A search of one worker, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return search(program(folder), finder(folder))


def test_several_workers_come_to_the_same(whole: Seen, tmp_path: Path) -> None:
    together = search(program(tmp_path), *(finder(tmp_path) for _ in range(3)))
    assert Counter(piece.name for piece in together.started) == Counter(piece.name for piece in whole.started)
    assert together.advice.lr == whole.advice.lr


def test_without_checkpoints_every_segment_is_trained_from_the_beginning(tmp_path: Path) -> None:
    text = "import sys; lr, steps = float(sys.argv[1]), int(sys.argv[2]); loss = (1 - min(lr, 1.5)) ** (2 * steps)"
    path = tmp_path / "short.py"
    path.write_text(f'{text}; print(f\'{{{{"value": {{loss}}, "loss": {{loss}}}}}}\')')
    seen = search(f"{sys.executable} -S '{path}' {{lr}} {{steps}}", finder(tmp_path, resumable=False, anneal=False))
    assert {piece.start for piece in seen.started} == {0}
    assert seen.advice.finish == "constant"
    with pytest.raises(SpecError, match=r"no {checkpoint}"):
        search("sh {lr}", finder(tmp_path / "other"))
    with pytest.raises(SpecError, match=r"no {final_lr}"):
        search("sh {lr} {checkpoint}", finder(tmp_path / "other"))


# What goes wrong at an LR below those that train.
FAILING = {
    0.0002: ("raise OSError('the disk is full')", "exited with code 1: .*OSError: the disk is full"),
    0.0004: ("time.sleep(300)", "not finished after 2 s"),
    0.0006: ("import signal; os.kill(os.getpid(), signal.SIGSEGV)", "stopped by SIGSEGV"),
    0.0008: ("print('}{' * 99, chr(0)); sys.exit()", "reported no 'value'; it printed no JSON records"),
    0.001: ("print('{\"value\": NaN}'); sys.exit()", r"the value was not finite \(nan\)"),
    0.002: ("print('{\"value\": 1}'); sys.exit()", "saved no checkpoint"),
}


def test_a_failing_segment_is_named_and_the_search_goes_on(tmp_path: Path) -> None:
    before = "\n".join(f"if lr == {lr}: {line}" for lr, (line, _) in FAILING.items())
    seen = search(
        program(tmp_path, before=before), finder(tmp_path, budget=1.2, lrs=sorted({*LRS, *FAILING})), timeout=2
    )
    for lr, (_, failure) in FAILING.items():
        (failed,) = [each for each in seen.ended if each.segment.lr == lr and each.segment.seed == 0]
        assert re.search(failure, failed.failure or ""), failed.failure
        assert sum(failed.segment.name in notice for notice in seen.notices) == 1
    assert final_loss(advised_lr(seen.advice)) < 2 * min(map(final_loss, LRS)) + 1e-3


def test_a_program_that_falls_silent_is_ended(tmp_path: Path) -> None:
    before = "if lr == 0.03: print('so far', flush=True); time.sleep(300)"
    seen = search(program(tmp_path, before=before), finder(tmp_path), stall=1)
    (failed,) = [each for each in seen.ended if each.segment.lr == 0.03 and each.segment.seed == 0]
    assert failed.failure == "the command was stopped: it printed nothing for 1 s (--stall)"


def test_a_command_that_always_fails_alike_is_given_up(whole: Seen, tmp_path: Path) -> None:
    said = r"All of the first 3 segments failed. .* no such file data-0.0[0-9]+\. Fix .* with --retry-failed"
    with pytest.raises(SearchError, match=said):
        search(program(tmp_path, before="sys.exit(f'no such file data-{lr}')"), finder(tmp_path))
    assert len(finder(tmp_path).results) == 3
    # Mended, the search is what it would have been.
    assert len(finder(tmp_path).retry_failed()) == 3
    mended = search(program(tmp_path), finder(tmp_path))
    assert [each.name for each in mended.started] == [each.name for each in whole.started]
    assert mended.advice.statement == whole.advice.statement


def test_what_failed_is_trained_again_though_the_state_before_it_was_deleted(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    command = program(tmp_path, before=f"if lr == 0.03 and start > 0 and os.path.exists({str(broken)!r}): sys.exit(3)")
    first = search(command, finder(tmp_path))
    (failed,) = [each.segment for each in first.ended if each.failure and each.segment.lr == 0.03]
    assert failed.parent is not None
    assert not (tmp_path / "search" / "segments" / failed.parent / "state").exists()
    broken.unlink()
    assert finder(tmp_path).retry_failed() == (failed.name,)
    again = search(command, finder(tmp_path))
    assert again.started[0] == failed
    assert again.ended[0].value == pytest.approx(final_loss(0.03, failed.stop))
    assert {each.segment.name for each in again.finder.results} > {each.segment.name for each in first.ended}


OUT_OF_MEMORY = (
    "raise MemoryError",
    "sys.exit('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB')",
    "print('RESOURCE_EXHAUSTED: Out of memory while trying to allocate', flush=True); os._exit(1)",
    "import signal; os.kill(os.getpid(), signal.SIGKILL)",
    "os._exit(137)",
)


def test_memory_that_does_not_suffice_is_no_verdict_on_an_lr(tmp_path: Path) -> None:
    for ending in OUT_OF_MEMORY:  # in one folder: each search asks for that segment again
        with pytest.raises(SearchError, match=r"lr0\.03-.*ran out of memory.*smaller batch"):
            search(program(tmp_path, before=f"if lr == 0.03: {ending}"), finder(tmp_path))
        assert {each.segment.lr: each.failure for each in finder(tmp_path).results} == {0.003: None, 0.01: None}
    assert search(program(tmp_path), finder(tmp_path)).advice.verdict == "found"


def test_what_ran_out_of_memory_next_to_others_is_trained_alone(tmp_path: Path) -> None:
    # A card with room for one program at a time.
    before = (
        f"card = {str(tmp_path / 'card')!r}\n"
        "try: os.mkdir(card)\n"
        "except FileExistsError: sys.exit('CUDA error: out of memory')\n"
        "time.sleep(0.1)"
    )
    command = program(tmp_path, before=before, after="tell(value=loss); os.rmdir(card)")
    seen = search(command, finder(tmp_path), finder(tmp_path))
    assert not [each for each in seen.ended if each.failure and each.segment.lr < 2]
    (said,) = [notice for notice in seen.notices if "memory" in notice]
    assert "at most 1 run at once" in said


def test_each_program_has_gpus_of_its_own(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    before = f"open({str(seen)!r}, 'a').write(os.environ['CUDA_VISIBLE_DEVICES'] + '\\n'); time.sleep(0.1)"
    find_by_command(program(tmp_path, before=before), [finder(tmp_path), finder(tmp_path)], gpus=("3", "5"))
    assert set(seen.read_text().split()) == {"3", "5"}


def test_a_program_that_is_not_found_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'no-such-program' is not found"):
        search("no-such-program {lr} {final_lr} {checkpoint}", finder(tmp_path))
    assert not finder(tmp_path).results


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan])
def test_limits_must_be_above_zero(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(SpecError, match=r"timeout is .*above 0"):
        search(program(tmp_path), finder(tmp_path), timeout=seconds)


def test_losses_alone_are_taken_and_said_to_be(tmp_path: Path) -> None:
    command = program(tmp_path, after="")
    seen = search(command, finder(tmp_path))
    assert seen.advice.warnings[-1].startswith("The command reported no validation metric")
    first = seen.ended[0]
    tail = [final_loss(first.segment.lr, step) for step in range(1, 6)]
    assert first.segment.stop == 5
    assert first.value == pytest.approx(tail[-1])
    again = search(command, finder(tmp_path))
    assert again.advice.warnings == seen.advice.warnings
    with pytest.raises(SearchError, match=r"The metric is 'loss', but the search in .* began with unnamed"):
        search(command, finder(tmp_path), metric="loss")


def test_losses_do_not_stand_in_for_a_metric_that_is_wanted(tmp_path: Path) -> None:
    command = program(tmp_path, after="")
    with pytest.raises(SearchError, match="reported no 'value'; its records have step, loss"):
        search(command, finder(tmp_path, direction="maximize"))
    with pytest.raises(SearchError, match="reported no 'val_acc'; its records have step, loss"):
        search(command, finder(tmp_path / "named"), metric="val_acc")


def test_a_value_that_is_missing_once_is_a_failure_and_not_replaced_by_a_loss(tmp_path: Path) -> None:
    seen = search(program(tmp_path, after="if lr != 0.03: tell(value=loss)"), finder(tmp_path))
    (failed,) = [each for each in seen.ended if each.segment.lr == 0.03 and each.segment.seed == 0]
    assert failed.failure == "the command reported no 'value'; its records have step, loss (select one with --metric)"


def test_a_named_metric_may_be_better_when_higher(tmp_path: Path) -> None:
    after = "tell(acc=1 - loss, averaged_acc=1 - loss / 2)"
    seen = search(program(tmp_path, after=after), finder(tmp_path, direction="maximize"), metric="acc")
    assert final_loss(advised_lr(seen.advice)) < min(map(final_loss, LRS)) + seen.finder.search.tolerance
    first = seen.ended[0]
    assert first.averaged == pytest.approx(1 - final_loss(first.segment.lr, first.segment.stop) / 2)


def test_the_time_limit_follows_the_pace() -> None:
    def result(stop: int, seconds: float, failure: str | None = None) -> SegmentResult:
        return SegmentResult(
            segment=make_segment(lr=0.1, seed=0, start=0, stop=stop, parent=None),
            value=1.0,
            seconds=seconds,
            failure=failure,
        )

    assert time_limit([], 100) is None
    assert time_limit([result(100, 9.0, "the command …")], 100) is None
    assert time_limit([result(10, 9.0), result(100, 20.0)], 100) == pytest.approx(60 + 200)
    assert time_limit([result(10, 9.0), result(100, 20.0)], 400) == pytest.approx(60 + 800)
    assert time_limit([result(100, 20.0)], 10) == pytest.approx(60 + 200)


def test_an_error_of_the_callers_own_ends_the_search(tmp_path: Path) -> None:
    def ended(_: SegmentResult) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        find_by_command(program(tmp_path), [finder(tmp_path), finder(tmp_path)], ended=ended)


SEARCH = """
import sys
from lratlas.search.program.command import find_by_command
from lratlas.search.finder import Finder
command, folder = sys.argv[1:3]
finders = [Finder(folder, steps=320, lrs={lrs}, budget=0.6) for _ in range(int(sys.argv[3]))]
print(find_by_command(command, finders).lr)
"""


@contextmanager
def started(tmp_path: Path, command: str, workers: int) -> "Generator[subprocess.Popen[str]]":
    """A process that searches, killed on the way out whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-c", SEARCH.format(lrs=LRS), command, str(tmp_path / "search"), str(workers)],
        env=os.environ | {"PYTHONPATH": str(SRC)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def calls(tmp_path: Path) -> list[int]:
    log = tmp_path / "calls"
    return [int(word) for word in log.read_text().split()] if log.exists() else []


def awaited(tmp_path: Path, count: int) -> list[int]:
    end = time.monotonic() + 60  # on a busy machine
    while len(found := calls(tmp_path)) < count:
        assert time.monotonic() < end, found
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_search_loses_no_more_than_the_segment_it_was_at(
    number: signal.Signals, whole: Seen, tmp_path: Path
) -> None:
    log, first = tmp_path / "calls", tmp_path / "first"
    # The tenth call of the first search hangs in the middle of its training, with a state half written.
    before = (
        f"log = open({str(log)!r}, 'a'); log.write(f'{{os.getpid()}}\\n'); log.flush()\n"
        f"if os.path.exists({str(first)!r}) and len(open({str(log)!r}).readlines()) == 10:"
        " open(checkpoint, 'w').write('half'); time.sleep(300)"
    )
    command = program(tmp_path, before=before)
    first.touch()
    with started(tmp_path, command, 1) as process:
        pids = awaited(tmp_path, 10)
        time.sleep(0.2)
        process.send_signal(number)
        process.communicate(timeout=15)
    assert process.returncode != 0
    assert gone([pids[9]])
    told = finder(tmp_path).results
    assert len(told) == 9
    first.unlink()
    seen = search(command, finder(tmp_path))
    assert len(calls(tmp_path)) == len(seen.finder.results) + 1
    assert {each.name for each in seen.started}.isdisjoint(each.segment.name for each in told)
    assert seen.advice.lr == whole.advice.lr


def test_ctrl_c_ends_the_programs_of_all_workers(tmp_path: Path) -> None:
    before = f"open({str(tmp_path / 'calls')!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(300)"
    with started(tmp_path, program(tmp_path, before=before), 2) as process:
        pids = awaited(tmp_path, 2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=15)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert gone(pids)


def test_a_second_ctrl_c_waits_no_longer(tmp_path: Path) -> None:
    before = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(tmp_path / 'calls')!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(300)"
    )
    with started(tmp_path, program(tmp_path, before=before), 1) as process:
        (pid,) = awaited(tmp_path, 1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=5)
    assert gone([pid])
