"""What `lratlas.watch` costs, how often it is right on finished studies, and how often it raises a false alarm.

    python benchmarks/watch.py [--json] [--quick]            what it costs: the time of a step with it over one without
    python benchmarks/watch.py STUDY … [--json]              how often it names the regime of finished studies' runs
    python benchmarks/watch.py --alarms [--json] [--quick]   what it says of synthetic losses of known kind
    python benchmarks/watch.py --schedules [--json] [--quick]   and of those whose learning rate moves

Costs: two loops that are alike but for the watch take turns, a few steps each, from the first step on, on one thread.
The ratio is that of their processor time, all turns together, with a 95% bootstrap interval over turns.

Studies: every pre-training run's trace is replayed as the watch would have seen it until 25%, 50% and 100% of its
steps. Right is what the study's table of regimes says of its PLR in the end: 1 is converging, 2, 2A and 2B are an
equilibrium, 3 is diverging; runs of undecided PLRs do not count. Traces hold means over many steps, so this shows less
than the watch sees in a loop.
"""

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from processes import processor
from watch_alarms import Alarms, alarms
from watch_cost import Cost, costs
from watch_replay import Shares, replay
from watch_schedules import Verdicts, verdicts

Facts = dict[str, str | int]
Row = Cost | Shares | Alarms | Verdicts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Cost and error rates of lratlas.watch.")
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="folders of finished studies")
    parser.add_argument("--alarms", action="store_true", help="synthetic losses instead of costs")
    parser.add_argument("--schedules", action="store_true", help="synthetic losses whose learning rate moves")
    parser.add_argument("--json", action="store_true", help="print data instead of a table")
    parser.add_argument("--quick", action="store_true", help="a few steps: does the script work?")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    machine: Facts = {"system": platform.platform(), "processor": processor(), "torch": torch.__version__}
    rows: Sequence[Row]
    if given.studies:
        rows = [row for folder in given.studies for row in replay(folder)]
    elif given.alarms:
        rows = alarms(repeats=4 if given.quick else 200, steps=600 if given.quick else 10_000)
    elif given.schedules:
        rows = verdicts(repeats=2 if given.quick else 100, steps=600 if given.quick else 10_000)
    else:
        rows = costs(quick=given.quick)
    if given.json:
        print(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1))
    else:
        print_table(machine, rows)


def print_table(machine: Facts, rows: Sequence[Row]) -> None:
    for name, value in machine.items():
        print(f"{name}: {value}")
    print()
    for row in rows:
        print("  ".join(f"{name} {_text(value)}" for name, value in asdict(row).items()))


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return " ".join(f"{name}: {_text(held)}" for name, held in value.items())
    return str(value)


if __name__ == "__main__":
    main()
