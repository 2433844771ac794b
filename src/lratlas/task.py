"""A task: the model, the data, the loss and the update rule of a study, as the user gave them."""

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
    """What is trained. A task is prepared when it is made: all arguments are checked, and compared with a plain loop.

    Inputs are a tensor with a row per sample, or a tuple or dictionary of such tensors, with which the model is called
    as ``model(*x)`` or ``model(**x)``. Wherever inputs and targets are a pair, a map-style data set or a
    `torch.utils.data.DataLoader` will do too; it is read into memory once. Arrays and frames (NumPy, pandas, Polars)
    are taken as tensors. None of them is changed.

    Attributes:
        model: Called without arguments, makes a fresh `torch.nn.Module`. Parameters with ``requires_grad=False``
            stay frozen at their initial values; all others are trained. Where it returns an object or a dictionary
            with ``logits``, these are scored, and they are what the loss gets unless it takes the outputs themselves.
        train: Inputs and targets.
        test: The same for the test set. `lratlas.find` needs none.
        validation: None, inputs and targets, or the share of the training set to hold out for it.
        loss: ``cross_entropy`` (integer labels from 0), ``binary_cross_entropy`` (0 or 1, for one label or several),
            ``mse``, ``model`` (the model returns its loss, as ``outputs.loss``), or a callable of (outputs, targets).
            What a callable returns for a batch is trained; of several numbers their mean.
        metric: A function of (outputs, targets) that says which share is predicted right, from 0 to 1, for the batch or
            for each sample; it takes the place of accuracy. None for accuracy where targets are labels.
        batch_size: Samples per step; ``full`` for full-batch gradient descent, all samples in one step; None for that
            of the `DataLoader` of the training set, or 128.
        rule: Name, settings or `Rule`; ``sphere_sgd`` and ``sphere_rsgd`` need a scale-invariant model. Or an optimizer
            factory ``(parameters, lr) -> torch.optim.Optimizer``, such as the class of an optimizer.
        transform: What is done to inputs [n, ...] on the device before the model sees them, in training and evaluation:
            for images stored as bytes their normalisation.
        augment: Random changes of the training inputs, before ``transform``.
        singles: Single-feature test sets, inputs [features, n, ...] and targets [features, n]: in each only one
            feature distinguishes the classes.
        name: For titles.

    Raises:
        TaskError: Something does not fit, or would be trained in another way than a plain loop trains it; the message
            names it and what is allowed.
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
        """The task made ready for training, once."""
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
