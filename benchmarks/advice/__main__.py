"""How good the initial LRs are that methods choose, and what the choice costs.

Each method answers each problem whose oracle is complete, once for each search seed. Answers are stored in
`choices.parquet`, search by search; what is there is not searched for again, except for the families named after
--again. Optimizers that need no LR come from `no_lr.parquet`. Prints tables in Markdown and writes `regret.svg`.

    python -m benchmarks.advice [PROBLEM …] [--folder FOLDER] [--only FAMILY …] [--again FAMILY …]
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import polars as pl
import torch

from benchmarks.advice import atlas_search, choices, no_lr, packaged_finders, range_test, tabular
from benchmarks.advice.choices import Choice
from benchmarks.advice.coverage import NEAR, coverages
from benchmarks.advice.cpu import costs
from benchmarks.advice.expected import NOMINAL, reached
from benchmarks.advice.measuring import RUNS
from benchmarks.advice.oracle import FOLDER, JUDGES, SEEDS, missing, read
from benchmarks.advice.problem import Problem
from benchmarks.advice.problems import PROBLEMS, problem_named
from benchmarks.advice.report import (
    chart,
    chart_data,
    cost_table,
    coverage_table,
    expected_table,
    problems_table,
    standings_table,
    verdicts_table,
)
from benchmarks.advice.scoring import MATTERS, judge, matters
from benchmarks.advice.standings import regrets, standings, verdicts
from benchmarks.advice.surface import Surface, surface

FAMILIES: Mapping[str, Callable[[Problem, pl.DataFrame, int], Sequence[Choice]]] = MappingProxyType(
    {
        "default": lambda problem, _, seed: tabular.default_choices(problem, seed),
        "tpe": tabular.tpe_choices,
        "screen": tabular.screen_choices,
        "grid": tabular.grid_choices,
        "fastai": lambda problem, _, seed: range_test.choices(problem, seed),
        "torch-lr-finder": lambda problem, _, seed: packaged_finders.torch_lr_finder_choices(problem, seed),
        "lightning": lambda problem, _, seed: packaged_finders.lightning_choices(problem, seed),
        "atlas": lambda problem, _, seed: atlas_search.choices(problem, seed),
    }
)
"""What makes choices for a problem, the oracle's rows and a search seed; some make those of several methods."""
STANDINGS = f"""\
Regret in points of accuracy (2.5% of a loss count as a point), a mean over searches and judges, ± its standard error.
Median and worst are over the problems on which some LR is more than {MATTERS:g} points better than another; a method
that advises no LR there is judged by the customary LR of the optimizer. Cost: full trainings."""
RANGES = f"""\
On the same problems. Good LRs: those of the oracle's grid that are at most {NEAR:g} point worse than the best one."""
INTERVALS = f"""\
An interval should hold {NOMINAL:.0%} of the trainings. The 95% interval of the share counts each problem as one trial.
Width, and reached minus expected (positive: better), in points of accuracy or percent of the expected loss."""


def main(arguments: Sequence[str] | None = None) -> None:
    given = _options(arguments)
    torch.set_num_threads(1)
    runs = read(given.folder, "oracle", RUNS)
    known = [problem for name in given.problems or PROBLEMS if not missing(problem := problem_named(name), runs)]
    choices.remove(given.folder, given.again, [problem.name for problem in known])
    for problem in known:
        add_missing(problem, runs, given.folder, given.only or FAMILIES)
    surfaces = {problem.name: surface(problem, runs, JUDGES) for problem in known}
    for title, text in sections(surfaces, given.folder):
        print(f"## {title}\n\n{text}\n")


def add_missing(problem: Problem, runs: pl.DataFrame, folder: Path, families: Iterable[str]) -> None:
    """Let these families choose what they have not chosen yet for this problem, and store each search at once."""
    for family in families:
        for seed in SEEDS:
            if choices.stored(folder).filter(family=family, problem=problem.name, seed=seed).is_empty():
                print(f"{problem.name}: {family}, search {seed}", file=sys.stderr, flush=True)
                choices.add(folder, family, FAMILIES[family](problem, runs, seed))


def sections(surfaces: Mapping[str, Surface], folder: Path) -> list[tuple[str, str]]:
    """Title and text of each part of the result; the chart of the regrets is written into the folder."""
    table = choices.stored(folder).filter(pl.col("problem").is_in(list(surfaces)))
    chosen = choices.as_choices(table)
    important = {name: matters(known) for name, known in surfaces.items()}
    counted = {name: known for name, known in surfaces.items() if important[name]}
    judged = pl.concat([judge(chosen, counted), no_lr.judge(read(folder, no_lr.TABLE, no_lr.ROWS), counted)])
    if judged.is_empty():
        return []
    found = regrets(judged, counted)
    ranked = standings(found, judged, table, counted)
    chart(chart_data(found, ranked)).save(folder / "regret.svg")
    parts = [
        ("Regret", f"{standings_table(ranked)}\n\n{STANDINGS}"),
        ("Regret by problem", problems_table(found, [each.method for each in ranked])),
    ]
    if searched := [choice for choice in chosen if choice.seconds is not None]:  # not looked up
        parts += [
            ("Verdicts", verdicts_table(verdicts(searched), important)),
            ("The range of good LRs", f"{coverage_table(coverages(searched, counted))}\n\n{RANGES}"),
            ("Expected and reached", f"{expected_table(reached(searched, surfaces))}\n\n{INTERVALS}"),
            ("Cost", cost_table(costs(searched))),
        ]
    return parts


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How good the LRs are that methods choose.")
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", help=f"of {', '.join(PROBLEMS)}; all if none")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the tables are")
    parser.add_argument("--only", nargs="+", default=[], choices=FAMILIES, help="families that may search now")
    parser.add_argument("--again", nargs="+", default=[], choices=FAMILIES, help="families that search from scratch")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.problems) - set(PROBLEMS))
    if unknown:
        parser.error(f"there is no problem {', '.join(unknown)}; choose from {', '.join(PROBLEMS)}")
    return given


if __name__ == "__main__":
    main()
