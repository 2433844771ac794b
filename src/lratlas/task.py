"""A task: the model, the data, the loss and the update rule of a study, as given by the user."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

from torch import Tensor, nn

from lratlas.data.augment import Augmentation
from lratlas.data.parts import count
from lratlas.html import answer, table
from lratlas.training.objective import Loss
from lratlas.training.optimizers import Factory
from lratlas.training.prepare import prepare
from lratlas.training.prepared import Prepared
from lratlas.training.rules import Rule

__all__ = ["Task"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Task:
    """A training task. Creating it checks all arguments, and compares its training with a plain loop.

    Inputs are a tensor with one row per sample, or a tuple or dictionary of such tensors; the model is then called as
    ``model(*x)`` or ``model(**x)``. A map-style data set or a `torch.utils.data.DataLoader` can replace any pair of
    inputs and targets; it is read into memory once. Arrays and frames (NumPy, pandas, Polars) are converted to tensors.
    The originals are never changed.

    Attributes:
        model: A function without arguments that returns a new `torch.nn.Module`. Parameters with
            ``requires_grad=False`` stay frozen at their initial values; all others are trained. If the module returns
            an object or a dictionary with ``logits``, these are scored and passed to the loss, unless the loss takes
            the outputs themselves.
        train: Inputs and targets.
        test: Inputs and targets of the test set. `lratlas.find` needs none.
        validation: None, inputs and targets, or the share of the training set to hold out for validation.
        loss: ``cross_entropy`` (integer labels from 0), ``binary_cross_entropy`` (0 or 1, for one label or several),
            ``mse``, ``model`` (the model returns its loss, as ``outputs.loss``), or a callable of (outputs, targets).
            The value of a callable for a batch is minimized; of several numbers, their mean.
        metric: A function of (outputs, targets) that returns the share of correct predictions, from 0 to 1, for the
            batch or for each sample; it replaces accuracy. None for accuracy if targets are labels.
        batch_size: Samples per step; ``full`` for full-batch gradient descent, all samples in one step; None for the
            batch size of the training set's `DataLoader`, or 128.
        rule: Name, settings or `Rule`; ``sphere_sgd`` and ``sphere_rsgd`` need a scale-invariant model. Or an optimizer
            factory ``(parameters, lr) -> torch.optim.Optimizer``, such as the class of an optimizer.
        transform: Applied to inputs [n, ...] on the device before the model, in training and evaluation, such as the
            normalisation of images stored as bytes.
        augment: Random changes of the training inputs, before ``transform``.
        singles: Single-feature test sets, inputs [features, n, ...] and targets [features, n]: in each set, only one
            feature distinguishes the classes.
        name: For titles.

    Raises:
        TaskError: The arguments do not fit together, or training would differ from a plain loop; the message names the
            problem and the allowed values.
    """

    model: Callable[[], nn.Module]
    train: Any
    test: Any = None
    validation: Any = None
    loss: str | Loss = "cross_entropy"
    metric: Callable[[Any, Any], Tensor] | None = None
    batch_size: int | Literal["full"] | None = None
    rule: Rule | str | Mapping[str, object] | Factory = "sgd"
    transform: Callable[[Any], Any] | None = None
    augment: Augmentation | None = None
    singles: Any = None
    name: str = "task"

    def __post_init__(self) -> None:
        _ = self.prepared  # checks all of it

    @cached_property
    def prepared(self) -> Prepared:
        """The task prepared for training, computed once."""
        return prepare(**{each.name: getattr(self, each.name) for each in fields(self)})

    def _repr_html_(self) -> str:
        made = self.prepared
        sets = {"training": made.train, "validation": made.validation, "test": made.test if made.tested else None}
        facts = {
            "samples": ", ".join(f"{count(each[0]):,} {name}" for name, each in sets.items() if each is not None),
            "classes": f"{made.classes:,}" if made.classes else "",
            "batch size": f"{made.batch_size}, {made.steps_per_epoch:,} steps per epoch",
            "loss": made.objective.name,
            "rule": made.update.name,
        }
        return answer(f"Task {self.name}") + table([], [(name, fact) for name, fact in facts.items() if fact])

    def __repr__(self) -> str:
        made = self.prepared
        return (
            f"Task({self.name!r}: {made.samples:,} samples, batch size {made.batch_size}, loss {made.objective.name},"
            f" rule {made.update.name})"
        )
