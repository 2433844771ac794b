"""Epochs until every training sample is fitted."""

import math
from functools import partial

import pytest
import torch

from lratlas.training.record import Fitted, empty_first_fit, join_fitted


def watched(hits: list[list[float]], *, epoch: int, per_call: int = 1) -> Fitted:
    """What is found after steps with these shares of correct samples, [steps][lanes]; test accuracy is step / 100."""
    fits = empty_first_fit((1, len(hits[0])), epoch=epoch, batch_size=4)
    for first in range(0, len(hits), per_call):
        part = torch.tensor(hits[first : first + per_call])
        step = first + len(part)
        fits = fits.extend(
            part.sum(0)[None], steps=len(part), step=step, test_accuracy=partial(torch.full, (1, 2), step / 100)
        )
    return fits.found


@pytest.mark.parametrize("per_call", [1, 2, 4])
def test_the_first_epoch_without_an_error_counts(per_call: int):
    # Two steps an epoch: the first run misses one sample in the third step; the second run never fits them all.
    shares = [[0.5, 1.0], [1.0, 0.75], [0.75, 1.0], [1.0, 0.75], [1.0, 0.75], [1.0, 1.0], [1.0, 0.75], [1.0, 1.0]]
    found = watched(shares, epoch=2, per_call=min(per_call, 2))
    assert found.epochs.tolist() == [[3, 0]]
    assert found.test_accuracy[0, 0] == pytest.approx(0.06)
    assert math.isnan(found.test_accuracy[0, 1])


def test_an_epoch_that_was_seen_in_part_does_not_count():
    fits = empty_first_fit((1, 1), epoch=3, batch_size=2)
    fits = fits.extend(torch.ones(1, 1), steps=1, step=3, test_accuracy=lambda: torch.ones(1, 1))
    assert fits.found.epochs.item() == 0
    fits = fits.extend(torch.full((1, 1), 3.0), steps=3, step=6, test_accuracy=lambda: torch.ones(1, 1))
    assert fits.found.epochs.item() == 2


def test_rounding_of_the_shares_does_not_hide_a_fit_and_one_miss_does():
    for missed, epochs in ((0.0, 1), (1 / 4, 0)):
        fits = empty_first_fit((1, 1), epoch=1000, batch_size=4)
        hits = torch.full((1, 1), 1000 * (1 - 1e-7) - missed)
        fits = fits.extend(hits, steps=1000, step=1000, test_accuracy=lambda: torch.ones(1, 1))
        assert fits.found.epochs.item() == epochs


def test_parts_of_a_stack_are_put_together_in_order():
    parts = [Fitted(epochs=torch.tensor([[at]]), test_accuracy=torch.tensor([[at / 10]])) for at in (1, 2)]
    both = join_fitted(parts)
    assert both.epochs.tolist() == [[1, 2]]
    assert both.test_accuracy.tolist() == [[pytest.approx(0.1), pytest.approx(0.2)]]
