"""What the jobs of studies took that are done: seconds by kind of job, bytes of a part of a table and of a model.

The studies must have been done in one session by one worker; they need not be finished. A training job's time is
what its table of runs says; that of a measurement is the time from the last file of the job before it to its own.

    lratlas reproduce digits --workers 1 --folder digits
    lratlas explore benchmarks/scale_ticks.toml --workers 1 --folder ticks
    python benchmarks/scale_folders.py digits ticks > docs/results/benchmarks/scale_folders.json
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import polars as pl

from benchmarks.processes import processor
from benchmarks.scale_assumed import models_in
from lratlas.study.jobs import Job, Training
from lratlas.study.plan import read_plan
from lratlas.study.progress import kind_of, table_of
from lratlas.study.store import Store
from lratlas.tables import SCHEMAS


def measured(folder: Path) -> dict[str, Any]:
    """The times and sizes of a study."""
    store = Store.open(folder)
    plan = read_plan(store.read_text("plan.json"), where="plan.json", how=str)
    runs = store.read_table("runs")
    done = [job for job in plan.jobs if _last(folder, job).exists()]
    took, kinds = _took(folder, done, runs), defaultdict[str, list[Job]](list)
    for job in done:
        kinds[kind_of(job)].append(job)
    trained = [job for job in done if isinstance(job, Training)]
    size = {job.id: models_in(job) for job in trained}
    parts = {table: [path.stat().st_size for path in folder.glob(f"tables/{table}/*.parquet")] for table in SCHEMAS}
    weights = sum((folder / "checkpoints" / f"{job.id}.safetensors").stat().st_size for job in trained)
    return {
        "strategy": plan.strategy,
        "runs": len(runs),
        "run_steps": sum(job.work for job in trained),
        "bytes_a_part": {table: round(sum(sizes) / len(sizes)) for table, sizes in parts.items() if sizes},
        "bytes_a_model": round(weights / sum(size.values())),
        "kinds": {kind: _kind(jobs, took, size) for kind, jobs in kinds.items()},
    }


def _last(folder: Path, job: Job) -> Path:
    """The file that a job writes last."""
    table = "runs" if isinstance(job, Training) else table_of(job)
    return folder / "tables" / table / f"{job.id}.parquet"


def _took(folder: Path, done: Sequence[Job], runs: pl.DataFrame) -> dict[str, float]:
    """Seconds of each job."""
    ended = sorted((_last(folder, job).stat().st_mtime, job.id) for job in done)
    took = {job: end - before for (before, _), (end, job) in pairwise(ended)}
    seconds = dict(runs.select("run", "seconds").iter_rows())
    for job in done:
        if not isinstance(job, Training):
            continue
        averages = job.average.runs if job.average and job.stage == "average" else (job.runs,)
        took[job.id] = sum(seconds[run] for grid in averages for row in grid for run in row)
    return took


def _kind(jobs: Sequence[Job], took: Mapping[str, float], size: Mapping[str, int]) -> dict[str, Any]:
    """What jobs of a kind took; a unit is a run-step of a training, a model of a measurement."""
    seconds = [round(took[job.id], 4) for job in jobs]
    units = sum(job.work if isinstance(job, Training) else size.get(job.training or "", 1) for job in jobs)
    return {"jobs": len(jobs), "seconds": seconds, "seconds_a_unit": sum(seconds) / units}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What the jobs of finished studies took.")
    parser.add_argument("folders", nargs="+", type=Path)
    given = parser.parse_args(arguments)
    studies = {folder.name: measured(folder) for folder in given.folders}
    print(json.dumps({"processor": processor(), "studies": studies}, indent=1))


if __name__ == "__main__":
    main()
