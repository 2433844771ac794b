"""Whatever kills a study at whatever moment: `lratlas resume` ends with the bits of a study never interrupted."""

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from cheaper import unfigured, workerless
from lratlas import explore
from lratlas.atlas import load
from lratlas.tables import SCHEMAS
from study.running import LONG, files, group, kept_part_way, ran_here, started, under_way, wait_until

pytestmark = pytest.mark.xdist_group("resume")  # the whole study is made once

SPEC = """
name = "digits"
[task]
preset = "digits"
[pretrain]
lrs = [1e-3, 1e-2, 1e-1]
steps = 100
[second]
plrs = [1e-1]
lrs = [1e-2]
steps = 50
[finetune]
lrs = [1e-3, 1e-2]
steps = 50
[average]
counts = [2, 5]
every = 10
[trace]
points = 10
[measure]
interpolation = 5
convergence = true
norms = true
[training]
compile = false
strategy = "stack"
stack = 3
segment_steps = 25
"""
KILLS = 2  # the first as soon as there is a study; `make chaos` has many more


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "digits.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def whole(spec: Path) -> Path:
    """The folder of the study, never interrupted, made by a single process."""
    folder = spec.parent / "whole"
    with workerless(), unfigured():
        explore(spec, folder=folder)
    return folder


def parts(folder: Path) -> dict[str, tuple[bytes, int]]:
    """The parts of the table of runs with their content and the time of their last change."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (folder / "tables/runs").iterdir()}


def assert_same_tables(folder: Path, other: Path) -> None:
    one, two = load(folder), load(other)
    assert len(one.table("runs")) == 3 * (1 + 2 + 2) + 1 + 2  # the last with a second PLR
    for name in SCHEMAS:
        tables = [each.table(name).drop("seconds", strict=False) for each in (one, two)]
        assert_frame_equal(*tables, check_exact=True)


def test_killed_again_and_again_a_study_ends_with_the_same_bits(spec: Path, whole: Path, tmp_path: Path):
    seed = random.SystemRandom().randrange(10**6)
    print(f"moments drawn with seed {seed}")  # noqa: T201 - shown by pytest where the test fails
    draw, folder, kept = random.Random(seed), tmp_path / "study", set[str]()
    for number in range(KILLS):
        begun = (folder / "spec.toml").exists()
        words = ("resume", folder) if begun else ("explore", spec, "--folder", folder)
        with started(*words, "--workers", 1 + number % 2) as process:
            if not begun:
                wait_until((folder / "spec.toml").exists, within=60)
            else:
                wait_for_files(folder, draw.randint(4, 18))
                time.sleep(draw.uniform(0, 0.05))
            assert process.poll() is None
            os.killpg(process.pid, signal.SIGKILL)
            wait_until(lambda leader=process.pid: not group(leader), within=10)
        left = {name for name in files(folder) if name.startswith("tables/")}
        assert kept <= left
        kept = left
    assert kept
    with unfigured():
        assert ran_here("resume", folder, "--workers", 1)[::2] == (0, "")
    assert_same_tables(folder, whole)


def wait_for_files(folder: Path, count: int) -> None:
    """Wait until a study has got ``count`` files that it had not, some of which may be gone again."""
    before, seen = files(folder), set[str]()

    def enough() -> bool:
        seen.update(files(folder) - before)
        return len(seen) >= count

    wait_until(enough, within=300)


def test_resuming_a_finished_study_changes_nothing(whole: Path):
    before = parts(whole)
    assert ran_here("resume", whole)[::2] == (0, "")
    assert parts(whole) == before


@pytest.mark.parametrize(
    ("number", "alone", "workers", "code", "word"),
    [
        (signal.SIGTERM, True, 1, 143, "terminated"),
        (signal.SIGINT, False, 1, 130, "interrupted"),
        (signal.SIGKILL, True, 1, -9, None),
    ],
    ids=["SIGTERM", "SIGINT to all, as Ctrl-C", "SIGKILL"],
)
def test_the_end_of_the_driver_is_the_end_of_its_workers(
    number: signal.Signals, alone: bool, workers: int, code: int, word: str | None, tmp_path: Path
):
    folder, spec = tmp_path / "study", tmp_path / "long.toml"
    spec.write_text(LONG)
    with started("explore", spec, "--folder", folder, "--workers", workers) as process:
        under_way(folder, workers=workers)
        assert len(group(process.pid)) == 1 + workers
        (os.kill if alone else os.killpg)(process.pid, number)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == code
        wait_until(lambda: not group(process.pid), within=10)
    # On a request to end, workers keep their stacks in the middle of a segment, if they are not just at the end of one.
    assert bool(kept_part_way(folder)) == (number == signal.SIGTERM)
    assert word is None or re.search(
        rf"lratlas: {word}; no result is lost: run the same command again to resume", errors
    )
    assert "Traceback" not in errors
