"""Losses of a running loop on their way from the device: gathered, fetched in blocks, averaged per optimizer step."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan, nan
from typing import NamedTuple

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
        lr: The learning rate.
        phase: How many times the learning rate had jumped.
    """

    steps: int
    loss: float
    accuracy: float | None
    lr: float
    phase: int


class _Given(NamedTuple):
    """What was known when a loss was given, apart from the loss."""

    step: int
    lr: float
    phase: int


@dataclass
class _Record:
    """Sums over the mini-batches of one step, and how many they are."""

    given: _Given
    count: int = 0
    loss: float = 0.0
    accuracy: float = 0.0

    def means(self, steps: int) -> StepMeans:
        accuracy = None if isnan(self.accuracy) else self.accuracy / self.count
        given = self.given
        return StepMeans(steps=steps, loss=self.loss / self.count, accuracy=accuracy, lr=given.lr, phase=given.phase)


class GatheredLosses:
    """Losses given once or several times per optimizer step, with gradient accumulation, or not at every step."""

    def __init__(self) -> None:
        self._losses: list[float | Tensor] = []
        self._accuracies: list[float | Tensor] = []
        self._given: list[_Given] = []
        self._open: _Record | None = None

    def __len__(self) -> int:
        return len(self._losses)

    def add(
        self, loss: float | Tensor, accuracy: float | Tensor | None, *, step: int, lr: float = nan, phase: int = 0
    ) -> None:
        """Add a mini-batch; ``step`` is how many steps the optimizer has taken."""
        self._losses.append(_held(loss))
        self._accuracies.append(nan if accuracy is None else _held(accuracy))
        self._given.append(_Given(step, lr, phase))

    def drain(self, *, to_the_end: bool = False) -> Iterator[StepMeans]:
        """Fetch what was gathered: the means of the records that are complete, or of all of them."""
        entries = list(zip(self._given, _numbers(self._losses), _numbers(self._accuracies), strict=True))
        self._losses, self._accuracies, self._given = [], [], []
        for given, loss, accuracy in entries:
            if self._open is not None and given.step > self._open.given.step:
                yield self._open.means(given.step - self._open.given.step)
                self._open = None
            self._open = self._open or _Record(given)
            self._open.count += 1
            self._open.loss += loss
            self._open.accuracy += accuracy
        if to_the_end and self._open is not None:
            yield self._open.means(1)
            self._open = None


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
