"""Time and memory of the commands that read a study of 20,000 runs, and of a search with 10,000 segments.

The study is synthetic: 200 PLRs and 100 seeds, ten trace rows a run, in 200 parts a table, or in 20,000 (one a run, as
training one by one leaves them). A command runs in a fresh process; the first one that reads many parts remembers them,
so that each is measured twice.

    python -m benchmarks.load [--quick]
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch

import lratlas
from lratlas.config.rules import SphereSGD
from lratlas.config.sections import PretrainSpec, Spec, TaskSpec, TrainingSpec
from lratlas.config.spec import spec_text
from lratlas.study.jobs import Seed
from lratlas.study.plan import plan_text, with_own_versions
from lratlas.study.planning import make_plan
from lratlas.study.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import made_up_rows as rows

POINTS, STEPS = 10, 40_000
COMMAND = """
import resource, sys
from lratlas.cli.app import main
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3, file=sys.stderr)
"""
COMMANDS = ("status {}", "show {} runs --format csv", "show {} regimes", "report {}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Commands on a study of 20,000 runs.")
    parser.add_argument("--quick", action="store_true", help="few runs: does the script work?")
    given = parser.parse_args()
    plrs, seeds, segments = (14, 3, 50) if given.quick else (200, 100, 10_000)
    print("| study | command | wall, s | CPU, s | memory, MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for strategy in ("stack", "single"):
            folder = Path(scratch) / strategy
            parts = write_study(folder, strategy, plrs, seeds)
            for command in COMMANDS:
                for at in ("first", "again"):
                    wall, cpu, memory = run(command.format(folder), cache=Path(scratch) / "cache")
                    what = f"{plrs * seeds:,} runs in {parts:,} parts"
                    print(
                        f"| {what} | {command.format('F')}, {at} | {wall:.1f} | {cpu:.1f} | {memory:.0f} |", flush=True
                    )
        search(Path(scratch) / "search", segments)


def write_study(folder: Path, strategy: str, plrs: int, seeds: int) -> int:
    """Write all that training would have; returns in how many parts a table is."""
    spec = Spec(
        name="many",
        task=TaskSpec(preset="ticks", rule=SphereSGD(name="sphere_sgd", radius=1.0)),
        pretrain=PretrainSpec(lrs=tuple(np.logspace(-4.5, 0, plrs).tolist()), steps=STEPS, repeats=seeds),
        training=TrainingSpec(segment_steps=STEPS),
    )
    plan = make_plan(
        spec,
        [Seed(seed=i, data_seed=1 + i, training_seed=1 + i, fingerprint=f"{i:016x}") for i in range(seeds)],
        steps_per_epoch=rows.EPOCH,
        chance_loss=math.log(2),
        chance_accuracy=0.5,
        elr=True,
        measured={},
        task="MLP on ticks",
        strategy="stack" if strategy == "stack" else "single",
    )
    store, noise = Store.create(folder, spec_text(spec)), np.random.default_rng(7)
    with patch("os.fsync"), patch.object(rows, "_POINTS", POINTS):
        store.write_text("plan.json", plan_text(with_own_versions(plan)))
        for job in plan.trainings:
            runs = rows.run_rows(job, noise)
            store.write_table("traces", f"{job.id}-{job.segments[-1]}", rows.trace_rows(runs, noise))
            store.write_weights(job.id, {f"{run}/weight": torch.zeros(1) for run in runs["run"]})
            store.write_table("runs", job.id, runs)
    return len(plan.trainings)


def run(command: str, *, cache: Path) -> tuple[float, float, float]:
    """Wall time, CPU time and largest memory of a command."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *command.split()],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env=os.environ | {"LRATLAS_CACHE": str(cache)},
    )
    wall = time.perf_counter() - began
    cpu, memory = map(float, done.stderr.splitlines()[-1].split())
    return wall, cpu, memory


def search(folder: Path, segments: int) -> None:
    """Ask and tell until that many segments are known; the last tenth is what counts."""
    finder = lratlas.Finder(folder, steps=100_000, lrs=lratlas.lr_grid(1e-5, 1, per_decade=(segments - 1) // 5))
    noise, asked, recorded = np.random.default_rng(0), list[float](), list[float]()
    for _ in range(segments):
        began = time.perf_counter()
        segment = finder.ask()
        asked.append(time.perf_counter() - began)
        if segment is None:
            break
        value = 1 + 0.1 * (math.log10(segment.lr) + 2) ** 2 + 0.01 * noise.random()
        losses = np.linspace(2.3, value, 64).tolist()
        began = time.perf_counter()
        finder.tell(segment, value=value, losses=losses)
        recorded.append(time.perf_counter() - began)
    print("\n| search | call | median, ms | 99 of 100 below, ms |\n|---|---|---|---|")
    for name, times in (("ask", asked), ("tell", recorded)):
        last = 1e3 * np.array(times[-max(1, segments // 10) :])
        print(f"| {len(recorded):,} segments | {name} | {median(last):.1f} | {np.quantile(last, 0.99):.1f} |")


if __name__ == "__main__":
    main()
