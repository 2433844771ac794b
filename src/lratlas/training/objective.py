"""What a training minimises and how its predictions are scored, one sample at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
Labels = Literal["classes", "binary", "none"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss and the kind of labels it has.

    Attributes:
        name: Part of a run's identity.
        losses: ``(outputs [n, ...], targets [n, ...]) -> [n]``, one loss per sample.
        labels: ``classes`` (integers, outputs [n, C]), ``binary`` (0 or 1, outputs [n] or [n, 1]) or ``none``
            (no accuracy is defined).
    """

    name: str
    losses: Loss
    labels: Labels


def objective(loss: str | Loss, *, integer_targets: bool) -> Objective:
    """The objective for a named loss or a callable.

    A callable gets the outputs and targets of a batch and returns their mean loss (a scalar) or one loss per sample;
    with integer targets its outputs are taken for class scores when accuracy is measured.

    Raises:
        KeyError: The name is not one of `LOSSES`.
    """
    if callable(loss):
        name = getattr(loss, "__qualname__", type(loss).__qualname__)
        return Objective(name=name, losses=_per_sample(loss), labels="classes" if integer_targets else "none")
    return LOSSES[loss]


def correct(labels: Labels, outputs: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Per sample: whether the prediction is right, and how often it would be with shuffled labels; both float [n].

    Args:
        labels: Kind of labels.
        outputs: The model's outputs for n samples.
        targets: The labels, [n].
        shares: Share of each class in the training labels, [C].
    """
    if labels == "none":
        missing = torch.full((outputs.shape[0],), torch.nan, dtype=shares.dtype, device=outputs.device)
        return missing, missing
    if labels == "binary":
        predicted = outputs.reshape(outputs.shape[0]) > 0
        chance = torch.where(predicted, shares[1], shares[0])
        return (predicted == (targets.reshape(predicted.shape) > 0.5)).to(shares.dtype), chance
    predicted = outputs.argmax(-1)
    # Comparing with every class instead of indexing: it stacks and compiles without a gather.
    chosen = predicted[..., None] == torch.arange(shares.shape[0], device=outputs.device)
    return (predicted == targets).to(shares.dtype), (chosen * shares).sum(-1)


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    # As functional.cross_entropy, which for a stack is computed in Python, after importing a system for algebra.
    return -functional.log_softmax(outputs, dim=-1).gather(-1, targets.long()[:, None])[:, 0]


def _binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    logits = outputs.reshape(outputs.shape[0])
    return functional.binary_cross_entropy_with_logits(
        logits, targets.reshape(logits.shape).to(logits), reduction="none"
    )


def _mse(outputs: Tensor, targets: Tensor) -> Tensor:
    # Written out: functional.mse_loss does not stack where the lanes share their targets.
    squares = (outputs - targets.reshape(outputs.shape)).square()
    return squares.flatten(1).mean(1) if squares.dim() > 1 else squares


def _per_sample(loss: Loss) -> Loss:
    def alone(output: Tensor, target: Tensor) -> Tensor:
        return loss(output[None], target[None])

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        value = loss(outputs, targets)
        if value.dim():
            return value.flatten(1).mean(1) if value.dim() > 1 else value
        return torch.func.vmap(alone)(outputs, targets)

    return losses


LOSSES = {
    "cross_entropy": Objective(name="cross_entropy", losses=_cross_entropy, labels="classes"),
    "binary_cross_entropy": Objective(name="binary_cross_entropy", losses=_binary_cross_entropy, labels="binary"),
    "mse": Objective(name="mse", losses=_mse, labels="none"),
}
