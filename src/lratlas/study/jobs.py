"""The jobs of a plan: stacks of runs to train, and measurements of trained models."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

Grid = Sequence[Sequence[str]]  # run ids, [seed][lane]
Role = Literal["low", "high", "swa"]
MIXED = " under bfloat16"
"""What mixed precision adds to the name of a data type in the ids of runs."""


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


def model_columns(job: Training, runs: Grid, count: int | None) -> dict[str, object]:
    """The columns that identify trained models, in the order [seed][lane].

    Args:
        job: The training job.
        runs: The ids of the job's runs, or of its averages.
        count: Number of averaged checkpoints; None for the job's own runs.
    """
    lanes = [lane for _ in job.seeds for lane in job.lanes]
    return {
        "run": [run for row in runs for run in row],
        "stage": job.stage if count is None else "average",
        "plr": [lane.plr for lane in lanes],
        "flr": [lane.flr for lane in lanes],
        "count": count,
        "seed": [seed.seed for seed in job.seeds for _ in job.lanes],
    }


def run_columns(job: Training, runs: Grid, parents: Grid | None, count: int | None) -> dict[str, object]:
    """The columns of the table ``runs`` that the plan determines, in the order [seed][lane].

    Args:
        job: The training job.
        runs: The ids of the job's runs, or of its averages.
        parents: The ids of the runs that they start from.
        count: Number of averaged checkpoints; None for the job's own runs.
    """
    continued = job.stage == "average"  # the k-th checkpoint after pre-training is the last of SWA-k
    return {
        **model_columns(job, runs, count),
        "parent": [run for row in parents for run in row] if parents else None,
        "plr2": [lane.plr2 for _ in job.seeds for lane in job.lanes],
        "data_seed": [seed.data_seed for seed in job.seeds for _ in job.lanes],
        "steps": job.average.steps[count - 1] if continued and job.average and count else job.segments[-1],
    }


def initial_columns(seeds: Sequence[Seed]) -> dict[str, object]:
    """The columns that identify the initial models of some seeds."""
    trained = dict.fromkeys(("run", "plr", "flr", "count"))
    return {**trained, "stage": "initial", "seed": [seed.seed for seed in seeds]}


def pretrained_id(seed: Seed, lr: float, steps: int, numerics: str) -> str:
    """The id of a pre-training run.

    Args:
        seed: Its repetition.
        lr: Its LR.
        steps: The step at which it ends.
        numerics: The data type of its arithmetic.
    """
    return identity(seed.fingerprint, "pretrain", lr, seed.training_seed, seed.seed, steps, numerics)


def continued_id(seed: Seed, stage: str, lr: float, steps: int, parent: str, numerics: str) -> str:
    """The id of a run with a second PLR or of fine-tuning; see `pretrained_id`, with the id of its parent."""
    return identity(seed.fingerprint, stage, lr, steps, parent, numerics)


def average_id(seed: Seed, count: int, steps: tuple[int, ...], run: str) -> str:
    """The id of an average of a run's checkpoints at the last ``count`` or the first ``count`` of some steps."""
    return identity(seed.fingerprint, "average", count, steps, run)


def has_own_ids(job: Training, dtype: str) -> bool:
    """Whether the ids of a job, its runs and its averages are the hashes of what the job says about them.

    Args:
        job: The job.
        dtype: The data type of the study's weights; under mixed precision ids contain that, too.
    """
    runs = {tuple(tuple(row) for row in _ids_of(job, numerics)) for numerics in (dtype, f"{dtype}{MIXED}")}
    averages = job.average and tuple(
        tuple(tuple(average_id(seed, count, job.average.steps, run) for run in row) for seed, row in _rows(job))
        for count in job.average.counts
    )
    known = job.average.runs if job.stage == "average" and job.average else job.runs
    return (
        (job.stage == "average" or job.runs in runs)
        and (not job.average or job.average.runs == averages)
        and job.id == f"{job.stage}-{identity(known)}"
    )


def _ids_of(job: Training, numerics: str) -> Iterator[Iterator[str]]:
    steps = job.segments[-1]
    for index, seed in enumerate(job.seeds):
        if job.parents is None:
            yield (pretrained_id(seed, lane.plr, steps, numerics) for lane in job.lanes)
        else:
            pairs = zip(job.lanes, job.parents[index], strict=True)
            yield (continued_id(seed, job.stage, lane.lr, steps, parent, numerics) for lane, parent in pairs)


def _rows(job: Training) -> Iterator[tuple[Seed, tuple[str, ...]]]:
    return zip(job.seeds, job.runs, strict=True)


def identity(*parts: object) -> str:
    """A short hash of the values that define a run or a job."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
