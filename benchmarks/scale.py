"""A million runs on a thousand GPUs, simulated: time, load of the GPUs, files on the disk.

The real planner plans the study and the real driver feeds simulated workers (`scale_workers.py`), in simulated time.
What a job takes is assumed from measured figures (`scale_assumed.py`); what LR Atlas itself takes was measured
(`scale_code.py`). The same every time. Prints tables in Markdown; with --write also the files in
docs/results/benchmarks.

    python benchmarks/scale.py [--runs N] [--varied N] [--write]
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.scale_assumed import left_by, seconds_of
from benchmarks.scale_studies import Name, plan_of
from benchmarks.scale_workers import Outcome, World, simulate
from lratlas.study.plan import Plan

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "benchmarks"
WORKERS = 1000
START = 60.0  # seconds in which a worker imports, reads the plan and compiles: assumed
PER_JOB = 2.8e-3  # of the driver on Ray: benchmarks/scheduling.py
BETWEEN_FAILURES = 1000 * 3600.0  # of a worker: assumed
NAMES: tuple[Name, ...] = ("mlp", "resnet")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One simulation: what is changed, and what is then assumed."""

    change: str
    speed: float = 1.0
    workers: int = WORKERS
    per_job: float = PER_JOB
    between_failures: float | None = BETWEEN_FAILURES


BASE = Case(change="none")
VARIED = (
    BASE,
    replace(BASE, change="GPUs 4 times slower", speed=0.25),
    replace(BASE, change="GPUs 4 times faster", speed=4.0),
    replace(BASE, change="a job costs the driver 4 times as much", per_job=4 * PER_JOB),
    replace(BASE, change="no failures", between_failures=None),
    replace(BASE, change="ten times as many failures", between_failures=BETWEEN_FAILURES / 10),
    replace(BASE, change="4,000 GPUs", workers=4000),
)


def outcome(plan: Plan, case: Case, name: Name, measured: Any) -> Outcome:
    """What a case comes to."""
    world = World(
        workers=case.workers,
        seconds=seconds_of(name, plan, measured, speed=case.speed),
        segments={job.id: len(job.segments) for job in plan.trainings},
        start=START,
        per_job=case.per_job,
        between_failures=case.between_failures,
    )
    return simulate(plan, world)


def simulated(name: Name, runs: int, cases: Sequence[Case], measured: Any) -> Iterator[dict[str, Any]]:
    """A row for each case."""
    plan = plan_of(name, runs)
    facts = {"study": name, "runs": len(plan.holders()), "jobs": len(plan.jobs)}
    for case in cases:
        found = outcome(plan, case, name, measured)
        print(f"{name}, {case.change}: {found.makespan / 3600:.1f} h", file=sys.stderr, flush=True)
        yield {**facts, **asdict(case), **asdict(found)}


def stored(name: Name, runs: int, measured: Any, *, segment_steps: int | None = None) -> dict[str, Any]:
    """What a study leaves on the disk."""
    plan = plan_of(name, runs, segment_steps=segment_steps)
    return {"study": name, "segment_steps": segment_steps or 5000, **asdict(left_by(name, plan, measured))}


def results(runs: int, varied: int, measured: Any) -> dict[str, list[dict[str, Any]]]:
    """All rows."""
    return {
        "whole": [row for name in NAMES for row in simulated(name, runs, [BASE], measured)],
        "varied": [row for name in NAMES for row in simulated(name, varied, VARIED, measured)],
        "stored": [
            *(stored(name, runs, measured) for name in NAMES),
            stored("resnet", runs, measured, segment_steps=100_000),
        ],
    }


def page(found: dict[str, list[dict[str, Any]]], *, runs: int, varied: int) -> str:
    """The tables, in Markdown."""
    return "\n\n".join(
        [
            "# A million runs on a thousand GPUs, simulated",
            f"```sh\npython benchmarks/scale.py --runs {runs} --varied {varied} --write\n```",
            "Simulated, not run; [assumptions and consequences](../../scale.md).",
            "## The whole study",
            _outcomes(found["whole"]),
            "## Sensitivity to the assumptions",
            _outcomes(found["varied"]),
            "## Files on the disk",
            _stored(found["stored"]),
        ]
    )


def _outcomes(rows: Sequence[dict[str, Any]]) -> str:
    head = "study | runs | jobs | changed | hours | GPUs busy | waiting | lost | driver busy | failures | not done"
    return _table(
        head.split(" | "),
        [
            [
                row["study"],
                f"{row['runs']:,}",
                f"{row['jobs']:,}",
                row["change"],
                f"{row['makespan'] / 3600:.1f}",
                *(f"{row[part] / row['makespan'] / row['workers']:.1%}" for part in ("useful", "waiting", "lost")),
                f"{row['driver'] / row['makespan']:.1%}",
                f"{row['failures']:,}",
                f"{row['undone']:,}",
            ]
            for row in rows
        ],
    )


def _stored(rows: Sequence[dict[str, Any]]) -> str:
    head = ("study", "steps of a segment", "parts of tables", "GB", "weights, files", "TB", "removed on the way", "TB")
    return _table(
        head,
        [
            [
                row["study"],
                f"{row['segment_steps']:,}",
                f"{row['table_files']:,}",
                f"{row['table_bytes'] / 1e9:.1f}",
                f"{row['weight_files']:,}",
                f"{row['weight_bytes'] / 1e12:.3g}",
                f"{row['segment_files']:,}",
                f"{row['segment_bytes'] / 1e12:.3g}",
            ]
            for row in rows
        ],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A million runs on a thousand GPUs, simulated.")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--varied", type=int, default=200_000, help="runs where assumptions are varied")
    parser.add_argument("--write", action="store_true", help="write the files in docs/results/benchmarks")
    given = parser.parse_args(arguments)
    measured = json.loads((RESULTS / "scale_folders.json").read_text())
    found = results(given.runs, given.varied, measured)
    text = page(found, runs=given.runs, varied=given.varied)
    print(text)
    if given.write:
        (RESULTS / "scale.json").write_text(json.dumps(found, indent=1) + "\n")
        (RESULTS / "scale.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
