"""The sections of a spec, as frozen models that reject unknown fields."""

from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import Field, create_model, model_validator

from lratlas.config.grid import LRs, closest
from lratlas.config.rules import AnyRule
from lratlas.config.values import BatchSize, Counts, Device, Function, Loss, Names, Numbers, Options, Section
from lratlas.measure.base import Measurement
from lratlas.measure.base import Options as MeasureOptions
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.thresholds import Thresholds

MOST_REPEATS = 10_000
MOST_RUNS = 1_000_000
_MOST_STEPS, _MOST_EPOCHS = 10**9, 10**6


S = TypeVar("S", bound=Section)


class TaskSpec(Section):
    """The task: a preset, or the functions that make the model and the data."""

    preset: str | None = Field(default=None, min_length=1, description="name of a built-in task")
    model: Function | None = Field(default=None, description='"module:function" that makes the model')
    data: Function | None = Field(default=None, description='"module:function" that returns the training and test data')
    options: Options = Field(default_factory=dict, description="keyword arguments for the preset or the functions")
    loss: Loss | None = Field(
        default=None,
        description='name of a loss or "module:function"; default: the task\'s loss',
    )
    metric: Function | None = Field(
        default=None, description='"module:function" that returns the share of correct predictions, instead of accuracy'
    )
    batch_size: BatchSize | None = Field(
        default=None, description='samples per batch, or "full"; default: the task\'s batch size'
    )
    rule: AnyRule | None = Field(default=None, description="the update rule; default: the task's rule")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.preset is None) == (self.model is None):
            held = "neither" if self.preset is None else "both"
            raise ValueError(f"must have exactly one of `preset` and `model`, but has {held}")
        if self.model is not None and self.data is None:
            raise ValueError("has `model` without `data`, but a custom model needs both")
        if self.preset is not None and self.data is not None:
            raise ValueError("has `data` together with `preset`, but a preset has its own data")
        if self.preset is not None and self.metric is not None:
            raise ValueError("has `metric` together with `preset`, but a preset measures accuracy")
        return self


class StageSpec(Section):
    """One stage of training: its learning rates and its length."""

    lrs: LRs = Field(description="a list of positive LRs or a range {low, high, per_decade}")
    steps: int | None = Field(default=None, ge=1, le=_MOST_STEPS, description="length of a run in steps")
    epochs: int | None = Field(default=None, ge=1, le=_MOST_EPOCHS, description="length of a run in epochs")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            held = "neither" if self.steps is None else "both"
            raise ValueError(f"must have exactly one of `steps` and `epochs`, but has {held}")
        return self


class PretrainSpec(StageSpec):
    """Pre-training at constant LRs from shared initial weights."""

    repeats: int = Field(
        default=1, ge=1, le=MOST_REPEATS, description="independent repetitions; repetition r has seed 1 + r"
    )


class FinetuneSpec(StageSpec):
    """Fine-tuning of every pre-trained model at each of the small LRs."""


class SecondSpec(StageSpec):
    """A second PLR between pre-training and fine-tuning, from some of the pre-trained models (Fig. 12)."""

    plrs: LRs = Field(description="the pre-training LRs to start from, each above all `lrs`")

    @model_validator(mode="after")
    def _downwards(self) -> Self:
        if max(self.lrs) >= min(self.plrs):
            raise ValueError(
                f"has lrs up to {max(self.lrs):g} and plrs from {min(self.plrs):g}, but each LR of the second"
                " stage must be below each pre-training LR that it starts from"
            )
        return self


class RefineSpec(Section):
    """Bisection of a boundary between regimes: PLRs are added until it is known within a ratio."""

    boundary: Literal["convergence", "subregime", "divergence"] = Field(
        default="convergence", description="the boundary to bisect"
    )
    ratio: float = Field(ge=1.001, le=100, description="largest ratio of the two PLRs around the boundary")


class AverageSpec(Section):
    """Weight averages of checkpoints along training with the PLR."""

    counts: Counts = Field(description="numbers of checkpoints to average")
    every: int | None = Field(default=None, ge=1, le=_MOST_STEPS, description="steps between checkpoints")
    every_epochs: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_EPOCHS,
        description="epochs between checkpoints, instead of `every`; 1 if both are left out",
    )
    extend: bool = Field(
        default=False,
        description="continue training at the PLR, instead of averaging the last checkpoints of pre-training",
    )

    @model_validator(mode="after")
    def _one_distance(self) -> Self:
        if self.every is not None and self.every_epochs is not None:
            raise ValueError("has both `every` and `every_epochs`, but only one of them can be set")
        return self


class TraceSpec(Section):
    """The resolution of the recorded traces."""

    points: int = Field(
        default=40, ge=4, le=10_000, description="rows per run; the trend of the loss needs at least 10"
    )


def _with_options(section: type[S]) -> type[S]:
    """The section with the fields of every built-in measurement."""
    options = {name: each for measurement in MEASUREMENTS for name, each in measurement.needs.options.items()}
    fields: dict[str, Any] = {
        name: (each.kind, Field(default=each.default, description=each.description, ge=each.least, le=each.most))
        for name, each in options.items()
    }
    return create_model(section.__name__, __base__=section, __doc__=section.__doc__, __module__=__name__, **fields)


