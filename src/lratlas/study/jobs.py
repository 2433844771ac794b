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
    """One repetition: its number, what draws its data (None: not generated) and what draws its training."""

    seed: int
    data_seed: int | None = None
    training_seed: int
    fingerprint: str


class Lane(Part):
    """The learning rates of one run of every seed of a stack."""

    plr: float
    plr2: float | None = None
    flr: float | None = None

    @property
    def lr(self) -> float:
        """The LR that the run is trained with."""
        return next(lr for lr in (self.flr, self.plr2, self.plr) if lr is not None)


class Average(Part):
    """Weight averages taken along a job: SWA-k of the checkpoints at the given steps, the run ids per count."""

    counts: tuple[int, ...]
    steps: tuple[int, ...]
    runs: tuple[tuple[tuple[str, ...], ...], ...]  # [count][seed][lane]


class Training(Part):
    """A stack of runs trained as one program.

    ``runs`` and ``parents`` are [seed][lane]. A job starts from the end points of job ``parent``, at step ``start`` of
    the batch order; its trace has a row every ``trace_every`` steps and it can be resumed at the ends of ``segments``.
    Where ``epoch`` gives the steps of an epoch, the first one in which every sample was fitted is recorded.
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
        """The name of its checkpoint in the middle of a segment."""
        return f"{self.id}-part"

    @property
    def recorded(self) -> tuple[str, ...]:
        """The tables that get a part at the end of every segment."""
        traced = () if self.stage == "average" else ("traces",)
        return traced if self.epoch is None else ("convergence", *traced)

    def seed_of(self, run: str) -> Seed:
        """The repetition of one of its runs, or of its averages."""
        grids = (self.runs, *(self.average.runs if self.average else ()))
        return next(seed for grid in grids for seed, row in zip(self.seeds, grid, strict=True) if run in row)

    @property
    def work(self) -> int:
        """Run-steps, the unit of progress."""
        return self.size * (self.segments[-1] - self.start)


class Measuring(Part):
    """One measurement of the models of one training job, its averages included, or of the initial models of some seeds.

    Attributes:
        id: Also the name of the part of the table that the job writes.
        measurement: The name of the measurement.
        training: The training job; None for initial models.
        seeds: Whose initial models; empty for trained models.
        solutions: For a comparison of solutions, the runs of each in the order of those of the training job,
            [seed][lane].
        options: What the result depends on besides the models.
    """

    id: str
    measurement: str
    training: str | None = None
    seeds: tuple[Seed, ...] = ()
    solutions: dict[Role, tuple[tuple[str, ...], ...]] = {}
    options: dict[str, bool | int | float | str | tuple[tuple[int, int], ...]] = {}


Job = Training | Measuring


def identity(*parts: object) -> str:
    """A short hash of whatever defines a run or a job."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
