"""The distribution of the norm of the weights over a model's filters (Fig. 13)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lratlas.devices import widened
from lratlas.errors import SpecError
from lratlas.measure.base import Columns, Figure, Measurement, Models, Needs, Option, Options

if TYPE_CHECKING:
    from torch import Tensor

    from lratlas.training.prepared import Prepared
    from lratlas.training.sphere import Weights


def group_norms(weights: "Weights") -> "dict[str, Tensor]":
    """Norm of each group of weights over the norm of all given weights, by parameter, float64.

    A group contains the weights of one output: a filter of a convolution, a row of a linear layer, in general an entry
    of the parameter's first dimension. Parameters of fewer than two dimensions have no groups, but count in the total
    norm; without such parameters, the squares of all groups of a run add up to 1.

    Args:
        weights: Weights [seeds, lanes, *parameter], such as the trained vector. Their scale does not matter.

    Returns:
        For each parameter of two dimensions or more, in the order given, [seeds, lanes, groups].
    """
    from lratlas.training.sphere import norm

    exact = {name: widened(value) for name, value in weights.items()}
    whole = norm(exact)
    return {name: value.flatten(3).norm(dim=3) / whole[..., None] for name, value in exact.items() if value.dim() >= 4}


def _measure(models: Models, _options: Options) -> Iterator[Columns]:
    for layer, norms in group_norms(models.vector(models.weights)).items():
        of_each = norms.flatten(0, 1)
        yield {"layer": layer, "group": [[*range(of_each.shape[1])]] * len(of_each), "norm": of_each.tolist()}


def _settle(options: Options, task: "Prepared") -> Options | None:
    """Whether norms are measured.

    Raises:
        SpecError: No weight of the model has groups.
    """
    from lratlas.training.prepared import make_model

    if not options["norms"]:
        return None
    if all(value.dim() < 2 for value in make_model(task, 0).parameters() if value.requires_grad):
        raise SpecError("`measure.norms` is true, but no trained weight of the model has at least two axes.")
    return {}


_CHART = Figure(
    name="norms",
    draw="lratlas.report.charts.minima:norms_chart",
    data="lratlas.report.charts.minima:norms_data",
)

NORMS = Measurement(
    name="norms",
    columns={"layer": "String", "group": "Int64", "norm": "Float64"},
    function=_measure,
    needs=Needs(
        stacked=True,
        stages=("initial", "pretrain", "finetune"),
        about=("run", "stage", "plr", "flr", "seed"),
        order=("seed", "plr", "stage", "flr", "layer", "group"),
        words="norms of the weights of each output filter",
        options={"norms": Option(default=False, description="norms of the weights of each output filter")},
        settle=_settle,
        figures=(_CHART,),
    ),
)
