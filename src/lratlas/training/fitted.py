"""The first epoch in which a run classified every training sample correctly: epochs to convergence (Fig. 11)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


class FirstFit:
    """Watches the steps of a stack for the first epoch without an error.

    A sample counts with the prediction made when its batch was taken, so watching costs nothing but one evaluation of
    the test set for each epoch in which a run first fits all. Samples that an epoch leaves out do not count.

    Args:
        shape: Seeds and lanes.
        epoch: Steps of an epoch.
        batch_size: Samples per step.
    """

    def __init__(self, shape: Sequence[int], *, epoch: int, batch_size: int) -> None:
        self._epoch, self._batch_size = epoch, batch_size
        self._steps, self._hits = 0, torch.zeros(*shape, dtype=torch.float64)
        self.found = Fitted(
            epochs=torch.zeros(*shape, dtype=torch.int64),
            test_accuracy=torch.full((*shape,), torch.nan, dtype=torch.float64),
        )

    def add(self, hits: Tensor, *, steps: int, step: int, test_accuracy: Callable[[], Tensor]) -> None:
        """Add what was trained since the last call.

        Args:
            hits: Sum over the steps of the share of their batch that was classified correctly, [seeds, lanes].
            steps: Their number.
            step: Steps done in all.
            test_accuracy: Called at the end of an epoch in which a run first fitted all samples, [seeds, lanes].
        """
        self._steps, self._hits = self._steps + steps, self._hits + hits.double().cpu()
        if step % self._epoch:
            return
        # Half a sample of slack, for shares are rounded; an epoch that was seen in part does not count.
        whole = self._steps == self._epoch
        new = (self._hits > self._epoch - 0.5 / self._batch_size) & (self.found.epochs == 0) & whole
        self._steps, self._hits = 0, torch.zeros_like(self._hits)
        if new.any():
            self.found = Fitted(
                epochs=torch.where(new, step // self._epoch, self.found.epochs),
                test_accuracy=torch.where(new, test_accuracy().double().cpu(), self.found.test_accuracy),
            )


def joined_fitted(parts: Sequence[Fitted]) -> Fitted:
    """The result for a stack from those for consecutive parts of its lanes."""
    return Fitted(
        epochs=joined([part.epochs for part in parts]), test_accuracy=joined([part.test_accuracy for part in parts])
    )
