"""Whether the numbers behind `find` are tuned to what is reported: each is chosen again without the problem it serves.

Searches are run on the tables of the oracle, where they take no time: a segment's metric is the one that the training
with that LR and seed had at that length. For each number, the value that does best on all other problems is taken for
each problem; if the outcome is about that of the number in use, the number was not tuned to the problems. Prints a
table.

    python -m benchmarks.advice.policies [--folder FOLDER] [--budget 1.5]
"""

import argparse
import math
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.advice.coverage import NEAR
from benchmarks.advice.expected import NOMINAL, WAY
from benchmarks.advice.measuring import HORIZONS, RUNS, TRACES
from benchmarks.advice.oracle import FOLDER, JUDGES, SEEDS, missing, read
from benchmarks.advice.problem import PARTS, Problem, chance
from benchmarks.advice.problems import PROBLEMS, problem_named
from benchmarks.advice.scoring import best_of, kept, kept_on_grid, matters, points
from benchmarks.advice.surface import ABOVE, Surface, surface
from lratlas.search import choice, evidence
from lratlas.search.advice import Advice, advise
from lratlas.search.rungs import next_segments
from lratlas.search.segments import Segment, SegmentResult
from lratlas.search.settings import make_search

_STEPS = 100 * PARTS
_AIM = 0.8  # share of good LRs in the range, and of the range that is good
_Losses = Mapping[tuple[float, int], Sequence[float | None]]


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number of the search: where it is, values it might have, and what it is judged by."""

    module: Any
    name: str
    values: tuple[Any, ...]
    measure: str

    @property
    def used(self) -> Any:
        return getattr(self.module, self.name)


NUMBERS = (
    Number(module=evidence, name="_VALIDATION", values=(0.5, 0.7, 1.0), measure="regret"),
    Number(module=evidence, name="_SEED", values=(0.005, 0.015, 0.03), measure="regret"),
    Number(module=choice, name="_LR_DRIFT", values=((0.0, 0.7), (0.1, 0.7), (0.2, 0.7), (0.1, 0.4)), measure="regret"),
    Number(module=choice, name="_REACH", values=(0.4, 0.7, 1.0), measure="range"),
    Number(module=evidence, name="CONFIDENCE", values=(0.6, 0.8, 0.95), measure="range"),
    Number(module=choice, name="_DRIFT", values=(0.04, 0.08, 0.12), measure="expected"),
    Number(module=choice, name="_DOUBT", values=(0.4, 0.7, 1.0), measure="expected"),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the searches of one problem come to, means over the seeds.

    Attributes:
        regret: In points.
        found: The share of the good LRs that are in the range.
        right: The share of the range that is good.
        reached: The share of the judges' trainings that end in the interval that is expected.
    """

    regret: float
    found: float
    right: float
    reached: float


def cost(outcomes: Sequence[Outcome], measure: str) -> float:
    """What is to be small over some problems."""
    if measure == "regret":
        return float(np.mean([each.regret for each in outcomes]))
    if measure == "range":
        found, right = (np.nanmean([getattr(each, name) for each in outcomes]) for name in ("found", "right"))
        return float(abs(found - _AIM) + abs(right - _AIM))
    return abs(float(np.nanmean([each.reached for each in outcomes])) - NOMINAL)


def searched(problem: Problem, known: Surface, losses: _Losses, *, first: int, budget: float) -> Advice:
    """A search on the oracle's tables, whose seeds begin with one of those that methods may see."""
    accuracy = problem.metric == "accuracy"
    about: dict[str, Any] = {"limit": 0.0}
    if accuracy:
        held = problem.split.validation
        about = {"limit": 100.0, "samples": len(held[1]), "chance": chance(problem, held)}
    search = make_search(
        steps=_STEPS,
        lrs=list(problem.lrs),
        budget=budget,
        direction="maximize" if accuracy else "minimize",
        **about,
    )
    order, results = [first, *(seed for seed in SEEDS if seed != first)], list[SegmentResult]()
    while segments := next_segments(search, results):
        if any(each.seed >= len(order) for each in segments):
            break
        results += [_looked_up(each, known, losses, order[each.seed]) for each in segments]
    return advise(search, results)


def _looked_up(segment: Segment, known: Surface, losses: _Losses, seed: int) -> SegmentResult:
    place = int(np.abs(np.log(known.lrs / segment.lr)).argmin())
    share = segment.stop / _STEPS
    horizon = min(HORIZONS, key=lambda each: abs(math.log(each / share)))
    if abs(math.log(known.lrs[place] / segment.lr)) > 1e-3:  # beyond the oracle's grid
        return SegmentResult(segment=segment, failure="the loss is not finite")
    trace = losses[float(known.lrs[place]), seed]
    part = trace[round(segment.start / _STEPS * PARTS) : round(share * PARTS)] or trace[:1]
    finish = "anneal" if segment.annealed else "average10"
    value = float(known.validation[finish, horizon][SEEDS.index(seed), place])
    if any(loss is None for loss in part):
        return SegmentResult(segment=segment, failure="the loss is not finite")
    last = value if segment.annealed else float(known.validation["constant", horizon][SEEDS.index(seed), place])
    averaged = None if segment.annealed else value
    return SegmentResult(
        segment=segment, value=last, averaged=averaged, losses=tuple(float(each) for each in part if each is not None)
    )


