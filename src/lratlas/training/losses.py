"""Build a task's loss and accuracy: test the user's functions on the model's outputs and all labels."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lratlas.data.parts import Parts, logits_of, shapes
from lratlas.errors import TaskError, first_line
from lratlas.training.objective import (
    LOSSES,
    MODEL,
    Loss,
    Objective,
    counted_labels,
    no_score,
    objective_of,
    of_logits,
    own_objective,
    with_metric,
)

_FEWEST_LABELS = 2


def chosen_objective(
    loss: str | Loss, metric: Loss | None, outputs: Any, y: Parts, targets: Mapping[str, Parts]
) -> Objective:
    """Build the objective of a loss, and test it on the outputs for some samples.

    Args:
        loss: A name in `LOSSES`, `MODEL`, or a function that is not shared with other code.
        metric: A function to use instead of accuracy, not shared with other code.
        outputs: The model's outputs.
        y: Their targets.
        targets: All targets of each data set, ``train`` first.

    Raises:
        TaskError: The loss or metric rejects them, its value cannot be trained on, or labels are out of range.
    """
    logits = logits_of(outputs)
    given = logits
    if loss == MODEL:
        made = own_objective(logits, y)
    elif callable(loss):
        _check_loss(loss)
        given = outputs if logits is outputs or _takes(loss, outputs, y) else logits
        made = _try_loss(_name(loss), lambda: objective_of(loss, given, y))
    else:
        made = _make_named_objective(loss, logits, y)
    if metric is not None:
        made = _with_metric(made, metric, given, y)
    made = _with_labels(made, targets)
    made = made if given is outputs else of_logits(made)
    value = cast("object", _try_loss(made.name, lambda: made.batch(outputs, y)))
    if not isinstance(value, Tensor) or value.dim() or not math.isfinite(float(value)):
        raise TaskError(f"The loss {made.name} is not finite, or not one number per batch, on the first batch.")
    return made


def _name(loss: Any) -> str:
    return getattr(loss, "__qualname__", type(loss).__qualname__)


def _takes(loss: Callable[..., object], outputs: Any, y: Parts) -> bool:
    try:
        return isinstance(loss(outputs, y), Tensor)
    except Exception:
        return False


def _try_loss(name: str, attempt: Callable[[], Any]) -> Any:
    try:
        return attempt()
    except TaskError:
        raise
    except Exception as error:
        raise TaskError(
            f"The loss {name} does not accept the model's outputs and the targets: {type(error).__name__}:"
            f" {first_line(error)}"
        ) from error


def _check_loss(loss: Any) -> None:
    trained = [name for name, value in loss.named_parameters() if value.requires_grad] if _is_module(loss) else []
    if trained:
        raise TaskError(
            f"The loss {_name(loss)} has trainable parameters, {', '.join(trained)}, which would not be trained;"
            " move them into the model, or set requires_grad=False."
        )


def _is_module(value: Any) -> bool:
    return isinstance(value, nn.Module)


def _with_metric(made: Objective, metric: Loss, outputs: Any, y: Parts) -> Objective:
    try:
        made = with_metric(made, metric, outputs, y)
        right, _ = made.score(outputs, y, torch.ones(1))
    except Exception as error:
        raise TaskError(
            f"The metric does not accept the model's outputs and the targets: {type(error).__name__}:"
            f" {first_line(error)}"
        ) from error
    if right.dim() > 1 or not ((right >= 0) & (right <= 1)).all():
        raise TaskError(
            "The metric must return a number from 0 to 1, the share of correct predictions, for the batch or for"
            f" each sample; it returned {right.flatten()[:3].tolist()}."
        )
    return made


def _make_named_objective(name: str, outputs: Tensor, y: Parts) -> Objective:
    """A named loss, with its outputs checked against the targets."""
    if not isinstance(y, Tensor):
        raise TaskError(f"{name} needs targets in one tensor, not {shapes(y)}; pass a custom loss.")
    if name == "cross_entropy" and _labels_positions(outputs, y):
        return replace(objective_of(_of_positions, outputs, y), name=name)
    made, advice = LOSSES[name], "; otherwise pass a loss, such as torch.nn.CrossEntropyLoss()"
    if made.labels == "classes" and (y.is_floating_point() or y.dim() != 1):
        raise TaskError(f"train: class labels must be integers of shape [n], not {y.dtype} {shapes(y)}{advice}.")
    if made.labels == "binary" and outputs.numel() != y.numel():
        raise TaskError(
            "binary_cross_entropy needs one output per sample and label; the model's outputs are"
            f" {tuple(outputs.shape[1:])}, but the labels are {tuple(y.shape[1:])}."
        )
    if name == "mse" and outputs.numel() != y.numel():
        raise TaskError(
            f"mse needs outputs with the shape of the targets, {tuple(y.shape[1:])} per sample, not"
            f" {tuple(outputs.shape[1:])}."
        )
    if made.labels == "classes" and outputs.dim() != 2:
        raise TaskError(
            f"cross_entropy needs one score per class, outputs [n, classes], not {tuple(outputs.shape)}{advice}."
        )
    if made.labels == "classes":
        _check_labels_of(int(y.min()), int(y.max()), outputs.shape[1])
    classes = {"classes": outputs.shape[-1], "binary": 2}.get(made.labels, 0)
    return replace(made, classes=classes)


def _labels_positions(outputs: Tensor, y: Tensor) -> bool:
    """Whether each position of a sample has a label and class scores, as in language models."""
    return y.dim() > 1 and not y.is_floating_point() and outputs.shape[:-1] == y.shape


def _of_positions(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, -2), y.flatten().long())


def _with_labels(made: Objective, targets: Mapping[str, Parts]) -> Objective:
    """The objective with labels checked in all data sets; without accuracy if a function's targets are not labels."""
    named, kind = made.named, LOSSES[made.name].labels if made.named else made.labels
    if kind not in ("classes", "binary"):
        return made
    for name, labels in targets.items():
        if kind == "binary" and not ((labels == 0) | (labels == 1)).all():
            if not named:
                return replace(made, labels="none", score=no_score, classes=0)
            odd = float(labels[~torch.isin(labels, torch.tensor((0, 1), dtype=labels.dtype))][0])
            raise TaskError(f"{name}: {made.name} needs labels 0 or 1; found {odd}.")
        if kind == "classes" and (labels.is_floating_point() or (named and labels.dim() != 1)):
            raise TaskError(
                f"{name}: class labels must be integers of shape [n], not {labels.dtype} {tuple(labels.shape)}."
            )
        known = labels if named else labels[counted_labels(labels, made.ignored)]
        if kind == "classes" and len(known):
            _check_labels_of(int(known.min()), int(known.max()), made.classes, name)
    train = targets["train"]
    if len(torch.unique(train[counted_labels(train, made.ignored)])) < _FEWEST_LABELS:
        if not named:
            return replace(made, labels="none", score=no_score, classes=0)
        raise TaskError("train: all labels are the same; at least two classes are needed.")
    return made if named or kind == "binary" else _of_counted_samples(made, targets)


def _of_counted_samples(made: Objective, targets: Mapping[str, Parts]) -> Objective:
    """Evaluate by batches if a sample has no label that counts: its loss and accuracy would be 0 / 0."""
    known = (counted_labels(labels, made.ignored).reshape(len(labels), -1).any(1) for labels in targets.values())
    if all(bool(each.all()) for each in known):
        return made
    score = cast("Callable[..., Any]", made.score)
    return replace(made, losses=None, score=partial(score, together=True), score_by_sample=False)


def _check_labels_of(lowest: int, highest: int, classes: int, name: str = "train") -> None:
    if lowest < 0:
        raise TaskError(f"{name}: label {lowest} is negative; classes count from 0.")
    if highest >= classes:
        raise TaskError(
            f"{name}: the labels go up to {highest} but the model's outputs are ({classes},) per sample; labels must be"
            " from 0 to the number of outputs minus 1."
        )
