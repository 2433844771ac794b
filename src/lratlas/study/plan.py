"""The plan of a study: its jobs and its file format."""

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
from lratlas.files import digest, open_json, seal_json
from lratlas.study.folder import SPEC, Folder
from lratlas.study.formats import FORMAT, NEEDS, check_format, format_of, migrate_plan, versions
from lratlas.study.jobs import Job, Measuring, Part, Training, has_own_ids

PLAN = "plan.json"
FORGED = "has runs with ids of other runs"
COPY = "plan-copy.json"
"""A copy of the plan: an extended plan cannot be rebuilt from the spec, which does not describe stacks."""


class Versions(Part):
    """The versions that made a study or a part of it; None if not recorded."""

    lratlas: str
    torch: str | None = None
    polars: str | None = None
    python: str | None = None

    @property
    def words(self) -> str:
        """The known versions, for people."""
        known = {"lratlas": self.lratlas, "torch": self.torch, "polars": self.polars, "Python": self.python}
        return ", ".join(f"{name} {version}" for name, version in known.items() if version)


class Checked(Part):
    """The result of comparing the task with a plain loop (see `lratlas.training.conformance`)."""

    draws: bool
    exact: bool
    unused: tuple[str, ...] = ()
    unstackable: str = ""
    channels_last: bool = True


class Plan(Part):
    """The jobs of a study, in the order they start.

    Attributes:
        format: The format of the file; plans are always written in the current format.
        needs: The first version of lratlas that reads the plan.
        made_with: The versions that worked on the study, the first one first.
        spec: The text of ``spec.toml`` when the study was planned; empty in plans of earlier versions.
        spec_digest: The SHA-256 of that text in plans that lack the text; empty in the first formats.
        devices: The devices that the study used before ``device``, the first one first.
        tf32: Whether convolutions train with TF32, PyTorch's default on CUDA devices that have it.
        finished: Whether all jobs have been done once, so that every file must exist.
        chance_accuracy: Accuracy of guessing among the classes; 0.5 in plans of earlier versions.
        pre_norm: Parameters for angles and norms; all parameters of the rule if empty.
        task: The task, for people.
        task_parts: Fingerprints of the parts of the first repetition's task by name, to report which part changed;
            empty in plans of earlier versions.
        checked: The result of comparing the task with a plain loop; None in plans of earlier versions.
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
    devices: tuple[str, ...] = ()
    compiled: bool
    tf32: bool = False
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
        """The versions that made the study, for people."""
        return "; then ".join(each.words for each in self.made_with)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs, in the order they start."""
        return (*self.trainings, *self.measurements)

    @property
    def spec_sha256(self) -> str:
        """SHA-256 of ``spec.toml`` when the study was planned; empty if not recorded."""
        return digest(self.spec.encode()) if self.spec else self.spec_digest

    def measuring(self, name: str) -> tuple[Measuring, ...]:
        """The jobs of a measurement."""
        return tuple(job for job in self.measurements if job.measurement == name)

    def holders(self) -> dict[str, str]:
        """The training job whose final checkpoint has each run, including averages."""
        held: dict[str, str] = {}
        for job in self.trainings:
            grids = (
                *(job.average.runs if job.average else ()),
                *((job.runs,) if job.stage != "average" else ()),
            )
            held.update((run, job.id) for grid in grids for row in grid for run in row)
        return held


def plan_text(plan: Plan) -> str:
    """The plan as JSON in the current format, with a checksum."""
    today = plan.model_copy(update={"format": FORMAT, "needs": NEEDS})
    return seal_json(today.model_dump(mode="json", exclude_none=True))


def read_plan(text: str, *, where: str, how: Callable[[], str]) -> Plan:
    """Read a plan that `plan_text` wrote, in this or an earlier version.

    Args:
        text: The content of the file.
        where: The file, for messages.
        how: Returns how to continue the study, see `Folder.how_to_continue`.

    Raises:
        DamagedFile: The text is not a plan, or was altered.
        StudyError: The plan is of a later format.
    """
    try:
        content = json.loads(text)
        # A later format may use another checksum, so check the format first.
        check_format(format_of(content), where, content.get("needs"))
        # The first plans have no checksum.
        content = open_json(text) if "checksum" in content or "device" in content else content
        return Plan.model_validate_json(json.dumps(migrate_plan(content)))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        message = f"{where} was altered or cut short; to move it to damaged/ and make it again, {how()}."
        raise DamagedFile(message, PLAN) from error


def with_own_versions(plan: Plan) -> Plan:
    """The plan with this process's versions added to those that made the study."""
    own = Versions(**versions())
    return plan if own in plan.made_with else plan.model_copy(update={"made_with": (*plan.made_with, own)})


def read_stored_spec(folder: Folder) -> Spec:
    """Read the spec of a study.

    Raises:
        StudyError: The spec is damaged or of a later format.
    """
    if not folder.exists(SPEC):
        how = f"`lratlas verify --repair {shlex.quote(folder.url)}`"
        raise StudyError(f"There is no {SPEC} in {folder.url}; {how} restores the planned one.")
    return parse_spec(folder, folder.read_text(SPEC))


