"""Problems of the advice benchmark that are small enough to train by hand, and rows of their oracle."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from torch import nn

from benchmarks.advice.measuring import RUNS
from benchmarks.advice.problem import Problem, Split

LRS = (0.01, 0.1, 1.0)


def line(**changes: object) -> Problem:
    """A linear regression of three inputs with noise."""
    generator = np.random.default_rng(0)
    x = torch.from_numpy(generator.normal(size=(60, 3))).float()
    noise = torch.from_numpy(generator.normal(size=(60, 1))).float()
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3 + 0.5 * noise
    pairs = [(x[rows], y[rows]) for rows in (slice(0, 30), slice(30, 40), slice(40, 60))]
    problem = Problem(
        name="line",
        description="linear regression",
        split=Split(train=pairs[0], validation=pairs[1], test=pairs[2]),
        model=lambda: nn.Linear(3, 1),
        rule={"name": "sgd"},
        batch_size=10,
        steps=128,
        lrs=LRS,
        loss="mse",
        metric="loss",
    )
    return replace(problem, **changes)  # pyright: ignore[reportArgumentType] - fields by name


def sides(**changes: object) -> Problem:
    """Two classes, of which one has three quarters of the test set."""
    x = torch.arange(8.0)[:, None]
    pair = x, torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    split = Split(train=pair, validation=pair, test=pair)
    kind = {"name": "sides", "split": split, "loss": "cross_entropy", "metric": "accuracy"}
    return line(model=lambda: nn.Linear(1, 2), batch_size=4, **kind, **changes)


Values = Mapping[tuple[str, float], Sequence[Sequence[float]]]
"""Values of the seeds, one after the other, over the LRs, for each finish and horizon."""


def oracle_rows(problem: Problem, seeds: Sequence[int], test: Values, validation: Values | None = None) -> pl.DataFrame:
    """Rows of the oracle with these values; what is stored and not given is as bad as can be."""
    bad = [[-1e9 if problem.higher_is_better else 1e9] * len(problem.lrs)] * len(seeds)
    kept = [("average10", 1 / 8), ("average10", 1 / 4), ("average10", 1 / 2), ("average10", 1.0), ("anneal", 1.0)]
    ways = [*kept, ("constant", 1.0)]
    rows = [
        {"problem": problem.name, "lr": lr, "seed": seed, "horizon": way[1], "finish": way[0]}
        | {"validation": (validation or test).get(way, bad)[number][place], "test": test.get(way, bad)[number][place]}
        | {"diverged": False, "seconds": 0.0}
        for way in ways
        for number, seed in enumerate(seeds)
        for place, lr in enumerate(problem.lrs)
    ]
    return pl.DataFrame(rows, schema=RUNS)
