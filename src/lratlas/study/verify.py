"""Find damaged and missing files of a study."""

import json
from collections.abc import Iterator
from contextlib import suppress

from lratlas.config.spec import extends
from lratlas.errors import DamagedFile, StudyError
from lratlas.files import ALTERED, KEY, digest
from lratlas.study.expected import BLOCKED, MISSING, Fault, file_faults, place_faults
from lratlas.study.folder import SPEC
from lratlas.study.lock import COUNT
from lratlas.study.lock import NAME as LOCK
from lratlas.study.plan import (
    COPY,
    PLAN,
    Plan,
    read_checked_copy,
    read_checked_plan,
    read_planned_spec,
    read_stored_plan,
    read_stored_spec,
    usable_plan,
)
from lratlas.study.progress import is_done, listing
from lratlas.study.records import Failure, Note, Session, read_note
from lratlas.study.store import Store

NOTES: tuple[type[Note], ...] = (Failure, Session)
"""Small files that a study can lose."""

_COPIED = 8
"""The first format that has a copy of the plan."""

TO_MEND, MENDED = "fix with `lratlas verify --repair`", "made again"
EDITED = "was edited since the study was planned"


def faults(store: Store) -> list[Fault]:
    """All faults of a study's files, by path; reads every file.

    Every table part, weights file, plan and note contains its checksum; parts and weights also contain their path. The
    plan determines which files must exist, and with which runs. The plan stores the text of the spec, which users may
    edit: the next run accepts or refuses the edit. The report and the figures are made from tables and are not checked:
    `lratlas report` regenerates them.

    Args:
        store: The study.

    Raises:
        StudyError: The study is of a later format, or cannot be read.
    """
    plan, found = None, list[Fault]()
    try:
        plan = read_checked_plan(store)
    except DamagedFile as error:
        found.append(Fault(path=PLAN, what=error.what))
        plan = read_checked_copy(store)
    else:
        found += _of_copy(store, plan)
    if plan is None and not found and store.parts("runs"):
        found.append(Fault(path=PLAN, what=MISSING))
    found += _of_lock(store)
    found += [*file_faults(store, plan), *_of_spec(store, plan), *_of_notes(store)]
    found += place_faults(store)  # the last fault of a path counts
    return [fault for _, fault in sorted({fault.path: fault for fault in found}.items())]


def find_unchecked(store: Store) -> list[str]:
    """The files without a checksum, from an earlier version or an interrupted write; by path.

    Raises:
        StudyError: The study is of a later format, or cannot be read.
    """
    without = list[str]()
    try:
        plan = read_stored_plan(store)
    except DamagedFile:
        return []  # reported as a fault
    if plan and not plan.spec_sha256:
        without.append(SPEC)
    if plan and KEY not in json.loads(store.read_text(PLAN)):
        without.append(PLAN)
    return sorted(without)


def count_open(store: Store) -> int:
    """Number of jobs in a study's plan that are not done; their files may be missing."""
    plan, there = usable_plan(store), listing(store)
    return sum(not is_done(there, job) for job in plan.jobs) if plan else 0


def is_note(path: str) -> bool:
    """Whether a study can lose the file."""
    return path.removesuffix(COUNT) == LOCK or path.partition("/")[0] in {kind.folder for kind in NOTES}


def put_spec_back(store: Store) -> bool:
    """Restore the planned spec if ``spec.toml`` is unreadable or conflicts with the plan.

    Returns:
        Whether it was restored: the plan may lack the spec, or nothing may need repair.

    Raises:
        StudyError: The study cannot be written.
    """
    plan = usable_plan(store)
    if plan is None or not plan.spec:
        return False
    if (parts := store.parts("runs")) and not parts & {job.id for job in plan.trainings}:
        return False  # the plan belongs to another study
    with suppress(StudyError):
        if extends(read_planned_spec(store, plan), read_stored_spec(store)) is None:
            return False
    if store.exists(SPEC) or store.is_blocked(SPEC):
        store.set_aside(SPEC)
    store.write_text(SPEC, plan.spec)
    return True


def _of_copy(store: Store, plan: Plan | None) -> Iterator[Fault]:
    copy = read_checked_copy(store)
    if not plan or plan.format < _COPIED:
        return
    if copy is None:
        yield Fault(path=COPY, what=ALTERED if store.exists(COPY) else MISSING)
    # A process may have been killed between the two writes: an earlier plan of the study has no other jobs.
    elif not {job.id for job in copy.jobs} <= {job.id for job in plan.jobs}:
        yield Fault(path=COPY, what="is not that of plan.json")


def _of_lock(store: Store) -> Iterator[Fault]:
    for name in (LOCK, f"{LOCK}{COUNT}"):
        if store.is_blocked(name) or store.is_link(name):
            yield Fault(path=name, what=BLOCKED)


def _of_spec(store: Store, plan: Plan | None) -> Iterator[Fault]:
    if not store.exists(SPEC):
        yield Fault(path=SPEC, what=MISSING)
        return
    try:
        read_stored_spec(store)
    except StudyError as error:
        yield Fault(path=SPEC, what=str(error))
        return
    if plan and plan.spec_sha256 and digest(store.read_bytes(SPEC)) != plan.spec_sha256:
        yield Fault(path=SPEC, what=EDITED)


def _of_notes(store: Store) -> Iterator[Fault]:
    for kind in NOTES:
        for path in [f"{kind.folder}/{name}" for name in store.files(kind.folder)]:
            try:
                read_note(store, path, kind)
            except DamagedFile:
                yield Fault(path=path, what=ALTERED)
