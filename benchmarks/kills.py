"""Kills the processes of small studies at random moments, resumes them, and compares all tables and weights.

Each study pre-trains, fine-tunes, averages, measures and writes its report; it is killed five times, each time at a
moment that is uniform over what an undisturbed study takes, with SIGKILL: the driver with its workers, the driver
alone, or a worker. Then it is resumed to its end and compared with an undisturbed one, bit for bit but for `seconds`.

    python -m benchmarks.kills [--kills N] [--seed SEED]
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
from polars.testing import assert_frame_equal

from benchmarks.same_tables import weights
from lratlas.atlas import load

KILLS_EACH = 5
SPEC = """
name = "digits"
[task]
preset = "digits"
[pretrain]
lrs = [1e-3, 1e-2, 1e-1]
steps = 600
repeats = 2
[finetune]
lrs = [1e-4, 1e-3]
steps = 100
[average]
counts = [2, 5]
every = 20
extend = true
[measure]
sharpness = true
sharpness_samples = 8
norms = true
[training]
compile = false
strategy = "stack"
stack = 2
segment_steps = 100
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill studies at random moments.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw, done, moments = random.Random(given.seed), 0, Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        (home / "digits.toml").write_text(SPEC)
        began = time.monotonic()
        assert start(home, "whole").wait() == 0
        whole = time.monotonic() - began
        studies = 0
        while done < given.kills:
            studies += 1
            name = f"study-{studies}"
            for _ in range(min(KILLS_EACH, given.kills - done)):
                process = start(home, name)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=draw.uniform(0, whole))
                    break  # it was faster
                moment = moment_of(home / name)
                moments[f"{kill(process, draw)} | {moment}"] += 1
                done += 1
            assert start(home, name).wait() == 0, (home / f"{name}.log").read_text()[-2000:]
            compare(home / "whole", home / name)
            print(f"{done} kills, {studies} studies as the undisturbed one", flush=True)
    rows = [f"| {at} | {count} |" for at, count in sorted(moments.items())]
    print("\n| killed | when | kills |\n|---|---|---|", *rows, sep="\n")


def start(home: Path, name: str) -> "subprocess.Popen[bytes]":
    words = ["explore", str(home / "digits.toml"), "--folder", str(home / name), "--workers", "2"]
    with (home / f"{name}.log").open("ab") as log:
        command = [sys.executable, "-m", "lratlas", *words]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def moment_of(folder: Path) -> str:
    """What the study was at, as far as its files show it."""
    if not (folder / "plan.json").exists():
        return "before the plan was written"
    if (folder / "report.html").exists():
        return "after the report"
    made = {path.name for path in (folder / "tables").glob("*") if any(path.glob("[!.]*.parquet"))}
    if made & {"sharpness", "pairs", "norms"}:
        return "while measuring, or before the report"
    stages = {path.name.split("-")[0] for path in (folder / "tables" / "runs").glob("*.parquet")}
    return f"while training, after {' and '.join(sorted(stages))}" if stages else "in pre-training"


def kill(process: "subprocess.Popen[bytes]", draw: random.Random) -> str:
    """Kill one or all of its processes; then all that is left, so that the study can be resumed at once."""
    kind, workers = draw.choice(["driver and workers", "driver", "worker"]), list[psutil.Process]()
    with suppress(psutil.NoSuchProcess):
        workers = psutil.Process(process.pid).children(recursive=True)
    if kind == "worker" and workers:
        with suppress(psutil.NoSuchProcess):
            draw.choice(workers).kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=draw.uniform(0, 2))
    elif kind == "driver":
        process.kill()
        process.wait()
        time.sleep(draw.uniform(0, 1))
    else:
        kind = "driver and workers"
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return kind


def compare(one: Path, other: Path) -> None:
    """Raises AssertionError where a table or a tensor differs."""
    atlas, again = load(one), load(other)
    for name, table in atlas.tables.items():
        pair = [each.drop("seconds", strict=False) for each in (table, again.tables[name])]
        assert_frame_equal(*pair, check_exact=True)
    assert weights(one) == weights(other)
    checked = subprocess.run([sys.executable, "-m", "lratlas", "verify", str(other)], check=False, capture_output=True)
    assert checked.returncode == 0, checked.stderr.decode()


if __name__ == "__main__":
    main()
