"""A running average of weights in one copy of them."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lratlas.errors import LRAtlasError, SpecError

RECENCY = 3
"""The weight of the t-th weights grows like t³: their mean age is a fifth of the time averaged over."""


class RunningAverage:
    """The average of weights seen so far, the t-th with a weight that grows like t to the power of ``recency``.

    Polynomial-decay averaging (Shamir & Zhang, *Stochastic Gradient Descent for Non-smooth Optimization*, 2013):
    the early weights fade out without a window that would have to be stored or restarted. Weights narrower than 32
    bits are averaged in float32.

    Args:
        parameters: The weights to average.
        recency: The power; 0 for the plain mean.

    Attributes:
        count: How many weights were averaged.
    """

    def __init__(self, parameters: Iterable[Tensor], *, recency: int = RECENCY) -> None:
        self._parameters = list(parameters)
        self._means: list[Tensor] = []
        self._recency = recency
        self.count = 0

    @torch.no_grad()
    def add(self) -> None:
        """Average the present weights in; the first call copies them."""
        self.count += 1
        if self.count == 1:
            self._means = [value.detach().to(_wide(value), copy=True) for value in self._parameters]
            return
        share = (self._recency + 1) / (self.count + self._recency)
        for mean, value in zip(self._means, self._parameters, strict=True):
            mean.lerp_(value.detach().to(mean.dtype), share)

    def restart(self, parameters: Iterable[Tensor]) -> None:
        """Discard the average and start a new one over these parameters."""
        self._parameters, self._means, self.count = list(parameters), [], 0

    @contextmanager
    def swapped_in(self) -> Generator[None]:
        """Inside, the parameters have the averages; afterwards their previous storage again. Nothing is copied.

        Raises:
            LRAtlasError: If nothing was averaged yet.
        """
        if not self.count:
            raise LRAtlasError("there is no weight average yet; it begins with the first steps at a learning rate")
        present = [value.data for value in self._parameters]
        for value, mean in zip(self._parameters, self._means, strict=True):
            value.data = mean.to(value.dtype)
        try:
            yield
        finally:
            for value, data in zip(self._parameters, present, strict=True):
                value.data = data

    def state_dict(self) -> dict[str, Any]:
        """The averages and their count."""
        return {"count": self.count, "means": [mean.clone() for mean in self._means]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from what `state_dict` gave.

        Raises:
            SpecError: If it is of other weights.
        """
        means, count = state["means"], state["count"]
        shapes = [tuple(value.shape) for value in self._parameters]
        if means and [tuple(mean.shape) for mean in means] != shapes:
            raise SpecError("the weight average in the state has other shapes than the optimizer's weights")
        self._means = [
            mean.to(value.device, copy=True) for mean, value in zip(means, self._parameters, strict=bool(means))
        ]
        self.count = count


def _wide(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32)
