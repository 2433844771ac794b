"""What is wrong with the files of a study: damaged ones, and such as are missing although they were written."""

import json
from dataclasses import dataclass

from lratlas.errors import DamagedFile, StudyError
from lratlas.study.conduct import stored_spec
from lratlas.study.plan import Plan, Training, read_plan
from lratlas.study.progress import is_done, listing
from lratlas.study.store import Store

NOTES = ("failures", "sittings")
"""Folders of small files that a study can do without."""


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

    Every table part, every weights file and the plan hold a checksum of themselves. The spec, which people may edit, is
    held against the plan when the study is worked on.

    Args:
        store: The study.
    """
    found = [Fault(path=path, what="was cut short or altered") for path in store.damaged()]
    try:
        stored_spec(store)
    except StudyError as error:
        found.append(Fault(path="spec.toml", what=str(error)))
    if store.exists("plan.json"):
        try:
            found += _missing(store, read_plan(store.read_text("plan.json"), where="plan.json"))
        except DamagedFile:
            found.append(Fault(path="plan.json", what="was cut short or altered"))
        except StudyError as error:
            found.append(Fault(path="plan.json", what=str(error)))
    for folder in NOTES:
        for name in store.files(folder):
            try:
                json.loads(store.read_text(f"{folder}/{name}"))
            except (StudyError, ValueError):
                found.append(Fault(path=f"{folder}/{name}", what="was cut short or altered"))
    return sorted(found, key=lambda fault: fault.path)


def _missing(store: Store, plan: Plan) -> list[Fault]:
    """Files of jobs whose last file is there, which is written when all others are."""
    there, found = listing(store), list[Fault]()
    for job in plan.trainings:
        if job.id in there.parts("runs") and not is_done(there, job):
            wanted = [f"tables/{table}/{job.id}-{end}.parquet" for table, end in _recorded(job)]
            found += [
                Fault(path=path, what="is missing")
                for path in (*wanted, f"checkpoints/{job.id}.safetensors")
                if not store.exists(path)
            ]
    return found


def _recorded(job: Training) -> list[tuple[str, int]]:
    return [(table, end) for table in job.recorded for end in job.segments]
