"""What the methods answer, as rows of a table that a benchmark can continue."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.advice.oracle import read

TABLE = "choices"
FOUND, TIE = "found", "tie"
CHOICES = pl.Schema(
    {
        "method": pl.String,
        "problem": pl.String,
        "seed": pl.Int64,
        "draw": pl.Int64,
        "lr": pl.Float64,
        "cost": pl.Float64,
        "finish": pl.String,
        "verdict": pl.String,
        "low": pl.Float64,
        "high": pl.Float64,
        "expected": pl.Float64,
        "expected_low": pl.Float64,
        "expected_high": pl.Float64,
        "seconds": pl.Float64,
        "training_seconds": pl.Float64,
    }
)
STORED = pl.Schema({"family": pl.String, **CHOICES})


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a method answers to a problem.

    Attributes:
        method: Its name in tables.
        problem: Name of the problem.
        seed: Which of the searches of this problem, one of `oracle.SEEDS`.
        lr: The LR; None where the method declines to name one.
        cost: Of the search only, in full trainings.
        finish: How to finish, one of `scoring.ENDS`.
        draw: Seed of the method's own random numbers.
        verdict: What the method says about the problem; ``found`` where it names an LR.
        low: The lower end of the range of good LRs; None where the method gives no range.
        high: The upper end.
        expected: The validation metric that a full training is expected to reach, in the problem's unit.
        expected_low: The lower end of its 90% interval.
        expected_high: The upper end.
        seconds: Processor time of the search; None where its trainings are looked up.
        training_seconds: Processor time of a plain full training on the same machine.
    """

    method: str
    problem: str
    seed: int
    lr: float | None
    cost: float = 0.0
    finish: str = "either"
    draw: int = 0
    verdict: str = FOUND
    low: float | None = None
    high: float | None = None
    expected: float | None = None
    expected_low: float | None = None
    expected_high: float | None = None
    seconds: float | None = None
    training_seconds: float | None = None


def as_table(choices: Iterable[Choice]) -> pl.DataFrame:
    """Choices as rows of `CHOICES`."""
    return pl.DataFrame([vars(choice) for choice in choices], schema=CHOICES)


def as_choices(table: pl.DataFrame) -> list[Choice]:
    """The choices of such rows."""
    return [Choice(**row) for row in table.select(CHOICES.names()).iter_rows(named=True)]


def stored(folder: Path) -> pl.DataFrame:
    """The folder's choices, rows of `STORED`."""
    return read(folder, TABLE, STORED)


def add(folder: Path, family: str, choices: Iterable[Choice]) -> None:
    """Add a family's choices to the folder's table."""
    rows = as_table(choices).with_columns(family=pl.lit(family)).select(STORED.names())
    _write(folder, pl.concat([stored(folder), rows]))


def remove(folder: Path, families: Iterable[str], problems: Iterable[str]) -> None:
    """Remove the choices that these families made for these problems."""
    there = pl.col("family").is_in(list(families)) & pl.col("problem").is_in(list(problems))
    _write(folder, stored(folder).filter(~there))


def _write(folder: Path, table: pl.DataFrame) -> None:
    """Replace the table at once or not at all."""
    temporary = folder / f"{TABLE}.{os.getpid()}.tmp"
    table.write_parquet(temporary)
    temporary.replace(folder / f"{TABLE}.parquet")
