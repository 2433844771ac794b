import math
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lratlas.search.program import output
from lratlas.search.program.process import Limits, Stop, Stopped
from lratlas.search.program.segment import TrainedSegment, train_segment
from lratlas.search.program.template import placeholders
from lratlas.search.segments import Segment, make_segment
from search.command_helpers import program

FIRST = make_segment(lr=0.25, seed=0, start=0, stop=64, parent=None)
NEXT = make_segment(lr=0.25, seed=0, start=64, stop=128, parent=FIRST.name)
BRANCH = make_segment(lr=0.25, seed=0, start=64, stop=80, parent=FIRST.name, anneal_from=64)

Train = Callable[..., TrainedSegment]


@pytest.fixture
def trained(tmp_path: Path) -> Train:
    def train(
        command: str,
        piece: Segment = FIRST,
        *,
        metric: str = "value",
        is_continued: bool = True,
        timeout: float | None = 20,
        stop: Stop | None = None,
    ) -> TrainedSegment:
        return train_segment(
            piece,
            template=placeholders(command),
            root=tmp_path / "search",
            metric=metric,
            is_continued=is_continued,
            limits=Limits(timeout=timeout, stall=None),
            stop=stop or Stop(),
        )

    return train


def parabola(lrs: list[float]) -> list[float]:
    """The losses of the program, computed here."""
    weight, losses = 1.0, list[float]()
    for step, lr in enumerate(lrs):
        weight -= lr * (weight + 0.1 * math.cos(12.9898 * step))
        losses.append(weight * weight / 2)
    return losses


def state(tmp_path: Path, piece: Segment) -> Path:
    return tmp_path / "search" / "segments" / piece.name / "state" / "checkpoint"


def test_segments_go_on_from_their_parents_state(trained: Train, tmp_path: Path) -> None:
    command = program(tmp_path)
    first, following, branch = (trained(command, piece) for piece in (FIRST, NEXT, BRANCH))
    constant = parabola([0.25] * 128)
    assert first.losses == pytest.approx(constant[:64])
    assert following.losses == pytest.approx(constant[64:])
    assert branch.losses == pytest.approx(parabola([0.25] * 64 + [0.25 * (16 - i) / 16 for i in range(16)])[64:])
    assert following.value == following.averaged == pytest.approx(constant[-1])
    assert {each.failure for each in (first, following, branch)} == {None}
    # Two segments branch from the same state, and it is as it was.
    assert state(tmp_path, FIRST).read_text().startswith("64 ")


def test_an_attempt_that_was_cut_off_leaves_nothing_behind(trained: Train, tmp_path: Path) -> None:
    state(tmp_path, FIRST).parent.mkdir(parents=True)
    state(tmp_path, FIRST).write_text("half of a stat")
    assert trained(program(tmp_path)).failure is None
    assert [path.name for path in (tmp_path / "search" / "segments").iterdir()] == [FIRST.name]


def test_state_may_be_a_folder_or_files_with_endings(trained: Train) -> None:
    script = (
        "[ {start} = 0 ] || [ -e '{checkpoint}.pt' -a -e '{checkpoint}/part' ] || exit 3;"
        " mkdir -p '{checkpoint}'; echo {stop} > '{checkpoint}/part'; echo {lr} > '{checkpoint}.pt';"
        """ echo '{"value": 1}'"""
    )
    for piece in (FIRST, NEXT):
        assert trained(f"sh -c {shlex.quote(script)}", piece).failure is None


def test_the_environment_says_the_same(trained: Train, tmp_path: Path) -> None:
    script = (
        'echo "$LRATLAS_LR $LRATLAS_STEPS $LRATLAS_START" > "$LRATLAS_CHECKPOINT";'
        ' echo "{\\"value\\": $LRATLAS_STOP}" >> "$LRATLAS_OUTPUT"'
    )
    (tmp_path / "train.sh").write_text(script)
    assert trained(f"sh '{tmp_path}/train.sh' {{lr}}").value == 64
    assert state(tmp_path, FIRST).read_text() == "0.25 64 0\n"


