"""The progress of a study, and the PLRs that a bisection adds next."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import polars as pl

from lratlas.config.sections import RefineSpec, Spec
from lratlas.errors import StudyError
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.study.folder import SPEC
from lratlas.study.jobs import Job, Measuring, Training
from lratlas.study.plan import PLAN, Plan
from lratlas.study.store import Store
from lratlas.tables import Tables

_DIGITS = 5  # significant digits of an added PLR: enough for every allowed ratio


def next_plr(tables: Tables, refine: RefineSpec) -> float | None:
    """The PLR that halves the widest gap around a boundary, on a log scale; None if all gaps are narrow enough.

    The bracket ends at PLRs that have a regime. Undecided PLRs inside the bracket divide it into several gaps.

    Args:
        tables: A study's tables; reads ``boundaries`` and ``regimes``.
        refine: The boundary to bisect, and the ratio at which a gap is narrow enough.

    Raises:
        StudyError: All PLRs are on one side of the boundary.
    """
    row = tables["boundaries"].row(by_predicate=pl.col("boundary") == refine.boundary, named=True)
    regimes = tables["regimes"].sort("plr")
    if row["value"] is None:
        found = ", ".join(regimes["regime"].unique(maintain_order=True))
        low, high = regimes["plr"][0], regimes["plr"][-1]
        raise StudyError(
            f"The {refine.boundary} boundary cannot be bisected: the ends of the grid, {low:g} and {high:g}, are"
            f" not on opposite sides of it (found: {found}); set pretrain.lrs to a grid that contains the"
            " boundary."
        )
    inside = regimes.filter(pl.col("plr").is_between(row["below"], row["above"]))["plr"].to_list()
    low, high = max(pairwise(inside), key=lambda gap: gap[1] / gap[0])
    middle = float(f"{(low * high) ** 0.5:.{_DIGITS}g}")
    return middle if high / low > refine.ratio and low < middle < high else None


def with_plrs(spec: Spec, plrs: Iterable[float]) -> Spec:
    """The spec with more pre-training LRs."""
    lrs = tuple(sorted({*spec.pretrain.lrs, *map(float, plrs)}))
    return spec.model_copy(update={"pretrain": spec.pretrain.model_copy(update={"lrs": lrs})})


_TABLES = {measurement.name: measurement.table for measurement in MEASUREMENTS}
_ALL = "all"  # all stages together
State = Literal["not planned yet", "unfinished", "bisecting", "finished"]


@dataclass(frozen=True, kw_only=True)
class Count:
    """A total, and how much of it is done."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The progress of a study.

    Attributes:
        state: ``bisecting`` if all jobs are done but another PLR will be added.
        jobs: All jobs.
        kinds: The jobs of each kind: the stages ``pretrain``, ``second``, ``finetune``, ``average``, and the
            measurements by name.
        steps: SGD steps, summed over runs; the completed ones survive an interruption.
        rate: SGD steps per second of one process, in completed training jobs; None before the first.
        seconds_left: Time that one process needs for the remaining training; None without a rate.
    """

    state: State
    jobs: Count
    kinds: Mapping[str, Count]
    steps: Count
    rate: float | None
    seconds_left: float | None


def is_done(store: Store, job: Job) -> bool:
    """Whether the store has every file that a job writes."""
    if not isinstance(job, Training):
        return job.id in store.parts(table_of(job))
    parts = {f"{job.id}-{end}" for end in job.segments}
    recorded = all(parts <= store.parts(table) for table in job.recorded)
    return job.id in store.parts("runs") and store.has_weights(job.id) and recorded


def standing(store: Store, plan: Plan | None, tables: Tables, refine: RefineSpec | None) -> Standing:
    """Compute the progress of a study.

    Args:
        store: The study.
        plan: Its plan; None if there is no plan yet.
        tables: Its tables; reads ``runs`` and, for a bisection, ``boundaries`` and ``regimes``.
        refine: The bisection settings of the spec.
    """
    there = listing(store)
    jobs, trainings = (plan.jobs, plan.trainings) if plan else ((), ())
    done = {job.id for job in jobs if is_done(there, job)}
    kinds, finished = Counter(map(kind_of, jobs)), Counter(kind_of(job) for job in jobs if job.id in done)
    trained, left = Counter[str](), Counter[str]()  # run-steps by stage: of finished jobs, of unfinished jobs
    for job in trainings:
        if job.id in done:
            trained[job.stage] += job.work
        else:
            left[job.stage] += job.work - _checkpointed_steps(there, job)
    paces = _paces(trained, tables["runs"])
    total = sum(job.work for job in trainings)
    return Standing(
        state=_state(plan, tables, refine, all_done=len(done) == len(jobs)),
        jobs=Count(done=len(done), total=len(jobs)),
        kinds={kind: Count(done=finished[kind], total=number) for kind, number in kinds.items()},
        steps=Count(done=total - left.total(), total=total),
        rate=1 / paces[_ALL] if paces else None,
        seconds_left=sum(steps * paces.get(stage, paces[_ALL]) for stage, steps in left.items()) if paces else None,
    )


def version(store: Store) -> str:
    """A short text that changes when table parts, the spec or the plan change.

    It only lists names, so a caller can poll it every few seconds while a study runs.

    Raises:
        StudyError: The study cannot be read.
    """
    texts = [store.read_text(name) for name in (SPEC, PLAN) if store.exists(name)]
    parts = {table: sorted(store.parts(table)) for table in store.table_names}
    return hashlib.sha256(json.dumps([texts, parts]).encode()).hexdigest()[:16]


def listing(store: Store) -> Store:
    """A copy of a store that lists each folder only once, for queries about many jobs."""
    return _Listing(store.filesystem, store.root)


class _Listing(Store):
    @cached_property
    def _listed(self) -> dict[str, set[str]]:
        return {}

    @cached_property
    def _weights(self) -> frozenset[str]:
        return frozenset(super().weights())

    def parts(self, table: str) -> set[str]:
        if table not in self._listed:
            self._listed[table] = super().parts(table)
        return self._listed[table]

    def has_weights(self, name: str) -> bool:
        return name in self._weights


def kind_of(job: Job) -> str:
    """The kind under which a job is counted: the stage of training, or the measurement."""
    return job.stage if isinstance(job, Training) else job.measurement


def table_of(job: Measuring) -> str:
    """The table that a measurement job writes."""
    return _TABLES.get(job.measurement, job.measurement)


def _checkpointed_steps(there: Store, job: Training) -> int:
    """Run-steps of an open job up to its last checkpoint, where it would resume."""
    ends = [end for end in job.segments if there.has_weights(f"{job.id}-{end}")]
    return job.size * (max(ends, default=job.start) - job.start)


def _paces(trained: Mapping[str, int], runs: pl.DataFrame) -> dict[str, float]:
    """Seconds per run-step of one process, by stage and overall, from finished jobs; empty if there are none.

    Args:
        trained: Run-steps of the finished jobs by stage.
        runs: The ``runs`` table.
    """
    spent = dict(runs.group_by("stage").agg(pl.col("seconds").sum()).iter_rows())
    seconds = {stage: spent[stage] for stage in trained if spent.get(stage)}
    if not seconds:
        return {}
    overall = sum(seconds.values()) / sum(trained[stage] for stage in seconds)
    return {_ALL: overall, **{stage: spent / trained[stage] for stage, spent in seconds.items()}}


def _state(plan: Plan | None, tables: Tables, refine: RefineSpec | None, *, all_done: bool) -> State:
    if plan is None:
        return "not planned yet"
    if not all_done:
        return "unfinished"
    try:
        return "bisecting" if refine and next_plr(tables, refine) is not None else "finished"
    except StudyError:  # resuming the study reports that its boundary cannot be bisected
        return "finished"
