"""Synthetic studies whose regimes are known."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl
import pytest

from lratlas.tables import SCHEMAS

STEPS = 1000
ROWS = 40


def _traced(kind: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Loss and accuracy over a training of one kind, at ROWS equal distances."""
    time = np.arange(1, ROWS + 1) / ROWS
    noise = rng.normal(size=ROWS)
    curves = {
        "converged": (0.69 * np.exp(-12 * time), np.minimum(1, 0.5 + time)),
        "descending": (0.4 * time**-0.5 * (1 + 0.003 * noise), np.full(ROWS, 0.8)),
        "creeping": (0.6 - 0.02 * time + 1e-4 * noise, np.full(ROWS, 0.7)),
        "barely": (0.693 - 0.02 * time + 1e-4 * noise, 0.5 + 1e-3 * noise),
        "plateau": (0.4 + 0.02 * noise, 0.8 + 0.01 * noise),
        "lucky": (0.4 + 0.02 * noise, 0.9 + 0.01 * noise),
        "chance": (1.5 + 0.1 * noise, 0.5 + 1e-3 * noise),
        "diverged": (np.full(ROWS, np.nan), np.full(ROWS, np.nan)),
    }
    loss, accuracy = curves[kind]
    return {"train_loss": loss, "train_accuracy": accuracy}


def _pretrain(rows: Sequence[Sequence[str]], *, seed: int, scale: float, accuracies: bool) -> dict[str, pl.DataFrame]:
    runs: list[Mapping[str, object]] = []
    traces: list[pl.DataFrame] = []
    for place, kinds in enumerate(rows):
        plr = 10 ** (-4 + place / 4)
        for repeat, kind in enumerate(kinds):
            run = f"pretrain-{place}-{repeat}"
            curves = _traced(kind, np.random.default_rng([seed, place, repeat]))
            fitted = kind in ("converged", "lucky")
            end = {
                "diverged": kind == "diverged",
                "train_loss": None if kind == "diverged" else scale * curves["train_loss"][-1],
                "train_accuracy": None if kind == "diverged" else 1.0 if fitted else 0.8,
                "test_accuracy": None if kind == "diverged" else 0.75,
            }
            if not accuracies:
                end |= {"train_accuracy": None, "test_accuracy": None}
            runs.append({"run": run, "stage": "pretrain", "plr": plr, "seed": repeat, "steps": STEPS} | end)
            steps = pl.Series(np.arange(1, ROWS + 1) * (STEPS // ROWS))
            frame = pl.DataFrame({"run": [run] * ROWS, "step": steps, **curves}).with_columns(
                pl.col("train_loss") * scale,
                pl.lit(0.5 if accuracies else None, dtype=pl.Float64).alias("chance_accuracy"),
            )
            traces.append(frame if accuracies else frame.with_columns(pl.lit(None).alias("train_accuracy")))
    return {
        "runs": pl.DataFrame(runs, schema=SCHEMAS["runs"]),
        "traces": pl.concat([pl.DataFrame(schema=SCHEMAS["traces"]), *traces], how="diagonal_relaxed"),
        "pairs": pl.DataFrame(schema=SCHEMAS["pairs"]),
    }


@pytest.fixture(scope="session")
def study() -> Callable[..., dict[str, pl.DataFrame]]:
    """Builder of a study: one entry per PLR, 1e-4 times powers of 10^0.25, a kind of training for each seed.

    ``barriers`` gives the test barrier of the pair low-swa by place in the grid, the same for all seeds; the
    other two pairs have half of it. Loss of the best constant prediction: ``scale`` times ln 2.
    """

    def build(
        rows: Sequence[Sequence[str]],
        *,
        barriers: Mapping[int, float] | None = None,
        seed: int = 0,
        scale: float = 1.0,
        accuracies: bool = True,
    ) -> dict[str, pl.DataFrame]:
        tables = _pretrain(rows, seed=seed, scale=scale, accuracies=accuracies)
        pairs = [
            {"plr": 10 ** (-4 + place / 4), "seed": repeat, "a": a, "b": b, "test_barrier": share * barrier}
            for place, barrier in (barriers or {}).items()
            for repeat in range(len(rows[place]))
            for a, b, share in (("low", "high", 0.5), ("low", "swa", 1.0), ("high", "swa", 0.5))
        ]
        return tables | {"pairs": pl.DataFrame(pairs, schema=SCHEMAS["pairs"])}

    return build