@pytest.mark.parametrize(
    ("lines", "failure"),
    [
        ({"before": "raise ValueError('no such\\nthing')"}, "exited with code 1: .*ValueError: no such; thing"),
        ({"before": "print('all is lost'); sys.exit(7)"}, "exited with code 7: all is lost"),
        ({"before": "os._exit(5)"}, "exited with code 5$"),
        ({"before": "os.kill(os.getpid(), 9)"}, "stopped by SIGKILL .out of memory, perhaps.$"),
        ({"before": "os.abort()"}, "stopped by SIGABRT"),
        ({"before": "time.sleep(60)"}, "the command was stopped: it was not finished after 0.5 s"),
        ({"after": "os.remove(checkpoint); print('{\"value\": 1}')"}, "saved no checkpoint"),
        (
            {"inside": "sys.stdout.buffer.write(b'\\x00\\xff garbage\\n'); continue", "after": ""},
            "reported no 'value'; it printed no JSON",
        ),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_named(lines: dict[str, str], failure: str, trained: Train, tmp_path: Path) -> None:
    found = trained(program(tmp_path, **lines), timeout=0.5)
    assert found.failure is not None
    assert re.search(failure, found.failure), found.failure


@pytest.mark.parametrize(
    ("lines", "out"),
    [
        ({"before": "raise MemoryError"}, True),
        ({"before": "print('std::bad_alloc'); sys.exit(1)"}, True),
        ({"before": "print('oom-kill event', file=sys.stderr); sys.exit(1)"}, True),
        ({"before": "raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. ')"}, True),
        ({"before": "os.kill(os.getpid(), 9)"}, True),
        ({"before": "raise ValueError('too large')"}, False),
        ({"before": "os.abort()"}, False),
        ({"before": "print('out of memory, in words only')"}, False),
        ({"before": "time.sleep(60)"}, False),  # ended from here, by a SIGTERM
        ({"before": "print('out of memory')", "inside": "loss = math.nan"}, False),  # a verdict on the LR
    ],
)
def test_whether_memory_was_out_is_seen(lines: dict[str, str], out: bool, trained: Train, tmp_path: Path) -> None:
    assert trained(program(tmp_path, **lines), timeout=1).out_of_memory is out


def test_a_state_that_is_not_saved_again_is_a_failure(trained: Train, tmp_path: Path) -> None:
    assert trained(program(tmp_path)).failure is None
    script = """test -e '{checkpoint}' && echo '{"value": {lr}}'"""
    command = f"sh -c {shlex.quote(script)}"
    assert "saved no checkpoint" in str(trained(command, NEXT).failure)
    assert trained(command, BRANCH, is_continued=False).failure is None


def test_a_parents_state_that_is_gone_is_named(trained: Train, tmp_path: Path) -> None:
    assert trained(program(tmp_path), NEXT).failure == f"the saved state of {FIRST.name} is missing"


def test_nan_ends_the_program_and_is_no_fault_of_the_command(trained: Train, tmp_path: Path) -> None:
    began = time.monotonic()
    found = trained(program(tmp_path, inside="loss = math.nan if step >= 9 else loss; time.sleep(3 * (step > 12))"))
    assert time.monotonic() - began < 3
    assert found.failure == "the loss was not finite (nan) at step 10"
    assert len(found.losses) == 10
    assert math.isnan(found.losses[-1])
    crash = trained(program(tmp_path, inside='if step == 5: print(\'{"loss": Infinity, "step": 6}\'); sys.exit(1)'))
    assert crash.failure == "the loss was not finite (inf) at step 6"
    value = trained(program(tmp_path, after="print('{\"value\": NaN}')"))
    assert value.failure == "the value was not finite (nan)"


def test_a_single_nan_in_a_training_that_ends_well_is_left_out(trained: Train, tmp_path: Path) -> None:
    found = trained(program(tmp_path, inside="if step == 5: print('{\"loss\": NaN}'); continue"))
    assert found.failure is None
    assert len(found.losses) == 63
    assert all(map(math.isfinite, found.losses))


def test_losses_without_a_value_are_no_failure_yet(trained: Train, tmp_path: Path) -> None:
    found = trained(program(tmp_path, after=""))
    assert (found.failure, found.value) == (None, None)
    assert found.names == ("step", "loss")


def test_a_program_that_vanished_is_named(trained: Train, tmp_path: Path) -> None:
    failure = trained(f"'{tmp_path}/gone' {{lr}}").failure
    assert failure is not None
    assert failure.startswith("the command could not be started: [Errno 2]")


def test_a_request_to_stop_is_raised(trained: Train, tmp_path: Path) -> None:
    stop = Stop()
    stop.asked.set()
    with pytest.raises(Stopped):
        trained(program(tmp_path, before="time.sleep(60)"), stop=stop)


def test_of_what_a_program_prints_only_the_beginning_and_the_end_stay_on_disk(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LONGEST_FILE", 1 << 18)
    monkeypatch.setattr(output, "KEPT_END", 1 << 14)
    before = """
for at in range(60):
    print(f"line {at} " + "x" * 40_000, flush=True)
    print("warning " * 5_000, file=sys.stderr, flush=True)
    time.sleep(0.02)
"""
    found = trained(program(tmp_path, before=before), FIRST)
    assert (found.failure, found.value) == (None, pytest.approx(parabola([0.25] * 64)[-1]))
    for name in ("stdout.txt", "stderr.txt"):
        path = tmp_path / "search" / "segments" / FIRST.name / name
        assert path.stat().st_size < 60 * 40_000 / 2
        assert path.read_text().count("the middle of this output was left out") >= 1
    said = (tmp_path / "search" / "segments" / FIRST.name / "stdout.txt").read_text()
    assert said.startswith("line 0 x")
    assert '"value"' in said.splitlines()[-1]
