"""The files a finished study must have, and the faults of the files it has."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import polars as pl

from lratlas.errors import DamagedFile
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.study.description import FOLDER as DESCRIPTIONS
from lratlas.study.description import path_of
from lratlas.study.folder import ASIDE, FIGURES, REPORT, SPEC
from lratlas.study.jobs import Grid, Job, Measuring, Training, initial_columns, model_columns, run_columns
from lratlas.study.plan import COPY, PLAN, Plan, prerequisites
from lratlas.study.progress import listing, table_of
from lratlas.study.store import Store
from lratlas.tables import SCHEMAS

ANALYSIS = ("regimes", "boundaries", "sparsity", "power_law", "claims")
"""Tables derived from other tables. They are stored with the report, each in one part."""
WHOLE = "analysis"
"""The name of that one part."""

MISSING, FOREIGN, EXTRA = "is missing", "contains other runs than the plan", "belongs to no job of the plan"
FORGED = "has values that the plan contradicts"
BLOCKED, NO_FOLDER = "is not a file: something else has its name", "is not a folder: a file has its name"
_FOLDERS = ("tables", "checkpoints", FIGURES, DESCRIPTIONS, "failures", "sittings", ASIDE)
_FILES = (SPEC, PLAN, COPY, REPORT)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A file that differs from the file that was written.

    Attributes:
        path: Path in the study's folder.
        what: The fault, as a phrase for messages.
    """

    path: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A file in a study's folder.

    Attributes:
        job: The id of the job that writes the file; None if no job writes it.
        runs: The ids of the runs whose rows or weights the file may contain.
        complete: Whether the file contains all of these runs.
        permanent: Whether the file remains after the job is done.
        planned: Returns the values that the plan determines; rows must equal one of these rows in the columns that both
            have. Without columns, any values may be there.
        steps: The steps of a segment, which a trace has.
    """

    job: str | None
    runs: frozenset[str] = frozenset()
    complete: bool = False
    permanent: bool = True
    planned: Callable[[], pl.DataFrame] = field(default=pl.DataFrame, compare=False)
    steps: range | None = None


def expected_files(plan: Plan) -> Mapping[str, Expected]:
    """Every file that the jobs of a plan write to a study, by path."""
    files = {_part(table, WHOLE): Expected(job=None, permanent=False) for table in ANALYSIS}
    held = dict[str, frozenset[str]]()
    for job in plan.trainings:
        own, means = _ids(job.runs), _ids(*(job.average.runs if job.average else ()))
        held[job.id] = own | means
        ended = Expected(
            job=job.id,
            runs=means if job.stage == "average" else own | means,
            complete=True,
            planned=partial(_run_rows, job),
        )
        files |= {_part("runs", job.id): ended, _weights(job.id): ended}
        for table in job.recorded:
            for begin, end in pairwise((job.start, *job.segments)):
                files[_part(table, f"{job.id}-{end}")] = Expected(
                    job=job.id, runs=own, planned=partial(_run_rows, job), steps=range(begin + 1, end + 1)
                )
        state = Expected(job=job.id, runs=own, complete=True, permanent=False)
        files |= {_weights(name): state for name in (*(f"{job.id}-{end}" for end in job.segments), job.part_way)}
    builtin = {measurement.name for measurement in MEASUREMENTS}
    trainings = {job.id: job for job in plan.trainings}
    for job in plan.measurements:
        runs = held.get(job.training or "", frozenset())
        planned = partial(_model_rows, job, trainings.get(job.training or ""))
        files[_part(table_of(job), job.id)] = Expected(job=job.id, runs=runs, planned=planned)
        if job.measurement not in builtin:
            files[path_of(job.measurement)] = Expected(job=None)
    return files


def place_faults(store: Store) -> Iterator[Fault]:
    """Files in the places of folders, and folders, pipes and devices in the places of a study's own files."""
    tables = () if store.is_no_folder("tables") else (f"tables/{table}" for table in store.table_names)
    for name in (*_FOLDERS, *tables):
        if store.is_no_folder(name):
            yield Fault(path=name, what=NO_FOLDER)
    for name in _FILES:
        if store.is_blocked(name):
            yield Fault(path=name, what=BLOCKED)


