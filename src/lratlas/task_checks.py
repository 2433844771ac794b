"""Whether the parts of a task fit together: data, model, loss, batch size; checked when a task is made."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lratlas.data.augment import Augmentation
from lratlas.errors import TaskError, first_line
from lratlas.training.objective import Objective

Pair = tuple[Tensor, Tensor]


def check_data(
    train: Pair,
    test: Pair,
    *,
    validation: Pair | None,
    singles: Pair | None,
    objective: Objective,
    batch_size: int | Literal["full"],
    augment: Augmentation | None,
) -> None:
    """Check that the parts of a task's data fit each other, the batch size and the loss; arguments as those of a task.

    Raises:
        TaskError: They do not; the message names what is wrong and what is allowed.
    """
    x, y = train
    others = {"test": test} | ({"validation": validation} if validation else {})
    for name, (other, _) in others.items():
        if x.shape[1:] != other.shape[1:] or x.dtype != other.dtype:
            raise TaskError(
                f"train inputs are {x.dtype} {tuple(x.shape[1:])} each, {name} inputs"
                f" {other.dtype} {tuple(other.shape[1:])}; they must agree."
            )
    size = len(x) if batch_size == "full" else batch_size
    if type(size) is not int or not 1 <= size <= len(x):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TaskError(
            f'batch_size is {batch_size}; it must be "full" or a whole number from 1 to {len(x)}, all samples.'
        )
    if augment is not None and not isinstance(augment, Augmentation):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TaskError(f"augment must be an Augmentation, as lratlas.data.augment makes, not {augment!r}.")
    if singles and (singles[0].shape[2:] != x.shape[1:] or singles[0].shape[:2] != singles[1].shape[:2]):
        raise TaskError(
            f"singles must be inputs [features, n, {', '.join(map(str, x.shape[1:]))}] and targets [features, n], not"
            f" {tuple(singles[0].shape)} and {tuple(singles[1].shape)}."
        )
    if objective.labels == "none":
        return
    for name, (_, labels) in {"train": train, **others}.items():
        if objective.labels == "binary" and not ((labels == 0) | (labels == 1)).all():
            raise TaskError(f"{name}: binary_cross_entropy needs labels 0 or 1; found {_odd(labels, (0, 1))}.")
        if objective.labels == "classes" and (labels.is_floating_point() or labels.dim() != 1):
            raise TaskError(
                f"{name}: class labels must be integers of shape [n], not {labels.dtype} {tuple(labels.shape)}."
            )
        if labels.min() < 0:
            raise TaskError(f"{name}: label {int(labels.min())} is negative; classes count from 0.")
    if len(torch.unique(y)) < 2:
        raise TaskError("train: all labels are the same; at least two classes are needed.")


def _odd(labels: Tensor, allowed: tuple[int, ...]) -> float:
    return float(labels[~torch.isin(labels, torch.tensor(allowed, dtype=labels.dtype))][0])


def check_model(
    model: nn.Module, x: Tensor, y: Tensor, *, objective: Objective, targets: Sequence[Tensor], shaped: bool
) -> int:
    """Check that a model takes a batch of data and its outputs the loss.

    Args:
        model: The model.
        x: Inputs of the batch, as the model gets them.
        y: Its targets.
        objective: The loss.
        targets: All targets there are, those of the training set first.
        shaped: Whether outputs must have the targets' shape.

    Returns:
        The number of classes, 0 where the targets are not labels.

    Raises:
        TaskError: Something does not fit; the message names it and what is allowed.
    """
    if not any(value.requires_grad for value in model.parameters()):
        raise TaskError("The model has no trained parameters: each has requires_grad=False.")
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            outputs = model(x)
    except Exception as error:
        hint = " (bytes need a transform that makes them floating-point)" if x.dtype == torch.uint8 else ""
        raise TaskError(
            f"The model does not accept a batch of the data, {tuple(x.shape)} {x.dtype}{hint}: {first_line(error)}"
        ) from error
    if not isinstance(outputs, Tensor) or outputs.shape[:1] != x.shape[:1]:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise TaskError(f"The model must return a tensor with a row per sample, here {len(x)}; it returned {got}.")
    _check_outputs(outputs, objective, targets, shaped=shaped)
    try:
        losses = objective.losses(outputs, y)
    except Exception as error:
        raise TaskError(
            f"The loss {objective.name} does not take outputs {tuple(outputs.shape)} and targets {tuple(y.shape)}:"
            f" {first_line(error)}"
        ) from error
    if losses.shape != x.shape[:1] or not math.isfinite(float(losses.mean())):
        raise TaskError(f"The loss {objective.name} is not finite, or not one number per batch, on the first batch.")
    if objective.labels == "none":
        return 0
    return 2 if objective.labels == "binary" else outputs.shape[1]


def _check_outputs(outputs: Tensor, objective: Objective, targets: Sequence[Tensor], *, shaped: bool) -> None:
    if objective.labels == "classes":
        highest = max(int(each.max()) for each in targets)
        if outputs.dim() != 2 or highest >= outputs.shape[1]:
            raise TaskError(
                f"The labels go up to {highest} but the model's outputs are {tuple(outputs.shape[1:])} per sample;"
                f" labels must lie from 0 to the number of outputs minus 1."
            )
    elif objective.labels == "binary" and outputs.numel() != outputs.shape[0]:
        raise TaskError(f"binary_cross_entropy needs one output per sample; the model has {tuple(outputs.shape[1:])}.")
    elif shaped and outputs.numel() != targets[0][: len(outputs)].numel():
        raise TaskError(
            f"mse needs outputs shaped as the targets, {tuple(targets[0].shape[1:])} per sample, not"
            f" {tuple(outputs.shape[1:])}."
        )
