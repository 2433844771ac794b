"""A task prepared for training: tensors, loss, rule, and its model for any seed."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lratlas.data.augment import Augmentation
from lratlas.data.collect import Pair
from lratlas.data.parts import Parts, call, count, each, floats_to, rows
from lratlas.errors import TaskError, first_line
from lratlas.rng import seed_generators, stream, torch_seed
from lratlas.training.objective import Objective, counted_labels
from lratlas.training.placing import copy_to, on_device
from lratlas.training.rules import Rule

_HOST = torch.device("cpu")
_CHANCE = 1024  # samples for the loss of the untrained model


@dataclass(frozen=True, kw_only=True)
class Conformance:
    """The result of comparing a task with a plain PyTorch loop.

    Attributes:
        draws: Whether the model draws random numbers in training, as dropout does.
        exact: Whether the comparison used float64, or else float32 because the model supports no other dtype.
        unused: Parameters that no gradient reaches; like a plain optimizer, training does not change them.
        unstackable: Why runs cannot train as one program; empty if they can.
        channels_last: Whether images and filters of a single run can use the channels-last format.
    """

    draws: bool = False
    exact: bool = True
    unused: tuple[str, ...] = ()
    unstackable: str = ""
    channels_last: bool = True


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prepared:
    """A task prepared for training by `prepare`; it shares only the data with the user's objects.

    Attributes:
        name: For titles.
        model: Factory of new modules, called without arguments (see `make_model`).
        train: Inputs and targets on the host, floating-point numbers in PyTorch's default dtype.
        test: Inputs and targets of the test set, in the same form.
        validation: Inputs and targets of the validation set, if there is one; not part of ``train``.
        singles: Single-feature test sets, inputs [features, n, ...] and targets [features, n].
        objective: The loss, and the score of predictions.
        update: The update rule.
        batch_size: The batch size as passed by the user.
        samples_per_step: The batch size as a number.
        full_batch: Whether every step uses all samples, in their original order.
        transform: The transform as passed by the user.
        augment: The augmentation as passed by the user.
        conformance: The result of comparing the task with a plain PyTorch loop.
        copied: Whether new models are copied, since their frozen parts are shared objects.
        tested: Whether a test set was passed; otherwise another set is its placeholder.
    """

    name: str
    model: Callable[[], nn.Module]
    train: Pair
    test: Pair
    validation: Pair | None
    singles: Pair | None
    objective: Objective
    update: Rule
    batch_size: int | Literal["full"]
    samples_per_step: int
    full_batch: bool
    transform: Callable[[Any], Any] | None
    augment: Augmentation | None
    conformance: Conformance = field(default_factory=Conformance)
    copied: bool = False
    tested: bool = True

    def __repr__(self) -> str:
        return f"Prepared({self.name!r}: {self.samples:,} samples, loss {self.objective.name}, rule {self.update.name})"

    @property
    def samples(self) -> int:
        """Size of the training set."""
        return count(self.train[0])

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training set."""
        return self.samples // self.samples_per_step

    @property
    def classes(self) -> int:
        """Number of classes; 0 if the targets are not labels."""
        return self.objective.classes

    def inputs(self, x: Parts) -> Parts:
        """The model's inputs in evaluation from inputs [n, ...]: transformed, in the default dtype, as a copy."""
        fresh = each(torch.clone, x)  # a transform or a model may change its inputs in place
        return floats_to(self.transform(fresh) if self.transform else fresh, torch.get_default_dtype())

    @cached_property
    def shares(self) -> Tensor:
        """Share of each class in the training labels, float64 [C], [2, labels] for several; one NaN without labels."""
        y = self.train[1]
        if self.objective.labels not in ("classes", "binary") or not isinstance(y, Tensor):
            return torch.full((1,), torch.nan, dtype=torch.float64)
        if self.objective.labels == "binary":
            ones = y.reshape(len(y), -1).double().mean(0)
            return torch.stack([1 - ones, ones]).squeeze(-1)
        labels = y[counted_labels(y, self.objective.ignored)].long()
        counts = torch.bincount(labels, minlength=self.classes)
        return counts.double() / counts.sum()

    @cached_property
    def chance_loss(self) -> float:
        """Training loss of the best constant prediction, or of the untrained model if the loss is a function."""
        x, y = self.train
        if not self.objective.named or not isinstance(y, Tensor):
            return self._untrained_loss(x, y)
        if self.objective.name == "mse":
            return float((y.double() - y.double().mean(0)).square().mean())
        if self.objective.name == "binary_cross_entropy":
            ones = y.reshape(len(y), -1).double().mean(0)
            return float(-(torch.xlogy(ones, ones) + torch.xlogy(1 - ones, 1 - ones)).mean())
        shares = torch.bincount(y.long()).double() / len(y)
        return float(-torch.xlogy(shares, shares).sum())

    def _untrained_loss(self, x: Parts, y: Parts) -> float:
        order = torch.from_numpy(stream(0, "statistics").permutation(self.samples)[:_CHANCE])
        total, model = 0.0, make_model(self, 0).eval()
        with torch.no_grad(), seed_generators(0):
            for at in order.split(self.samples_per_step):
                value = self.objective.batch(call(model, self.inputs(rows(x, at))), rows(y, at))
                total += float(value) * len(at)
        return total / len(order)


