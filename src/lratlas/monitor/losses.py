"""Losses of a running loop: checked, collected, fetched from the device in blocks, averaged per optimizer step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from lratlas.errors import SpecError
from lratlas.text import number, to_python

_ROUNDING = 1e-6  # a mean accuracy in float32 may exceed 1 by a few units in the last place


def one_number(value: object, name: str) -> float | Tensor:
    """Return the value as a float, or as a detached tensor with one element, which may be on an accelerator.

    NaN and the infinities are numbers: a diverging training produces them.

    Raises:
        SpecError: If the value is neither a real number nor a tensor or array with one.
    """
    if type(value) is float:
        return value
    if isinstance(value, Tensor):
        return _one_element(value, name)
    found = None if isinstance(to_python(value), str) else number(value)
    if found is None:
        text = repr(value)
        given = text if len(text) <= 60 else f"a {type(value).__name__}"
        raise SpecError(f"the {name} is {given}; it must be one number or a tensor with one element")
    return found


def _one_element(value: Tensor, name: str) -> Tensor:
    if value.numel() != 1:
        raise SpecError(f"the {name} is a tensor of shape {tuple(value.shape)}; it must have one element")
    if value.is_complex() or value.dtype == torch.bool:
        raise SpecError(f"the {name} is a tensor of type {value.dtype}; it must hold a real number")
    if value.is_meta:
        raise SpecError(f"the {name} is a tensor on the device 'meta', which has no value")
    return value.detach()


def _check_share(accuracy: float) -> None:
    """Refuse an accuracy outside 0 to 1, such as a percentage; NaN means that it is unknown."""
    if not isnan(accuracy) and not -_ROUNDING <= accuracy <= 1 + _ROUNDING:
        percent = f"; if it is a percentage, divide it by 100 ({accuracy / 100:.6g})" if 1 < accuracy <= 100 else ""
        raise SpecError(f"the accuracy is {accuracy:.6g}; it must be a share from 0 to 1{percent}")


@dataclass(frozen=True, kw_only=True)
class StepMeans:
    """Means over the mini-batches of one record.

    Attributes:
        steps: Optimizer steps of the record.
        loss: Mean loss.
        accuracy: Mean accuracy; None if it was not given.
        lr: The learning rate.
        phase: Number of jumps of the learning rate so far.
    """

    steps: int
    loss: float
    accuracy: float | None
    lr: float
    phase: int


class _Given(NamedTuple):
    """Values recorded with a loss."""

    step: int
    lr: float
    phase: int


@dataclass
class _Record:
    """Sums over the mini-batches of one step, and their number."""

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
        """Add the numbers of a mini-batch (see `one_number`); ``step`` is the optimizer's current step count.

        Raises:
            SpecError: If the accuracy is not a share. Accuracies on an accelerator are checked by `fetch`.
        """
        given_loss = _without_waiting(loss)
        given_accuracy = nan if accuracy is None else _without_waiting(accuracy)
        if isinstance(given_accuracy, float):
            _check_share(given_accuracy)
        self._losses.append(given_loss)
        self._accuracies.append(given_accuracy)
        self._given.append(_Given(step, lr, phase))

    def fetch(self) -> tuple[list[float], list[float]]:
        """The collected losses and accuracies as numbers.

        Raises:
            SpecError: If an accuracy from an accelerator is not a share; all accuracies of this fetch are dropped.
        """
        losses, accuracies = _numbers(self._losses), _numbers(self._accuracies)
        self._losses = list[float | Tensor](losses)
        try:
            for accuracy in accuracies:
                _check_share(accuracy)
        except SpecError:
            self._accuracies = [nan] * len(losses)
            raise
        self._accuracies = list[float | Tensor](accuracies)
        return losses, accuracies

    def drain(self, *, to_the_end: bool = False) -> Iterator[StepMeans]:
        """Fetch the collected losses: the means of the complete records, or of all records."""
        entries = list(zip(self._given, *self.fetch(), strict=True))
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

    @property
    def open_means(self) -> StepMeans | None:
        """Current means of the record that later mini-batches may still join; None if there is none."""
        return None if self._open is None else self._open.means(1)

    def state_dict(self) -> dict[str, Any]:
        """Mini-batches that are not in a complete record yet, as numbers and lists."""
        losses, accuracies = self.fetch()
        record = self._open
        return {
            "losses": losses,
            "accuracies": accuracies,
            "given": [list(given) for given in self._given],
            "open": None if record is None else [list(record.given), record.count, record.loss, record.accuracy],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore the mini-batches of a `state_dict`."""
        found = cls()
        found._losses, found._accuracies = [*state["losses"]], [*state["accuracies"]]
        found._given = [_Given(*given) for given in state["given"]]
        if state["open"] is not None:
            given, count, loss, accuracy = state["open"]
            found._open = _Record(_Given(*given), count, loss, accuracy)
        return found


def _without_waiting(found: float | Tensor) -> float | Tensor:
    """A number; on an accelerator a copy on the device, because reading it would wait for the device."""
    if not isinstance(found, Tensor):
        return found
    return float(found.item()) if found.device.type == "cpu" else found.clone().reshape(())


def _numbers(values: list[float | Tensor]) -> list[float]:
    """The values as numbers, fetched from the device all at once."""
    tensors = [value.float() for value in values if isinstance(value, Tensor)]
    fetched = iter(torch.stack(tensors).tolist() if tensors else [])
    return [next(fetched) if isinstance(value, Tensor) else value for value in values]