def parse_spec(folder: Folder, text: str) -> Spec:
    """Parse the text of a study's ``spec.toml``.

    Raises:
        StudyError: The text cannot be parsed, or is of a later format.
    """
    try:
        return _parse_once(text)
    except (ValueError, RecursionError, SpecError) as error:
        with suppress(DamagedFile):
            read_stored_plan(folder)  # raises if the study, and so its spec, is of a later format
        reason = str(error).removesuffix(".")
        raise StudyError(
            f"spec.toml in {folder.url} was altered or cut short: {reason}; restore the original file."
        ) from error


@lru_cache(maxsize=8)
def _parse_once(text: str) -> Spec:
    """Parse and check a spec; cached, since every step of a run asks for it."""
    return spec_from(tomllib.loads(text))


def read_planned_spec(folder: Folder, plan: Plan) -> Spec:
    """The spec that a plan was made from, even if ``spec.toml`` was edited since; ``spec.toml`` if the plan lacks it.

    Raises:
        StudyError: The spec cannot be read.
    """
    return parse_spec(folder, plan.spec) if plan.spec else read_stored_spec(folder)


def read_stored_plan(folder: Folder) -> Plan | None:
    """Read the plan of a study; None if it is not planned yet.

    Raises:
        DamagedFile: The plan was cut short, altered or lost, or belongs to another study.
        StudyError: The plan is of a later format.
    """
    what = "is missing"
    if folder.exists(PLAN):
        plan = read_plan(folder.read_text(PLAN), where=f"{PLAN} in {folder.url}", how=folder.how_to_continue)
        if _fits(folder, plan) or not ((copy := read_copy(folder)) and _fits(folder, copy)):
            return plan
        what = "belongs to another study"
    elif read_copy(folder) is None:
        return None
    raise DamagedFile(f"{PLAN} in {folder.url} {what}; to make it again, {folder.how_to_continue()}.", PLAN, what)


def read_checked_plan(folder: Folder) -> Plan | None:
    """Read the plan of a study, and check that the ids of its runs are the hashes of what defines them.

    Raises:
        DamagedFile: The plan was cut short, altered or lost, or belongs to another study.
        StudyError: The plan is of a later format.
    """
    plan = read_stored_plan(folder)
    if plan and not _has_own_ids(plan):
        raise DamagedFile(
            f"{PLAN} in {folder.url} {FORGED}; to make it again, {folder.how_to_continue()}.", PLAN, FORGED
        )
    return plan


def read_checked_copy(folder: Folder) -> Plan | None:
    """Read the copy of the plan like `read_checked_plan`; None if it is missing or damaged.

    Raises:
        StudyError: The copy is of a later format.
    """
    copy = read_copy(folder)
    return copy if copy and _has_own_ids(copy) else None


def _has_own_ids(plan: Plan) -> bool:
    # Earlier versions may have hashed other values.
    return plan.format < FORMAT or all(has_own_ids(job, plan.dtype) for job in plan.trainings)


def read_copy(folder: Folder) -> Plan | None:
    """Read the copy of the plan; None if it is missing or damaged.

    Raises:
        StudyError: The copy is of a later format.
    """
    if not folder.exists(COPY):
        return None
    with suppress(DamagedFile):
        return read_plan(folder.read_text(COPY), where=f"{COPY} in {folder.url}", how=folder.how_to_continue)
    return None


def usable_plan(folder: Folder) -> Plan | None:
    """The plan of a study, or its copy if the plan is damaged or lost; None if both are missing.

    Raises:
        StudyError: The plan is of a later format.
    """
    with suppress(DamagedFile):
        return read_stored_plan(folder)
    return read_copy(folder)


def _fits(folder: Folder, plan: Plan) -> bool:
    """Whether a plan was made from the spec in the folder."""
    return folder.exists(SPEC) and plan.spec_sha256 == digest(folder.read_bytes(SPEC))


def store_plan(folder: Folder, plan: Plan) -> None:
    """Write a plan and its copy unless they are already stored.

    Raises:
        StudyError: They cannot be written.
    """
    text = plan_text(plan)
    for name in (PLAN, COPY):
        if not folder.exists(name) or folder.read_bytes(name) != text.encode():
            folder.write_text(name, text)


def plan_digest(plan: Plan) -> str:
    """SHA-256 of a plan."""
    return digest(plan_text(plan).encode())


def prerequisites(job: Job, holders: Mapping[str, str]) -> set[str]:
    """The ids of the jobs that must be done before a job.

    Args:
        job: The job.
        holders: See `Plan.holders`.
    """
    if isinstance(job, Measuring) and job.solutions:
        return {holders[run] for grid in job.solutions.values() for row in grid for run in row}
    needed = job.parent if isinstance(job, Training) else job.training
    return {needed} if needed else set()
