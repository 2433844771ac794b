"""What a job costs besides its own work: many jobs that are done at once, on this machine and on a Ray cluster here.

Prints milliseconds per job; with --json also seconds.

    python benchmarks/scheduling.py [--jobs N] [--workers N] [--no-ray] [--json]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

from lratlas.execute.executors import LocalWorkers
from lratlas.execute.scheduler import execute
from lratlas.study.jobs import Measuring
from lratlas.study.plan import Plan
from lratlas.study.store import Store

ROOT = Path(__file__).parents[1]
MODULE = "benchmarks.instant_worker"


def plan_of(jobs: int) -> Plan:
    """A plan of jobs that need nothing."""
    return Plan(
        strategy="stack",
        dtype="float32",
        device="cpu",
        compiled=False,
        chance_loss=1.0,
        elr=False,
        trainings=(),
        measurements=tuple(Measuring(id=f"norms-{number:06}", measurement="norms") for number in range(jobs)),
    )


def seconds(plan: Plan, *, workers: int, cluster: str | None) -> float:
    """How long all jobs take from the first one on, workers already up."""
    times = list[float]()
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(f"{folder}/study", 'name = "jobs"\n')
        execute(store, plan, workers=workers, cluster=cluster, progress=lambda _: times.append(time.perf_counter()))
    # The first report is that nothing is done, the second that the first jobs were given out.
    return times[-1] - times[1]


def measured(jobs: int, workers: int, *, ray: bool) -> dict[str, float]:
    """Seconds by where the workers were."""
    plan, found = plan_of(jobs), dict[str, float]()
    # A worker does not look for modules in the current folder.
    place = patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])})
    with place, patch("lratlas.execute.scheduler.LocalWorkers", partial(LocalWorkers, module=MODULE)):
        found["this machine"] = seconds(plan, workers=workers, cluster=None)
    if ray:
        from ray.cluster_utils import Cluster

        from lratlas.execute.ray import RayWorkers

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": workers, "include_dashboard": False})
        try:
            with patch("lratlas.execute.ray.RayWorkers", partial(RayWorkers, module=MODULE)):
                found["Ray"] = seconds(plan, workers=workers, cluster=cluster.address)
        finally:
            cluster.shutdown()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What a job costs besides its own work.")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-ray", action="store_true", help="this machine's processes alone")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    found = measured(given.jobs, given.workers, ray=not given.no_ray)
    if given.json:
        print(json.dumps({"jobs": given.jobs, "workers": given.workers, "seconds": found}))
        return
    for where, time_taken in found.items():
        print(
            f"{where:>12}: {1000 * time_taken / given.jobs:.3f} ms a job, {given.jobs:,} jobs, {given.workers} workers"
        )


if __name__ == "__main__":
    main()
