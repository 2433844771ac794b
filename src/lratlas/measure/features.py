"""Which features a model has learned: its accuracy on test sets in which only one feature tells the classes apart."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lratlas.measure.base import Columns, Figure, Measurement, Models, Needs, Option, Options, Text

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
    text=Text(
        heading="Which features were learned",
        caption="Accuracy on test sets in which a single feature is informative. The features of each run "
        "are sorted from best to worst, then averaged over seeds rank by rank: one line far above "
        "the others means that a run relies on few features. Dashed: the test accuracy, with all features.",
        alt="Line charts of the single-feature accuracies against the pre-training learning rate, one "
        "line for each rank from the best feature of a run to the worst, mean over seeds, and a dashed line for the "
        "test accuracy; a panel each for pre-trained, fine-tuned and averaged models. Regimes are shaded.",
    ),
)

_FULL_CHART = Figure(
    name="features_full",
    draw="lratlas.report.charts.learned:features_full_chart",
    data=None,
    text=Text(
        heading="Which features were learned, for every FLR and every average",
        caption="As the chart before, for all models: pre-trained, fine-tuned with each FLR, averaged over each number "
        "of checkpoints (SWA-k); means over seeds.",
        alt="Small line charts of the single-feature accuracies against the pre-training learning rate, sorted within "
        "each run, mean over seeds, with a dashed line for the test accuracy: a panel for pre-trained models, one for "
        "each fine-tuning learning rate, one for each number of averaged checkpoints. Regimes are shaded.",
    ),
)

FEATURES = Measurement(
    name="features",
    columns={"feature": "Int64", "accuracy": "Float64"},
    function=_measure,
    needs=Needs(
        stacked=True,
        order=("seed", "plr", "stage", "flr", "count", "feature"),
        words="accuracy with a single feature informative, feature by feature",
        options={
            "features": Option(default=True, description="single-feature accuracies, where the task has such sets")
        },
        settle=_settle,
        figures=(
            _CHART,
            _FULL_CHART,
        ),
    ),
)
