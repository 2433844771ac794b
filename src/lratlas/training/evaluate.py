"""Evaluate a stack on whole data sets: losses, accuracies and batch-norm statistics."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lratlas.devices import float32_precision, widened
from lratlas.rng import seed_generators, stream
from lratlas.training.batch_norm import PooledMoments
from lratlas.training.memory import free_memory, in_parts, is_out_of_memory
from lratlas.training.program import Batch, Program, allow_slow_batching
from lratlas.training.sphere import Weights
from lratlas.training.state import Samples, join_lanes, join_weights, lanes_of, width


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Mean loss and accuracies over a data set, float64 [seeds, lanes]."""

    loss: Tensor
    accuracy: Tensor
    chance_accuracy: Tensor


@allow_slow_batching()
@float32_precision(tf32=False)
@torch.no_grad()
def evaluate_stack(program: Program, weights: Weights, buffers: Weights, samples: Samples) -> Scores:
    """Loss and accuracies over all samples, in eval mode, with sums in float64.

    Each sample counts once. A loss that is not a mean over samples is evaluated in batches of the program's size, in a
    fixed random order. A batch is weighted by its samples; the last batch is filled up with the first samples.
    """

    def evaluate_lanes(lanes: slice) -> Tensor:
        return _sum_scores(program, lanes_of(weights, lanes), lanes_of(buffers, lanes), samples)

    loss, accuracy, chance = in_parts(evaluate_lanes, width(weights), join_lanes) / samples.count
    return Scores(loss=loss, accuracy=accuracy, chance_accuracy=chance)


@allow_slow_batching()
@float32_precision(tf32=False)
@torch.no_grad()
def pool_buffers(program: Program, weights: Weights, buffers: Weights, samples: Samples, *, batch_size: int) -> Weights:
    """The model's buffers with batch-norm statistics pooled exactly over all samples, in float64.

    Each layer's inputs come from a pass in train mode, in which earlier layers normalise with their batch's statistics
    (paper, controlled setting). Batches follow a fixed random order of the samples. Models without batch norm keep
    their buffers.

    Args:
        program: The stack's program.
        weights: Trained parameters, [seeds, lanes, *parameter].
        buffers: Buffers, [seeds, lanes, ...].
        samples: The training set.
        batch_size: Maximum number of samples per pass; the sizes differ by one at most.
    """
    if not program.norms:
        return buffers
    # A fixed shuffle: data sets are often sorted by class, and a one-class batch has different statistics.
    rows = _shuffle_samples(samples)

    def pool_lanes(lanes: slice) -> Weights:
        own, kept = lanes_of(weights, lanes), lanes_of(buffers, lanes)
        pooled = PooledMoments(program.norms, kept)
        with seed_generators(0):  # random layers such as dropout draw the same numbers at every measured point
            # Even sizes avoid a short last batch with poor statistics.
            for at in rows.tensor_split(-(-len(rows) // batch_size)):
                pooled.add(program.moments(own, kept, _batch(samples, at)))
        return pooled.buffers()

    return in_parts(pool_lanes, width(weights), join_weights)


def _sum_scores(program: Program, weights: Weights, buffers: Weights, samples: Samples) -> Tensor:
    """Sums of loss, accuracy and chance accuracy over all samples, float64 [3, seeds, lanes]."""
    n, size, first = samples.count, min(program.chunk, samples.count), 0
    device = samples.which.device
    order = _shuffle_samples(samples) if program.by_batches else torch.arange(n, device=device)
    total: Tensor | None = None
    while first < n:
        # Pad the last chunk with samples that do not count, so that one program serves all chunks.
        at = torch.arange(first, first + size, device=device)
        counted, at = (at < n).to(samples.shares), order[at % n]
        try:
            part = widened(program.evaluate(weights, buffers, _batch(samples, at), counted))
        except RuntimeError as error:
            # A loss of whole batches depends on their size.
            if program.by_batches or size == 1 or not is_out_of_memory(error):
                raise
            size = -(-size // 2)
        else:
            total, first = part if total is None else total + part, first + size
            continue
        free_memory()  # not during exception handling, which keeps the failed attempt's tensors alive
    assert total is not None
    return total


def _shuffle_samples(samples: Samples) -> Tensor:
    """A fixed random order of the samples: data sets are often sorted by class."""
    return torch.from_numpy(stream(0, "statistics").permutation(samples.count)).to(samples.which.device)


def _batch(samples: Samples, at: Tensor) -> Batch:
    x, y = samples.take_samples(at.expand(len(samples.which), -1))
    return Batch(x=x, y=y, shares=samples.shares, frozen=samples.frozen)
