"""How LR Atlas itself behaves as a study grows to a million runs: seconds and memory of what no GPU can do for it.

Seconds are the process's own CPU time, which other work on the machine cannot lengthen much; where a disk takes part,
the time that passed stands next to it. Each measurement has its own process.

- plan: making it, writing it as text, reading that, and working out what is open; the largest memory of the first two;
- reading: the memory of a process that only reads a plan; and planning again, as resuming does;
- names: listing a folder of this many files;
- tables: writing the parts of this many jobs of one run (``runs``, and ``traces`` with 40 rows), and reading both;
- jobs: taking and finishing this many jobs that need one another;
- driver: the same by the whole driver, for 10, 100 and 1,000 workers that are done at once;
- ray: a driver that listens to this many idle workers, each an actor, on a Ray cluster here; CPU ms for a second of it.

Prints a line of JSON for each, as soon as it is measured.

    python benchmarks/scale_code.py [--largest N] [--no-ray] > docs/results/benchmarks/scale_code.jsonl
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

import polars as pl

from benchmarks.processes import processor
from benchmarks.scale_studies import plan_of
from benchmarks.scale_workers import World, simulate
from benchmarks.scheduling import MODULE
from lratlas.execute.scheduler import open_jobs
from lratlas.study.plan import plan_text, read_plan
from lratlas.study.progress import is_done, listing
from lratlas.study.store import Store
from lratlas.tables import SCHEMAS

T = TypeVar("T")
TRACE_ROWS = 40
LISTENED = 10.0  # seconds


class Times(dict[str, float]):
    """Seconds of what was done, by what it was: CPU time, and with ``wall`` also the time that passed."""

    def of(self, name: str, work: Callable[[], T], *, wall: bool = False) -> T:
        cpu, passed = time.process_time(), time.perf_counter()
        done = work()
        self[f"{name}_cpu_s"] = round(time.process_time() - cpu, 4)
        if wall:
            self[f"{name}_wall_s"] = round(time.perf_counter() - passed, 4)
        return done


def plan(study: Any, runs: int) -> dict[str, float]:
    """Making, writing, opening and reading a plan."""
    times = Times()
    text, facts = _made(study, runs, times)  # the plan itself is gone before the text is read
    times.of("read", lambda: read_plan(text, where="plan.json", how=str))
    return {**facts, **times, "text_mb": len(text) / 1e6}


def _made(study: Any, runs: int, times: Times) -> tuple[str, dict[str, float]]:
    """A plan's text, and how much is in it."""
    made = times.of("make", lambda: plan_of(study, runs))
    text = times.of("write", lambda: plan_text(made))
    peak, names = _peak(), {job.id for job in made.jobs}
    times.of("open", lambda: open_jobs(made, names))
    return text, {"runs": len(made.holders()), "jobs": len(names), "peak_mb": peak}


def reading(study: Any, runs: int) -> dict[str, float]:
    """What a process needs that only reads the plan, as a worker does; and planning it again, as resuming does."""
    code = "import sys; from benchmarks.scale_studies import *; from lratlas.study.plan import plan_text; "
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        write = f"{code}open(sys.argv[1], 'w').write(plan_text(plan_of({study!r}, {runs})))"
        subprocess.run([sys.executable, "-c", write, str(path)], check=True, cwd=Path(__file__).parents[1])
        before, times = _peak(), Times()
        old = times.of("read", lambda: read_plan(path.read_text(), where="plan.json", how=str))
        peak = _peak()
    again = times.of("plan_again", lambda: plan_of(study, runs, old=old))
    assert again == old
    return {**times, "before_mb": before, "peak_mb": peak}


