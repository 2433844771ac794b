"""The learned features of a model: its accuracy on test sets in which only one feature separates the classes."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lratlas.measure.base import Columns, Figure, Measurement, Models, Needs, Option, Options

if TYPE_CHECKING:
    from torch import Tensor

    from lratlas.training.prepared import Prepared
    from lratlas.training.program import Program
    from lratlas.training.sphere import Weights
    from lratlas.training.state import Samples


def single_feature_accuracies(
    program: "Program", weights: "Weights", buffers: "Weights", sets: "Sequence[Samples]"
) -> "Tensor":
    """Accuracy on each single-feature test set, float64 [features, seeds, lanes] (Fig. 5).

    Args:
        program: The stack's program.
        weights: Trained parameters, [seeds, lanes, *parameter].
        buffers: Buffers, likewise.
        sets: One test set per feature.
    """
    import torch

    from lratlas.training.evaluate import evaluate_stack

    return torch.stack([evaluate_stack(program, weights, buffers, samples).accuracy for samples in sets])


def _measure(models: Models, _options: Options) -> Iterator[Columns]:
    sets = models.setting().features
    accuracies = single_feature_accuracies(models.program(), models.weights, models.buffers, sets)
    for feature, accuracy in enumerate(accuracies):
        yield {"feature": feature, "accuracy": accuracy.flatten().tolist()}


def _settle(options: Options, task: "Prepared") -> Options | None:
    return {} if options["features"] and task.singles is not None and task.objective.has_accuracy else None


_CHART = Figure(
    name="features",
    draw="lratlas.report.charts.learned:features_chart",
    data="lratlas.report.charts.learned:features_data",
)

_FULL_CHART = Figure(
    name="features_full",
    draw="lratlas.report.charts.learned:features_full_chart",
    data=None,
)

FEATURES = Measurement(
    name="features",
    columns={"feature": "Int64", "accuracy": "Float64"},
    function=_measure,
    needs=Needs(
        stacked=True,
        order=("seed", "plr", "stage", "flr", "count", "feature"),
        words="accuracy with a single informative feature, for each feature",
        options={
            "features": Option(default=True, description="single-feature accuracies, if the task has such test sets")
        },
        settle=_settle,
        figures=(
            _CHART,
            _FULL_CHART,
        ),
    ),
)
