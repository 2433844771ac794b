"""The sections of a spec as arguments of `lratlas.explore`, typed for editors and type checkers."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    from lratlas.measure.base import Measurement


class LRRange(TypedDict):
    """Learning rates from ``low`` to ``high``, evenly spaced in the logarithm."""

    low: float
    high: float
    per_decade: int


LRs: TypeAlias = Iterable[float] | LRRange


class Stage(TypedDict, total=False):
    """Learning rates and length of a stage, in steps or in epochs."""

    lrs: LRs
    steps: int
    epochs: int


class Pretrain(Stage, total=False):
    """Pre-training from shared initial weights."""

    repeats: int


class Second(Stage, total=False):
    """A second learning rate between pre-training and fine-tuning."""

    plrs: LRs


class Average(TypedDict, total=False):
    """Weight averages of checkpoints along training with the pre-training LR."""

    counts: Sequence[int]
    every: int
    every_epochs: int
    extend: bool


class Refine(TypedDict, total=False):
    """Bisection of a boundary between regimes."""

    boundary: Literal["convergence", "subregime", "divergence"]
    ratio: float


class Trace(TypedDict, total=False):
    """The resolution of the recorded traces."""

    points: int


class Measure(TypedDict, total=False):
    """The measurements on the trained models."""

    geometry: bool
    interpolation: int
    great_circle: bool
    features: bool
    bands: bool | Sequence[Sequence[int]]
    norms: bool
    sharpness: bool
    sharpness_samples: int
    convergence: bool
    extra: "Measurement | str | Sequence[Measurement | str]"


class Training(TypedDict, total=False):
    """The computation of runs."""

    device: str
    dtype: Literal["float32", "float64"]
    mixed_precision: bool
    strategy: Literal["auto", "stack", "single"]
    compile: bool
    stack: int
    segment_steps: int