def names(files: int) -> dict[str, float]:
    """Listing a folder of a table."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(f"{folder}/study", 'name = "names"\n')
        runs = Path(folder) / "study/tables/runs"
        runs.mkdir(parents=True)
        for number in range(files):
            (runs / f"pretrain-{number:016x}.parquet").touch()
        times = Times()
        times.of("list", lambda: store.parts("runs"), wall=True)
    return times


def tables(jobs: int) -> dict[str, float]:
    """Writing and reading the tables of jobs of one run each."""
    run, trace = _row("runs", 1), _row("traces", TRACE_ROWS)
    with tempfile.TemporaryDirectory() as folder:
        store, times = Store.create(f"{folder}/study", 'name = "tables"\n'), Times()

        def write() -> None:
            for number in range(jobs):
                store.write_table("runs", f"pretrain-{number:016x}", run.with_columns(run=pl.lit(f"{number:016x}")))
                store.write_table("traces", f"pretrain-{number:016x}-100", trace)

        times.of("write", write, wall=True)
        times.of("read_runs", lambda: store.read_table("runs"), wall=True)
        times.of("read_traces", lambda: store.read_table("traces"), wall=True)
    return times


def jobs(runs: int) -> dict[str, float]:
    """Bookkeeping of open jobs."""
    made, times = plan_of("resnet", runs), Times()
    left = times.of("open", lambda: open_jobs(made, {job.id for job in made.jobs}))

    def work() -> None:
        while job := left.take():
            left.finish(job)

    times.of("work", work)
    assert not left.jobs
    return {"jobs": len(made.jobs), **times, "us_a_job": 1e6 * times["work_cpu_s"] / len(made.jobs)}


def driver(runs: int, workers: int) -> dict[str, float]:
    """The whole driver, workers done at once."""
    made, times = plan_of("resnet", runs), Times()
    # Not quite at once, or one worker would do everything.
    world = World(workers=workers, seconds=dict.fromkeys((job.id for job in made.jobs), 1.0))
    outcome = times.of("work", lambda: simulate(made, world))
    assert not outcome.undone
    return {"jobs": len(made.jobs), **times, "us_a_job": 1e6 * times["work_cpu_s"] / len(made.jobs)}


def ray(workers: int) -> dict[str, float]:
    """A driver that listens to idle workers on a Ray cluster of this machine."""
    from ray.cluster_utils import Cluster

    from lratlas.execute.ray import RayWorkers

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": workers, "include_dashboard": False})
    try:
        with RayWorkers(address=str(cluster.address), most=workers, first={}, module=MODULE) as there:
            ready = 0
            while ready < workers:
                heard = there.listen(60.0)
                ready += bool(heard and heard[1].get("ready"))
            there.listen(2.0)
            times = Times()
            times.of("listen", lambda: there.listen(LISTENED), wall=True)
    finally:
        cluster.shutdown()
    return {**times, "ms_a_worker_second": 1e3 * times["listen_cpu_s"] / times["listen_wall_s"] / workers}


def done(runs: int) -> dict[str, float]:
    """Which jobs of a plan are done, asked of a folder that holds none."""
    made, times = plan_of("resnet", runs), Times()
    with tempfile.TemporaryDirectory() as folder:
        there = listing(Store.create(f"{folder}/study", 'name = "done"\n'))
        times.of("ask", lambda: [job for job in made.jobs if is_done(there, job)])
    return {"jobs": len(made.jobs), **times}


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    each.__name__: each for each in (plan, reading, names, tables, jobs, done, driver, ray)
}


def cases(largest: int, *, with_ray: bool) -> list[tuple[str, *tuple[Any, ...]]]:
    """What is measured: name and arguments."""
    sizes = [largest // 100, largest // 10, largest]
    return [
        *(("driver", largest // 25, workers) for workers in (10, 100, 1000)),
        *(("ray", workers) for workers in (4, 8, 16) if with_ray),
        *(("jobs", size) for size in sizes[:2]),
        *(("done", size) for size in sizes[:2]),
        *(("tables", size // 10) for size in sizes[:2]),
        *(("names", size) for size in sizes),
        *(("plan", "mlp", size) for size in sizes),
        *(("reading", "resnet", size) for size in sizes[:2]),
        *(("plan", "resnet", size) for size in sizes),
    ]


def _row(table: str, rows: int) -> pl.DataFrame:
    values: dict[type[pl.DataType], object] = {
        pl.String: "0" * 16,
        pl.Float64: 0.1234567,
        pl.Int64: 1,
        pl.Boolean: False,
    }
    columns = {name: [values[kind.base_type()]] * rows for name, kind in SCHEMAS[table].items()}
    return pl.DataFrame(columns, schema=SCHEMAS[table])


def _peak() -> float:
    """Largest resident memory of this process so far, MB."""
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How LR Atlas itself behaves as a study grows.")
    parser.add_argument("--largest", type=int, default=1_000_000, help="runs of the largest study")
    parser.add_argument("--no-ray", action="store_true", help="leave out what needs Ray")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        name, *values = given.measure
        print(json.dumps(MEASURES[name](*values)))
        return
    print(json.dumps({"processor": processor(), "python": platform.python_version()}), flush=True)
    for name, *values in cases(given.largest, with_ray=not given.no_ray):
        print(name, *values, file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--measure", json.dumps([name, *values])]
        found = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
        print(json.dumps({"what": name, "case": values, **json.loads(found.stdout.splitlines()[-1])}), flush=True)


if __name__ == "__main__":
    main()
