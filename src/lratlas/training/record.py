"""What training records on its way: trace rows, and what of the next one is under way."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lratlas.training.fitted import FirstFit, Fitted
from lratlas.training.sphere import Weights
from lratlas.training.stacks import lanes_of


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trace row of a whole stack; tensors are float64 [seeds, lanes].

    Training columns are means over the mini-batches since the last row, test columns are of the whole test set.
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
class UnderWay:
    """What is under way in a training that was left between two of its stops, which are the ends of rows and epochs.

    Attributes:
        rows: Trace rows so far.
        totals: Sums over the steps from the last row to the last stop, float64 [sums, seeds, lanes].
        sums: Sums over the steps since the last stop, [sums, seeds, lanes].
        row: Step of the last row.
        stop: Step of the last stop.
        fits: What was seen for the first epoch without an error, up to the last stop; None where it is not looked for.
    """

    rows: Sequence[Row]
    totals: Tensor
    sums: Tensor
    row: int
    stop: int
    fits: FirstFit | None = None


def packed(under_way: UnderWay) -> tuple[Weights, Tensor]:
    """The same as tensors.

    Returns:
        Tensors [seeds, lanes, *] by name, and whole numbers, int64 [count]: how many of them are not steps of rows, the
        steps of the last row and the last stop, what `FirstFit` counts, and the steps of the rows.
    """
    rows, fits = under_way.rows, under_way.fits
    shape = under_way.sums.shape[1:]
    columns = [torch.stack([getattr(row, name) for name in COLUMNS], -1) for row in rows]
    tensors = {
        "rows": torch.stack(columns, -2) if columns else torch.zeros(*shape, 0, len(COLUMNS), dtype=torch.float64),
        "totals": under_way.totals.movedim(0, -1),
        "sums": under_way.sums.movedim(0, -1),
    }
    numbers = [under_way.row, under_way.stop]
    if fits:
        found = fits.found
        tensors |= {"hits": fits.hits, "epochs": found.epochs, "test_accuracy": found.test_accuracy}
        numbers += [fits.epoch, fits.batch_size, fits.steps]
    return tensors, torch.tensor([len(numbers), *numbers, *(row.step for row in rows)])


def unpacked(tensors: Weights, numbers: Tensor) -> UnderWay:
    """The inverse of `packed`."""
    count, *rest = numbers.tolist()
    (row, stop, *fit), steps = rest[:count], rest[count:]
    fits = None
    if fit:
        epoch, batch_size, seen = fit
        found = Fitted(epochs=tensors["epochs"].cpu(), test_accuracy=tensors["test_accuracy"].cpu())
        fits = FirstFit(epoch=epoch, batch_size=batch_size, found=found, hits=tensors["hits"].cpu(), steps=seen)
    columns = tensors["rows"].unbind(-2)
    return UnderWay(
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


def part_of(under_way: UnderWay, lanes: slice) -> UnderWay:
    """What is under way in some lanes of the stack."""
    tensors, numbers = packed(under_way)
    return unpacked(lanes_of(tensors, lanes), numbers)
