"""The files of a finished study, and the faults of the files that are there."""

from collections.abc import Mapping
from dataclasses import dataclass

from lratlas.errors import DamagedFile
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.study.description import path_of
from lratlas.study.jobs import Grid, Job, Training
from lratlas.study.plan import Plan, prerequisites
from lratlas.study.progress import listing, table_of
from lratlas.study.store import Store

ANALYSIS = ("regimes", "boundaries", "sparsity", "power_law", "claims")
"""The tables that follow from others. They are stored with the report, in one part each."""
WHOLE = "analysis"
"""The name of that part."""

MISSING, FOREIGN, EXTRA = "is missing", "is of other runs than were planned", "belongs to no job of the plan"
BLOCKED = "is no file, but something else has its name"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A file that is not as it was written.

    Attributes:
        path: In the study's folder.
        what: What is wrong with it.
    """

    path: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A file that a job writes.

    Attributes:
        job: The id of the job; None for files that no job writes.
        runs: The ids of the runs that it may hold rows or weights of.
        complete: It holds all of them.
        permanent: It is there when the job is done.
    """

    job: str | None
    runs: frozenset[str] = frozenset()
    complete: bool = False
    permanent: bool = True


def expected_files(plan: Plan) -> Mapping[str, Expected]:
    """Every file that the jobs of a plan write into a study, by its path."""
    files = {_part(table, WHOLE): Expected(job=None, permanent=False) for table in ANALYSIS}
    held = dict[str, frozenset[str]]()
    for job in plan.trainings:
        own, means = _ids(job.runs), _ids(*(job.average.runs if job.average else ()))
        held[job.id] = own | means
        ended = Expected(job=job.id, runs=means if job.stage == "average" else own | means, complete=True)
        files |= {_part("runs", job.id): ended, _weights(job.id): ended}
        traced = Expected(job=job.id, runs=own)
        files |= {_part(table, f"{job.id}-{end}"): traced for table in job.recorded for end in job.segments}
        state = Expected(job=job.id, runs=own, complete=True, permanent=False)
        files |= {_weights(name): state for name in (*(f"{job.id}-{end}" for end in job.segments), job.part_way)}
    builtin = {measurement.name for measurement in MEASUREMENTS}
    for job in plan.measurements:
        runs = held.get(job.training or "", frozenset())
        files[_part(table_of(job), job.id)] = Expected(job=job.id, runs=runs)
        if job.measurement not in builtin:
            files[path_of(job.measurement)] = Expected(job=None)
    return files


def file_faults(store: Store, plan: Plan | None) -> list[Fault]:
    """What is wrong with the parts of tables, the weights and the descriptions of a study, by path; reads all of them.

    Args:
        store: The study.
        plan: Its plan; without one it is not known which of them should be there.
    """
    expected = expected_files(plan) if plan else None
    found = dict[str, str]()
    readers = store.readers()
    for path, read in readers.items():
        try:
            runs = read()
        except DamagedFile as error:
            found[error.path] = error.what
            continue
        if expected is not None and (what := _misplaced(expected.get(path), runs)):
            found.setdefault(path, what)
    if plan and plan.finished:
        for table in ANALYSIS:
            path = _part(table, WHOLE)
            if path in readers and path not in found and store.source_of(table, WHOLE) not in {None, plan.spec_sha256}:
                found[path] = FOREIGN
    if plan and expected:
        done = {None, *_surely_done(store, plan)}
        needed = {path for path, each in expected.items() if each.permanent and each.job in done}
        # Tables whose description was lost are not listed.
        found |= {path: MISSING for path in needed - readers.keys() if not store.exists(path)}
        found |= {path: BLOCKED for path in expected.keys() - readers.keys() if store.is_blocked(path)}
    return [Fault(path=path, what=found[path]) for path in sorted(found)]


def _misplaced(expected: Expected | None, runs: frozenset[str] | None) -> str:
    if expected is None:
        return EXTRA
    known = (
        runs is None or expected.job is None or (runs == expected.runs if expected.complete else runs <= expected.runs)
    )
    return "" if known else FOREIGN


def _surely_done(store: Store, plan: Plan) -> set[str]:
    """The jobs that were done once: all of a finished study, those with their last file, and those that others need."""
    if plan.finished:
        return {job.id for job in plan.jobs}
    there, holders = listing(store), plan.holders()
    done = {job.id for job in plan.jobs if job.id in there.parts(_last_table(job))}
    begun = done | {part.rpartition("-")[0] for part in there.parts("traces")}
    for job in reversed(plan.jobs):  # a plan names no job before those that it needs
        if job.id in begun or job.id in done:
            done |= prerequisites(job, holders)
    return done


def _last_table(job: Job) -> str:
    """The table of which a job writes a part last."""
    return "runs" if isinstance(job, Training) else table_of(job)


def _ids(*grids: Grid) -> frozenset[str]:
    return frozenset(run for grid in grids for row in grid for run in row)


def _part(table: str, name: str) -> str:
    return f"tables/{table}/{name}.parquet"


def _weights(name: str) -> str:
    return f"checkpoints/{name}.safetensors"
