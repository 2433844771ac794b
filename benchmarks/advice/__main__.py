"""How good the initial LRs are that methods choose, and at what cost.

Each method answers each problem of the oracle, for each of its seeds. Answers are kept in `choices.parquet`, with the
optimizers that need no LR from `no_lr.parquet`; what is there is not searched for again, except for the families
named after --again. Prints the standings and writes `regret.svg`.

    python -m benchmarks.advice [--folder FOLDER] [--again FAMILY …]
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import polars as pl
import torch

from benchmarks.advice import atlas_search, no_lr, packaged_finders, range_test, tabular
from benchmarks.advice.measuring import RUNS
from benchmarks.advice.oracle import FOLDER, SEEDS, read
from benchmarks.advice.problem import Problem
from benchmarks.advice.problems import PROBLEMS, problem_named
from benchmarks.advice.report import chart, chart_data
from benchmarks.advice.scoring import CHOICES, Choice, scores, surface
from benchmarks.advice.standings import as_text, problems_as_text, standings

FAMILIES: Mapping[str, Callable[[Problem, pl.DataFrame, int], Sequence[Choice]]] = MappingProxyType(
    {
        "atlas": lambda problem, _, seed: atlas_search.choices(problem, seed),
        "default": lambda problem, _, seed: tabular.default_choices(problem, seed),
        "fastai": lambda problem, _, seed: range_test.choices(problem, seed),
        "torch-lr-finder": lambda problem, _, seed: packaged_finders.torch_lr_finder_choices(problem, seed),
        "lightning": lambda problem, _, seed: packaged_finders.lightning_choices(problem, seed),
        "tpe": tabular.tpe_choices,
        "screen": tabular.screen_choices,
        "grid": tabular.grid_choices,
    }
)
"""What makes choices for a problem, the oracle's rows and a seed; some make those of several methods."""
TABLE = "choices"
KEPT = pl.Schema({"family": pl.String, **CHOICES})


def main(arguments: Sequence[str] | None = None) -> None:
    given = _options(arguments)
    torch.set_num_threads(1)
    runs = read(given.folder, "oracle", RUNS)
    known = [problem_named(name) for name in PROBLEMS if name in runs["problem"].unique()]
    _write(read(given.folder, TABLE, KEPT).filter(~pl.col("family").is_in(given.again)), given.folder)
    for problem in known:
        add_missing(problem, runs, given.folder)
    trained = choices_table(list(no_lr.choices(read(given.folder, no_lr.TABLE, no_lr.ROWS))))
    chosen = pl.concat([read(given.folder, TABLE, KEPT).drop("family"), trained])
    scored = scores(chosen, [surface(problem, runs) for problem in known])
    table = standings(scored)
    print(as_text(table), problems_as_text(scored, table["method"].to_list()), sep="\n\n")
    chart(chart_data(scored)).save(given.folder / "regret.svg")


def add_missing(problem: Problem, runs: pl.DataFrame, folder: Path) -> None:
    """Have the families choose that have not yet for this problem, and keep what they say."""
    for family, choices in FAMILIES.items():
        kept = read(folder, TABLE, KEPT)
        if kept.filter(family=family, problem=problem.name).is_empty():
            print(f"{problem.name}: {family}", file=sys.stderr, flush=True)
            made = choices_table([choice for seed in SEEDS for choice in choices(problem, runs, seed)])
            _write(pl.concat([kept, made.with_columns(family=pl.lit(family)).select(KEPT.names())]), folder)


def choices_table(choices: Sequence[Choice]) -> pl.DataFrame:
    """Choices as rows of `scoring.CHOICES`."""
    return pl.DataFrame([vars(choice) for choice in choices], schema=CHOICES)


def _write(table: pl.DataFrame, folder: Path) -> None:
    """Write the choices so that the file is either whole or as it was."""
    temporary = folder / f"{TABLE}.{os.getpid()}.tmp"
    table.write_parquet(temporary)
    temporary.replace(folder / f"{TABLE}.parquet")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How good the LRs are that methods choose.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the tables are")
    parser.add_argument("--again", nargs="+", default=[], choices=FAMILIES, help="families whose kept choices go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
