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
Columns = Mapping[str, object]  # a value for all models, a value per [seed][lane], or a list per [seed][lane]
_TYPES = ("Float64", "Int64", "String", "Boolean")  # polars types; the widest of each kind
_NUMBERS = ("Float64", "Int64")

# The columns that identify a measured model.
_MODEL: Mapping[str, str] = {
    "run": "String",
    "stage": "String",
    "plr": "Float64",
    "flr": "Float64",
    "count": "Int64",
    "seed": "Int64",
}
ORDER = ("seed", "plr", "stage", "flr", "count")
"""The sort keys of a table with one row per model."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of one column of a measurement's table against another.

    Against the learning rate of pre-training it has a line for each kind of model (pre-trained, fine-tuned with each
    FLR, averaged with each count): the mean over seeds ± one standard deviation. Against any other
    column it has a mark for each model. Diverged runs are left out.

    Attributes:
        y: The column on the vertical axis, of numbers.
        x: The column on the horizontal axis: ``plr``, or another column of numbers.
        series: A column with a line or a colour per value; the chart then has a panel for each kind of model. None for
            lines by kind of model.
        title: The heading of the chart; empty for the name of the measurement.
    """

    y: str
    x: str = "plr"
    series: str | None = None
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart with a custom drawing.

    Attributes:
        name: The name of the chart.
        draw: The function from tables to a drawing, as ``module:function``, so that only drawing imports it.
        data: The function from tables to the chart's data; None if another chart shows the same data.
    """

    name: str
    draw: str
    data: str | None


@dataclass(frozen=True, kw_only=True)
class Option:
    """A field of the section ``[measure]`` of a spec.

    Attributes:
        kind: Its type.
        default: Its value if the spec omits it. A switch that is off can be turned on in a finished study.
        description: Its text in the reference.
        least: The smallest number allowed.
        most: The largest number allowed.
        free: Whether the value can change in a finished study.
    """

    kind: Any = bool
    default: object
    description: str
    least: int | None = None
    most: int | None = None
    free: bool = False


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The inputs for planning the jobs of a measurement.

    Attributes:
        seeds: One entry per repetition.
        trainings: The training jobs whose models can be measured.
        options: All settings, besides the models, that the results depend on.
        old: The existing jobs of this measurement.
    """

    seeds: Sequence[Seed]
    trainings: Sequence[Training]
    options: Options
    old: Sequence[Measuring]