def outcome(advices: Sequence[Advice], judges: Surface) -> Outcome:
    """How good advices on one problem are."""
    grid = kept_on_grid(judges).test.mean(0)
    best = best_of(judges, grid)
    good = points(judges, best, grid) <= NEAR
    regrets, found, right, reached = list[float](), list[float](), list[float](), list[float]()
    for advice in advices:
        lr = judges.problem.default_lr if advice.lr is None else advice.lr
        finish = "either" if advice.lr is None else advice.finish
        regrets.append(float(points(judges, best, kept(judges, lr, finish).test.mean())))
        if advice.lr is None or advice.low is None or advice.high is None or advice.expected_low is None:
            continue
        inside = (judges.lrs >= advice.low / ABOVE) & (judges.lrs <= advice.high * ABOVE)
        found.append((good & inside).sum() / good.sum())
        right.append((good & inside).sum() / inside.sum() if inside.any() else math.nan)
        ends = judges.validation_at(WAY, advice.lr)
        assert advice.expected_high is not None
        reached.append(float(((ends >= advice.expected_low) & (ends <= advice.expected_high)).mean()))
    means = [float(np.nanmean(each)) if each else math.nan for each in (regrets, found, right, reached)]
    return Outcome(regret=means[0], found=means[1], right=means[2], reached=means[3])


@contextmanager
def with_value(number: Number, value: Any) -> Generator[None]:
    """The search uses another value meanwhile."""
    with patch.object(number.module, number.name, value):
        yield


def rows(run: Callable[[], Mapping[str, Outcome]]) -> list[str]:
    """A row per number: the outcome with the value in use, and with those chosen without each problem."""
    lines, base = list[str](), run()
    for number in NUMBERS:
        by_value = {value: base for value in number.values if value == number.used}
        for value in number.values:
            if value not in by_value:
                with with_value(number, value):
                    by_value[value] = run()
        chosen = dict[str, Any]()
        for name in base:
            rest = {value: [each for other, each in of.items() if other != name] for value, of in by_value.items()}
            chosen[name] = min(rest, key=lambda value: cost(rest[value], number.measure))
        left_out = {name: by_value[value][name] for name, value in chosen.items()}
        counts = ", ".join(f"{value} ({count})" for value, count in Counter(chosen.values()).most_common())
        lines.append(
            f"| {number.name.strip('_').lower()} | {number.used} | {counts} | {number.measure} |"
            f" {shown(base, number.measure)} | {shown(left_out, number.measure)} |"
        )
    return lines


def shown(outcomes: Mapping[str, Outcome], measure: str) -> str:
    """The outcome over all problems."""
    own = list(outcomes.values())
    if measure == "regret":
        regrets = [each.regret for each in own]
        return f"mean {np.mean(regrets):.2f}, median {np.median(regrets):.2f}, worst {max(regrets):.2f}"
    if measure == "range":
        found, right = (np.nanmean([getattr(each, name) for each in own]) for name in ("found", "right"))
        return f"{found:.0%} found, {right:.0%} right"
    return f"{np.nanmean([each.reached for each in own]):.0%}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Numbers of the search, chosen without the problem they serve.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the tables are")
    parser.add_argument("--budget", type=float, default=1.5)
    given = parser.parse_args(arguments)
    runs, traces = read(given.folder, "oracle", RUNS), read(given.folder, "traces", TRACES)
    problems = [each for name in PROBLEMS if not missing(each := problem_named(name), runs)]
    seen = {each.name: surface(each, runs, SEEDS) for each in problems}
    judges = {each.name: surface(each, runs, JUDGES) for each in problems}
    counted = [each for each in problems if matters(judges[each.name])]
    losses: Mapping[str, _Losses] = MappingProxyType(
        {
            each.name: {
                (float(key[0]), int(key[1])): part.sort("share")["train_loss"].to_list()
                for key, part in traces.filter(problem=each.name).group_by("lr", "seed")
            }
            for each in counted
        }
    )

    def run() -> dict[str, Outcome]:
        return {
            each.name: outcome(
                [searched(each, seen[each.name], losses[each.name], first=seed, budget=given.budget) for seed in SEEDS],
                judges[each.name],
            )
            for each in counted
        }

    print("| number | in use | chosen without the problem (problems) | judged by | in use | chosen without |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows(run)))


if __name__ == "__main__":
    main()
