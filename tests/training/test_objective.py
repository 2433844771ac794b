"""Losses against PyTorch's own, accuracies against counting."""

from collections.abc import Callable
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from lratlas.training.objective import (
    LOSSES,
    Loss,
    Objective,
    binary_score,
    class_score,
    no_score,
    objective_of,
    with_metric,
)

GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(9, 4, generator=GENERATOR, dtype=torch.float64)
CLASSES = torch.randint(4, (9,), generator=GENERATOR)


def same(ours: Tensor, reference: Tensor) -> None:
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-14)


def losses_of(made: Objective) -> Loss:
    """The loss per sample, which this objective must have."""
    assert made.losses is not None
    return made.losses


def test_cross_entropy_is_per_sample_and_takes_any_integer_type() -> None:
    expected = functional.cross_entropy(SCORES, CLASSES, reduction="none")
    for targets in (CLASSES, CLASSES.to(torch.uint8)):
        same(losses_of(LOSSES["cross_entropy"])(SCORES, targets), expected)
        same(LOSSES["cross_entropy"].batch(SCORES, targets), functional.cross_entropy(SCORES, CLASSES))


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
def test_binary_cross_entropy_takes_one_output_per_sample(shape: tuple[int, ...]) -> None:
    labels = CLASSES % 2
    expected = functional.binary_cross_entropy_with_logits(SCORES[:, 0], labels.double(), reduction="none")
    for targets in (labels, labels.double(), labels[:, None]):
        same(losses_of(LOSSES["binary_cross_entropy"])(SCORES[:, 0].reshape(shape), targets), expected)


def test_mse_is_the_mean_over_the_outputs_of_a_sample() -> None:
    targets = SCORES.flip(0)
    expected = functional.mse_loss(SCORES, targets, reduction="none").mean(1)
    same(losses_of(LOSSES["mse"])(SCORES, targets), expected)
    same(losses_of(LOSSES["mse"])(SCORES[:, :1], targets[:, 0]), (SCORES[:, 0] - targets[:, 0]) ** 2)


CALLABLES: dict[str, Loss] = {
    "a function of the mean": functional.cross_entropy,
    "a module": nn.CrossEntropyLoss(),
    "one loss per sample": partial(functional.cross_entropy, reduction="none"),
}


@pytest.mark.parametrize("name", CALLABLES)
def test_callable_losses_become_per_sample(name: str) -> None:
    made = objective_of(CALLABLES[name], SCORES, CLASSES)
    assert (made.labels, made.classes, made.has_accuracy) == ("classes", 4, True)
    same(losses_of(made)(SCORES, CLASSES), functional.cross_entropy(SCORES, CLASSES, reduction="none"))
    same(made.batch(SCORES, CLASSES), functional.cross_entropy(SCORES, CLASSES))


def test_further_axes_of_a_callable_loss_are_averaged() -> None:
    targets = SCORES.flip(0)
    made = objective_of(partial(functional.l1_loss, reduction="none"), SCORES, targets)
    assert made.labels == "none"
    same(losses_of(made)(SCORES, targets), (SCORES - targets).abs().mean(1))


def test_names_tell_objectives_apart() -> None:
    assert {name: made.name for name, made in LOSSES.items()} == {name: name for name in LOSSES}
    assert all(made.named for made in LOSSES.values())
    function, module = (
        objective_of(loss, SCORES, CLASSES) for loss in (functional.cross_entropy, nn.CrossEntropyLoss())
    )
    assert (function.name, module.name) == ("cross_entropy", "CrossEntropyLoss")
    assert not function.named


def shuffled(predicted: list[int], labels: list[int]) -> float:
    """Accuracy of the predictions, averaged over every order of the labels."""
    return float(np.mean([np.mean(np.array(order) == np.array(predicted)) for order in permutations(labels)]))