@dataclass(frozen=True, kw_only=True)
class Models:
    """A stack of trained models, with everything needed to measure them.

    Attributes:
        task: The first repetition's task; all repetitions share its model, loss and rule.
        fresh: Returns the model of the seed at a place of the stack, with its initial weights.
        program: Returns the program that evaluates stacks.
        setting: Returns the data and the frozen parameters of the stack's seeds.
        vector: From all weights to the weights on which angles and norms are measured.
        seeds: Training seed of each seed of the stack.
        lanes: Models per seed.
        weights: Parameters, [seeds, lanes, *parameter]; empty if solutions are compared.
        buffers: Buffers, likewise.
        solutions: Weights and buffers of each compared solution.
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
    """Further settings of built-in measurements; a custom measurement needs none of them.

    Attributes:
        stacked: The function is called as ``function(models, options)`` with a whole stack, as `Models`, and yields
            columns repeatedly; its options are those of the spec and of the job.
        stages: The stages of the measured models.
        table: The name of its table, if it differs from that of the measurement.
        about: The columns of the table that identify a model.
        order: The sort keys of the rows.
        words: The description of its table.
        options: Fields of the section ``[measure]``.
        settle: From these fields and the task to the options of its jobs; None if there is nothing to measure.
        jobs: Plans its jobs; None for one job per training job with models of these stages.
        replaces: Whether rows of jobs that are no longer planned are removed.
        figures: Its charts with custom drawings.
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
    """A measurement on the trained models of a study.

    It runs on every model: pre-trained, fine-tuned and averaged. Its table has one or more rows per model,
    with the columns ``run``, ``stage``, ``plr``, ``flr``, ``count`` and ``seed``, which identify the model, followed by
    the columns of the measurement.

    Attributes:
        name: The name of the measurement and of its table: lower-case letters, digits and underscores.
        columns: Its columns with their types: ``polars.Float64``, ``Int64``, ``String`` or ``Boolean``, or their names.
        function: Called as ``function(model, data)``. The model is a trained ``torch.nn.Module`` in eval mode, a copy
            that the function may change. The data is a `lratlas.measure.each.Data`, with ``train`` and ``test`` as
            pairs of inputs and targets in the model's format. The function returns one row, a mapping with a value for
            each column, or a sequence of rows. Numbers that are not finite become null.
        chart: Its chart in the report; None for no chart.
        needs: Only for built-in measurements.

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
                f"A measurement has the name {self.name!r}, but names must start with a lower-case letter and have at"
                " most 40 lower-case letters, digits and underscores."
            )
        if not callable(self.function):
            raise SpecError(f"Measurement {self.name}: function is {self.function!r}, but must be a function.")
        if not self.columns:
            raise SpecError(f"Measurement {self.name}: columns must name at least one column.")
        for column, kind in self.columns.items():
            if not _NAME.fullmatch(str(column)) or column in self.needs.about:
                raise SpecError(
                    f"Measurement {self.name} cannot have the column {column!r}: columns follow the rules for names of"
                    f" measurements, and {', '.join(self.needs.about)} are reserved."
                )
            if str(kind) not in _TYPES:
                raise SpecError(
                    f"Measurement {self.name}: column {column!r} has the type {kind}, but must have one of"
                    f" the Polars types {', '.join(_TYPES)}."
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
                raise SpecError(f"Measurement {self.name}: chart.{axis} is {column!r}, but must be a numeric column.")

    @property
    def table(self) -> str:
        """The name of its table."""
        return self.needs.table or self.name

    @property
    def schema(self) -> "Schema":
        """The columns of its table."""
        return schema_of(self.columns, about=self.needs.about)


def schema_of(columns: Mapping[str, str], *, about: Sequence[str] = tuple(_MODEL)) -> "Schema":
    """The columns of a measurement's table: the identifying columns, then its measured columns.

    Args:
        columns: The measured columns, with the names of their types.
        about: The columns that identify a model.

    Raises:
        ValueError: A column has a name or a type that is not allowed.
    """
    import polars as pl  # reading a spec does not need it

    kinds = {**{name: _MODEL[name] for name in about}, **columns}
    if unknown := {*kinds.values()} - {*_TYPES}:
        raise ValueError(f"there is no type {min(unknown)}")
    if odd := [name for name in kinds if not _NAME.fullmatch(name)]:
        raise ValueError(f"no column can have the name {odd[0]!r}")
    return pl.Schema({name: getattr(pl, kind)() for name, kind in kinds.items()})


def jobs_of(measurement: Measurement, wanted: Wanted) -> tuple[Measuring, ...]:
    """The jobs of a measurement, existing ones included."""
    if measurement.needs.jobs:
        return tuple(measurement.needs.jobs(wanted))
    name, stages = measurement.name, measurement.needs.stages
    trained = [job for job in wanted.trainings if grids(job, stages)]
    initial = _initial(name, wanted) if "initial" in stages else ()
    return (*initial, *(Measuring(id=f"{name}-{job.id}", measurement=name, training=job.id) for job in trained))


def grids(job: Training, stages: Sequence[str]) -> list[tuple[Grid, int | None]]:
    """The run ids of a job's runs and of its averages, with the averages' counts, for the wanted stages.

    Args:
        job: The training job.
        stages: The wanted stages.
    """
    own: list[tuple[Grid, int | None]] = [(job.runs, None)] if job.stage in stages and job.stage != "average" else []
    if job.average and "average" in stages:
        own += zip(job.average.runs, job.average.counts, strict=True)
    return own


def _initial(name: str, wanted: Wanted) -> tuple[Measuring, ...]:
    """The existing measurements of initial models, and a new one for the missing seeds."""
    known = tuple(job for job in wanted.old if job.training is None)
    measured = {seed.seed for job in known for seed in job.seeds}
    missing = tuple(seed for seed in wanted.seeds if seed.seed not in measured)
    if not missing:
        return known
    return (*known, Measuring(id=f"{name}-initial-{identity(missing)}", measurement=name, seeds=missing))
