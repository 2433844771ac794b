"""How often 95% intervals hold the truth: of boundaries, gains and effects, in synthetic studies.

For each cell, a kind of study and a number of seeds, many synthetic studies are drawn and analysed as any other, and
the intervals counted that hold the true value: the limit of very many seeds, known in closed form.

    python benchmarks/intervals.py
    python benchmarks/intervals.py --json > intervals.json
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
from interval_studies import (
    LOSS,
    NOISE,
    Draws,
    Options,
    Tables,
    band_study,
    barrier_study,
    boundary_study,
    cells_of_seeds,
    flr_study,
    folded,
    gain_study,
    normal,
    order_study,
    skewed,
    steps_of,
    true_boundaries,
    true_order,
)

from lratlas.analysis.boundaries import boundaries
from lratlas.analysis.claims import CLAIMS
from lratlas.analysis.claims.evidence import Evidence, Judgement
from lratlas.analysis.estimates import Gain
from lratlas.analysis.scores import score_of, sides_of, threshold_gain
from lratlas.thresholds import DEFAULTS

SEEDS = (3, 5, 10, 50)
# At least so often the truth should be held, and at most where no bracket widens the interval.
LEAST, MOST = 0.90, 0.99

Interval = tuple[float, float, float]  # low, high, truth
Study = Callable[[np.random.Generator, int], Tables]
Draw = Callable[[np.random.Generator, int], list[Interval]]

# True scores, in units of the noise between seeds: of the PLRs just above the threshold and of those that converge.
OPTIONS: Mapping[str, Options] = {
    "one against one": Options(near=[1], below=[0]),
    "flat, two against two": Options(near=[0, 0], below=[0, 0]),
    "flat, four against four": Options(near=[0] * 4, below=[0] * 4),
    "flat, eight against sixteen": Options(near=[0] * 8, below=[0] * 16),
    "flat, one against four": Options(near=[0], below=[0] * 4),
    "flat, one against eight": Options(near=[0], below=[0] * 8),
    "half clear, three against three": Options(near=[1, 0.7, 0.4], below=[0, -0.3, -0.6]),
    "half clear, one against eight": Options(near=[1], below=[0] + [-0.5] * 7),
    "clear, three against four": Options(near=[1, 0, -1], below=[0, -1, -2, -3]),
    "very clear, three against four": Options(near=[6, 3, 0], below=[3, 0, -3, -6]),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """How often an interval held the truth.

    Attributes:
        quantity: What is estimated.
        study: The kind of study.
        seeds: How many it has.
        studies: How many were drawn.
        covered: The share whose interval holds the truth.
        width: The mean width of the interval; of a boundary in steps of the grid.
    """

    quantity: str
    study: str
    seeds: int
    studies: int
    covered: float
    width: float


def cells(*, studies: int, seeds: tuple[int, ...] = SEEDS, only: str = "") -> Iterator[Cell]:
    """All cells, each with its own random numbers.

    Args:
        studies: How many studies are drawn in each.
        seeds: Numbers of seeds.
        only: Leave out the kinds of studies without this text in "quantity, study".
    """
    for index, (quantity, study, names, draw) in enumerate(_draws()):
        for count in seeds if only in f"{quantity}, {study}" else ():
            rng = np.random.default_rng([index, count])
            found = np.array([draw(rng, count) for _ in range(studies)])  # (studies, names, 3)
            low, high, truth = np.moveaxis(found, 2, 0)
            held = ((low <= truth) & (truth <= high)).mean(axis=0)
            for name, share, width in zip(names, held, (high - low).mean(axis=0), strict=True):
                yield Cell(
                    quantity=f"{quantity} {name}".strip(),
                    study=study,
                    seeds=count,
                    studies=studies,
                    covered=float(share),
                    width=float(width),
                )


def _draws() -> Iterator[tuple[str, str, list[str], Draw]]:
    """Of each kind of study: the quantity, the study in words, names where it has several, and how one is drawn."""
    names = list(true_boundaries(0.0))
    for shape, draws in (("normal", normal), ("skewed", skewed)):
        for spread in (0.1, 0.5, 1.5) if draws is normal else (1.5,):
            for where, place in (("in the middle of", 0.5), ("at an end of", 0.001)):
                text = f"{shape}, {spread:g} steps of the grid, median {where} a cell"
                yield "boundary", text, names, partial(_of_boundaries, place=place, spread=spread, draws=draws)
    for text, options in OPTIONS.items():
        yield "gain", text, [""], partial(_of_gain, options=options, shared=2.0, draws=normal)
    text = "half clear, three against three"
    for other, shared, draws in (("skewed", 2.0, skewed), ("unpaired", 0.0, normal)):
        yield "gain", f"{text}, {other}", [""], partial(_of_gain, options=OPTIONS[text], shared=shared, draws=draws)
    study = partial(barrier_study, mean=0.03, shape=4.0)
    yield "effect", "barrier near 0, skewed", [""], partial(_of_claim, study=study, claim="high-flr-leaves", truth=0.03)
    for text, shared, draws in (("paired", 3.0, normal), ("unpaired", 0.0, normal), ("paired, skewed", 3.0, skewed)):
        study = partial(band_study, gain=1.0, shared=shared, draws=draws)
        yield "effect", f"middle band, {text}", [""], partial(_of_claim, study=study, claim="middle-band", truth=0.01)
    study, truth = partial(flr_study, near=0.01, beyond=0.04), folded(0.01, 0.04)
    yield "effect", "differences between FLRs", [""], partial(_of_claim, study=study, claim="flr-matters", truth=truth)
    for stray in (0.5, 0.1):
        text = f"pairs in order, {100 * stray:.0f}% of the seeds with a stray PLR"
        yield "effect", text, [""], partial(_of_order, stray=stray)


def _of_boundaries(
    rng: np.random.Generator, seeds: int, *, place: float, spread: float, draws: Draws
) -> list[Interval]:
    found = boundary_ends(cells_of_seeds(rng, seeds, place=place, spread=spread, draws=draws))
    return [(*found[name], steps_of(truth)) for name, truth in true_boundaries(place).items()]


@cache
def boundary_ends(of_seeds: tuple[int, ...]) -> dict[str, tuple[float, float]]:
    """The intervals of the boundaries, in steps of the grid; a study is known by the cells of its seeds' boundaries."""
    table = boundaries(boundary_study(of_seeds), chance_loss=LOSS)
    return {name: (steps_of(low), steps_of(high)) for name, low, high in table.select("boundary", "low", "high").rows()}


