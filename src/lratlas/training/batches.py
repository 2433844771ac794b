"""Mini-batch order and augmentation draws: functions of (seed, epoch), equal for all LRs of a seed."""

import numpy as np
import torch
from torch import Tensor

from lratlas.data.augment import Augmentation
from lratlas.rng import stream


def batch_indices(
    *, seed: int, start: int, stop: int, samples: int, batch_size: int, full_batch: bool = False
) -> Tensor:
    """Indices of the samples in each step's batch, int64, shape [stop - start, batch_size].

    Each epoch is a new permutation; an incomplete last batch is dropped.

    Args:
        seed: Training seed.
        start: First step (0 is the start of epoch 0).
        stop: Step after the last one.
        samples: Size of the training set.
        batch_size: Samples per step.
        full_batch: Whether each step uses all samples in their original order, without a draw.
    """
    if full_batch:
        return torch.arange(samples).expand(stop - start, -1)
    per_epoch = samples // batch_size
    first, last = start // per_epoch, -(-stop // per_epoch)
    epochs = [
        stream(seed, "order", epoch).permutation(samples)[: per_epoch * batch_size].reshape(per_epoch, batch_size)
        for epoch in range(first, last)
    ]
    return torch.from_numpy(np.concatenate(epochs)[start - first * per_epoch : stop - first * per_epoch])


def augmentation_draws(
    augment: Augmentation, *, seed: int, start: int, stop: int, samples: int, batch_size: int
) -> dict[str, Tensor]:
    """Random draws for the samples of each step's batch, each [stop - start, batch_size, *].

    All draws of an epoch come from one stream keyed by the seed and the epoch, one row per position in the epoch.

    Args:
        augment: The augmentation that makes the draws.
        seed: Training seed.
        start: First step.
        stop: Step after the last one.
        samples: Size of the training set.
        batch_size: Samples per step.
    """
    per_epoch = samples // batch_size
    first, last = start // per_epoch, -(-stop // per_epoch)
    epochs = [augment.draws(stream(seed, "augment", epoch), per_epoch * batch_size) for epoch in range(first, last)]
    part = slice(start - first * per_epoch, stop - first * per_epoch)
    return {
        name: torch.cat([epoch[name] for epoch in epochs]).unflatten(0, (-1, batch_size))[part] for name in epochs[0]
    }
