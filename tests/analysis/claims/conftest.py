"""A synthetic study in which every finding of the paper holds, and the ways to make each of them false."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from lratlas.tables import SCHEMAS

# Six PLRs of regime 1, two of 2A, two of 2B, two of regime 3; the threshold lies at 2.4e-3.
KINDS = ["converged"] * 6 + ["plateau"] * 4 + ["chance"] * 2
PLRS = [10 ** (-4 + place / 4) for place in range(12)]
LOW, HIGH = 1e-5, 2e-3

Tables = dict[str, pl.DataFrame]
# A value for each PLR.
Values = Sequence[float]


def levels(below: float, near: float, beyond: float) -> list[float]:
    """One value in regime 1, one in 2A, one in 2B and 3."""
    return [below] * 6 + [near] * 2 + [beyond] * 4


TRUTH: Mapping[str, Values] = {
    "tuned": levels(0.7, 0.8, 0.65),
    "averaged": levels(0.72, 0.82, 0.67),
    "flr_effect": levels(0.08, 0.005, 0.08),
    "test_barrier": levels(0.01, 0.01, 0.2),
    "train_barrier": [0.2] * 2 + [0.0] * 10,
    "top_feature": levels(0.52, 0.75, 0.52),
    "middle": levels(0.15, 0.4, 0.15),
    "two_stages": [0.8] * 12,
    "eigenvalue": [float(np.cos(7 * place) + 2) for place in range(12)],
    "epochs": [10 * 3.0**place for place in range(12)],
}


def rows(table: str, entries: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(entries, schema=SCHEMAS[table])


def models(truth: Mapping[str, Values], seeds: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    made: list[dict[str, Any]] = []
    for seed in range(seeds):
        for place, plr in enumerate(PLRS):
            own = {"seed": seed, "plr": plr, "diverged": False}
            best = truth["tuned"][place] + rng.normal(scale=0.002)
            lost = truth["flr_effect"][place]
            made += [
                own | {"run": f"f{place}-{seed}-{flr}", "stage": "finetune", "flr": flr, "test_accuracy": accuracy}
                for flr, accuracy in ((LOW, best), (HIGH, best - lost))
            ]
            made += [
                own | {"run": f"a{place}-{seed}-{k}", "stage": "average", "count": k, "test_accuracy": accuracy}
                for k, accuracy in ((2, 0.6), (5, truth["averaged"][place] + rng.normal(scale=0.002)))
            ]
        second = {"run": f"s-{seed}", "stage": "finetune", "flr": LOW, "seed": seed, "plr": PLRS[9], "plr2": PLRS[6]}
        made.append(second | {"diverged": False, "test_accuracy": truth["two_stages"][9] + rng.normal(scale=0.002)})
    return made


def measured(truth: Mapping[str, Values], seeds: int) -> Tables:
    rng = np.random.default_rng(1)
    every = [(place, plr, seed) for place, plr in enumerate(PLRS) for seed in range(seeds)]
    model = [
        (place, {"run": f"f{place}-{seed}-{LOW}", "stage": "finetune", "plr": plr, "flr": LOW, "seed": seed})
        for place, plr, seed in every
    ]
    near_threshold = [(place, 1e-3 * 1.04**place) for place in range(8)]
    return {
        "pairs": rows(
            "pairs",
            [
                {"plr": plr, "seed": seed, "a": a, "b": b, "angle": 1.5}
                | {
                    "train_barrier": truth["train_barrier"][place] + rng.uniform(0, 0.005),
                    "test_barrier": truth["test_barrier"][place] + rng.uniform(0, 0.005),
                }
                for place, plr, seed in every
                for a, b in (("low", "high"), ("low", "swa"), ("high", "swa"))
            ],
        ),
        "features": rows(
            "features",
            [
                own | {"feature": i, "accuracy": (truth["top_feature"][place] if i == 3 else 0.5) + rng.normal() / 500}
                for place, own in model
                for i in range(8)
            ],
        ),
        "bands": rows(
            "bands",
            [
                own | {"low": low, "high": high, "kept": True, "accuracy": accuracy + rng.normal() / 500}
                for place, own in model
                for low, high, accuracy in ((1, 7, 0.5), (8, 21, truth["middle"][place]), (22, 28, 0.1))
            ],
        ),
        "convergence": rows(
            "convergence",
            [
                {"plr": plr, "seed": seed, "epochs": None if place == 7 else round(truth["epochs"][place] + seed)}
                for place, plr in near_threshold
                for seed in range(seeds)
            ],
        ),
        "sharpness": rows(
            "sharpness",
            [
                own
                | {"top_eigenvalue": truth["eigenvalue"][place] + rng.normal() / 50, "converged": True}
                | {"train_loss": 1e-3, "test_error": 0.2 + 0.01 * place}
                for place, own in model
            ],
        ),
    }


@pytest.fixture(scope="session")
def world(study: Callable[..., Tables]) -> Callable[..., Tables]:
    """Builder of such a study: the number of seeds, what is different from the paper, and the kinds of its PLRs."""

    def build(*, seeds: int = 5, kinds: Sequence[str] = KINDS, **changes: Values) -> Tables:
        truth = {**TRUTH, **changes}
        trained = study([[kind] * seeds for kind in kinds])
        runs = pl.concat([trained["runs"], rows("runs", models(truth, seeds))])
        return {**trained, **measured(truth, seeds), "runs": runs}

    return build
