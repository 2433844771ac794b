"""The oracle of the problems: each LR of a dense grid, eight seeds, a full training, every way to finish.

Writes `oracle.parquet` (schema `measuring.RUNS`) and `traces.parquet` (`measuring.TRACES`) into the folder, problem by
problem, and prints each one's best LRs. What the folder has is not computed again, nor are single trainings that an
interrupted call left in the scratch folder; both take the problems as they are named, so after a change of a problem
its rows have to go.

    python -m benchmarks.advice.oracle [PROBLEM …] [--workers N] [--folder FOLDER] [--scratch FOLDER]
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import polars as pl
import torch

from benchmarks.advice.measuring import JUDGED, RUNS, TRACES, Measured, measure
from benchmarks.advice.problem import Problem
from benchmarks.advice.problems import PROBLEMS, problem_named
from benchmarks.advice.summary import lines

SEEDS = (0, 1, 2)
"""Those that a method may see."""
JUDGES = (3, 4, 5, 6, 7)
"""Those that its choices are judged by."""
FOLDER = Path("docs/results/advice")


def main(arguments: Sequence[str] | None = None) -> None:
    given = _options(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the workers, before they import PyTorch
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        given.workers, mp_context=spawned, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        for name in given.problems or PROBLEMS:
            problem = problem_named(name)
            if missing(problem, read(given.folder, "oracle", RUNS)):
                add(given.folder, _computed(pool, problem, given.scratch))
            runs = read(given.folder, "oracle", RUNS).filter(problem=name)
            print("\n".join(lines(name, runs, higher_is_better=problem.higher_is_better)), flush=True)


def missing(problem: Problem, runs: pl.DataFrame) -> list[tuple[float, int]]:
    """The LRs and seeds of a problem that a table does not have."""
    there = set(runs.filter(problem=problem.name).select("lr", "seed").iter_rows())
    return [(lr, seed) for lr in problem.lrs for seed in (*SEEDS, *JUDGES) if (lr, seed) not in there]


def kept(name: str, lr: float, seed: int, scratch: Path) -> Measured:
    """One full training, from the scratch folder if it is there, else computed and put there."""
    folder = scratch / name / f"{lr:.6g}-{seed}"
    if not (folder / "traces.parquet").exists():
        only = JUDGED if seed in JUDGES else None
        measured = measure(problem_named(name), lr=lr, seed=seed, only=only)
        folder.mkdir(parents=True, exist_ok=True)
        _write(measured.runs, folder / "runs.parquet")
        _write(measured.traces, folder / "traces.parquet")
    return Measured(runs=pl.read_parquet(folder / "runs.parquet"), traces=pl.read_parquet(folder / "traces.parquet"))


def read(folder: Path, table: str, schema: pl.Schema) -> pl.DataFrame:
    """A table of the folder, empty where there is none."""
    path = folder / f"{table}.parquet"
    return pl.read_parquet(path) if path.exists() else pl.DataFrame(schema=schema)


def add(folder: Path, measured: Measured) -> None:
    """Put a problem's rows into the folder's tables, instead of those that it had."""
    folder.mkdir(parents=True, exist_ok=True)
    for table, rows, schema in (("traces", measured.traces, TRACES), ("oracle", measured.runs, RUNS)):
        others = read(folder, table, schema).filter(~pl.col("problem").is_in(rows["problem"].unique().implode()))
        _write(pl.concat([others, rows]), folder / f"{table}.parquet")


def _computed(pool: ProcessPoolExecutor, problem: Problem, scratch: Path) -> Measured:
    parts = list[Measured]()
    # Seed by seed, so that the scratch folder soon shows a whole range of LRs.
    futures = [pool.submit(kept, problem.name, lr, seed, scratch) for seed in (*SEEDS, *JUDGES) for lr in problem.lrs]
    for number, future in enumerate(futures, start=1):
        parts.append(future.result())
        print(f"{problem.name}: {number} of {len(futures)}", file=sys.stderr, flush=True)
    return Measured(runs=pl.concat(part.runs for part in parts), traces=pl.concat(part.traces for part in parts))


def _write(table: pl.DataFrame, path: Path) -> None:
    """Write a file that is either whole or not there."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    table.write_parquet(temporary)
    temporary.replace(path)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The oracle of the problems.")
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", help=f"of {', '.join(PROBLEMS)}; all if none")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the tables are")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "oracle", help="for single runs")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.problems) - set(PROBLEMS))
    if unknown:
        parser.error(f"there is no problem {', '.join(unknown)}; choose from {', '.join(PROBLEMS)}")
    return given


if __name__ == "__main__":
    main()
