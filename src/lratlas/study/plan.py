"""The plan of a study: its jobs, and how it is stored."""

import json
import shlex
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Literal

from pydantic import Field

from lratlas.config.sections import Spec
from lratlas.config.spec import spec_from
from lratlas.errors import DamagedFile, SpecError, StudyError
from lratlas.study.files import digest, open_json, seal_json
from lratlas.study.folder import SPEC, Folder
from lratlas.study.formats import FORMAT, NEEDS, check_format, format_of, migrate_plan, versions
from lratlas.study.jobs import Job, Measuring, Part, Training

PLAN = "plan.json"
COPY = "plan-copy.json"
"""The plan once more: one that was extended cannot be made again from the spec, which says nothing of stacks."""


class Versions(Part):
    """What a study, or a part of it, was made with; None where that was not recorded."""

    lratlas: str
    torch: str | None = None
    polars: str | None = None
    python: str | None = None

    @property
    def words(self) -> str:
        """Those that are known, for people."""
        known = {"lratlas": self.lratlas, "torch": self.torch, "polars": self.polars, "Python": self.python}
        return ", ".join(f"{name} {version}" for name, version in known.items() if version)


class Checked(Part):
    """What the comparison of the task with a plain loop has shown, as `lratlas.training.conformance` has it."""

    draws: bool
    exact: bool
    unused: tuple[str, ...] = ()
    unstackable: str = ""
    channels_last: bool = True


class Plan(Part):
    """The jobs of a study, in the order they are started.

    Attributes:
        format: The format that it was read in; it is always written in today's.
        needs: The first version of lratlas that reads it.
        made_with: The versions that the study was made with, those that began it first.
        spec: The text of ``spec.toml`` as it was planned; empty where an earlier version planned it.
        spec_digest: The SHA-256 of that text where an earlier version kept no more; empty in the first formats.
        finished: Whether all jobs were done once, so that every file must be there.
        chance_accuracy: That of a guess among the classes; a half where an earlier version did not write it down.
        pre_norm: Parameters that angles and norms are measured on; all of the rule's if empty.
        task: What was trained, for people.
        task_parts: Fingerprints of the parts of the first repetition's task by name, so that it can be said what of a
            task has changed; empty where an earlier version planned the study.
        checked: What the comparison of the task with a plain loop has shown; None where an earlier version planned it.
    """

    format: int = FORMAT
    needs: str = NEEDS
    made_with: tuple[Versions, ...] = ()
    spec: str = ""
    spec_digest: str = ""
    finished: bool = False
    strategy: Literal["stack", "single"]
    dtype: Literal["float32", "float64"]
    device: str
    compiled: bool
    chance_loss: float
    chance_accuracy: float = 0.5
    elr: bool
    trainings: tuple[Training, ...]
    measurements: tuple[Measuring, ...] = ()
    pre_norm: tuple[str, ...] = ()
    task: str = ""
    task_parts: dict[str, str] = Field(default_factory=dict)
    checked: Checked | None = None

    @property
    def versions(self) -> str:
        """What the study was made with, for people."""
        return "; then ".join(each.words for each in self.made_with)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs, in the order they are started."""
        return (*self.trainings, *self.measurements)

    @property
    def spec_sha256(self) -> str:
        """SHA-256 of ``spec.toml`` as it was planned; empty where it was not recorded."""
        return digest(self.spec.encode()) if self.spec else self.spec_digest

    def measuring(self, name: str) -> tuple[Measuring, ...]:
        """The jobs of one measurement."""
        return tuple(job for job in self.measurements if job.measurement == name)

    def holders(self) -> dict[str, str]:
        """The training job whose final checkpoint holds each run, averaged ones included."""
        held: dict[str, str] = {}
        for job in self.trainings:
            grids = (
                *(job.average.runs if job.average else ()),
                *((job.runs,) if job.stage != "average" else ()),
            )
            held.update((run, job.id) for grid in grids for row in grid for run in row)
        return held


def plan_text(plan: Plan) -> str:
    """The plan as JSON in today's format, with a checksum in it."""
    today = plan.model_copy(update={"format": FORMAT, "needs": NEEDS})
    return seal_json(today.model_dump(mode="json", exclude_none=True))


def read_plan(text: str, *, where: str, how: Callable[[], str]) -> Plan:
    """The plan that `plan_text` wrote, in this version or an earlier one.

    Args:
        text: What the file holds.
        where: The file, for messages.
        how: Says how the study is continued, as `Folder.how_to_continue` does.

    Raises:
        DamagedFile: The text is not a plan, or was altered.
        StudyError: The plan is of a later format.
    """
    try:
        content = json.loads(text)
        # A later format may be sealed in another way: it is told apart first.
        check_format(format_of(content), where, content.get("needs"))
        # The very first plans have no checksum.
        content = open_json(text) if "checksum" in content or "device" in content else content
        return Plan.model_validate_json(json.dumps(migrate_plan(content)))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        message = f"{where} was altered or cut short; to set it aside and make it again, {how()}."
        raise DamagedFile(message, PLAN) from error


