"""Losses against PyTorch's own, accuracies against counting."""

from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from lratlas.training.objective import LOSSES, Loss, correct, objective

GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(9, 4, generator=GENERATOR, dtype=torch.float64)
CLASSES = torch.randint(4, (9,), generator=GENERATOR)


def same(ours: Tensor, reference: Tensor) -> None:
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-14)


def test_cross_entropy_is_per_sample_and_takes_any_integer_type() -> None:
    expected = functional.cross_entropy(SCORES, CLASSES, reduction="none")
    for targets in (CLASSES, CLASSES.to(torch.uint8)):
        same(LOSSES["cross_entropy"].losses(SCORES, targets), expected)


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
def test_binary_cross_entropy_takes_one_output_per_sample(shape: tuple[int, ...]) -> None:
    labels = CLASSES % 2
    expected = functional.binary_cross_entropy_with_logits(SCORES[:, 0], labels.double(), reduction="none")
    for targets in (labels, labels.double(), labels[:, None]):
        same(LOSSES["binary_cross_entropy"].losses(SCORES[:, 0].reshape(shape), targets), expected)


def test_mse_is_the_mean_over_the_outputs_of_a_sample() -> None:
    targets = SCORES.flip(0)
    expected = functional.mse_loss(SCORES, targets, reduction="none").mean(1)
    same(LOSSES["mse"].losses(SCORES, targets), expected)
    same(LOSSES["mse"].losses(SCORES[:, :1], targets[:, 0]), (SCORES[:, 0] - targets[:, 0]) ** 2)


CALLABLES: dict[str, Loss] = {
    "a function of the mean": functional.cross_entropy,
    "a module": nn.CrossEntropyLoss(),
    "one loss per sample": partial(functional.cross_entropy, reduction="none"),
}


@pytest.mark.parametrize("name", CALLABLES)
def test_callable_losses_become_per_sample(name: str) -> None:
    made = objective(CALLABLES[name], integer_targets=True)
    assert made.labels == "classes"
    same(made.losses(SCORES, CLASSES), functional.cross_entropy(SCORES, CLASSES, reduction="none"))


def test_further_axes_of_a_callable_loss_are_averaged() -> None:
    made = objective(partial(functional.l1_loss, reduction="none"), integer_targets=False)
    assert made.labels == "none"
    targets = SCORES.flip(0)
    same(made.losses(SCORES, targets), (SCORES - targets).abs().mean(1))


def test_names_tell_objectives_apart() -> None:
    assert objective("mse", integer_targets=False) is LOSSES["mse"]
    assert objective(functional.cross_entropy, integer_targets=True).name == "cross_entropy"
    assert objective(nn.CrossEntropyLoss(), integer_targets=True).name == "CrossEntropyLoss"
    with pytest.raises(KeyError):
        objective("hinge", integer_targets=True)


def shuffled(predicted: list[int], labels: list[int]) -> float:
    """Accuracy of the predictions, averaged over every order of the labels."""
    return float(np.mean([np.mean(np.array(order) == np.array(predicted)) for order in permutations(labels)]))


@settings(max_examples=15)
@given(st.lists(st.integers(0, 2), min_size=5, max_size=5), st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_accuracy_and_chance_accuracy_of_classes(predicted: list[int], labels: list[int]) -> None:
    outputs = functional.one_hot(torch.tensor(predicted), 3) + 0.1 * SCORES[:5, :3].sigmoid()
    shares = torch.bincount(torch.tensor(labels), minlength=3).double() / 5
    hits, chance = correct("classes", outputs, torch.tensor(labels), shares)
    assert hits.tolist() == [float(a == b) for a, b in zip(predicted, labels, strict=True)]
    assert float(chance.mean()) == pytest.approx(shuffled(predicted, labels))


@settings(max_examples=15)
@given(st.lists(st.integers(0, 1), min_size=5, max_size=5), st.lists(st.integers(0, 1), min_size=5, max_size=5))
def test_accuracy_and_chance_accuracy_of_binary_labels(predicted: list[int], labels: list[int]) -> None:
    outputs = (torch.tensor(predicted).double() - 0.5)[:, None]
    shares = torch.bincount(torch.tensor(labels), minlength=2).double() / 5
    for targets in (torch.tensor(labels), torch.tensor(labels).double()[:, None]):
        hits, chance = correct("binary", outputs, targets, shares)
        assert hits.tolist() == [float(a == b) for a, b in zip(predicted, labels, strict=True)]
        assert float(chance.mean()) == pytest.approx(shuffled(predicted, labels))


def test_without_labels_there_is_no_accuracy() -> None:
    hits, chance = correct("none", SCORES, SCORES, torch.full((1,), torch.nan))
    assert hits.isnan().all()
    assert chance.isnan().all()
    assert hits.shape == chance.shape == (9,)
