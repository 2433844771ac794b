"""One study and many faults, in an order drawn at random: it ends with the tables of an undisturbed one.

``FAULTS`` in the environment says how many; `make chaos` does thirty.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from lratlas.atlas import load

FAULTS = int(os.environ.get("FAULTS", "2"))
SPEC = f"""
name = "digits"
[task]
preset = "digits"
[pretrain]
lrs = [1e-3, 1e-2]
steps = {150 * FAULTS}
repeats = 2
[finetune]
lrs = [1e-3]
steps = 60
[average]
counts = [2, 5]
every = 10
[measure]
sharpness = {str(FAULTS > 2).lower()}
sharpness_samples = 16
[trace]
points = {5 * FAULTS}
[training]
compile = false
strategy = "stack"
stack = 2
segment_steps = 25
"""
# Where a file says so, the disk is full: every write ends in the error that the system would raise.
FULL_DISK = """
import errno, os
fsync = os.fsync
def full(descriptor):
    if os.path.exists({flag!r}):
        raise OSError(errno.ENOSPC, "No space left on device")
    fsync(descriptor)
os.fsync = full
"""


class Chaos:
    """The study, the process that works on it, and what befalls them."""

    def __init__(self, home: Path, draw: random.Random) -> None:
        self.folder, self.full, self.draw = home / "study", home / "full", draw
        self._spec, self._log = home / "digits.toml", home / "log"
        self._spec.write_text(SPEC)
        (home / "site").mkdir()
        (home / "site" / "sitecustomize.py").write_text(FULL_DISK.format(flag=str(self.full)))
        self._environment = os.environ | {"PYTHONPATH": str(home / "site")}
        self._driver = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        words = ["explore", str(self._spec), "--folder", str(self.folder), "--workers", "2"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "lratlas", *words],
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def go_on(self) -> None:
        """See that a driver is at work, and let it do a little."""
        if self._driver.poll() is not None:
            self._driver = self._started()
        before = self.parts()
        end = time.monotonic() + 30
        while self._driver.poll() is None and not self.parts() - before and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(self.draw.uniform(0, 0.3))

    def parts(self) -> set[str]:
        return {str(path) for path in self.folder.glob("tables/*/[!.]*")}

    def workers(self) -> list[int]:
        done = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._driver.pid)], capture_output=True, encoding="utf-8", check=False
        )
        return [int(word) for word in done.stdout.split()]

    def a_worker_is_killed(self) -> None:
        with suppress(ProcessLookupError, IndexError):
            os.kill(self.draw.choice(self.workers()), signal.SIGKILL)

    def the_driver_is_killed(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._driver.pid, signal.SIGKILL)
        self._driver.wait()

    def a_file_is_cut_short(self) -> None:
        self.the_driver_is_killed()
        files = [path for path in self.folder.glob("*/**/[!.]*") if path.is_file() and "damaged" not in path.parts]
        path = self.draw.choice(sorted(files)) if files else self.folder / "plan.json"
        data = path.read_bytes()
        path.write_bytes(data[: self.draw.randrange(len(data))])
        self._driver = self._started()  # the one before may have come to the end

    def the_disk_is_full_for_a_while(self) -> None:
        self.full.touch()
        time.sleep(self.draw.uniform(0.5, 3))
        self.full.unlink()

    def another_driver_comes(self) -> None:
        other = self._started()
        time.sleep(self.draw.uniform(1, 5))
        with suppress(ProcessLookupError):
            os.killpg(self.draw.choice([self._driver, other]).pid, signal.SIGKILL)
        self._driver.poll()
        if self._driver.returncode is not None:
            self._driver = other
        else:
            self._driver.wait()
            other.kill()
            other.wait()

    def finish(self) -> None:
        """Let the study come to its end, as often as it has to be started."""
        for _ in range(3):
            if self._driver.wait(timeout=300) == 0:
                break
            self._driver = self._started()
        assert self._driver.returncode == 0, self._log.read_text()[-2000:]

    def end(self) -> None:
        self.the_driver_is_killed()


@pytest.mark.long
def test_whatever_happens_a_study_ends_with_the_tables_of_an_undisturbed_one(tmp_path: Path):
    whole = tmp_path / "whole"
    (tmp_path / "whole.toml").write_text(SPEC)
    words = ["explore", str(tmp_path / "whole.toml"), "--folder", str(whole), "--workers", "2"]
    subprocess.run([sys.executable, "-m", "lratlas", *words], check=True, capture_output=True)
    seed = random.SystemRandom().randrange(10**6)
    print(f"{FAULTS} faults, drawn with seed {seed}")  # noqa: T201 - shown by pytest where the test fails
    draw, home = random.Random(seed), tmp_path / "chaos"
    home.mkdir()
    chaos = Chaos(home, draw)
    kinds: list[Callable[[], None]] = [
        chaos.a_worker_is_killed,
        chaos.the_driver_is_killed,
        chaos.a_file_is_cut_short,
        chaos.the_disk_is_full_for_a_while,
        chaos.another_driver_comes,
    ]
    draw.shuffle(kinds)
    faults = [kinds[number % len(kinds)] for number in range(FAULTS)]
    try:
        for fault in faults:
            chaos.go_on()
            print(f"{time.monotonic():.1f}: {fault.__name__.replace('_', ' ')}")  # noqa: T201
            fault()
        chaos.finish()
    finally:
        chaos.end()
    one, other = load(whole), load(chaos.folder)
    for name, table in one.tables.items():
        pair: list[Any] = [each.drop("seconds", strict=False) for each in (table, other.table(name))]
        assert_frame_equal(*pair, check_exact=True)
    checked = subprocess.run([sys.executable, "-m", "lratlas", "verify", str(chaos.folder)], check=False)
    assert checked.returncode == 0


def test_the_disk_of_the_test_is_full_when_it_is_told_to_be(tmp_path: Path):
    flag = tmp_path / "full"
    code = FULL_DISK.format(flag=str(flag)) + "\nimport sys; file = open(sys.argv[1], 'w'); os.fsync(file.fileno())"
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "file")]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    flag.touch()
    assert b"No space left" in subprocess.run(command, check=False, capture_output=True).stderr
