"""What is wrong with the files of a study: damaged ones, and such as are missing although they were written."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lratlas.errors import DamagedFile, StudyError
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.study.description import path_of
from lratlas.study.files import KEY, digest
from lratlas.study.folder import SPEC
from lratlas.study.jobs import Training
from lratlas.study.plan import PLAN, Plan, read_stored_plan, read_stored_spec
from lratlas.study.progress import is_done, listing
from lratlas.study.records import FAILURES, SESSIONS, Failure, Note, Session, read_note
from lratlas.study.store import Store

NOTES: Mapping[str, type[Note]] = {FAILURES: Failure, SESSIONS: Session}
"""Folders of small files that a study can do without, and what stands in them."""

ALTERED, MISSING = "was cut short or altered", "is missing"
EDITED = "was edited since the study was planned"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A file that is not as it was written.

    Attributes:
        path: In the study's folder.
        what: What is wrong with it.
    """

    path: str
    what: str


def faults(store: Store) -> list[Fault]:
    """Everything that is wrong with a study's files, by path; reads all of them.

    Every table part, every weights file, the plan and every note hold a checksum of themselves. The plan has that of
    the spec, which people may edit: working on the study takes the edit in or refuses it. The report
    and the figures are made from tables and are not checked: `lratlas report` makes them again.

    Args:
        store: The study.

    Raises:
        StudyError: The study is of a later format, or cannot be read.
    """
    plan, found = None, list[Fault]()
    try:
        plan = read_stored_plan(store)
    except DamagedFile:
        found.append(Fault(path=PLAN, what=ALTERED))
    found += [Fault(path=path, what=ALTERED) for path in store.find_damaged()]
    found += [*_of_spec(store, plan), *_of_notes(store)]
    found += _missing(store, plan) if plan else []
    return sorted(found, key=lambda fault: fault.path)


def find_unchecked(store: Store) -> list[str]:
    """The files that have no checksum, since a version wrote them that gave them none or was interrupted; by path.

    Raises:
        StudyError: The study is of a later format, or cannot be read.
    """
    without = list[str]()
    try:
        plan = read_stored_plan(store)
    except DamagedFile:
        return []  # which is said as a fault
    if plan and not plan.spec:
        without.append(SPEC)
    if plan and KEY not in json.loads(store.read_text(PLAN)):
        without.append(PLAN)
    return sorted(without)


def is_note(path: str) -> bool:
    """Whether a file is one that a study can do without."""
    return path.partition("/")[0] in NOTES


def _of_spec(store: Store, plan: Plan | None) -> Iterator[Fault]:
    try:
        read_stored_spec(store)
    except StudyError as error:
        yield Fault(path=SPEC, what=str(error))
        return
    if plan and plan.spec and digest(store.read_bytes(SPEC)) != plan.spec:
        yield Fault(path=SPEC, what=EDITED)


def _of_notes(store: Store) -> Iterator[Fault]:
    for folder, kind in NOTES.items():
        for name in store.files(folder):
            try:
                read_note(store, f"{folder}/{name}", kind)
            except DamagedFile:
                yield Fault(path=f"{folder}/{name}", what=ALTERED)


def _missing(store: Store, plan: Plan) -> list[Fault]:
    """Descriptions of measurements, and files of jobs whose last file is there: it is written after all others."""
    there, found = listing(store), list[Fault]()
    extras = {job.measurement for job in plan.measurements} - {measurement.name for measurement in MEASUREMENTS}
    found += [Fault(path=path_of(name), what=MISSING) for name in sorted(extras) if not store.exists(path_of(name))]
    for job in plan.trainings:
        if job.id in there.parts("runs") and not is_done(there, job):
            wanted = [f"tables/{table}/{job.id}-{end}.parquet" for table, end in _recorded_tables(job)]
            found += [
                Fault(path=path, what=MISSING)
                for path in (*wanted, f"checkpoints/{job.id}.safetensors")
                if not store.exists(path)
            ]
    return found


def _recorded_tables(job: Training) -> list[tuple[str, int]]:
    return [(table, end) for table in job.recorded for end in job.segments]