def _of_gain(rng: np.random.Generator, seeds: int, *, options: Options, shared: float, draws: Draws) -> list[Interval]:
    tables = gain_study(rng, seeds, options=options, shared=shared, draws=draws)
    gain = threshold_gain(tables["runs"], sides_of(tables), score_of(tables["runs"]))
    if gain is None:
        raise SystemExit("A synthetic study has no gain.")
    return [_interval(gain, options.gain, unit=NOISE)]


def _of_claim(rng: np.random.Generator, seeds: int, *, study: Study, claim: str, truth: float) -> list[Interval]:
    return [_interval(_judged(study(rng, seeds), claim), truth)]


def _of_order(rng: np.random.Generator, seeds: int, *, stray: float) -> list[Interval]:
    return [_interval(order(seeds, int((rng.random(seeds) < stray).sum())), true_order(stray))]


@cache
def order(seeds: int, strays: int) -> Judgement:
    """The verdict on the order of the regimes; a study is known by how many of its seeds have a stray PLR."""
    return _judged(order_study(seeds, strays=strays), "three-regimes")


def _judged(tables: Tables, claim: str) -> Judgement:
    return CLAIMS[claim].judge(Evidence(tables=tables, thresholds=DEFAULTS, chance_loss=LOSS))


def _interval(found: Gain | Judgement, truth: float, *, unit: float = 1.0) -> Interval:
    if found.low is None or found.high is None:
        raise SystemExit("A synthetic study has no interval.")
    return found.low / unit, found.high / unit, truth


def _printed(table: list[Cell]) -> None:
    """A line for each kind of study, with the shares that are held for each number of seeds."""
    counts = sorted({cell.seeds for cell in table})
    print("| quantity | study |" + "".join(f" {count} seeds |" for count in counts))
    print("|---|---|" + "---|" * len(counts))
    kinds = dict.fromkeys((cell.quantity, cell.study) for cell in table)
    shares = {(cell.quantity, cell.study, cell.seeds): _share(cell) for cell in table}
    for quantity, study in kinds:
        print(f"| {quantity} | {study} |" + "".join(f" {shares[quantity, study, count]} |" for count in counts))


def _share(cell: Cell) -> str:
    text = f"{100 * cell.covered:.1f}"
    most = 1.0 if cell.quantity.startswith("boundary") else MOST
    return text if LEAST <= cell.covered <= most else f"**{text}**"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print all cells as JSON, with the widths")
    parser.add_argument("--quick", action="store_true", help="20 studies of 3 seeds in each cell")
    parser.add_argument("--studies", type=int, default=1000, help="studies in each cell")
    parser.add_argument("--only", default="", metavar="TEXT", help='a part of "quantity, study"')
    asked = parser.parse_args()
    table = list(
        cells(studies=20 if asked.quick else asked.studies, seeds=SEEDS[:1] if asked.quick else SEEDS, only=asked.only)
    )
    if asked.json:
        print(json.dumps([asdict(cell) for cell in table]))
    else:
        _printed(table)
