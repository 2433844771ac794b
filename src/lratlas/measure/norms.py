"""How unevenly the norm of the weights is spread over a model's filters (Fig. 13)."""

from torch import Tensor

from lratlas.training.sphere import Weights, norm


def group_norms(weights: Weights) -> dict[str, Tensor]:
    """Norm of each group of weights over the norm of all the weights given, by parameter, float64.

    A group is what makes one output: a filter of a convolution, a row of a linear layer, an entry of the parameter's
    first dimension in any case. Parameters of fewer than two dimensions have no groups, but count in the whole norm;
    where there are none, the squares of all groups of a run add up to 1.

    Args:
        weights: Weights [seeds, lanes, *parameter], such as the trained vector. Their scale does not matter.

    Returns:
        For each parameter of two dimensions or more, in the order given, [seeds, lanes, groups].
    """
    exact = {name: value.double() for name, value in weights.items()}
    whole = norm(exact)
    return {name: value.flatten(3).norm(dim=3) / whole[..., None] for name, value in exact.items() if value.dim() >= 4}
