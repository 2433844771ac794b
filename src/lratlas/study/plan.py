"""The plan of a study: its jobs, and how it is stored."""

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lratlas.config.sections import Spec
from lratlas.config.spec import spec_from
from lratlas.errors import DamagedFile, SpecError, StudyError
from lratlas.study.files import opened_json, sealed_json
from lratlas.study.folder import SPEC, Folder
from lratlas.study.formats import FORMAT, NEEDS, check_format, format_of, migrated_plan, versions

PLAN = "plan.json"
Grid = Sequence[Sequence[str]]  # run ids, [seed][lane]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Seed(_Part):
    """One repetition: its number, what draws its data (None: not generated) and what draws its training."""

    seed: int
    data_seed: int | None = None
    training_seed: int
    fingerprint: str


class Lane(_Part):
    """The learning rates of one run of every seed of a stack."""

    plr: float
    plr2: float | None = None
    flr: float | None = None

    @property
    def lr(self) -> float:
        """The LR that the run is trained with."""
        return next(lr for lr in (self.flr, self.plr2, self.plr) if lr is not None)


class Average(_Part):
    """Weight averages taken along a job: SWA-k of the checkpoints at the given steps, the run ids per count."""

    counts: tuple[int, ...]
    steps: tuple[int, ...]
    runs: tuple[tuple[tuple[str, ...], ...], ...]  # [count][seed][lane]


class Training(_Part):
    """A stack of runs trained as one program.

    ``runs`` and ``parents`` are [seed][lane]. A job starts from the end points of job ``parent``, at step ``start`` of
    the batch order; its trace has a row every ``trace_every`` steps and it can be resumed at the ends of ``segments``.
    Where ``epoch`` gives the steps of an epoch, the first one in which every sample was fitted is recorded.
    """

    id: str
    stage: Literal["pretrain", "second", "finetune", "average"]
    seeds: tuple[Seed, ...]
    lanes: tuple[Lane, ...]
    runs: tuple[tuple[str, ...], ...]
    parent: str | None = None
    parents: tuple[tuple[str, ...], ...] | None = None
    start: int = 0
    segments: tuple[int, ...]
    trace_every: int
    average: Average | None = None
    keep_state: bool = False
    epoch: int | None = None

    @property
    def size(self) -> int:
        """Number of runs."""
        return len(self.seeds) * len(self.lanes)

    @property
    def part_way(self) -> str:
        """The name of its checkpoint in the middle of a segment."""
        return f"{self.id}-part"

    @property
    def recorded(self) -> tuple[str, ...]:
        """The tables that get a part at the end of every segment."""
        traced = () if self.stage == "average" else ("traces",)
        return traced if self.epoch is None else ("convergence", *traced)

    @property
    def work(self) -> int:
        """Run-steps, the unit of progress."""
        return self.size * (self.segments[-1] - self.start)


class Features(_Part):
    """Single-feature accuracies of the runs of one training job."""

    id: str
    training: str


class Bands(_Part):
    """Accuracies of the runs of one training job on Fourier bands of the test images, kept and removed."""

    id: str
    training: str
    bands: tuple[tuple[int, int], ...]


class Geometry(_Part):
    """Angles and barriers between the solutions that descend from one pre-training job.

    ``solutions`` gives, for each of low, high and swa, the runs in the order of that job's, [seed][lane]. Barriers are
    measured on the straight line and, with ``great_circle``, along that too.
    """

    id: str
    training: str
    solutions: dict[Literal["low", "high", "swa"], tuple[tuple[str, ...], ...]]
    great_circle: bool = False


class Norms(_Part):
    """Norms of the weights of each output filter: of the initial models of some seeds, or of a training job's runs."""

    id: str
    training: str | None = None
    seeds: tuple[Seed, ...] = ()


class Sharpness(_Part):
    """Curvature of the training loss at the end of each run of one training job, and at its averages."""

    id: str
    training: str
    samples: int


Measurement = Features | Bands | Geometry | Norms | Sharpness
Job = Training | Measurement
TABLE_OF: Mapping[type[Measurement], str] = {
    Features: "features",
    Bands: "bands",
    Geometry: "pairs",
    Norms: "norms",
    Sharpness: "sharpness",
}


class Versions(_Part):
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


class Checked(_Part):
    """What the comparison of the task with a plain loop has shown, as `lratlas.training.conformance` has it."""

    draws: bool
    exact: bool
    unused: tuple[str, ...] = ()
    unstackable: str = ""
    channels_last: bool = True


class Plan(_Part):
    """The jobs of a study, in the order they are started.

    Attributes:
        format: The format that it was read in; it is always written in today's.
        needs: The first version of lratlas that reads it.
        made_with: The versions that the study was made with, those that began it first.
        spec: SHA-256 of ``spec.toml`` as it was planned; empty where an earlier version planned it.
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
    strategy: Literal["stack", "single"]
    dtype: Literal["float32", "float64"]
    device: str
    compiled: bool
    chance_loss: float
    chance_accuracy: float = 0.5
    elr: bool
    trainings: tuple[Training, ...]
    features: tuple[Features, ...]
    geometry: tuple[Geometry, ...]
    bands: tuple[Bands, ...] = ()
    norms: tuple[Norms, ...] = ()
    sharpness: tuple[Sharpness, ...] = ()
    pre_norm: tuple[str, ...] = ()
    task: str = ""
    task_parts: dict[str, str] = {}
    checked: Checked | None = None

    @property
    def versions(self) -> str:
        """What the study was made with, for people."""
        return "; then ".join(each.words for each in self.made_with)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs, in the order they are started."""
        return (*self.trainings, *self.features, *self.bands, *self.geometry, *self.norms, *self.sharpness)

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
    return sealed_json(today.model_dump(mode="json", exclude_none=True))


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
        content = opened_json(text) if "checksum" in content or "device" in content else content
        return Plan.model_validate_json(json.dumps(migrated_plan(content)))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        message = f"{where} was altered or cut short; to set it aside and make it again, {how()}."
        raise DamagedFile(message, PLAN) from error


def with_own_versions(plan: Plan) -> Plan:
    """The plan as one that this process works on: its versions are among those that the study is made with."""
    own = Versions(**versions())
    return plan if own in plan.made_with else plan.model_copy(update={"made_with": (*plan.made_with, own)})


def identity(*parts: object) -> str:
    """A short hash of whatever defines a run or a job."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def stored_spec(folder: Folder) -> Spec:
    """The spec of a study.

    Raises:
        StudyError: It was altered so that it cannot be read, or is of a later format.
    """
    text = folder.read_text(SPEC)
    try:
        return spec_from(tomllib.loads(text))
    except (ValueError, RecursionError, SpecError) as error:
        with suppress(DamagedFile):
            stored_plan(folder)  # it says where a study, and with it its spec, is of a later format
        reason = str(error).removesuffix(".")
        raise StudyError(
            f"spec.toml in {folder.url} was altered or cut short: {reason}; it must be put back as it was."
        ) from error


def stored_plan(folder: Folder) -> Plan | None:
    """The plan of a study; None before there is one.

    Raises:
        DamagedFile: It was cut short or altered.
        StudyError: It is of a later format.
    """
    if not folder.exists(PLAN):
        return None
    return read_plan(folder.read_text(PLAN), where=f"{PLAN} in {folder.url}", how=folder.how_to_continue)
