"""What `find` advises for trainings with a schedule, next to a grid of LRs trained with that schedule.

A masked transformer encoder, as BERT is trained, under a linear schedule with warm-up, and a causal transformer, as
GPT, under a cosine, both on the characters of a text with AdamW. Full trainings are a plain PyTorch loop with seeds
that the search did not see, and the usual formulas of the schedules; test losses.

    python -m benchmarks.schedules [--seeds 3] [--budget 1.5]
"""

import argparse
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

import lratlas
from benchmarks.advice.data import text
from benchmarks.advice.models import Transformer
from benchmarks.advice.problem import Pair, Split
from lratlas.config.grid import lr_grid
from lratlas.training.batches import batch_indices

GRID = lr_grid(3.2e-4, 0.1, per_decade=4)
STEPS, WARMUP, BATCH, LENGTH = 768, 48, 32, 32
IGNORED = -100  # a label that does not count, as PyTorch has it
_MASKED = 0.15  # share of the characters


class Encoder(nn.Module):
    """A transformer encoder that scores every character of a text some characters of which are masked."""

    def __init__(self, *, vocabulary: int, width: int = 48) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary + 1, width)  # the last one stands for a masked character
        self.positions = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        layer = nn.TransformerEncoderLayer(width, 3, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n, length, vocabulary] for tokens [n, length]."""
        return self.head(self.blocks(self.tokens(x) + self.positions))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training with a schedule."""

    model: Callable[[], nn.Module]
    split: Split
    schedule: Literal["linear", "cosine"]
    factor: Callable[[int], float]


def loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the characters that count."""
    return cross_entropy(outputs.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def linear(step: int) -> float:
    """The schedule of transformers' ``get_linear_schedule_with_warmup``."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return max(0.0, (STEPS - step) / (STEPS - WARMUP))


def cosine(step: int) -> float:
    """Warm-up, then half a cosine to zero, as nanoGPT has it without a floor."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def bert() -> Case:
    split, characters = text(length=LENGTH, train=16384, validation=256, test=768)
    return Case(
        model=lambda: Encoder(vocabulary=characters),
        split=Split(**{name: _masked(getattr(split, name)[0], characters) for name in ("train", "validation", "test")}),
        schedule="linear",
        factor=linear,
    )


def gpt() -> Case:
    split, characters = text(length=LENGTH, train=16384, validation=256, test=768)
    return Case(
        model=lambda: Transformer(vocabulary=characters, length=LENGTH, width=48, depth=2, heads=3),
        split=split,
        schedule="cosine",
        factor=cosine,
    )


CASES: Mapping[str, Callable[[], Case]] = MappingProxyType({"bert": bert, "gpt": gpt})


def _masked(x: Tensor, mask: int) -> Pair:
    """Texts of which some characters are masked, and these characters as labels."""
    hidden = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < _MASKED
    return torch.where(hidden, mask, x), torch.where(hidden, x, IGNORED)


def test_loss(case: Case, lr: float, *, seed: int) -> float:
    """The test loss after a full training with the schedule."""
    torch.manual_seed(10_000 + seed)
    model, (x, y) = case.model(), case.split.train
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    scheduler = LambdaLR(optimizer, case.factor)
    order = batch_indices(seed=10_000 + seed, start=0, stop=STEPS, samples=len(x), batch_size=BATCH)
    for at in order:
        optimizer.zero_grad()
        loss(model(x[at]), y[at]).backward()
        optimizer.step()
        scheduler.step()
    model.eval()
    with torch.no_grad():
        return float(loss(model(case.split.test[0]), case.split.test[1]))


def advised(
    case: Case, *, schedule: Literal["constant", "linear", "cosine"], warmup: int, budget: float
) -> lratlas.Advice:
    """What is advised with and without the schedule."""
    task = lratlas.Task(
        model=case.model,
        train=case.split.train,
        validation=case.split.validation,
        test=case.split.test,
        loss=loss,
        batch_size=BATCH,
        rule={"name": "adamw"},
    )
    return lratlas.find(
        task,
        steps=STEPS,
        schedule=schedule,
        warmup=warmup,
        budget=budget,
        metric="loss",
        folder=tempfile.mkdtemp(),
    )


def rows(name: str, *, seeds: int, budget: float) -> list[str]:
    """The rows of the table for one case."""
    case = CASES[name]()
    grid = {lr: [test_loss(case, lr, seed=seed) for seed in range(seeds)] for lr in GRID}
    best = min(grid, key=lambda lr: float(np.mean(grid[lr])))
    lines = [f"| {name} | {case.schedule} | best of the grid | {best:.2g} | {shown(grid[best])} | {len(GRID)} |"]
    advices = {
        f"`schedule={case.schedule!r}`": advised(case, schedule=case.schedule, warmup=WARMUP, budget=budget),
        "without it": advised(case, schedule="constant", warmup=0, budget=budget),
    }
    for way, advice in advices.items():
        if advice.lr is None:
            lines.append(f"| {name} | {case.schedule} | {way} | none: {advice.verdict} | | {advice.cost:.2f} |")
            continue
        reached = [test_loss(case, advice.lr, seed=seed) for seed in range(seeds)]
        lr = f"{advice.lr:.2g} ({advice.low:.2g} to {advice.high:.2g})"
        lines.append(f"| {name} | {case.schedule} | {way} | {lr} | {shown(reached)} | {advice.cost:.2f} |")
    around = ", ".join(f"{lr:.2g}: {np.mean(values):.3f}" for lr, values in grid.items())
    return [*lines, f"| {name} | {case.schedule} | the grid | {around} | | |"]


def shown(values: Sequence[float]) -> str:
    """Mean and standard error."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.3f} ± {error:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Advice for trainings with a schedule.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all if none")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=1.5)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| net | schedule | LR from | LR | test loss | cost |")
    print("|---|---|---|---|---|---|")
    for name in given.cases or CASES:
        print("\n".join(rows(name, seeds=given.seeds, budget=given.budget)), flush=True)


if __name__ == "__main__":
    main()