@settings(max_examples=15)
@given(st.lists(st.integers(0, 2), min_size=5, max_size=5), st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_accuracy_and_chance_accuracy_of_classes(predicted: list[int], labels: list[int]) -> None:
    outputs = functional.one_hot(torch.tensor(predicted), 3) + 0.1 * SCORES[:5, :3].sigmoid()
    shares = torch.bincount(torch.tensor(labels), minlength=3).double() / 5
    hits, chance = class_score(outputs, torch.tensor(labels), shares)
    assert hits.tolist() == [float(a == b) for a, b in zip(predicted, labels, strict=True)]
    assert float(chance.mean()) == pytest.approx(shuffled(predicted, labels))


@settings(max_examples=15)
@given(st.lists(st.integers(0, 1), min_size=5, max_size=5), st.lists(st.integers(0, 1), min_size=5, max_size=5))
def test_accuracy_and_chance_accuracy_of_binary_labels(predicted: list[int], labels: list[int]) -> None:
    outputs = (torch.tensor(predicted).double() - 0.5)[:, None]
    shares = torch.bincount(torch.tensor(labels), minlength=2).double() / 5
    for targets in (torch.tensor(labels), torch.tensor(labels).double()[:, None]):
        hits, chance = binary_score(outputs, targets, shares)
        assert hits.tolist() == [float(a == b) for a, b in zip(predicted, labels, strict=True)]
        assert float(chance.mean()) == pytest.approx(shuffled(predicted, labels))


def test_without_labels_there_is_no_accuracy() -> None:
    hits, chance = no_score(SCORES, SCORES, torch.full((1,), torch.nan))
    assert hits.isnan()
    assert chance.isnan()
    assert hits.shape == chance.shape == ()
    assert not LOSSES["mse"].has_accuracy
    assert LOSSES["mse"].score is no_score


def off_balance(outputs: Tensor, targets: Tensor) -> Tensor:
    """Each class counts as much as the others in the batch, whatever the number of its samples."""
    weights = 1 / torch.bincount(targets, minlength=4)[targets]
    return (functional.cross_entropy(outputs, targets, reduction="none") * weights).sum() / weights.sum()


def spread(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean().sqrt()


WHOLE: dict[str, tuple[Loss, Tensor]] = {
    "class weights": (nn.CrossEntropyLoss(weight=torch.arange(1.0, 5).double()), CLASSES),
    "a balanced batch": (off_balance, CLASSES),
    "a root of a mean": (spread, SCORES.flip(0)),
    "a sum": (partial(functional.mse_loss, reduction="sum"), SCORES.flip(0)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_loss_that_is_no_mean_over_samples_is_kept_as_that_of_the_batch(name: str) -> None:
    loss, targets = WHOLE[name]
    made = objective_of(loss, SCORES, targets)
    assert made.losses is None
    for rows in (slice(None), slice(4)):
        same(made.batch(SCORES[rows], targets[rows]), loss(SCORES[rows], targets[rows]))


KINDS: dict[str, tuple[Loss, Tensor, Tensor, str, int]] = {
    "integers that are numbers": (lambda a, b: (a[:, 0] - b).square().mean(), SCORES, CLASSES, "none", 0),
    "logits of one label": (
        functional.binary_cross_entropy_with_logits,
        SCORES[:, 0],
        (CLASSES % 2).double(),
        "binary",
        2,
    ),
    "probabilities": (functional.binary_cross_entropy, SCORES.sigmoid(), (SCORES > 0.3).double(), "binary", 2),
    "margins": (nn.MultiMarginLoss(), SCORES, CLASSES, "classes", 4),
    "positions of a sample": (
        nn.CrossEntropyLoss(),
        SCORES.unflatten(0, (3, 3)).movedim(2, 1),
        CLASSES.unflatten(0, (3, 3)),
        "classes",
        4,
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_whether_targets_are_labels_is_seen_from_the_loss(name: str) -> None:
    loss, outputs, targets, labels, classes = KINDS[name]
    made = objective_of(loss, outputs, targets)
    assert (made.labels, made.classes) == (labels, classes)


def test_probabilities_are_right_above_a_half_and_logits_above_zero() -> None:
    labels = (SCORES[:, 0] > 0.3).double()
    shares = torch.tensor([0.25, 0.75], dtype=torch.float64)
    for loss, outputs in (
        (functional.binary_cross_entropy_with_logits, SCORES[:, 0]),
        (functional.binary_cross_entropy, SCORES[:, 0].sigmoid()),
    ):
        right, chance = objective_of(loss, outputs, labels).score(outputs, labels, shares)
        positive = SCORES[:, 0] > 0
        assert torch.equal(right, (positive == (labels == 1)).double())
        assert torch.equal(chance, shares[positive.long()])


def test_labels_to_be_ignored_count_neither_as_right_nor_as_wrong() -> None:
    outputs, targets = SCORES[:8].unflatten(0, (2, 4)).movedim(2, 1), CLASSES[:8].unflatten(0, (2, 4)).clone()
    targets[0, 1:] = -100
    right, _ = objective_of(nn.CrossEntropyLoss(), outputs, targets).score(
        outputs, targets, torch.full((4,), 0.25).double()
    )
    hits = (outputs.argmax(1) == targets).double()
    same(right, torch.stack([hits[0, 0], hits[1].mean()]))


def within_one(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets).abs() < 1).double().mean(1)


@pytest.mark.parametrize("whole", [False, True])
def test_a_metric_takes_the_place_of_accuracy(*, whole: bool) -> None:
    targets = SCORES.flip(0)
    metric: Callable[[Tensor, Tensor], Tensor] = (lambda a, b: within_one(a, b).mean()) if whole else within_one
    made = with_metric(objective_of(nn.MSELoss(), SCORES, targets), metric, SCORES, targets)
    assert (made.labels, made.classes, made.has_accuracy) == ("metric", 0, True)
    assert made.score_by_sample == (not whole)
    right, _ = made.score(SCORES, targets, torch.ones(1).double())
    same(right, metric(SCORES, targets))


def test_chance_of_a_metric_is_that_of_shuffled_targets_however_they_are_sorted() -> None:
    labels = torch.arange(300).sort().values // 100  # sorted by class
    outputs = functional.one_hot(labels).double()
    made = with_metric(LOSSES["mse"], lambda o, t: (o.argmax(1) == t).double(), outputs, labels)
    right, chance = made.score(outputs, labels, torch.ones(1).double())
    assert float(right.mean()) == 1
    assert float(chance.mean()) == pytest.approx(1 / 3, abs=0.1)
    assert made.score(outputs[:1], labels[:1], torch.ones(1).double())[1].isnan().all()
