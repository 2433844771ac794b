"""Compare a study with its earlier plan: check that the plan still holds, and handle unclaimed parts."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from lratlas.config.sections import Spec
from lratlas.errors import DamagedFile, StudyError
from lratlas.files import ALTERED
from lratlas.measure.base import Measurement
from lratlas.study.description import description_of, write_description
from lratlas.study.expected import EXTRA, NO_FOLDER, Fault, file_faults, place_faults
from lratlas.study.jobs import Seed, Training
from lratlas.study.plan import COPY, PLAN, Plan, read_checked_copy, read_checked_plan
from lratlas.study.progress import is_done, listing
from lratlas.study.store import Store
from lratlas.training.fingerprint import describe_changes

_OTHER_TASKS = 5
"""The last format in which presets had other models, repetitions other seeds, or tasks other fingerprints."""


def reconcile_plan(store: Store, notice: Callable[[str], None]) -> Plan | None:
    """The stored plan, or its copy if the plan is damaged (it is then set aside); None if both are missing.

    First sets aside whatever has the place of a folder or of another kind of file.

    Args:
        store: The study.
        notice: Receives a sentence about each file that is set aside.

    Raises:
        StudyError: The plan is of a later format.
    """
    for fault in place_faults(store):
        _set_aside(store, fault, notice)
    try:
        plan = read_checked_plan(store)
    except DamagedFile as error:
        _set_aside(store, Fault(path=PLAN, what=error.what), notice)
        plan = read_checked_copy(store)
        if plan is None:
            notice("The copy of the plan is missing: jobs that were added after the study began may be trained again.")
    if read_checked_copy(store) is None and store.exists(COPY):
        _set_aside(store, Fault(path=COPY, what=ALTERED), notice)
    return plan


def set_faulty_aside(store: Store, plan: Plan | None, notice: Callable[[str], None]) -> None:
    """Set aside table parts, weights and descriptions that do not match the plan, and report each in a sentence.

    Args:
        store: The study.
        plan: Its plan; without a plan, only damaged files are reported.
        notice: Receives each sentence.
    """
    for fault in file_faults(store, plan):
        _set_aside(store, fault, notice)


def was_finished_earlier(store: Store, old: Plan, seeds: Sequence[Seed], spec: Spec) -> bool:
    """Whether a study is complete, but from a version with other models, seeds or fingerprints.

    Args:
        store: The study.
        old: The stored plan.
        seeds: Its repetitions, as this version describes them.
        spec: Its spec, which may have been edited since.
    """
    if old.format > _OTHER_TASKS or _same_task(old, seeds) or _asks_for_more(spec, old):
        return False
    there = listing(store)
    return all(is_done(there, job) for job in old.jobs)


def check_task_holds(store: Store, old: Plan, seeds: Sequence[Seed], parts: Mapping[str, str]) -> None:
    """Check that the task is the one in the old plan.

    Args:
        store: The study.
        old: The stored plan.
        seeds: Its repetitions, as this version describes them.
        parts: Fingerprints of the parts of the first repetition's task.

    Raises:
        StudyError: The task differs, or cannot be compared.
    """
    if _same_task(old, seeds):
        return
    if old.format <= _OTHER_TASKS:
        raise StudyError(
            f"{store.url} was made by an earlier version of lratlas, with different models, seeds or task"
            " descriptions, so LR Atlas cannot check whether the task is unchanged. The study can be read but not"
            " continued; use another folder."
        )
    changed = describe_changes(old.task_parts, parts) or "the data of a later repetition"
    raise StudyError(
        f"{store.url} holds a study of a different task: {changed} changed. Use another folder, or undo the change."
    )


def check_spec_holds(store: Store, old: Plan, fresh: Plan) -> None:
    """Check that the spec still asks for every run of the old plan.

    Args:
        store: The study.
        old: The stored plan.
        fresh: The plan that the stored spec produces by itself.

    Raises:
        StudyError: The spec was edited in a field that cannot be extended.
    """
    wanted, known = _runs(fresh), _runs(old)
    if any(wanted.get(run) != facts for run, facts in known.items()):
        raise StudyError(
            f"spec.toml in {store.url} was altered: it no longer describes the runs of the study; restore the"
            " original file, or explore the new spec in another folder."
        )


def describe(store: Store, extras: Iterable[Measurement]) -> None:
    """Store the descriptions of a study's custom measurements, so that it can be read without their code.

    Args:
        store: The study.
        extras: The custom measurements.

    Raises:
        StudyError: The study has rows of a measurement of this name with other columns.
    """
    known = store.extras
    for measurement in extras:
        name, wanted = measurement.name, description_of(measurement)
        found = known.get(name)
        if found and found.columns != wanted.columns and store.parts(name):
            raise StudyError(
                f"{store.url} has the measurement {name} with the columns {_list_columns(found.columns)}, but its"
                f" columns are now {_list_columns(wanted.columns)}; rename the measurement, or undo the change."
            )
        if found != wanted:
            write_description(store, name, wanted)


def _list_columns(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns.items())


def forget_segments(store: Store, plan: Plan) -> None:
    """Remove segment checkpoints that a killed process left behind in finished jobs."""
    there = listing(store)
    for job in plan.trainings:
        for name in (*(f"{job.id}-{end}" for end in job.segments), job.part_way):
            if there.has_weights(name) and is_done(there, job):
                store.remove_weights(name)


def _set_aside(store: Store, fault: Fault, notice: Callable[[str], None]) -> None:
    what = "is damaged" if fault.what == ALTERED else fault.what
    aside = "it is moved to damaged/" if store.exists(fault.path) or store.is_blocked(fault.path) else ""
    again = "" if fault.what in {EXTRA, NO_FOLDER} else "made again" if aside else "it is made again"
    notice(f"{fault.path} {what}; {' and '.join(filter(None, (aside, again)))}.")
    if aside:
        store.set_aside(fault.path)


def _same_task(old: Plan, seeds: Sequence[Seed]) -> bool:
    planned = {seed.seed: seed for job in old.trainings for seed in job.seeds}
    return all(planned.get(seed.seed, seed) == seed for seed in seeds)


def _asks_for_more(spec: Spec, old: Plan) -> bool:
    """Whether a spec has LRs or repetitions that the plan lacks."""
    lanes = [lane for job in old.trainings for lane in job.lanes]
    repeats = len({seed.seed for job in old.trainings for seed in job.seeds})
    return (
        spec.pretrain.repeats > repeats
        or not {*spec.pretrain.lrs} <= {lane.plr for lane in lanes}
        or (spec.second is not None and not {*spec.second.lrs} <= {lane.plr2 for lane in lanes})
        or (spec.finetune is not None and not {*spec.finetune.lrs} <= {lane.flr for lane in lanes})
    )


def _runs(plan: Plan) -> dict[str, tuple[object, ...]]:
    """The values that define each trained run, independent of how runs are grouped into jobs."""
    return {run: facts for job in plan.trainings if job.stage != "average" for run, facts in _facts(job)}


def _facts(job: Training) -> list[tuple[str, tuple[object, ...]]]:
    common = (job.stage, job.segments, job.trace_every)
    return [
        (run, (*common, seed, lane, job.parents[index][at] if job.parents else None))
        for index, (seed, row) in enumerate(zip(job.seeds, job.runs, strict=True))
        for at, (lane, run) in enumerate(zip(job.lanes, row, strict=True))
    ]
