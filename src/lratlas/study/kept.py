"""What a study keeps of an earlier plan: the plan if it still holds, and what to do with unclaimed parts."""

from collections.abc import Callable

from lratlas.errors import DamagedFile, StudyError
from lratlas.study.plan import TABLE_OF, Plan, Training, read_plan
from lratlas.study.progress import is_done
from lratlas.study.store import Store

_TABLES = ("runs", "traces", "convergence", *TABLE_OF.values())


def kept_plan(store: Store, notice: Callable[[str], None]) -> Plan | None:
    """The stored plan; None where there is none, or where it was damaged and is now set aside.

    Args:
        store: The study.
        notice: Called with a sentence about a damaged plan.
    """
    if not store.exists("plan.json"):
        return None
    try:
        return read_plan(store.read_text("plan.json"), where="plan.json")
    except DamagedFile as error:
        notice(f"{error.path} is damaged; it is set aside in damaged/ and made again.")
        store.set_aside(error.path)
        return None


def check_spec_holds(store: Store, old: Plan, fresh: Plan) -> None:
    """Check that the spec still asks for every run of the old plan.

    Args:
        store: The study.
        old: The stored plan.
        fresh: The plan that the stored spec gives on its own.

    Raises:
        StudyError: It does not, so that the spec was altered in what cannot grow.
    """
    wanted, known = _runs(fresh), _runs(old)
    if any(wanted.get(run) != facts for run, facts in known.items()):
        raise StudyError(
            f"spec.toml in {store.url} was altered: it no longer describes the runs that the study has; put"
            " it back as it was, or explore the new spec in another folder."
        )


def set_orphans_aside(store: Store, plan: Plan) -> None:
    """Set aside the parts of tables that belong to no job of the plan: rows must not count twice."""
    jobs = {job.id for job in plan.jobs}
    for table in _TABLES:
        for part in store.parts(table):
            if not {part, part.rpartition("-")[0]} & jobs:
                store.set_aside(f"tables/{table}/{part}.parquet")


def forget_segments(store: Store, plan: Plan) -> None:
    """Remove the segment checkpoints of finished jobs that a killed process had no time to remove."""
    there = set(store.weights())
    for job in plan.trainings:
        for end in job.segments:
            if f"{job.id}-{end}" in there and is_done(store, job):
                store.remove_weights(f"{job.id}-{end}")


def _runs(plan: Plan) -> dict[str, tuple[object, ...]]:
    """What defines each trained run, however runs are put together in jobs."""
    return {run: facts for job in plan.trainings if job.stage != "average" for run, facts in _facts(job)}


def _facts(job: Training) -> list[tuple[str, tuple[object, ...]]]:
    common = (job.stage, job.segments, job.trace_every)
    return [
        (run, (*common, seed, lane, job.parents[index][at] if job.parents else None))
        for index, (seed, row) in enumerate(zip(job.seeds, job.runs, strict=True))
        for at, (lane, run) in enumerate(zip(job.lanes, row, strict=True))
    ]
