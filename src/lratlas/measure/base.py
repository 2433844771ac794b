"""A measurement as a value: its name, the columns of its table, the function that fills them, and its chart."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lratlas.errors import SpecError
from lratlas.study.jobs import Grid, Measuring, Role, Seed, Training, identity

if TYPE_CHECKING:
    from polars import Schema
    from torch import Tensor, nn

    from lratlas.stacks.tensors import StackData
    from lratlas.training.prepared import Prepared
    from lratlas.training.program import Program
    from lratlas.training.sphere import Weights

Options = Mapping[str, Any]
Columns = Mapping[str, object]  # a value for all models, one for each [seed][lane], or a list for each
_TYPES = ("Float64", "Int64", "String", "Boolean")  # of polars; the widest of each kind
_NUMBERS = ("Float64", "Int64")

# What identifies a model that was measured.
_MODEL: Mapping[str, str] = {
    "run": "String",
    "stage": "String",
    "plr": "Float64",
    "flr": "Float64",
    "count": "Int64",
    "seed": "Int64",
}
ORDER = ("seed", "plr", "stage", "flr", "count")
"""What the rows of a table with a row for each model are sorted by."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of one column of a measurement's table against another.

    Against the learning rate of pre-training it has a line for each kind of model (pre-trained, fine-tuned with each
    FLR, averaged with each count): the mean over seeds, with one standard deviation either way. Against any other
    column it has a mark for each model. Runs that diverged are left out.

    Attributes:
        y: The column on the vertical axis, of numbers.
        x: The column on the horizontal axis: ``plr``, or another one of numbers.
        series: A column whose values have a line or a colour each; there is then a panel for each kind of model. None
            to tell kinds of models apart.
        title: The heading of the chart; empty for the name of the measurement.
    """

    y: str
    x: str = "plr"
    series: str | None = None
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart with its own drawing.

    Attributes:
        name: Of the chart.
        draw: The function from tables to a drawing, as ``module:function``: only drawing needs it.
        data: The function from tables to what the chart shows; None where another chart shows the same.
    """

    name: str
    draw: str
    data: str | None


