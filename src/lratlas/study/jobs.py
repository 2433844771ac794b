"""The jobs of a plan: stacks of runs to train, and measurements of trained models."""

import hashlib
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

Grid = Sequence[Sequence[str]]  # run ids, [seed][lane]
Role = Literal["low", "high", "swa"]


class Part(BaseModel):
    """A part of a plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Seed(Part):
    """One repetition: its number, the seed of its data (None: not generated) and the seed of its training."""

    seed: int
    data_seed: int | None = None
    training_seed: int
    fingerprint: str


class Lane(Part):
    """The learning rates of one lane of a stack, which has one run per seed."""

    plr: float
    plr2: float | None = None
    flr: float | None = None

    @property
    def lr(self) -> float:
        """The LR that the run trains with."""
        return next(lr for lr in (self.flr, self.plr2, self.plr) if lr is not None)


class Average(Part):
    """Weight averages that a job computes: SWA-k of the checkpoints at the given steps, with the run ids per count."""

    counts: tuple[int, ...]
    steps: tuple[int, ...]
    runs: tuple[tuple[tuple[str, ...], ...], ...]  # [count][seed][lane]


class Training(Part):
    """A stack of runs that train as one program.

    ``runs`` and ``parents`` are [seed][lane]. A job starts from the end points of job ``parent``, at step ``start`` of
    the batch order. Its trace has a row every ``trace_every`` steps, and it can resume at the ends of ``segments``.
    ``epoch`` is the number of steps of an epoch; if set, the first epoch that fits every sample is recorded.
    """

    id: str
    stage: Literal["pretrain", "second", "finetune", "average"]
    seeds: tuple[Seed, ...]
    lanes: tuple[Lane, ...]
    runs: tuple[tuple[str, ...], ...]
    parent: str | None = None
    parents: tuple[tuple[str, ...], ...] | None = None
    start: int = 0
    segments: tuple[int, ...]
    trace_every: int
    average: Average | None = None
    keep_state: bool = False
    epoch: int | None = None

    @property
    def size(self) -> int:
        """Number of runs."""
        return len(self.seeds) * len(self.lanes)

    @property
    def part_way(self) -> str:
        """The name of the checkpoint in the middle of a segment."""
        return f"{self.id}-part"

    @property
    def recorded(self) -> tuple[str, ...]:
        """The tables that get a part at the end of every segment."""
        traced = () if self.stage == "average" else ("traces",)
        return traced if self.epoch is None else ("convergence", *traced)

    def seed_of(self, run: str) -> Seed:
        """The repetition of a run or a weight average of the job."""
        grids = (self.runs, *(self.average.runs if self.average else ()))
        return next(seed for grid in grids for seed, row in zip(self.seeds, grid, strict=True) if run in row)

    @property
    def work(self) -> int:
        """Number of run-steps, the unit of progress."""
        return self.size * (self.segments[-1] - self.start)


class Measuring(Part):
    """One measurement of the models of a training job, including its averages, or of the initial models of some seeds.

    Attributes:
        id: The job's id, also the name of the table part that it writes.
        measurement: The name of the measurement.
        training: The training job; None for initial models.
        seeds: The seeds whose initial models are measured; empty for trained models.
        solutions: For a comparison of solutions, the run ids of each solution, in the order of the training job's runs,
            [seed][lane].
        options: The other values that the result depends on.
    """

    id: str
    measurement: str
    training: str | None = None
    seeds: tuple[Seed, ...] = ()
    solutions: dict[Role, tuple[tuple[str, ...], ...]] = {}
    options: dict[str, bool | int | float | str | tuple[tuple[int, int], ...]] = {}


Job = Training | Measuring


def identity(*parts: object) -> str:
    """A short hash of the values that define a run or a job."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
