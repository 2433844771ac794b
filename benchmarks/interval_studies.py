"""Synthetic studies whose boundaries, gains and effects are known, as the tables that the analysis reads."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from lratlas.analysis.regimes import regimes
from lratlas.tables import SCHEMAS, empty

Tables = dict[str, pl.DataFrame]
Floats = NDArray[np.float64]
# Draws of the shape asked for, with mean and median 0 or nearly so, and standard deviation 1.
Draws = Callable[[np.random.Generator, tuple[int, ...]], Floats]

LOSS, STEPS, ROWS = math.log(2), 1000, 10  # the chance loss, steps of a run and rows of its trace
LOWEST, PER_DECADE, MARGIN, APART = 1e-4, 4, 7, 2  # the grid; PLRs outside the boundaries, and between two of them
NAMES = ("convergence", "subregime", "divergence")
FLR, THRESHOLD = 1e-6, 1e-2
NOISE = 0.01  # of the scores between seeds


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Standard normal draws."""
    return rng.normal(size=shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draws of a gamma distribution of shape 4, less its mean, over its standard deviation: a skewness of 1."""
    return (rng.gamma(4.0, size=shape) - 4.0) / 2.0


SKEWED_MEDIAN = (3.672061 - 4.0) / 2.0  # of a gamma distribution of shape 4, in the same units


def cells_of_seeds(
    rng: np.random.Generator, seeds: int, *, place: float, spread: float, draws: Draws
) -> tuple[int, ...]:
    """In which cell of the grid the boundary of each seed is, ascending; 0 for the one with the median over all seeds.

    Args:
        rng: Where the seeds' boundaries are drawn from.
        seeds: How many there are.
        place: Where in its cell the median is, from 0 to 1.
        spread: The standard deviation of the boundaries, in steps of the grid.
        draws: Their distribution.
    """
    median = SKEWED_MEDIAN if draws is skewed else 0.0
    return tuple(np.sort(np.floor(place + spread * (draws(rng, (seeds,)) - median)).astype(int)).tolist())


def boundary_study(cells: Sequence[int]) -> Tables:
    """A study in which each seed has its own three boundaries; above the last one its runs are not finite.

    Args:
        cells: In which cell of the grid the boundaries of each seed are.

    Returns:
        ``runs``, ``traces`` and ``pairs``.
    """
    seeds = len(cells)
    steps = np.arange(2 * MARGIN + 2 * APART + 1)
    edges = MARGIN + APART * np.arange(3)
    # The number of boundaries that a PLR is above, shape (seeds, PLRs)
    kinds = (steps > edges[:, None, None] + np.array(cells)[:, None]).sum(axis=0)
    time = np.arange(1, ROWS + 1)
    losses = [1e-4, 0.4, 0.4, None]
    accuracies = [1.0, 0.8, 0.8, None]
    plrs = plr_of(steps)
    every = [(seed, place, int(kinds[seed, place])) for seed in range(seeds) for place in range(len(steps))]
    names = [f"{seed}-{place}" for seed, place, _ in every]
    shared = {"seed": [seed for seed, _, _ in every], "plr": [plrs[place] for _, place, _ in every]}
    runs = frame(
        "runs",
        {"run": names, **shared, "stage": "pretrain", "steps": STEPS, "diverged": [kind == 3 for *_, kind in every]}
        | {"train_loss": [losses[kind] for *_, kind in every]}
        | {"train_accuracy": [accuracies[kind] for *_, kind in every], "test_accuracy": 0.7},
    )
    traces = frame(
        "traces",
        {"run": np.repeat(names, ROWS), "step": np.tile(time * STEPS // ROWS, len(every))}
        | {"train_loss": [losses[kind] for *_, kind in every for _ in time]}
        | {"train_accuracy": [accuracies[kind] for *_, kind in every for _ in time], "chance_accuracy": 0.5},
    )
    barriers = [0.2 if kind > 1 else 0.0 for *_, kind in every]
    pairs = frame("pairs", {**shared, "a": "low", "b": "high", "test_barrier": barriers})
    return {"runs": runs, "traces": traces, "pairs": pairs}


def plr_of(steps: ArrayLike) -> Floats:
    """The LR that many steps of the grid above the lowest one."""
    return LOWEST * 10 ** (np.asarray(steps) / PER_DECADE)


def steps_of(plr: float) -> float:
    """How many steps of the grid an LR is above the lowest one."""
    return PER_DECADE * math.log10(plr / LOWEST)


def true_boundaries(place: float) -> dict[str, float]:
    """The medians over very many seeds of the boundaries of `boundary_study`."""
    return {name: float(plr_of(MARGIN + APART * i + place)) for i, name in enumerate(NAMES)}


@dataclass(frozen=True, kw_only=True)
class Options:
    """True scores of the PLRs on the two sides of the threshold, in units of the noise."""

    near: Sequence[float]
    below: Sequence[float]

    @property
    def gain(self) -> float:
        """The gain of the best over the best."""
        return max(self.near) - max(self.below)


def gain_study(rng: np.random.Generator, seeds: int, *, options: Options, shared: float, draws: Draws) -> Tables:
    """A study in which fine-tuned models have known mean scores.

    Args:
        rng: Where the scores are drawn from.
        seeds: How many there are.
        options: The mean scores.
        shared: The standard deviation of what all models of a seed have in common, in units of the noise.
        draws: The distribution of the noise.
    """
    truth = np.array([*options.below, *options.near])
    scores = truth + draws(rng, (seeds, len(truth))) + shared * rng.normal(size=(seeds, 1))
    plrs = beside_threshold(below=len(options.below), near=len(options.near))
    runs = by_seed("runs", plrs, 0.5 + NOISE * scores, "test_accuracy", stage="finetune", flr=FLR, diverged=False)
    return {"runs": runs, **sides(below=len(options.below), near=len(options.near))}


def barrier_study(rng: np.random.Generator, seeds: int, *, mean: float, shape: float) -> Tables:
    """A study whose barrier between a low and a high FLR, far below the threshold, has a gamma distribution."""
    barriers = rng.gamma(shape, mean / shape, size=(seeds, 1))
    plrs = [THRESHOLD / 100]
    models = by_seed("runs", plrs, np.zeros((seeds, 1)), "test_loss", stage="finetune", flr=THRESHOLD, diverged=False)
    pairs = by_seed("pairs", plrs, barriers, "train_barrier", a="low", b="high", angle=1.0)
    return {"runs": models, "pairs": pairs, **sides(below=2, near=1)}


def band_study(rng: np.random.Generator, seeds: int, *, gain: float, shared: float, draws: Draws) -> Tables:
    """A study in which models just above the threshold recognise more of the middle Fourier band by ``gain``.

    Args:
        rng: Where the accuracies are drawn from.
        seeds: How many there are.
        gain: The true gain, in units of the noise.
        shared: The standard deviation of what all models of a seed have in common, in the same units.
        draws: The distribution of the noise.
    """
    truth = np.array([0.0, 0.0, gain, gain])
    scores = 0.4 + NOISE * (truth + draws(rng, (seeds, 4)) + shared * rng.normal(size=(seeds, 1)))
    plrs = beside_threshold(below=2, near=2)
    bands = by_seed("bands", plrs, scores, "accuracy", stage="finetune", flr=FLR, low=1, high=2, kept=True)
    named = pl.format("{}-{}", "plr", "seed")
    return {"runs": empty("runs"), "bands": bands.with_columns(run=named), **sides(below=2, near=2)}


def flr_study(rng: np.random.Generator, seeds: int, *, near: float, beyond: float) -> Tables:
    """A study in which two FLRs differ by a normal value of mean zero and these standard deviations."""
    plrs, centre = beside_threshold(below=1, near=2), np.full((seeds, 3), 0.7)
    apart = rng.normal(size=(seeds, 3)) * np.array([near, near, beyond])
    runs = pl.concat(
        by_seed("runs", plrs, scores, "test_accuracy", stage="finetune", flr=flr, diverged=False)
        for flr, scores in ((FLR, centre), (10 * FLR, centre + apart))
    )
    found = sides(below=1, near=2)
    last = pl.when(pl.col("plr") == plrs[-1]).then(pl.lit("2B")).otherwise("regime").alias("regime")
    return {"runs": runs, **found, "regimes": found["regimes"].with_columns(last)}


def folded(near: float, beyond: float) -> float:
    """The true effect of `flr_study`: means of folded normal values are sqrt(2 / pi) of their deviations."""
    return math.sqrt(2 / math.pi) * (beyond - near)


def order_study(seeds: int, *, strays: int) -> Tables:
    """A study in which the highest PLR of this many of the seeds is on a plateau, out of order."""
    tables = boundary_study([0] * seeds)
    highest = 2 * MARGIN + 2 * APART
    strayed = pl.col("run").is_in([f"{seed}-{highest}" for seed in range(strays)])
    plateau = {"train_loss": 0.4, "train_accuracy": 0.8, "diverged": False}
    changed = {
        name: (table := tables[name]).with_columns(
            pl.when(strayed).then(value).otherwise(column).alias(column)
            for column, value in plateau.items()
            if column in table.columns
        )
        for name in ("runs", "traces")
    }
    return tables | changed | {"regimes": regimes(tables | changed, chance_loss=LOSS)}


def true_order(stray: float) -> float:
    """The mean over very many seeds of the share of pairs in order, where this share of the seeds is a stray."""
    one, two, three = MARGIN + 1, 2 * APART, MARGIN
    ordered = one * (two + 1) + one * (three - 1) + two * (three - 1)
    return (1 - stray) + stray * ordered / (ordered + three - 1)


def beside_threshold(*, below: int, near: int) -> list[float]:
    """PLRs on the two sides of the threshold, ascending, all close to it."""
    return [THRESHOLD * 1.05 ** (step + 0.5) for step in range(-below, near)]


def sides(*, below: int, near: int) -> Tables:
    """The tables of regimes and boundaries for PLRs of regime 1 and of 2A."""
    plrs = beside_threshold(below=below, near=near)
    bracket = {"below": plrs[below - 1], "above": plrs[below], "value": THRESHOLD}
    return {
        "regimes": frame("regimes", {"plr": plrs, "regime": ["1"] * below + ["2A"] * near}),
        "boundaries": frame("boundaries", {"boundary": ["convergence"], **bracket}),
    }


def by_seed(table: str, plrs: Sequence[float], values: Floats, column: str, **same: Any) -> pl.DataFrame:
    """A table with a row for each seed and PLR; ``values`` have the shape (seeds, PLRs)."""
    seeds = np.repeat(np.arange(len(values)), len(plrs))
    return frame(table, {"seed": seeds, "plr": np.tile(plrs, len(values)), column: values.ravel(), **same})


def frame(table: str, columns: Mapping[str, Any]) -> pl.DataFrame:
    """Rows with the schema of a table; single values are repeated, columns that are missing are null."""
    data = pl.DataFrame({name: values for name, values in columns.items() if not _single(values)})
    single = [pl.lit(value).alias(name) for name, value in columns.items() if _single(value)]
    data = data.with_columns(single)
    schema = SCHEMAS[table]
    return data.select(
        (pl.col(name) if name in data.columns else pl.lit(None)).cast(kind).alias(name) for name, kind in schema.items()
    )


def _single(value: Any) -> bool:
    return isinstance(value, str | float | int)
