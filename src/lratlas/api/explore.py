"""Starting and resuming studies from Python; the command line calls the same two functions."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

from lratlas.api.progress import shown
from lratlas.config.code import look_for_code
from lratlas.config.extras import Extras, extras_of, split_extras
from lratlas.config.sections import Spec
from lratlas.config.spec import read_spec, spec_from
from lratlas.config.tasks import Tasks, tasks_of
from lratlas.config.typed import Average, Measure, Pretrain, Refine, Second, Stage, Trace, Training
from lratlas.errors import DamagedFile, JobsFailed, LRAtlasError, SpecError, StudyError, meant
from lratlas.notices import forward_warnings, warn_on_failure
from lratlas.study.folder import AGAIN, PYTHON
from lratlas.study.plan import read_stored_spec
from lratlas.study.run import check_workers, open_study, run_study
from lratlas.study.store import Store
from lratlas.text import to_python

if TYPE_CHECKING:
    from lratlas.atlas import Atlas
    from lratlas.execute.executors import Executor
    from lratlas.execute.scheduler import Progress
    from lratlas.measure.base import Measurement
    from lratlas.task import Task

_ARGUMENTS = (
    "folder",
    "workers",
    "cluster",
    "gpu_share",
    "executor",
    "progress",
    "notice",
)  # arguments of `explore` that are not sections


def explore(
    task: "Task | Callable[[int], Task] | Spec | str | Path",
    *,
    folder: str | Path | None = None,
    workers: int | None = 1,
    cluster: str | None = None,
    gpu_share: float = 1.0,
    executor: "Executor | None" = None,
    progress: "Callable[[Progress], None] | bool | None" = True,
    notice: Callable[[str], None] | None = None,
    name: str | None = None,
    pretrain: Pretrain | None = None,
    second: Second | None = None,
    finetune: Stage | None = None,
    average: Average | None = None,
    refine: Refine | None = None,
    trace: Trace | None = None,
    measure: "Measure | Measurement | Sequence[Measurement | str] | None" = None,
    regimes: Mapping[str, float] | None = None,
    training: Training | None = None,
    **unknown: Never,
) -> "Atlas":
    """Run a whole study: train at many LRs, fine-tune, average, measure, analyse, write the report.

    Results in the folder are not trained again, so a repeated call resumes or extends the study.

    Args:
        task: A task; or a function from data seed to task, for generated data; or a spec or its path.
        folder: The study folder; a new temporary one if None.
        workers: Processes on this machine or on the cluster; None for one per core or visible GPU, or for as many as
            the cluster has room for. With an executor, the number of
            jobs submitted at once; None for all that are ready. 0 runs jobs in this process, for breakpoints and
            profilers; the first error of a job is then raised unchanged, without a retry.
        cluster: Address of a Ray cluster, or ``auto``; None for this machine. All its machines must see the folder.
        gpu_share: The share of a GPU that a worker on a cluster needs, if the study trains on GPUs.
        executor: Anything with ``submit(function, /, *args, **kwargs)`` that returns a future: a
            `concurrent.futures.Executor`, a Dask ``Client``, a submitit executor. It is not shut down.
        progress: Called on every change of progress. True shows a progress bar in a terminal or a notebook, unless
            ``workers`` is 0; elsewhere the logger ``lratlas`` writes a line per minute at INFO. False shows nothing.
        notice: Called with sentences for the user. None: they are warnings of the logger ``lratlas``, shown on
            standard error if logging is not configured.
        name: The name of the study; the task's name if None. This argument and all below are for a task; a spec
            contains them as sections with equal names and fields.
        pretrain: The first stage, at constant LRs; a task needs it. ``lrs``: a list, or ``{"low": 1e-4, "high": 1.0,
            "per_decade": 4}``; ``steps`` or ``epochs``; ``repeats``, the number of seeds (1).
        second: A second LR before fine-tuning: ``plrs`` to start from, ``lrs`` below them, ``steps`` or ``epochs``.
        finetune: Fine-tuning of every model at small LRs: ``lrs``, ``steps`` or ``epochs``.
        average: Weight averages: ``counts`` of checkpoints, every ``every`` steps or ``every_epochs`` (1 epoch);
            ``extend=True`` continues training for them.
        refine: Bisection of a ``boundary`` (``convergence``, ``subregime``, ``divergence``) to a ``ratio``.
        trace: Resolution of the recorded traces: ``points`` per run (40).
        measure: Measurements: ``{"geometry": True, "features": True, "bands": True, "norms": True, "sharpness":
            True, "convergence": True}``, or custom measurements.
        regimes: Numbers that define regimes and boundaries, by their names in `lratlas.Thresholds`.
        training: Computation settings: ``device``, ``dtype``, ``mixed_precision``, ``strategy``, ``compile``,
            ``stack``, ``segment_steps``.
        unknown: Rejected; the error suggests the nearest name.

    Raises:
        SpecError: A section is invalid.
        JobsFailed: Some jobs failed repeatedly; all others are done, and the report has their results.
        StudyError: The folder cannot be used; no computed result is lost.
    """
    tasks, extras = None, None
    sections: dict[str, object] = {
        "name": name,
        "pretrain": pretrain,
        "second": second,
        "finetune": finetune,
        "average": average,
        "refine": refine,
        "trace": trace,
        "measure": measure,
        "regimes": regimes,
        "training": training,
    }
    sections = {section: given for section, given in sections.items() if given is not None} | unknown
    if isinstance(task, (Spec, str, Path)):
        if sections:
            hint = next((found for name in sections if (found := meant(name, _ARGUMENTS, quote="`"))), "")
            raise SpecError(f"{', '.join(sections)}{hint} cannot be given with a spec, which has its own sections.")
        if not isinstance(task, Spec):
            look_for_code([Path(task).absolute().parent])
        spec = task if isinstance(task, Spec) else read_spec(task)
    else:
        tasks = tasks_of(task)
        values: dict[str, object] = {"name": tasks.of(0).name, "task": {"preset": PYTHON}, **sections}
        if "measure" in values:
            values["measure"], extras = split_extras(values["measure"])
        spec = spec_from(values, also=_ARGUMENTS)
    where = _where(workers, cluster, gpu_share, executor)
    check_workers(**where)
    extras = extras_of(spec.measure) if extras is None else extras
    store = open_study(folder or tempfile.mkdtemp(prefix="lratlas-"), spec)
    return _run(store, spec, where, tasks=tasks, extras=extras, progress=progress, notice=notice)


def resume(
    folder: str | Path,
    *,
    workers: int | None = 1,
    cluster: str | None = None,
    gpu_share: float = 1.0,
    executor: "Executor | None" = None,
    device: str | None = None,
    progress: "Callable[[Progress], None] | bool | None" = True,
    notice: Callable[[str], None] | None = None,
) -> "Atlas":
    """Continue an interrupted study; does nothing if it is finished.

    Args:
        folder: The study folder, or its URL.
        workers: As for `explore`, like all arguments below.
        cluster: Address of a Ray cluster.
        gpu_share: The share of a GPU that a worker on a cluster needs.
        executor: The executor of jobs.
        device: The device to continue on, ``auto`` or a PyTorch device; None for the one that the study last used. The
            study records each device; numbers on another device differ in their last digits.
        progress: Called on every change of progress; True for a progress bar, False for nothing.
        notice: Called with sentences for the user; None for warnings of the logger ``lratlas``.

    Raises:
        StudyError: The folder contains no study, or the study was started from Python and must be continued there.
    """
    store = Store.open(folder)
    spec = read_stored_spec(store)
    if spec.task.preset == PYTHON:
        raise StudyError(f"{folder} was started from Python with a custom task; {AGAIN}.")
    where = _where(workers, cluster, gpu_share, executor)
    return _run(store, None, where, device=device, tasks=None, progress=progress, notice=notice)


def _where(workers: object, cluster: str | None, gpu_share: object, executor: object) -> dict[str, Any]:
    """The worker arguments of `run_study`."""
    numbers = {"workers": to_python(workers), "gpu_share": to_python(gpu_share)}
    return {**numbers, "cluster": cluster, "executor": executor}


def _run(
    store: Store,
    spec: Spec | None,
    where: Mapping[str, Any],
    *,
    device: str | None = None,
    tasks: Tasks | None,
    extras: Extras | None = None,
    progress: "Callable[[Progress], None] | bool | None",
    notice: Callable[[str], None] | None,
) -> "Atlas":
    if progress is True and where["workers"] == 0:
        progress = None  # leave the terminal to the debugger
    changed = spec is not None and spec != read_stored_spec(store)

    run = partial(run_study, **where, device=device, tasks=tasks, extras=extras)

    def run_once(asked: Spec | None, *more: float, notice: Callable[[str], None]) -> "Atlas":
        try:
            did = run(store, asked, more=more, progress=told, notice=notice)
        except JobsFailed:
            with suppress(StudyError):  # such as a full disk: the first failure matters
                _atlas(store).write_report()
            raise
        atlas = _atlas(store)
        if did or changed or not atlas.is_reported:
            with warn_on_failure("The report could not be written", but=DamagedFile):
                atlas.write_report()
        return atlas

    with shown(progress, lambda: _regimes(store)) as told, forward_warnings(notice) as tell:
        atlas = run_once(spec, notice=tell)
        while (plr := atlas.next_plr) is not None:
            tell(f"Bisection adds PLR {plr:g}.")
            # Read the stored spec, since another process may have extended the study.
            atlas = run_once(None, plr, notice=tell)
    return atlas


def _regimes(store: Store) -> str:
    try:
        return _atlas(store).regimes_in_short
    except LRAtlasError:
        return ""  # only for display; later reads raise the error


def _atlas(store: Store) -> "Atlas":
    # Imported late: training does not wait for analysis code, nor does the end of an interrupted study.
    from lratlas.atlas import Atlas

    return Atlas(store)
