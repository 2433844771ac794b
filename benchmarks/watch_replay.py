"""Traces of finished studies, replayed as a watch would have seen them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import nan

import polars as pl

from lratlas.atlas import load
from lratlas.monitor.rules import Regime, Rules
from lratlas.monitor.tracker import RegimeTracker

PARTS = (0.25, 0.5, 1.0)
NAMES: dict[str, Regime] = {
    "1": "converging",
    "2": "equilibrium",
    "2A": "equilibrium",
    "2B": "equilibrium",
    "3": "diverging",
}


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What was said of a study's runs after a part of their training; shares of all runs."""

    study: str
    accuracies: bool  # whether the watch was given them
    part: float
    runs: int
    right: float
    undecided: float
    wrong: float
    mistaken: dict[str, int]  # how many runs of a regime were given another's name


def replay(folder: str) -> list[Shares]:
    """Replay all pre-training runs of a study, by losses alone and with accuracies."""
    atlas = load(folder)
    assert atlas.plan is not None, f"{folder} has no plan: the study was not started"
    chance_loss = atlas.plan.chance_loss
    runs = atlas.tables["runs"].filter(stage="pretrain").join(atlas.tables["regimes"], on="plr")
    traces = dict(_by_run(atlas.tables["traces"]))
    decided = [run for run in runs.iter_rows(named=True) if run["regime"] in NAMES and run["run"] in traces]
    rows = list[Shares]()
    for accuracies in (False, True):
        if accuracies and any(trace["train_accuracy"].null_count() for trace in traces.values()):
            continue
        for part in PARTS:
            said: list[tuple[Regime, Regime]] = [
                (
                    NAMES[run["regime"]],
                    verdict(traces[run["run"]], part * run["steps"], chance_loss, accuracies=accuracies),
                )
                for run in decided
            ]
            rows.append(_shares(said, study=folder, accuracies=accuracies, part=part))
    return rows


def verdict(trace: pl.DataFrame, end: float, chance_loss: float, *, accuracies: bool) -> Regime:
    """The regime that a watch would name at a step, from the rows of a trace up to there."""
    chance = trace["chance_accuracy"].fill_nan(None).mean() if accuracies else None
    rules = Rules(chance_loss=chance_loss, chance_accuracy=chance if isinstance(chance, float) else None)
    tracker, last = RegimeTracker(rules=rules), 0
    seen = trace.filter((pl.col("step") > 0) & (pl.col("step") <= end))
    for step, loss, accuracy in seen.select("step", "train_loss", "train_accuracy").iter_rows():
        tracker.add(steps=step - last, loss=nan if loss is None else loss, accuracy=accuracy if accuracies else None)
        last = step
    return tracker.look().regime


def _by_run(traces: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    for (run,), trace in traces.sort("run", "step").group_by("run", maintain_order=True):
        yield str(run), trace


def _shares(said: list[tuple[Regime, Regime]], *, study: str, accuracies: bool, part: float) -> Shares:
    count = max(len(said), 1)
    right = sum(true == named for true, named in said)
    undecided = sum(named == "undecided" for _, named in said)
    mistaken = Counter(f"{true} as {named}" for true, named in said if named not in (true, "undecided"))
    return Shares(
        study=study,
        accuracies=accuracies,
        part=part,
        runs=len(said),
        right=right / count,
        undecided=undecided / count,
        wrong=(len(said) - right - undecided) / count,
        mistaken=dict(sorted(mistaken.items())),
    )