def file_faults(store: Store, plan: Plan | None) -> list[Fault]:
    """Read all table parts, weights and descriptions of a study and return their faults, by path.

    Args:
        store: The study.
        plan: Its plan; without a plan, missing files cannot be detected.
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
        # Tables whose description is lost are not listed.
        found |= {path: MISSING for path in needed - readers.keys() if not store.exists(path)}
        found |= {path: BLOCKED for path in expected.keys() - readers.keys() if store.is_blocked(path)}
    return [Fault(path=path, what=found[path]) for path in sorted(found)]


def _misplaced(expected: Expected | None, found: pl.DataFrame | frozenset[str] | None) -> str:
    if expected is None:
        return EXTRA
    runs = _runs_in(found) if isinstance(found, pl.DataFrame) else found
    known = (
        runs is None or expected.job is None or (runs == expected.runs if expected.complete else runs <= expected.runs)
    )
    if not known:
        return FOREIGN
    return FORGED if isinstance(found, pl.DataFrame) and _is_forged(expected, found) else ""


def _runs_in(frame: pl.DataFrame) -> frozenset[str] | None:
    return frozenset(frame["run"].drop_nulls()) if "run" in frame.columns else None


def _is_forged(expected: Expected, frame: pl.DataFrame) -> bool:
    """Whether the plan contradicts the rows of a part."""
    planned = expected.planned()
    shared = [name for name in planned.columns if name in frame.columns]
    if shared and not frame.join(planned, on=shared, how="anti", nulls_equal=True).is_empty():
        return True
    if expected.complete and len(frame) != len(planned):
        return True
    return expected.steps is not None and "step" in frame.columns and not set(frame["step"]) <= set(expected.steps)


def _grids(job: Training) -> Iterator[tuple[Grid, Grid | None, int | None]]:
    """The ids of a job's runs and of its averages, each with the runs that they start from and the count."""
    yield job.runs, job.parents, None
    for count, runs in zip(job.average.counts, job.average.runs, strict=True) if job.average else ():
        yield runs, job.runs, count


def _run_rows(job: Training) -> pl.DataFrame:
    return _rows(run_columns(job, *each) for each in _grids(job) if job.stage != "average" or each[2] is not None)


def _model_rows(job: Measuring, training: Training | None) -> pl.DataFrame:
    if training is None:
        return _rows([initial_columns(job.seeds)])
    return _rows(model_columns(training, runs, count) for runs, _, count in _grids(training))


def _rows(columns: Iterable[Mapping[str, object]]) -> pl.DataFrame:
    kinds = SCHEMAS["runs"]
    return pl.concat(pl.DataFrame(each, {name: kinds[name] for name in each}) for each in columns)


def _surely_done(store: Store, plan: Plan) -> set[str]:
    """The jobs that must have been done: all of a finished study, or those with their last file and prerequisites."""
    if plan.finished:
        return {job.id for job in plan.jobs}
    there, holders = listing(store), plan.holders()
    done = {job.id for job in plan.jobs if job.id in there.parts(_last_table(job))}
    begun = done | {part.rpartition("-")[0] for part in there.parts("traces")}
    for job in reversed(plan.jobs):  # a plan lists each job after its prerequisites
        if job.id in begun or job.id in done:
            done |= prerequisites(job, holders)
    return done


def _last_table(job: Job) -> str:
    """The table that a job writes last."""
    return "runs" if isinstance(job, Training) else table_of(job)


def _ids(*grids: Grid) -> frozenset[str]:
    return frozenset(run for grid in grids for row in grid for run in row)


def _part(table: str, name: str) -> str:
    return f"tables/{table}/{name}.parquet"


def _weights(name: str) -> str:
    return f"checkpoints/{name}.safetensors"
