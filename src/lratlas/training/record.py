"""Records of a training run: traces, and the first epoch that fits every sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lratlas.devices import widened
from lratlas.training.sphere import Weights
from lratlas.training.state import join_lanes, lanes_of


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The first epoch that fits all samples, for the runs of a stack, [seeds, lanes].

    Attributes:
        epochs: Number of completed epochs at that time, int64; 0 for runs that never fit all samples.
        test_accuracy: Test accuracy at the end of that epoch, float64; NaN for runs that never fit all samples.
    """

    epochs: Tensor
    test_accuracy: Tensor


@dataclass(frozen=True, kw_only=True)
class FirstFit:
    """The state of the search for a stack's first epoch without an error.

    Each sample counts with the prediction made when its batch was used, so the only cost is one evaluation of the test
    set for each epoch in which a run first fits all samples. Samples that an epoch drops do not count.

    Attributes:
        epoch: Steps per epoch.
        batch_size: Samples per step.
        found: The results so far.
        hits: Sum of the batches' shares of correct predictions over the steps of the current epoch, float64
            [seeds, lanes].
        steps: Number of these steps.
    """

    epoch: int
    batch_size: int
    found: Fitted
    hits: Tensor
    steps: int = 0

    def extend(self, hits: Tensor, *, steps: int, step: int, test_accuracy: Callable[[], Tensor]) -> "FirstFit":
        """The state after more steps.

        Args:
            hits: Sum of the batches' shares of correct predictions over these steps, [seeds, lanes].
            steps: Number of these steps.
            step: Total number of completed steps.
            test_accuracy: Called at the end of an epoch in which a run first fits all samples, [seeds, lanes].
        """
        steps, hits = self.steps + steps, self.hits + widened(hits).cpu()
        if step % self.epoch:
            return replace(self, steps=steps, hits=hits)
        # Half a sample of tolerance for rounded shares; a partly recorded epoch does not count.
        fitted = (hits > self.epoch - 0.5 / self.batch_size) & (steps == self.epoch)
        new, found = fitted & (self.found.epochs == 0), self.found
        if new.any():
            found = Fitted(
                epochs=torch.where(new, step // self.epoch, found.epochs),
                test_accuracy=torch.where(new, test_accuracy().cpu(), found.test_accuracy),
            )
        return replace(self, found=found, hits=torch.zeros_like(hits), steps=0)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trace row of a stack; tensors are float64 [seeds, lanes].

    Training columns are means over the mini-batches since the previous row; test columns cover the whole test set.
    """

    step: int
    train_loss: Tensor
    train_accuracy: Tensor
    chance_accuracy: Tensor
    gradient_norm: Tensor
    test_loss: Tensor
    test_accuracy: Tensor
    weight_norm: Tensor


COLUMNS = tuple(field.name for field in fields(Row) if field.name != "step")
"""The tensors of a row."""


@dataclass(frozen=True, kw_only=True)
class SegmentState:
    """The partial results of training that stopped between two stops, which are the ends of rows and epochs.

    Attributes:
        rows: Trace rows so far.
        totals: Sums over the steps from the last row to the last stop, float64 [sums, seeds, lanes].
        sums: Sums over the steps since the last stop, [sums, seeds, lanes].
        row: Step of the last row.
        stop: Step of the last stop.
        fits: State of the search for the first epoch without an error at the last stop; None without a search.
    """

    rows: Sequence[Row]
    totals: Tensor
    sums: Tensor
    row: int
    stop: int
    fits: FirstFit | None = None


def pack(segment: SegmentState) -> tuple[Weights, Tensor]:
    """Convert a segment state to tensors.

    Returns:
        Tensors [seeds, lanes, *] by name, and whole numbers, int64 [count]: how many of them are not steps of rows,
        the steps of the last row and the last stop, the counts of `FirstFit`, and the steps of the rows.
    """
    rows, fits = segment.rows, segment.fits
    shape = segment.sums.shape[1:]
    columns = [torch.stack([getattr(row, name) for name in COLUMNS], -1) for row in rows]
    tensors = {
        "rows": torch.stack(columns, -2) if columns else torch.zeros(*shape, 0, len(COLUMNS), dtype=torch.float64),
        "totals": segment.totals.movedim(0, -1),
        "sums": segment.sums.movedim(0, -1),
    }
    numbers = [segment.row, segment.stop]
    if fits:
        found = fits.found
        tensors |= {"hits": fits.hits, "epochs": found.epochs, "test_accuracy": found.test_accuracy}
        numbers += [fits.epoch, fits.batch_size, fits.steps]
    return tensors, torch.tensor([len(numbers), *numbers, *(row.step for row in rows)])


def unpack(tensors: Weights, numbers: Tensor) -> SegmentState:
    """The inverse of `pack`."""
    count, *rest = numbers.tolist()
    (row, stop, *fit), steps = rest[:count], rest[count:]
    fits = None
    if fit:
        epoch, batch_size, seen = fit
        found = Fitted(epochs=tensors["epochs"].cpu(), test_accuracy=tensors["test_accuracy"].cpu())
        fits = FirstFit(epoch=epoch, batch_size=batch_size, found=found, hits=tensors["hits"].cpu(), steps=seen)
    columns = tensors["rows"].unbind(-2)
    return SegmentState(
        rows=[
            Row(step=step, **dict(zip(COLUMNS, values.unbind(-1), strict=True)))
            for step, values in zip(steps, columns, strict=True)
        ],
        totals=tensors["totals"].movedim(-1, 0),
        sums=tensors["sums"].movedim(-1, 0),
        row=row,
        stop=stop,
        fits=fits,
    )


def part_of(segment: SegmentState, lanes: slice) -> SegmentState:
    """The partial results of some lanes of the stack."""
    tensors, numbers = pack(segment)
    return unpack(lanes_of(tensors, lanes), numbers)


def empty_first_fit(shape: Sequence[int], *, epoch: int, batch_size: int) -> FirstFit:
    """The state before the first step.

    Args:
        shape: Seeds and lanes.
        epoch: Steps per epoch.
        batch_size: Samples per step.
    """
    found = Fitted(
        epochs=torch.zeros(*shape, dtype=torch.int64),
        test_accuracy=torch.full((*shape,), torch.nan, dtype=torch.float64),
    )
    return FirstFit(epoch=epoch, batch_size=batch_size, found=found, hits=torch.zeros(*shape, dtype=torch.float64))


def join_fitted(parts: Sequence[Fitted]) -> Fitted:
    """Join the results of consecutive parts of a stack's lanes."""
    return Fitted(
        epochs=join_lanes([part.epochs for part in parts]),
        test_accuracy=join_lanes([part.test_accuracy for part in parts]),
    )
