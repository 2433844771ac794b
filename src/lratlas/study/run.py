"""Run a study: open its folder, plan the missing jobs, execute them. Repeated calls are harmless."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lratlas.config.sections import Spec
from lratlas.config.spec import extends, spec_text
from lratlas.config.values import MOST_WORKERS
from lratlas.errors import DamagedFile, StudyError
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.study.folder import SPEC
from lratlas.study.formats import FORMAT
from lratlas.study.lock import hold_lock
from lratlas.study.plan import PLAN, parse_spec, read_planned_spec, read_stored_plan, read_stored_spec, store_plan
from lratlas.study.progress import is_done, listing, table_of
from lratlas.study.records import Session, write_note
from lratlas.study.store import Store

if TYPE_CHECKING:
    from lratlas.config.extras import Extras
    from lratlas.config.tasks import Tasks
    from lratlas.execute.executors import Executor
    from lratlas.execute.scheduler import Progress
    from lratlas.study.jobs import Seed
    from lratlas.study.plan import Plan


def open_study(folder: str | Path, spec: Spec) -> Store:
    """Open a new study, an existing one, or one that the spec extends; the spec of a new study is stored at once.

    Raises:
        StudyError: The folder cannot be used, or its study differs in fields that cannot be extended.
    """
    store = Store.create(folder, spec_text(spec))
    plan = None
    with suppress(DamagedFile):  # a later check repairs it
        plan = read_stored_plan(store)
    _refuse_another(store, spec, plan)
    return store


def _refuse_another(store: Store, spec: Spec, plan: "Plan | None") -> None:
    """Refuse a spec that conflicts with the study or its plan; a spec may extend them."""
    stored = read_stored_spec(store)
    begun = read_planned_spec(store, plan) if plan else stored
    # An unplanned study has only its spec, which the user may have corrected.
    if (plan or store.exists(PLAN) or stored.name != spec.name) and (reason := extends(begun, spec)):
        raise StudyError(f"{store.url} holds another study: {reason}")


def run_study(
    store: Store,
    spec: Spec | None = None,
    *,
    more: Sequence[float] = (),
    workers: int | None = 1,
    cluster: str | None = None,
    gpu_share: float = 1.0,
    executor: "Executor | None" = None,
    device: str | None = None,
    tasks: "Tasks | None" = None,
    extras: "Extras | None" = None,
    progress: "Callable[[Progress], None] | None" = None,
    notice: Callable[[str], None] = lambda _: None,
) -> bool:
    """Plan and execute all missing jobs of a study; damaged files are set aside and regenerated.

    If another process runs the same study, wait until it ends.

    Args:
        store: The study, with its spec stored.
        spec: The spec, if it extends the stored one (see `open_study`).
        more: Pre-training LRs that a bisection adds to those of the spec.
        workers: Number of processes, or of jobs submitted to the executor at once; 0 to run the jobs in this process;
            None for one per core or visible GPU, for as many as a cluster has room for, or to submit all jobs at once.
        cluster: Address of a Ray cluster, or ``auto``; None for processes on this machine.
        gpu_share: The fraction of a GPU per worker on a cluster, above 0, if the study trains on GPUs.
        executor: The executor to submit jobs to; None for processes.
        device: The device to continue the study on; None for that of its plan.
        tasks: The tasks, if the spec cannot describe them.
        extras: The custom measurements; None for those in the spec.
        progress: Called on every change of progress.
        notice: Called with sentences for the user.

    Returns:
        Whether there was anything to do.

    Raises:
        SpecError: The machine lacks the device, or the spec does not fit the data.
        JobsFailed: Some jobs failed on every attempt; all others are done.
        StudyError: The task differs from the one that started the study, or nothing can be done.
        Exception: With ``workers=0``, the first error of a job, unchanged.
    """
    from lratlas.config.extras import extras_of
    from lratlas.execute.scheduler import execute

    check_workers(workers, cluster, gpu_share, executor)
    with hold_lock(store, notice):
        store.sweep()
        if extras is None:
            extras = extras_of((spec or read_stored_spec(store)).measure)
        plan = _make_or_extend_plan(store, spec, more=more, device=device, tasks=tasks, extras=extras, notice=notice)
        done = partial(
            execute,
            store,
            plan,
            workers=workers,
            cluster=cluster,
            gpu_share=gpu_share,
            executor=executor,
            tasks=tasks,
            extras=extras,
            progress=progress,
            notice=notice,
        )
        did = _time_work(store, done, workers)
        if not plan.finished and plan.format == FORMAT:  # a study of an earlier version stays unchanged
            store_plan(store, plan.model_copy(update={"finished": True}))
        return did


def check_workers(workers: int | None, cluster: str | None, gpu_share: float, executor: object) -> None:
    """Check the arguments that select where jobs run.

    Raises:
        StudyError: An argument is invalid; the message says which values are allowed.
    """
    if isinstance(executor, type):
        raise StudyError(f"executor is the class {executor.__name__}; pass an instance of it.")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise StudyError(
            f"executor is {executor!r}, which has no submit(); pass a concurrent.futures.Executor, a Dask Client"
            " or similar."
        )
    if executor is not None and cluster is not None:
        raise StudyError("executor and cluster exclude each other; pass only one of them.")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):  # pyright: ignore[reportUnnecessaryIsInstance] - from notebooks
        raise StudyError(f"workers is {workers}; it must be a whole number of at least 0.")
    if workers is not None and workers > MOST_WORKERS and cluster is None and executor is None:
        raise StudyError(f"workers is {workers}, but at most {MOST_WORKERS:,} processes are allowed on one machine.")
    if workers == 0 and (cluster is not None or executor is not None):
        raise StudyError(
            "workers is 0, which means this process; on a cluster or with an executor, workers must be at least 1."
        )
    if not 0 < gpu_share <= 1:
        raise StudyError(f"gpu_share is {gpu_share}; it must be above 0 and at most 1.")
    if gpu_share != 1 and cluster is None:
        raise StudyError(
            f"gpu_share is {gpu_share}, but there is no cluster; gpu_share sets how the GPUs of a cluster are shared."
        )


def _make_or_extend_plan(
    store: Store,
    spec: Spec | None,
    *,
    more: Sequence[float],
    device: str | None,
    tasks: "Tasks | None",
    extras: "Extras",
    notice: Callable[[str], None],
) -> "Plan":
    """The stored plan, created or extended if needed; repairs the study first."""
    import torch

    from lratlas.config.tasks import tasks_from
    from lratlas.devices import allows_tf32
    from lratlas.execute.run_job import one_thread
    from lratlas.study.plan import Checked
    from lratlas.study.planning import make_plan
    from lratlas.study.preflight import check_task, device_of, measurement_options, pre_norm_of, strategy_of
    from lratlas.study.progress import with_plrs
    from lratlas.study.reconcile import (
        check_spec_holds,
        check_task_holds,
        describe,
        reconcile_plan,
        set_faulty_aside,
        was_finished_earlier,
    )
    from lratlas.training.prepared import task_on

    old = reconcile_plan(store, notice)
    text = store.read_text(SPEC)  # once: it may be edited at any moment
    stored = parse_spec(store, text)
    if spec:  # the previous lock holder may have started or extended another study
        _refuse_another(store, spec, old)
    elif old:
        _refuse_edited(store, stored, old)
    spec = spec or stored
    asked = None if spec == stored else spec_text(spec)
    if asked and not old:
        store.write_text(SPEC, asked)  # planning may take long
    _say_own_code(spec, notice)
    known = tasks or tasks_from(spec.task)
    with one_thread():
        seeds, parts = _repetitions(known, spec.pretrain.repeats)
    # A task from Python may have been edited since; that cannot be checked here and is refused below.
    if old and tasks is None and spec == stored and not more and was_finished_earlier(store, old, seeds, spec):
        notice(f"{store.url} was finished by an earlier version of lratlas and stays unchanged.")
        return old
    if old:
        check_task_holds(store, old, seeds, parts)
    set_faulty_aside(store, old, notice)
    task = known.of(0)
    check_task(spec, task)
    measured = measurement_options(spec, task, extras)
    device = device_of(spec, _planned_device(store, old, spec), device)
    # Before planning: refuse tasks that cannot be moved to the device.
    placed = task_on(task, torch.device(device), getattr(torch, spec.training.dtype))
    compiled = _is_compiled(store, spec, old, device, notice)
    with one_thread():
        strategy = old.strategy if old else strategy_of(spec, placed, device, notice, compiled=compiled)
        pre_norm = old.pre_norm if old else pre_norm_of(task)
    bisected = _plrs(old) if old and spec.refine else set[float]()  # PLRs that the spec does not name
    planned = partial(
        make_plan,
        seeds=seeds,
        strategy=strategy,
        measured=measured,
        extras=extras,
        pre_norm=pre_norm,
        task=task.name,
        steps_per_epoch=task.steps_per_epoch,
        chance_loss=task.chance_loss,
        chance_accuracy=1 / max(task.classes, 2),
        elr=task.update.radius is not None,
        device=device,
        compiled=compiled,
        tf32=allows_tf32(device),
    )
    if old:
        check_spec_holds(store, old, planned(with_plrs(spec, bisected)))
    plan = planned(with_plrs(spec, {*bisected, *more}), old=old).model_copy(
        update={
            "spec": asked or text,
            "made_with": old.made_with if old else (),
            "task_parts": parts,
            "checked": Checked(**asdict(task.conformance)),
        }
    )
    describe(store, extras)
    if not old:
        set_faulty_aside(store, plan, notice)  # before the plan is stored, so that an interruption repeats it
    if asked and old:
        store.write_text(SPEC, asked)
    return _keep_plan(store, old, plan)


def _planned_device(store: Store, plan: "Plan | None", spec: Spec) -> str | None:
    """The device of the plan; None without a plan, or if the spec names another device than when it was planned."""
    if plan is None or read_planned_spec(store, plan).training.device != spec.training.device:
        return None
    return plan.device


def _say_own_code(spec: Spec, notice: Callable[[str], None]) -> None:
    from lratlas.config.tasks import own_code

    if own := [*own_code(spec.task), *(name for name in spec.measure.extra if ":" in name)]:
        notice(f"The spec imports and runs this code: {', '.join(own)}.")


def _keep_plan(store: Store, old: "Plan | None", plan: "Plan") -> "Plan":
    """Store the plan with the current versions and its finished state, and the files that belong to it."""
    from lratlas.study.plan import with_own_versions
    from lratlas.study.reconcile import forget_segments

    there = listing(store)
    if not old or not all(is_done(there, job) for job in plan.jobs):
        plan = with_own_versions(plan)
    plan = plan.model_copy(update={"finished": old is not None and old.finished and old.jobs == plan.jobs})
    _remove_superseded(store, old, plan)
    store_plan(store, plan)
    forget_segments(store, plan)
    return plan


def _refuse_edited(store: Store, spec: Spec, plan: "Plan") -> None:
    """Refuse a spec with edits in fields that no run id covers."""
    if plan.spec and (reason := extends(read_planned_spec(store, plan), spec)):
        raise StudyError(f"spec.toml in {store.url} was altered: {reason}")


def _is_compiled(store: Store, spec: Spec, old: "Plan | None", device: str, notice: Callable[[str], None]) -> bool:
    """Whether steps are compiled: as before on this device, or as the spec says if compilation works on it."""
    import torch

    from lratlas.training.compiling import why_not_compiled

    before = old if old and old.device == device else None
    if before and not before.compiled:
        if spec.training.compile:
            notice("Training runs uncompiled, as when the study was started.")
        return False
    reason = why_not_compiled(torch.device(device)) if spec.training.compile else ""
    if before and reason:
        raise StudyError(f"{store.url} began with compiled training, but {reason}.")
    if reason:
        notice(f"Training runs uncompiled, about four times slower: {reason}.")
    return spec.training.compile and not reason


def _remove_superseded(store: Store, old: "Plan | None", plan: "Plan") -> None:
    """Remove measurements of a smaller grid or of other samples, before the plan that lacks them is stored.

    A killed process leaves the old plan, with some of these measurements open.
    """
    planned = {job.id for job in plan.measurements}
    replaced = {measurement.name for measurement in MEASUREMENTS if measurement.needs.replaces}
    superseded = [
        job
        for job in (old.measurements if old else ())
        if job.measurement in replaced and job.id not in planned and store.has_part(table_of(job), job.id)
    ]
    if old and superseded and old.finished:  # a finished study lacks no part
        store_plan(store, old.model_copy(update={"finished": False}))
    for job in superseded:
        store.remove_part(table_of(job), job.id)


def _time_work(store: Store, work: Callable[[], bool], workers: int | None) -> bool:
    """Do the work and record its duration; return whether there was any work."""
    began, did = time.monotonic(), True
    try:
        did = work()
        return did
    finally:  # also for an interrupted session
        if did:
            write_note(store, Session(seconds=round(time.monotonic() - began, 3), workers=workers))


def _repetitions(tasks: "Tasks", repeats: int) -> "tuple[list[Seed], dict[str, str]]":
    """The repetitions of a study, and the fingerprints of the parts of the first one's task."""
    from lratlas.config.tasks import training_seed
    from lratlas.study.jobs import Seed
    from lratlas.training.fingerprint import combine_parts, fingerprint_parts

    first = fingerprint_parts(tasks.of(0))
    seeds = [
        Seed(
            seed=number,
            data_seed=tasks.data_seed(number),
            training_seed=training_seed(number),
            fingerprint=combine_parts(fingerprint_parts(tasks.of(number)) if number and tasks.generated else first),
        )
        for number in range(repeats)
    ]
    return seeds, first


def _plrs(plan: "Plan") -> set[float]:
    return {lane.plr for job in plan.trainings if job.stage == "pretrain" for lane in job.lanes}