@_with_options
class MeasureSpec(Section):
    """The measurements on the trained models."""

    convergence: bool = Field(
        default=False, description="record the number of epochs until every training sample is fitted"
    )
    extra: Names = Field(default=(), description='custom measurements, each "module:name"')

    if TYPE_CHECKING:  # the other fields belong to the measurements

        def __init__(self, **options: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    def options_of(self, measurement: Measurement) -> MeasureOptions:
        """The fields that belong to a measurement, with their values."""
        return {name: getattr(self, name) for name in measurement.needs.options}


class TrainingSpec(Section):
    """The computation of runs."""

    device: Device = Field(default="auto", description="auto, cpu, cuda, cuda:N or mps")
    dtype: Literal["float32", "float64"] = Field(default="float32", description="number format of the weights")
    mixed_precision: bool = Field(default=False, description="run the model in bfloat16 (on a GPU)")
    strategy: Literal["auto", "stack", "single"] = Field(
        default="auto", description="train runs as stacks or one by one; auto measures both and uses the faster one"
    )
    compile: bool = Field(default=True, description="compile the training step if a compiler is available")
    stack: int = Field(default=128, ge=1, le=MOST_RUNS, description="largest number of runs trained as one program")
    segment_steps: int = Field(default=5000, ge=1, le=_MOST_STEPS, description="steps between restart points of a job")


class Spec(Section):
    """The spec of a study: the task, the stages, the recorded and measured quantities, the computation."""

    name: str = Field(default="study", min_length=1, max_length=1000, description="name of the study")
    task: TaskSpec = Field(description="the task to train")
    pretrain: PretrainSpec = Field(description="the first stage: PLRs, length, repetitions")
    second: SecondSpec | None = Field(
        default=None, description="a second PLR between pre-training and fine-tuning; optional"
    )
    finetune: FinetuneSpec | None = Field(default=None, description="fine-tuning at small LRs; optional")
    average: AverageSpec | None = Field(default=None, description="weight averages; optional")
    refine: RefineSpec | None = Field(default=None, description="bisection of a boundary; optional")
    trace: TraceSpec = Field(default=TraceSpec(), description="how often runs are recorded")
    measure: MeasureSpec = Field(default=MeasureSpec(), description="the measurements")
    regimes: Numbers = Field(
        default_factory=dict, description="thresholds of regimes and boundaries that differ from `Thresholds`"
    )
    training: TrainingSpec = Field(default=TrainingSpec(), description="how runs are trained")

    @property
    def thresholds(self) -> Thresholds:
        """The numbers that define regimes and boundaries."""
        return Thresholds(**self.regimes)

    @model_validator(mode="after")
    def _few_enough(self) -> Self:
        solutions = 1 + len(self.finetune.lrs if self.finetune else ())
        second = len(self.second.plrs) * len(self.second.lrs) * solutions if self.second else 0
        averages = len(self.average.counts) if self.average else 0
        runs = self.pretrain.repeats * (len(self.pretrain.lrs) * (solutions + averages) + second)
        if runs > MOST_RUNS:
            raise ValueError(f"asks for {runs:,} runs, but at most {MOST_RUNS:,} are allowed")
        return self

    @model_validator(mode="after")
    def _check_second(self) -> Self:
        unknown = [plr for plr in (self.second.plrs if self.second else ()) if closest(plr, self.pretrain.lrs) is None]
        if unknown:
            raise ValueError(
                f"has {unknown[0]:g} in second.plrs, but the pre-training LRs are"
                f" {', '.join(f'{lr:.4g}' for lr in self.pretrain.lrs)}"
            )
        return self

    @model_validator(mode="after")
    def _two_sides(self) -> Self:
        if self.refine and len(self.pretrain.lrs) < 2:
            raise ValueError("has [refine], but a bisection needs at least two pre-training LRs, one on each side")
        solutions = min(2, len(self.finetune.lrs) if self.finetune else 0) + (self.average is not None)
        if self.refine and self.refine.boundary == "subregime" and not (self.measure.geometry and solutions > 1):
            raise ValueError(
                'has refine.boundary = "subregime", which needs error barriers: set measure.geometry = true, and'
                " at least two of a low FLR, a high FLR and an average"
            )
        return self

    @model_validator(mode="after")
    def _enough_checkpoints(self) -> Self:
        if self.average is None or self.average.extend:
            return self
        length, every = self.pretrain.steps, self.average.every
        if self.pretrain.epochs is not None and every is None:
            length, every = self.pretrain.epochs, self.average.every_epochs or 1
        # Steps and epochs are only comparable once the data are known.
        if length is not None and every is not None and (self.average.counts[-1] - 1) * every >= length:
            raise ValueError(
                f"has average.counts up to {self.average.counts[-1]}, but pre-training has only"
                f" {(length - 1) // every + 1} such checkpoints"
            )
        return self
