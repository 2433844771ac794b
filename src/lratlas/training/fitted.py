"""The first epoch in which a run classified every training sample correctly: epochs to convergence (Fig. 11)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lratlas.training.stacks import joined


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """When the runs of a stack first fitted all samples, [seeds, lanes].

    Attributes:
        epochs: Epochs done by then, int64; 0 for runs that did not.
        test_accuracy: Test accuracy at the end of that epoch, float64; NaN for runs that did not.
    """

    epochs: Tensor
    test_accuracy: Tensor


@dataclass(frozen=True, kw_only=True)
class FirstFit:
    """What was seen of a stack's steps, in search of the first epoch without an error.

    A sample counts with the prediction made when its batch was taken, so watching costs nothing but one evaluation of
    the test set for each epoch in which a run first fits all. Samples that an epoch leaves out do not count.

    Attributes:
        epoch: Steps of an epoch.
        batch_size: Samples per step.
        found: What was found so far.
        hits: Sum over the steps of the epoch under way of the share of their batch that was classified correctly,
            float64 [seeds, lanes].
        steps: How many steps that is.
    """

    epoch: int
    batch_size: int
    found: Fitted
    hits: Tensor
    steps: int = 0

    def and_then(self, hits: Tensor, *, steps: int, step: int, test_accuracy: Callable[[], Tensor]) -> "FirstFit":
        """What was seen with some more steps.

        Args:
            hits: Sum over these steps of the share of their batch that was classified correctly, [seeds, lanes].
            steps: Their number.
            step: Steps done in all.
            test_accuracy: Called at the end of an epoch in which a run first fitted all samples, [seeds, lanes].
        """
        steps, hits = self.steps + steps, self.hits + hits.double().cpu()
        if step % self.epoch:
            return replace(self, steps=steps, hits=hits)
        # Half a sample of slack, for shares are rounded; an epoch that was seen in part does not count.
        fitted = (hits > self.epoch - 0.5 / self.batch_size) & (steps == self.epoch)
        new, found = fitted & (self.found.epochs == 0), self.found
        if new.any():
            found = Fitted(
                epochs=torch.where(new, step // self.epoch, found.epochs),
                test_accuracy=torch.where(new, test_accuracy().double().cpu(), found.test_accuracy),
            )
        return replace(self, found=found, hits=torch.zeros_like(hits), steps=0)


def nothing_seen(shape: Sequence[int], *, epoch: int, batch_size: int) -> FirstFit:
    """Before the first step.

    Args:
        shape: Seeds and lanes.
        epoch: Steps of an epoch.
        batch_size: Samples per step.
    """
    found = Fitted(
        epochs=torch.zeros(*shape, dtype=torch.int64),
        test_accuracy=torch.full((*shape,), torch.nan, dtype=torch.float64),
    )
    return FirstFit(epoch=epoch, batch_size=batch_size, found=found, hits=torch.zeros(*shape, dtype=torch.float64))


def joined_fitted(parts: Sequence[Fitted]) -> Fitted:
    """The result for a stack from those for consecutive parts of its lanes."""
    return Fitted(
        epochs=joined([part.epochs for part in parts]), test_accuracy=joined([part.test_accuracy for part in parts])
    )
