"""Stochastic weight averaging: means of a run's checkpoints, stored as running sums."""

from collections.abc import Iterable, Mapping

from lratlas.devices import widened
from lratlas.training.rules import Rule
from lratlas.training.sphere import Weights

Tails = dict[int, Weights]


def add_checkpoint(tails: Mapping[int, Weights], counts: Iterable[int], weights: Weights, *, rank: int) -> Tails:
    """Add a checkpoint to the running sums.

    Args:
        tails: Current sum for each count k, in float64.
        counts: The counts k of SWA-k.
        weights: The checkpoint.
        rank: Number of checkpoints closer to the end of pre-training; only the k closest enter SWA-k.
    """
    new = dict(tails)
    for count in counts:
        if rank < count:
            old = tails.get(count)
            new[count] = {k: widened(v) + (old[k] if old else 0) for k, v in weights.items()}
    return new


def average_tails(tails: Mapping[int, Weights], *, rule: Rule, like: Weights) -> Tails:
    """SWA-k for every count k: the mean of the k checkpoints, projected to the sphere if there is one.

    Args:
        tails: The running sums.
        rule: The update rule.
        like: Weights of the dtype and on the device of the means.
    """
    means = {count: {name: value / count for name, value in total.items()} for count, total in tails.items()}
    return {
        count: {name: value.to(like[name]) for name, value in rule.constrain(mean).items()}
        for count, mean in means.items()
    }
