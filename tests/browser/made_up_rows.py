"""Rows of the tables of a synthetic study: good just above the convergence threshold, as on the synthetic ticks."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lratlas.study.jobs import Training
from lratlas.tables import SCHEMAS

Numbers = NDArray[np.float64]

# Where the synthetic regimes meet: 1 | 2A | 2B | 3.
CONVERGENCE, SUBREGIME, DIVERGENCE = 7e-3, 2e-2, 6e-2
BANDS = ((0, 0), (1, 8), (9, 24), (25, 32))
EPOCH = 32  # steps
_FEATURES, _FILTERS, _POINTS = 16, 32, 40
_MODEL = ("run", "stage", "plr", "flr", "count", "seed")


def run_rows(job: Training, noise: np.random.Generator) -> pl.DataFrame:
    """The runs of a job and the averages along it."""
    runs = _identities(job)
    averaged = (runs["stage"] == "average").to_numpy()
    plr = runs.select(last=pl.coalesce("plr2", "plr"))["last"].to_numpy()
    quality = _quality(runs, plr) + noise.normal(0, 0.006, len(runs))
    loss = np.where(runs["flr"].is_not_null(), 0.01, np.where(plr < CONVERGENCE, 0.004, 0.4))
    loss = np.where(plr < DIVERGENCE, loss, 0.8) * _spread(noise, 0.15, len(runs))
    gradient = pl.Series(0.1 * loss / np.sqrt(plr))
    return runs.with_columns(
        diverged=False,
        train_loss=loss,
        train_accuracy=np.select([plr < CONVERGENCE, plr < DIVERGENCE], [1.0, 0.9], 0.5),
        test_loss=1.2 - quality,
        test_accuracy=quality,
        gradient_norm=pl.when(pl.Series(~averaged)).then(gradient),
        seconds=np.where(averaged, 0.0, 1.5),
        start_loss=pl.when(stage="pretrain").then(1.2),
    ).select(SCHEMAS["runs"].names())


def trace_rows(runs: pl.DataFrame, noise: np.random.Generator) -> pl.DataFrame:
    """A descent in regime 1, a noisy plateau in regime 2, chance in regime 3."""
    points = runs.join(pl.DataFrame({"point": range(1, _POINTS + 1)}), how="cross")
    plr, time = points["plr"].to_numpy(), points["point"].to_numpy() / _POINTS
    descent = 0.69 * np.exp(-(3 + 2 * (np.log10(plr) + 4.5)) * time) + 1e-4
    plateau = 0.35 + 0.12 * np.log10(plr / CONVERGENCE)
    loss = np.select([plr < CONVERGENCE, plr < DIVERGENCE], [descent, plateau], 1.5) * _spread(noise, 0.03, len(points))
    level = np.where(plr < DIVERGENCE, 1 - 0.5 * loss, 0.5 + noise.normal(0, 1e-3, len(points)))
    step = pl.col("point") * pl.col("steps") // _POINTS
    return points.select(
        "run",
        step=step,
        epoch=step / EPOCH,
        train_loss=loss,
        train_accuracy=np.where(plr < CONVERGENCE, np.minimum(1, 0.6 + 0.8 * time), level),
        test_loss=0.6 + 0.5 * loss,
        test_accuracy=0.5 + (pl.col("test_accuracy") - 0.5) * time,
        gradient_norm=loss / np.sqrt(plr) * _spread(noise, 0.1, len(points)),
        weight_norm=1.0,
        chance_accuracy=0.5,
    )


def epoch_rows(runs: pl.DataFrame, noise: np.random.Generator) -> pl.DataFrame:
    """Epochs to convergence, which grow without end towards the threshold."""
    plr = runs["plr"].to_numpy()
    slow = (0.02 / plr + 0.2 * np.maximum(CONVERGENCE - plr, 1e-9) ** -0.8) * _spread(noise, 0.1, len(runs))
    reached = pl.Series(plr < CONVERGENCE)
    return runs.select(
        "plr",
        "seed",
        epochs=pl.when(reached).then(pl.Series(slow.round())).cast(pl.Int64),
        test_accuracy=pl.when(reached).then("test_accuracy"),
    )


def feature_rows(runs: pl.DataFrame, noise: np.random.Generator) -> pl.DataFrame:
    """In 2A one feature stands out, another one for every seed."""
    rows = runs.select(_MODEL).join(pl.DataFrame({"feature": range(_FEATURES)}), how="cross")
    rank = ((rows["feature"] + rows["seed"]) % _FEATURES).to_numpy()
    top = 0.25 * _peak(rows["plr"].to_numpy()) * 0.25**rank
    return rows.with_columns(accuracy=0.51 + top + noise.normal(0, 0.01, len(rows)))


def band_rows(runs: pl.DataFrame, noise: np.random.Generator) -> pl.DataFrame:
    """In 2A the middle frequencies stand out."""
    lows, highs = zip(*BANDS, strict=True)
    bands = pl.DataFrame({"low": lows, "high": highs, "alone": [0.1, 0.3, 0.2, 0.1]})
    rows = runs.select(_MODEL).join(bands, how="cross").join(pl.DataFrame({"kept": [True, False]}), how="cross")
    middle = (rows["low"] == BANDS[2][0]).to_numpy()
    alone = rows["alone"].to_numpy() + 0.3 * middle * _peak(rows["plr"].to_numpy())
    level = np.where(rows["kept"].to_numpy(), alone, 0.75 - alone) + noise.normal(0, 0.01, len(rows))
    return rows.with_columns(accuracy=level).drop("alone")


def sharpness_rows(runs: pl.DataFrame, noise: np.random.Generator) -> pl.DataFrame:
    """Flatter for larger LRs; for the smallest ones the eigenvalue has not converged."""
    sharp = np.sqrt(0.01 / runs["plr"].to_numpy()) * _spread(noise, 0.1, len(runs))
    return runs.select(
        *_MODEL,
        top_eigenvalue=30 * sharp,
        residual=1e-5,
        converged=pl.col("plr") > 1e-4,
        trace=200 * sharp,
        trace_error=5.0,
        fisher_trace=190 * sharp,
        gradient_norm=0.1 * sharp,
        train_loss="train_loss",
        test_error=1 - pl.col("test_accuracy"),
    )


def initial_models(seeds: Sequence[int]) -> pl.DataFrame:
    """The models before training, one for each seed."""
    absent = {"run": pl.String, "plr": pl.Float64, "flr": pl.Float64}
    nothing = [pl.lit(None, kind).alias(name) for name, kind in absent.items()]
    return pl.DataFrame({"stage": "initial", "seed": seeds}).with_columns(nothing)


def norm_rows(models: pl.DataFrame, noise: np.random.Generator) -> pl.DataFrame:
    """Norms of the filters of two layers, wider in regime 3, a little wider after any training."""
    filters = pl.DataFrame({"layer": ["0", "3"]}).join(pl.DataFrame({"group": range(_FILTERS)}), how="cross")
    rows = models.select("run", "stage", "plr", "flr", "seed").join(filters, how="cross")
    plr = rows["plr"].fill_null(0.0).to_numpy()
    width = np.select([plr == 0, plr > DIVERGENCE], [0.03, 0.8], 0.15)
    return rows.with_columns(norm=10 ** np.minimum(-1.5 + width * noise.normal(size=len(rows)), 0))


def pair_rows(runs: pl.DataFrame, noise: np.random.Generator) -> pl.DataFrame:
    """No barriers in 2A and right below it, the higher ones the further away from there."""
    pairs = {"a": ["low", "low", "high"], "b": ["high", "swa", "swa"], "share": [1.0, 0.6, 0.8]}
    rows = runs.select("plr", "seed").join(pl.DataFrame(pairs), how="cross")
    middle = math.log10(CONVERGENCE * SUBREGIME) / 2
    away = np.abs(np.log10(rows["plr"].to_numpy()) - middle)
    far = rows["share"].to_numpy() * np.clip(away / 0.3 - 0.8, 0, 1.2)

    def barrier(size: float) -> Numbers:
        return np.maximum(0, size * far + noise.normal(0, 0.003, len(rows)))

    return rows.select(
        "plr",
        "seed",
        "a",
        "b",
        angle=0.15 + far + np.abs(noise.normal(0, 0.02, len(rows))),
        train_barrier=barrier(0.16),
        test_barrier=barrier(0.12),
        train_barrier_arc=barrier(0.10),
        test_barrier_arc=barrier(0.08),
    )


def _identities(job: Training) -> pl.DataFrame:
    """What is known of the runs of a job, and of the averages along it, before they are trained."""
    kinds = pl.Schema({name: kind for name, kind in SCHEMAS["runs"].items() if name in _IDENTITY})
    runs = pl.DataFrame(
        [
            {
                "run": run,
                "stage": job.stage,
                "parent": job.parents[i][at] if job.parents else None,
                **lane.model_dump(),
                "count": None,
                "seed": seed.seed,
                "data_seed": seed.data_seed,
                "steps": job.segments[-1],
            }
            for i, (seed, row) in enumerate(zip(job.seeds, job.runs, strict=True))
            for at, (lane, run) in enumerate(zip(job.lanes, row, strict=True))
        ],
        schema=kinds,
    )
    averages = [
        runs.with_columns(
            run=pl.Series([run for row in grid for run in row]), parent="run", stage=pl.lit("average"), count=count
        )
        for count, grid in (zip(job.average.counts, job.average.runs, strict=True) if job.average else ())
    ]
    return pl.concat([runs, *(rows.cast(kinds) for rows in averages)])


_IDENTITY = ("run", "stage", "parent", "plr", "plr2", "flr", "count", "seed", "data_seed", "steps")


def _quality(runs: pl.DataFrame, plr: Numbers) -> Numbers:
    """Test accuracy: best just above the convergence threshold, at chance in regime 3."""
    x, ends = np.log10(plr), np.log10([CONVERGENCE, SUBREGIME, DIVERGENCE])
    rising = 0.68 + 0.09 * (x + 4.5) / (ends[0] + 4.5)
    in_2b = np.clip((x - ends[1]) / (ends[2] - ends[1]), 0, 1)  # 0 at its lower end, 1 at its upper one
    trained = 0.77 - 0.22 * np.clip((x - ends[0]) / (ends[2] - ends[0]), 0, 1)
    flr = runs["flr"].log10().fill_null(-4.5).to_numpy() + 4.5
    tuned = 0.80 - (0.10 - 0.025 * flr) * in_2b
    count = runs["count"].cast(pl.Float64).log().fill_null(0.0).to_numpy()
    averaged = 0.79 + 0.006 * count - 0.12 * in_2b
    stages = [(runs["stage"] == stage).to_numpy() for stage in ("finetune", "average")]
    above = np.select(stages, [tuned, averaged], trained)
    below = rising + np.select(stages, [0.01, 0.002], 0.0)
    return np.select([x < ends[0], x < ends[2]], [below, above], 0.5)


def _peak(plr: Numbers) -> Numbers:
    """One in the middle of 2A, nearly zero elsewhere."""
    return np.exp(-(((np.log10(plr) + 1.93) / 0.35) ** 2))


def _spread(noise: np.random.Generator, size: float, count: int) -> Numbers:
    return np.exp(noise.normal(0, size, count))