def with_own_versions(plan: Plan) -> Plan:
    """The plan as one that this process works on: its versions are among those that the study is made with."""
    own = Versions(**versions())
    return plan if own in plan.made_with else plan.model_copy(update={"made_with": (*plan.made_with, own)})


def read_stored_spec(folder: Folder) -> Spec:
    """The spec of a study.

    Raises:
        StudyError: It was altered so that it cannot be read, or is of a later format.
    """
    if not folder.exists(SPEC):
        how = f"`lratlas verify --repair {shlex.quote(folder.url)}`"
        raise StudyError(f"There is no {SPEC} in {folder.url}; {how} puts back the one that was planned.")
    return parse_spec(folder, folder.read_text(SPEC))


def parse_spec(folder: Folder, text: str) -> Spec:
    """The spec that a text of a study's ``spec.toml`` states.

    Raises:
        StudyError: It cannot be read, or is of a later format.
    """
    try:
        return _parse_once(text)
    except (ValueError, RecursionError, SpecError) as error:
        with suppress(DamagedFile):
            read_stored_plan(folder)  # it says where a study, and with it its spec, is of a later format
        reason = str(error).removesuffix(".")
        raise StudyError(
            f"spec.toml in {folder.url} was altered or cut short: {reason}; it must be put back as it was."
        ) from error


@lru_cache(maxsize=8)
def _parse_once(text: str) -> Spec:
    """A spec is asked for by its text at every step of a run, and checked once."""
    return spec_from(tomllib.loads(text))


def read_planned_spec(folder: Folder, plan: Plan) -> Spec:
    """The spec that a plan was made from, whatever ``spec.toml`` says since; that one where the plan has none.

    Raises:
        StudyError: It cannot be read.
    """
    return parse_spec(folder, plan.spec) if plan.spec else read_stored_spec(folder)


def read_stored_plan(folder: Folder) -> Plan | None:
    """The plan of a study; None before there is one.

    Raises:
        DamagedFile: It was cut short, altered or lost, or is another study's.
        StudyError: It is of a later format.
    """
    what = "is missing"
    if folder.exists(PLAN):
        plan = read_plan(folder.read_text(PLAN), where=f"{PLAN} in {folder.url}", how=folder.how_to_continue)
        if _fits(folder, plan) or not ((copy := read_copy(folder)) and _fits(folder, copy)):
            return plan
        what = "is another study's"
    elif read_copy(folder) is None:
        return None
    raise DamagedFile(f"{PLAN} in {folder.url} {what}; to make it again, {folder.how_to_continue()}.", PLAN, what)


def read_copy(folder: Folder) -> Plan | None:
    """The copy of the plan; None where there is none, or it was cut short or altered.

    Raises:
        StudyError: It is of a later format.
    """
    if not folder.exists(COPY):
        return None
    with suppress(DamagedFile):
        return read_plan(folder.read_text(COPY), where=f"{COPY} in {folder.url}", how=folder.how_to_continue)
    return None


def usable_plan(folder: Folder) -> Plan | None:
    """The plan of a study or, where that was damaged or lost, its copy; None where there is neither.

    Raises:
        StudyError: It is of a later format.
    """
    with suppress(DamagedFile):
        return read_stored_plan(folder)
    return read_copy(folder)


def _fits(folder: Folder, plan: Plan) -> bool:
    """Whether a plan was made from the spec that the folder has."""
    return folder.exists(SPEC) and plan.spec_sha256 == digest(folder.read_bytes(SPEC))


def store_plan(folder: Folder, plan: Plan) -> None:
    """Write a plan and its copy, as far as they are not there.

    Raises:
        StudyError: It cannot be written.
    """
    text = plan_text(plan)
    for name in (PLAN, COPY):
        if not folder.exists(name) or folder.read_bytes(name) != text.encode():
            folder.write_text(name, text)


def plan_digest(plan: Plan) -> str:
    """SHA-256 of a plan."""
    return digest(plan_text(plan).encode())


def prerequisites(job: Job, holders: Mapping[str, str]) -> set[str]:
    """The ids of the jobs that must be done before one.

    Args:
        job: The job.
        holders: See `Plan.holders`.
    """
    if isinstance(job, Measuring) and job.solutions:
        return {holders[run] for grid in job.solutions.values() for row in grid for run in row}
    needed = job.parent if isinstance(job, Training) else job.training
    return {needed} if needed else set()
