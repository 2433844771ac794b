"""A synthetic study whose tables look like those of the synthetic ticks: 20 PLRs, 3 FLRs, 3 averages."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl
import pytest
from altair.utils.schemapi import debug_mode

from lratlas.analysis.power_law import power_law
from lratlas.report.charts.catalog import CHARTS
from lratlas.report.theme import Drawing
from lratlas.tables import SCHEMAS

PLRS = [10 ** (-4.5 + 4.5 * i / 19) for i in range(20)]
# Just below the convergence threshold, as a search for it adds them.
NEAR = [5e-3, 5.8e-3, 6.3e-3, 6.6e-3]
FLRS = [10**-4.5, 1e-4, 1e-3]
COUNTS = [2, 5, 20]
Row = dict[str, Any]
Study = dict[str, pl.DataFrame]


@pytest.fixture(scope="module", autouse=True)
def unchecked() -> Iterator[None]:
    """Altair looks at whole specifications alone, as it does where a report is written."""
    with debug_mode(False):
        yield


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Study]:
    """A function that makes the tables for a number of seeds."""
    return study


@pytest.fixture(scope="session")
def tables() -> Study:
    return study(seeds=4)


@pytest.fixture(scope="session")
def charts(tables: Study) -> dict[str, Drawing]:
    """Every chart of this study by its name."""
    with debug_mode(False):
        return {name: draw(tables) for name, draw in CHARTS.items()}


@pytest.fixture(scope="session")
def specs(charts: dict[str, Drawing]) -> dict[str, dict[str, Any]]:
    """The specification of every chart by its name, validated; for reading alone."""
    return {name: chart.to_dict() for name, chart in charts.items()}


def study(*, seeds: int) -> Study:
    noise = random.Random(7)
    runs = [run for plr in PLRS for seed in range(seeds) for run in _runs(plr, seed, noise)]
    measured = [run for run in runs if run.get("flr") in (None, FLRS[0])]
    initial = [{"stage": "initial", "plr": None, "seed": seed} for seed in range(seeds)]
    epochs = [_epochs(plr, seed, noise) for plr in sorted(PLRS + NEAR) for seed in range(seeds)]
    rows: dict[str, list[Row]] = {
        "runs": runs + [run for seed in range(seeds) for run in _two_stages(seed, noise)],
        "traces": [row for run in runs if run["stage"] == "pretrain" for row in _traces(run, noise)],
        "regimes": [_regime(plr, seeds) for plr in PLRS],
        "boundaries": [
            _boundary("convergence", 7e-3),
            _boundary("subregime", 2.1e-2),
            _boundary("divergence", 6e-2),
        ],
        "pairs": [pair for plr in PLRS for seed in range(seeds) for pair in _pairs(plr, seed, noise)],
        "features": [row for run in runs for row in _features(run, noise)],
        "bands": [row for run in runs for row in _bands(run, noise)],
        "convergence": epochs,
        "power_law": power_law(pl.DataFrame(epochs, schema=SCHEMAS["convergence"])).to_dicts(),
        "norms": [row for run in [*initial, *measured] for row in _norms(run, noise)],
        "sharpness": [_sharpness(run, noise) for run in measured],
    }
    return {name: pl.DataFrame(rows[name], schema=SCHEMAS[name]) for name in rows}


def _name(plr: float) -> str:
    return "1" if plr < 7e-3 else "2A" if plr < 2.1e-2 else "2B" if plr < 6e-2 else "3"


def _peak(plr: float, width: float = 0.35) -> float:
    return math.exp(-(((math.log10(plr) + 2) / width) ** 2))


def _accuracy(plr: float) -> float:
    return 0.5 if plr > 6e-2 else 0.68 + 0.09 * (math.log10(plr) + 4.5) / 2.4 if plr < 7e-3 else 0.74 - 2 * (plr - 7e-3)


def _runs(plr: float, seed: int, noise: random.Random) -> list[Row]:
    shared = {
        "plr": plr,
        "seed": seed,
        "data_seed": seed,
        "diverged": False,
        "train_accuracy": 1.0,
        "train_loss": 0.01,
        "seconds": 1.0,
        "steps": 40_000,
    }
    first = f"p-{plr:.3e}-{seed}"
    level = _accuracy(plr) + noise.gauss(0, 0.008)
    gain = 0 if plr > 6e-2 else 0.05 * _peak(plr, 0.6)
    made: list[Row] = [{**shared, "run": first, "stage": "pretrain", "test_accuracy": level}]
    for i, flr in enumerate(FLRS):
        accuracy = level + gain - 0.006 * i + noise.gauss(0, 0.004)
        made.append(
            {
                **shared,
                "run": f"{first}-f{i}",
                "stage": "finetune",
                "parent": first,
                "flr": flr,
                "test_accuracy": accuracy,
            }
        )
    for i, count in enumerate(COUNTS):
        accuracy = level + gain * (0.8 + 0.4 * i) + noise.gauss(0, 0.004)
        made.append(
            {
                **shared,
                "run": f"{first}-a{i}",
                "stage": "average",
                "parent": first,
                "count": count,
                "test_accuracy": accuracy,
            }
        )
    return [{**run, "test_loss": 2 - 2 * run["test_accuracy"]} for run in made]


def _traces(run: Row, noise: random.Random) -> list[Row]:
    plr: float = run["plr"]
    rows: list[Row] = []
    for i in range(100):
        step = 400 * (i + 1)
        descent = 0.7 * math.exp(-step * plr / 4)
        loss = max(descent, 1e-6) if plr < 7e-3 else 0.75 * (1 - 0.4 * _peak(plr)) * math.exp(noise.gauss(0, 0.05))
        rows.append(
            {
                "run": run["run"],
                "step": step,
                "epoch": step / 32,
                "train_loss": loss,
                "train_accuracy": 1 - loss / 2,
                "test_loss": loss + 0.2,
                "test_accuracy": 0.5 + (run["test_accuracy"] - 0.5) * (i + 1) / 100,
                "gradient_norm": loss / math.sqrt(plr) * math.exp(noise.gauss(0, 0.1)),
                "weight_norm": 1.0,
                "chance_accuracy": 0.5,
            }
        )
    return rows


def _regime(plr: float, seeds: int) -> Row:
    return {
        "plr": plr,
        "regime": _name(plr),
        "seeds": seeds,
        "diverged": 0.0,
        "train_accuracy": 0.9,
        "chance_accuracy": 0.5,
        "above_chance_p": 1e-12,
        "fitted": float(plr < 7e-3),
        "train_loss": 0.01,
        "falling": 0.25,
        "trend_p": 0.3,
        "test_accuracy": _accuracy(plr),
        "barrier": 0.01,
        "spread": 0.006,
        "flr_spread": 0.004,
    }


def _boundary(name: str, value: float) -> Row:
    return {
        "boundary": name,
        "below": value / 1.15,
        "above": value * 1.15,
        "value": value,
        "low": value / 1.3,
        "high": value * 1.3,
    }


def _pairs(plr: float, seed: int, noise: random.Random) -> list[Row]:
    far = 1 - _peak(plr, 0.5)
    return [
        {
            "plr": plr,
            "seed": seed,
            "a": a,
            "b": b,
            "angle": size * far * 1.5 + 0.1 + noise.gauss(0, 0.02),
            "train_barrier": max(0.0, size * far * 0.15 + noise.gauss(0, 0.01)),
            "test_barrier": max(0.0, size * far * 0.1 + noise.gauss(0, 0.01)),
            "train_barrier_arc": max(0.0, size * far * 0.1 + noise.gauss(0, 0.01)),
            "test_barrier_arc": max(0.0, size * far * 0.07 + noise.gauss(0, 0.01)),
        }
        for a, b, size in (("low", "high", 1.0), ("low", "swa", 0.6), ("high", "swa", 0.8))
    ]


def _features(run: Row, noise: random.Random) -> list[Row]:
    top = {"pretrain": 0.17, "finetune": 0.25, "average": 0.22}[run["stage"]]
    if run.get("flr") not in (None, FLRS[0]):
        return []
    accuracies = [0.51 + noise.gauss(0, 0.012) + top * _peak(run["plr"]) * (0.25**i) for i in range(16)]
    noise.shuffle(accuracies)
    keys = ("run", "stage", "plr", "flr", "count", "seed")
    return [{**{key: run.get(key) for key in keys}, "feature": i, "accuracy": a} for i, a in enumerate(accuracies)]


def _bands(run: Row, noise: random.Random) -> list[Row]:
    if run.get("flr") not in (None, FLRS[0]):
        return []
    keys = ("run", "stage", "plr", "flr", "count", "seed")
    mid = 0.2 + 0.3 * _peak(run["plr"])
    return [
        {**{key: run.get(key) for key in keys}, "low": low, "high": high, "kept": kept, "accuracy": level}
        for (low, high), alone in zip(((0, 0), (1, 8), (9, 24), (25, 32)), (0.11, 0.35, mid, 0.12), strict=True)
        for kept, level in ((True, alone + noise.gauss(0, 0.01)), (False, 0.7 - alone + noise.gauss(0, 0.01)))
    ]


def _two_stages(seed: int, noise: random.Random) -> list[Row]:
    """Fine-tuning from two PLRs of regime 2B by way of one of 2A, as good as straight from the latter."""
    high, low = [plr for plr in PLRS if _name(plr) == "2B"], next(plr for plr in PLRS if _name(plr) == "2A")
    accuracy = _accuracy(low) + 0.05 * _peak(low, 0.6)
    return [
        {
            "run": f"t-{plr:.3e}-{seed}-{i}",
            "stage": "finetune",
            "plr": plr,
            "plr2": low,
            "flr": flr,
            "seed": seed,
            "test_accuracy": accuracy - 0.006 * i + noise.gauss(0, 0.01),
        }
        for plr in high[:2]
        for i, flr in enumerate(FLRS)
    ]


def _epochs(plr: float, seed: int, noise: random.Random) -> Row:
    slow = (0.02 / plr + 0.2 * max(6.9e-3 - plr, 1e-9) ** -0.8) * math.exp(noise.gauss(0, 0.1))
    reached = plr < 6.5e-3 or (plr < 6.9e-3 and seed % 2 == 0)
    return {
        "plr": plr,
        "seed": seed,
        "epochs": round(slow) if reached else None,
        "test_accuracy": _accuracy(plr) + noise.gauss(0, 0.008) if reached else None,
    }


def _norms(run: Row, noise: random.Random) -> list[Row]:
    """Wider in regime 3, a little wider after any training."""
    width = 0.03 if run["plr"] is None else 0.8 if _name(run["plr"]) == "3" else 0.15
    keys = ("run", "stage", "plr", "flr", "seed")
    return [
        {
            **{key: run.get(key) for key in keys},
            "layer": "0",
            "group": i,
            "norm": 10 ** min(noise.gauss(-1.5, width), 0),
        }
        for i in range(64)
        if run["stage"] != "average"
    ]


def _sharpness(run: Row, noise: random.Random) -> Row:
    keys = ("run", "stage", "plr", "flr", "count", "seed")
    sharp = (0.01 / run["plr"]) ** 0.5 * math.exp(noise.gauss(0, 0.1))
    return {
        **{key: run.get(key) for key in keys},
        "top_eigenvalue": 30 * sharp,
        "residual": 1e-5,
        "converged": run["plr"] > 1e-4,
        "trace": 200 * sharp,
        "trace_error": 5.0,
        "fisher_trace": 190 * sharp,
        "gradient_norm": 0.1 * sharp,
        "train_loss": (0.01 if run["stage"] == "finetune" else 0.015) * math.exp(noise.gauss(0, 0.1)),
        "test_error": 1 - run["test_accuracy"],
    }