@dataclass(frozen=True, kw_only=True)
class Option:
    """A field of the section ``[measure]`` of a spec.

    Attributes:
        kind: Its type.
        default: Its value where the spec does not name it. A switch that is off may be turned on in a finished study.
        description: For the reference.
        least: The smallest number allowed.
        most: The largest number allowed.
        free: A finished study may have another value.
    """

    kind: Any = bool
    default: object
    description: str
    least: int | None = None
    most: int | None = None
    free: bool = False


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the jobs of a measurement are planned from.

    Attributes:
        seeds: One entry per repetition.
        trainings: The training jobs whose models may be measured.
        options: What the results depend on besides the models.
        old: The jobs of this measurement that the study has already.
    """

    seeds: Sequence[Seed]
    trainings: Sequence[Training]
    options: Options
    old: Sequence[Measuring]


@dataclass(frozen=True, kw_only=True)
class Models:
    """A stack of trained models, and what they are measured with.

    Attributes:
        task: The first repetition's task; all have the same model, loss and rule.
        fresh: Makes the model of the seed at a place of the stack, with its initial weights.
        program: Makes what evaluates stacks.
        setting: Makes the data and the frozen parameters of the stack's seeds.
        vector: From weights to those that angles and norms are measured on.
        seeds: Training seed of each seed of the stack.
        lanes: Models per seed.
        weights: Parameters, [seeds, lanes, *parameter]; empty where solutions are compared.
        buffers: Buffers, likewise.
        solutions: Weights and buffers of each solution that is compared.
        runs: The ids of trained models, [seed][lane].
    """

    task: "Prepared"
    fresh: "Callable[[int], nn.Module]"
    program: "Callable[[], Program]"
    setting: "Callable[[], StackData]"
    vector: "Callable[[Weights], Weights]"
    seeds: Sequence[int]
    lanes: int
    weights: "Weights" = field(default_factory=dict[str, "Tensor"])
    buffers: "Weights" = field(default_factory=dict[str, "Tensor"])
    solutions: "Mapping[Role, tuple[Weights, Weights]]" = field(default_factory=dict[Role, Any])
    runs: Grid = ()

    def one(self, seed: int, lane: int) -> "tuple[Weights, Weights]":
        """The parameters and the buffers of one model, without the axes of the stack."""
        weights, buffers = (
            {name: value[seed, lane] for name, value in tensors.items()} for tensors in (self.weights, self.buffers)
        )
        return weights, buffers


def _always(options: Options, task: "Prepared") -> Options | None:  # noqa: ARG001 - the signature of `Needs.settle`
    return {}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a measurement that comes with the package has besides; a custom one needs none of it.

    Attributes:
        stacked: The function is called as ``function(models, options)`` with a whole stack, as `Models`, and gives
            columns again and again; its options are those of the spec, and those of the job.
        stages: Which models are measured.
        table: The name of its table, if it is not that of the measurement.
        about: The columns of the table that identify a model.
        order: The columns that the rows are sorted by.
        words: What its table holds.
        options: Fields of the section ``[measure]``.
        settle: From these fields and the task to the options of its jobs; None where nothing is to be measured.
        jobs: Plans its jobs; None for one job for each training job with models of these stages.
        replaces: Rows of jobs that are no longer planned are removed.
        figures: Its charts, each with its own drawing.
    """

    stacked: bool = False
    stages: tuple[str, ...] = ("pretrain", "finetune", "average")
    table: str | None = None
    about: tuple[str, ...] = tuple(_MODEL)
    order: tuple[str, ...] = ORDER
    words: str = ""
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])
    settle: "Callable[[Options, Prepared], Options | None]" = _always
    jobs: Callable[[Wanted], Iterable[Measuring]] | None = None
    replaces: bool = False
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Something that is measured on the trained models of a study.

    It is measured on every model: pre-trained, fine-tuned and averaged. Its table has a row for each model, or several,
    with the columns ``run``, ``stage``, ``plr``, ``flr``, ``count`` and ``seed``, which identify the model, and then
    its own.

    Attributes:
        name: The name of the measurement and of its table: lower-case letters, digits and underscores.
        columns: Its columns with their types: ``polars.Float64``, ``Int64``, ``String`` or ``Boolean``, or their names.
        function: Called as ``function(model, data)``: a trained ``torch.nn.Module`` in eval mode, a copy that it may
            change; and a `lratlas.measure.each.Data`, whose ``train`` and ``test`` are pairs of inputs and targets, as
            the model takes them. It returns one row, a mapping with a value for each column, or a sequence of rows.
            Numbers that are not finite become null.
        chart: What the report draws of it; None for nothing.
        needs: For measurements that come with the package.

    Raises:
        SpecError: A name or a type is not allowed.
    """

    name: str
    columns: Mapping[str, Any]
    function: Callable[..., Any]
    chart: Chart | None = None
    needs: Needs = Needs()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(str(self.name)):
            raise SpecError(
                f"A measurement cannot have the name {self.name!r}; it must begin with a lower-case letter and have"
                " up to 40 lower-case letters, digits and underscores."
            )
        if not callable(self.function):
            raise SpecError(f"Measurement {self.name}: function is {self.function!r}, but must be a function.")
        if not self.columns:
            raise SpecError(f"Measurement {self.name}: columns must name at least one column.")
        for column, kind in self.columns.items():
            if not _NAME.fullmatch(str(column)) or column in self.needs.about:
                raise SpecError(
                    f"Measurement {self.name} cannot have the column {column!r}; columns are named as measurements are,"
                    f" and {', '.join(self.needs.about)} are there already."
                )
            if str(kind) not in _TYPES:
                raise SpecError(
                    f"Measurement {self.name}: column {column!r} has the type {kind}, but must have one of"
                    f" {', '.join(_TYPES)} of polars."
                )
        object.__setattr__(self, "columns", {column: str(kind) for column, kind in self.columns.items()})
        self._check_chart()

    def _check_chart(self) -> None:
        if not self.chart:
            return
        named = {"x": self.chart.x, "y": self.chart.y, "series": self.chart.series}
        kinds = {**{name: _MODEL[name] for name in self.needs.about}, **self.columns}
        for axis, column in named.items():
            if column is not None and column not in kinds:
                raise SpecError(
                    f"Measurement {self.name}: chart.{axis} is {column!r}, but must be one of {', '.join(kinds)}."
                )
            if axis != "series" and kinds[str(column)] not in _NUMBERS:
                raise SpecError(f"Measurement {self.name}: chart.{axis} is {column!r}, which is not a number.")

    @property
    def table(self) -> str:
        """The name of its table."""
        return self.needs.table or self.name

    @property
    def schema(self) -> "Schema":
        """The columns of its table."""
        return schema_of(self.columns, about=self.needs.about)


def schema_of(columns: Mapping[str, str], *, about: Sequence[str] = tuple(_MODEL)) -> "Schema":
    """The columns of a measurement's table: those that identify a model, and its own.

    Args:
        columns: Its own, with the names of their types.
        about: The columns that identify a model.

    Raises:
        ValueError: A column has a name or a type that none may have.
    """
    import polars as pl  # a spec is read without it

    kinds = {**{name: _MODEL[name] for name in about}, **columns}
    if unknown := {*kinds.values()} - {*_TYPES}:
        raise ValueError(f"there is no type {min(unknown)}")
    if odd := [name for name in kinds if not _NAME.fullmatch(name)]:
        raise ValueError(f"no column can have the name {odd[0]!r}")
    return pl.Schema({name: getattr(pl, kind)() for name, kind in kinds.items()})


def jobs_of(measurement: Measurement, wanted: Wanted) -> tuple[Measuring, ...]:
    """The jobs of a measurement, those that the study has already among them."""
    if measurement.needs.jobs:
        return tuple(measurement.needs.jobs(wanted))
    name, stages = measurement.name, measurement.needs.stages
    trained = [job for job in wanted.trainings if grids(job, stages)]
    initial = _initial(name, wanted) if "initial" in stages else ()
    return (*initial, *(Measuring(id=f"{name}-{job.id}", measurement=name, training=job.id) for job in trained))


def grids(job: Training, stages: Sequence[str]) -> list[tuple[Grid, int | None]]:
    """The run ids of a job's own runs and of its averages, with the averages' counts, as far as their stage is wanted.

    Args:
        job: The training job.
        stages: The stages that are wanted.
    """
    own: list[tuple[Grid, int | None]] = [(job.runs, None)] if job.stage in stages and job.stage != "average" else []
    if job.average and "average" in stages:
        own += zip(job.average.runs, job.average.counts, strict=True)
    return own


def _initial(name: str, wanted: Wanted) -> tuple[Measuring, ...]:
    """The measurements of initial models that the study has, and one of the seeds that it lacks."""
    known = tuple(job for job in wanted.old if job.training is None)
    measured = {seed.seed for job in known for seed in job.seeds}
    missing = tuple(seed for seed in wanted.seeds if seed.seed not in measured)
    if not missing:
        return known
    return (*known, Measuring(id=f"{name}-initial-{identity(missing)}", measurement=name, seeds=missing))
