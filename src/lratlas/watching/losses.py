"""Losses of a running loop on their way from the device: gathered, fetched in blocks, averaged per optimizer step."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan, nan

import torch
from torch import Tensor

from lratlas.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class StepMeans:
    """Means over the mini-batches of one record.

    Attributes:
        steps: Optimizer steps that it stands for.
        loss: Mean loss.
        accuracy: Mean accuracy; None where not given.
    """

    steps: int
    loss: float
    accuracy: float | None


class GatheredLosses:
    """Losses given once or several times per optimizer step, with gradient accumulation, or not at every step."""

    def __init__(self) -> None:
        self._losses: list[float | Tensor] = []
        self._accuracies: list[float | Tensor] = []
        self._steps: list[int] = []
        self._open: list[tuple[float, float]] = []
        self._open_step = 0

    def __len__(self) -> int:
        return len(self._losses)

    def add(self, loss: float | Tensor, accuracy: float | Tensor | None, *, step: int) -> None:
        """Add a mini-batch; ``step`` is how many steps the optimizer has taken."""
        self._losses.append(_held(loss))
        self._accuracies.append(nan if accuracy is None else _held(accuracy))
        self._steps.append(step)

    def drain(self, *, to_the_end: bool = False) -> Iterator[StepMeans]:
        """Fetch what was gathered: the means of the records that are complete, or of all of them."""
        entries = list(zip(self._steps, _numbers(self._losses), _numbers(self._accuracies), strict=True))
        self._losses, self._accuracies, self._steps = [], [], []
        for step, loss, accuracy in entries:
            if self._open and step > self._open_step:
                yield self._means(step - self._open_step)
                self._open = []
            if not self._open:
                self._open_step = step
            self._open.append((loss, accuracy))
        if to_the_end and self._open:
            yield self._means(1)
            self._open = []

    def _means(self, steps: int) -> StepMeans:
        loss, accuracy = (sum(values) / len(values) for values in zip(*self._open, strict=True))
        return StepMeans(steps=steps, loss=loss, accuracy=None if isnan(accuracy) else accuracy)


def _held(value: float | Tensor) -> float | Tensor:
    """A number; on an accelerator a copy there, since asking for the number would wait for the device."""
    if not isinstance(value, Tensor):
        return float(value)
    if value.numel() != 1:
        raise SpecError(f"watch was given a tensor of shape {tuple(value.shape)}; the loss of a batch is one number")
    return value.item() if value.device.type == "cpu" else value.detach().clone().reshape(())


def _numbers(values: list[float | Tensor]) -> list[float]:
    """The values as numbers, fetched from the device all at once."""
    tensors = [value.float() for value in values if isinstance(value, Tensor)]
    fetched = iter(torch.stack(tensors).tolist() if tensors else [])
    return [next(fetched) if isinstance(value, Tensor) else value for value in values]