def make_model(task: Prepared, seed: int) -> nn.Module:
    """The task's model with the initial weights of ``seed``; the global random generators stay unchanged.

    Parameters that no gradient reaches get ``requires_grad=False``, since a plain optimizer does not change them.

    Raises:
        TaskError: The factory fails or does not return a module.
    """
    with seed_generators(torch_seed(seed, "weights")):
        try:
            model = task.model()
        except Exception as error:
            raise TaskError(f"Creating the model failed: {type(error).__name__}: {first_line(error)}") from error
        if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass anything
            raise TaskError(f"model() returned {type(model).__name__}; it must return a torch.nn.Module.")
        if any(nn.parameter.is_lazy(value) for value in (*model.parameters(), *model.buffers())):
            _materialize(model, task)
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = False  # an equal gradient, in a dense form that can be stacked
    tensors = (*model.parameters(), *model.buffers())
    if any(value.is_meta for value in tensors):
        raise TaskError("The model has tensors without data, on the device meta; initialize them in model().")
    if task.copied:
        model = copy.deepcopy(model)  # all models and the user share the parts that are not trained
    if any(value.device.type != "cpu" for value in tensors):
        model = copy_to(model, "model", _HOST)
    for name, value in model.named_parameters():
        if name in task.conformance.unused:
            value.requires_grad = False
    return model


def _materialize(model: nn.Module, task: Prepared) -> None:
    """Initialise lazy layers with a pass that changes nothing else."""
    training = model.training
    try:
        with torch.no_grad():
            call(model.eval(), task.inputs(rows(task.train[0], slice(2))))
    except Exception as error:
        raise TaskError(f"The model's lazy layers cannot be initialized with the data: {first_line(error)}") from error
    model.train(training)


def task_on(task: Prepared, device: torch.device, dtype: torch.dtype | None = None) -> Prepared:
    """The task with its loss, metric and transform on a device, and loss and metric in a dtype.

    Raises:
        TaskError: One of them uses a tensor on another device that cannot be moved.
    """
    made = task.objective
    return replace(
        task,
        objective=replace(
            made,
            batch=on_device(made.batch, "loss", device, dtype),
            losses=on_device(made.losses, "loss", device, dtype) if made.losses else None,
            score=on_device(made.score, "metric", device, dtype),
        ),
        transform=on_device(task.transform, "transform", device) if task.transform else None,
    )


def split_validation(train: Pair, share: float) -> tuple[Pair, Pair]:
    """Split off a random share of the training set for validation; the split only depends on the size.

    Raises:
        TaskError: The share leaves no samples on one side.
    """
    samples = count(train[0])
    taken = round(share * samples) if math.isfinite(share) else 0
    if not 0 < share < 1 or not 0 < taken < samples:
        raise TaskError(f"validation is {share:g}; a share must be between 0 and 1, with samples left in both parts.")
    order = torch.from_numpy(stream(0, "validation").permutation(samples))
    held, rest = order[:taken].sort().values, order[taken:].sort().values
    return pair_rows(train, held), pair_rows(train, rest)


def pair_rows(pair: Pair, at: Tensor) -> Pair:
    """Select samples of a pair."""
    return rows(pair[0], at), rows(pair[1], at)
