"""The order of mini-batches: a function of (seed, epoch), the same for all learning rates of a seed."""

import numpy as np
import torch
from torch import Tensor

from lratlas.streams import stream


def batch_indices(*, seed: int, start: int, stop: int, samples: int, batch_size: int) -> Tensor:
    """Indices of the samples in each step's batch, int64, shape [stop - start, batch_size].

    Each epoch is a fresh permutation; an incomplete batch at its end is dropped.

    Args:
        seed: Training seed.
        start: First step (0 is the beginning of epoch 0).
        stop: Step after the last one.
        samples: Size of the training set.
        batch_size: Samples per step.
    """
    per_epoch = samples // batch_size
    first, last = start // per_epoch, -(-stop // per_epoch)
    epochs = [
        stream(seed, "order", epoch).permutation(samples)[: per_epoch * batch_size].reshape(per_epoch, batch_size)
        for epoch in range(first, last)
    ]
    return torch.from_numpy(np.concatenate(epochs)[start - first * per_epoch : stop - first * per_epoch])
