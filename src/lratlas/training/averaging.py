"""Stochastic weight averaging: means of checkpoints of a run, kept as running sums."""

from collections.abc import Iterable, Mapping

import torch

from lratlas.training.rules import Rule
from lratlas.training.sphere import Weights

Tails = dict[int, Weights]


def add_checkpoint(tails: Mapping[int, Weights], counts: Iterable[int], weights: Weights, *, rank: int) -> Tails:
    """Running sums with one more checkpoint.

    Args:
        tails: Sum so far for each count k, in float64.
        counts: The counts k of SWA-k.
        weights: The checkpoint.
        rank: How many of the checkpoints are nearer to the end of pre-training; only the k nearest enter SWA-k.
    """
    new = dict(tails)
    for count in counts:
        if rank < count:
            old = tails.get(count)
            new[count] = {k: v.double() + (old[k] if old else 0) for k, v in weights.items()}
    return new


def average_tails(tails: Mapping[int, Weights], *, rule: Rule, dtype: torch.dtype) -> Tails:
    """SWA-k for every count k: the mean of the k checkpoints, put back on the sphere if there is one."""
    means = {count: {name: value / count for name, value in total.items()} for count, total in tails.items()}
    return {
        count: {name: value.to(dtype) for name, value in rule.constrain(mean).items()} for count, mean in means.items()
    }
