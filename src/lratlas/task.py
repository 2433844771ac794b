"""A task: the model, the data, the loss and the update rule of a study, checked when it is made."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lratlas.data.augment import Augmentation
from lratlas.errors import TaskError, first_line
from lratlas.streams import stream, torch_seed
from lratlas.task_checks import Pair, check_data, check_model
from lratlas.training.invariance import placed
from lratlas.training.objective import LOSSES, Loss, Objective, objective
from lratlas.training.optimizers import Factory, check_optimizer, optimizer_rule
from lratlas.training.rules import Rule, rule_from

_TRIED = 128  # samples that the model is tried with, at most
_PLACED = 64  # samples on which scale invariance is tried
_HASHED = 8  # samples whose transformed inputs enter the fingerprint


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained. All arguments are checked against each other when the task is made.

    Attributes:
        model: Called without arguments, makes a fresh `torch.nn.Module`. Parameters with ``requires_grad=False``
            stay frozen at their initial values; all others are trained.
        train: Inputs [n, ...] and targets [n, ...], tensors or arrays.
        test: The same for the test set.
        validation: None, inputs and targets, or the share of the training set to keep back for it.
        loss: ``cross_entropy`` (integer labels from 0), ``binary_cross_entropy`` (0 or 1), ``mse``, or a callable of
            (outputs, targets) that returns the mean loss or one loss per sample.
        batch_size: Samples per step; ``full`` for full-batch gradient descent, all samples in one step.
        rule: Name, settings or `Rule`; ``sphere_sgd`` and ``sphere_rsgd`` need a scale-invariant model. Or an optimizer
            factory ``(parameters, lr) -> torch.optim.Optimizer``, such as the class of an optimizer.
        transform: What is done to inputs [n, ...] on the device before the model sees them, in training and evaluation:
            for images kept as bytes their normalisation.
        augment: Random changes of the training inputs, before ``transform``.
        singles: Single-feature test sets, inputs [features, n, ...] and targets [features, n]: in each only one
            feature tells the classes apart.
        name: For titles.
        objective: The loss as it is used (made).
        update: The rule as it is used (made).
        classes: Number of classes, 0 where the targets are not labels (made).
        samples_per_step: The batch size as a number (made).
        full_batch: Whether every step takes all samples, in their own order (made).

    Raises:
        TaskError: Something does not fit; the message names it and what is allowed.
    """

    model: Callable[[], nn.Module]
    train: Pair
    test: Pair
    validation: Pair | float | None = None
    loss: str | Loss = "cross_entropy"
    batch_size: int | Literal["full"] = 128
    rule: Rule | str | Mapping[str, object] | Factory = "sgd"
    transform: Callable[[Tensor], Tensor] | None = None
    augment: Augmentation | None = None
    singles: Pair | None = None
    name: str = "task"
    objective: Objective = field(init=False)
    update: Rule = field(init=False)
    classes: int = field(init=False, default=0)
    samples_per_step: int = field(init=False, default=0)
    full_batch: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        train, test = _pair("train", self.train), _pair("test", self.test)
        held, train = _validation(self.validation, train)
        if not callable(self.loss) and self.loss not in LOSSES:
            raise TaskError(f"There is no loss {self.loss!r}; use one of {', '.join(LOSSES)}, or a function.")
        made = objective(self.loss, integer_targets=not train[1].is_floating_point())
        for key, value in {
            "train": train,
            "test": test,
            "validation": held,
            "objective": made,
            "update": _rule(self.rule),
            "full_batch": self.batch_size == "full",
            "samples_per_step": len(train[0]) if self.batch_size == "full" else self.batch_size,
            "singles": None if self.singles is None else _pair("singles", self.singles),
        }.items():
            object.__setattr__(self, key, value)
        check_data(
            train,
            test,
            validation=held,
            singles=self.singles if isinstance(self.singles, tuple) else None,
            objective=made,
            batch_size=self.batch_size,
            augment=self.augment,
        )
        model, size = self._fresh_model(), min(self.samples_per_step, _TRIED)
        shown, shaped = self._tried_inputs(train[0][:size]), self.loss == "mse"
        targets = [pair[1] for pair in (train, test, held) if pair]
        classes = check_model(model, shown, train[1][:size], objective=made, targets=targets, shaped=shaped)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "update", self._update(model))

    def _fresh_model(self) -> nn.Module:
        if isinstance(self.model, nn.Module) or not callable(self.model):
            raise TaskError(
                f"model must be a function that makes a fresh torch.nn.Module, not {type(self.model).__name__} itself."
            )
        return make_model(self, 0)

    def _tried_inputs(self, x: Tensor) -> Tensor:
        """The inputs of the first batch as training will show them to the model."""
        try:
            if self.augment:
                x = self.augment.apply(x, self.augment.draws(stream(0, "augment"), len(x)))
            shown = self.inputs(x)
        except Exception as error:
            raise TaskError(
                f"The transform or augmentation does not take a batch of the data, {tuple(x.shape)} {x.dtype}:"
                f" {first_line(error)}"
            ) from error
        if len(shown) != len(x):
            raise TaskError(
                f"The transform must return a row per sample, here {len(x)}; it returned {tuple(shown.shape)}."
            )
        return shown

    def _update(self, model: nn.Module) -> Rule:
        """The rule, which knows the model where its parameters matter to it."""
        if self.update.radius is not None:
            return placed(self.update, model, self.inputs(self.train[0][:_PLACED]))
        if not callable(self.rule):
            return self.update
        trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
        check_optimizer(self.rule, trained)
        return optimizer_rule(self.rule, trained)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training set."""
        return len(self.train[0]) // self.samples_per_step

    def inputs(self, x: Tensor) -> Tensor:
        """What the model sees of inputs [n, ...] in evaluation: transformed, in the default number format."""
        shown = self.transform(x) if self.transform else x
        return shown.to(torch.get_default_dtype()) if shown.is_floating_point() else shown

    @property
    def shares(self) -> Tensor:
        """Share of each class in the training labels, [C], float64; one NaN where there are no labels."""
        if not self.classes:
            return torch.full((1,), torch.nan, dtype=torch.float64)
        counts = torch.bincount(self.train[1].long().flatten(), minlength=self.classes)
        return counts.double() / counts.sum()

    @property
    def chance_loss(self) -> float:
        """Training loss of the best constant prediction; of the untrained model where the loss is a function."""
        if isinstance(self.loss, str) and self.classes:
            return float(-torch.xlogy(self.shares, self.shares).sum())
        x, y = self.train
        if self.loss == "mse":
            return float((y.double() - y.double().mean(0)).square().mean())
        with torch.no_grad():
            return float(
                self.objective.losses(make_model(self, 0).eval()(self.inputs(x[:1024])), y[:1024]).double().mean()
            )


def make_model(task: Task, seed: int) -> nn.Module:
    """The task's model with the initial weights of ``seed``; leaves PyTorch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "weights"))
        try:
            model = task.model()
        except Exception as error:
            raise TaskError(f"Making the model failed: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass anything
        raise TaskError(f"model() returned {type(model).__name__}; it must return a torch.nn.Module.")
    return model


def fingerprint(task: Task) -> str:
    """A hash of what defines a task: data bytes, model and its seed-0 weights, loss, rule and settings, batch size."""
    digest = hashlib.sha256()
    for part in (task.train, task.test, task.validation, task.singles):
        for tensor in part if isinstance(part, tuple) else ():
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    model = make_model(task, 0)
    # The layers and their settings, such as dropout's share; places in memory are no part of them.
    digest.update(re.sub(r" at 0x[0-9a-f]+", "", repr(model)).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode() + np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    settings = sorted(task.update.settings.items())
    digest.update(f"{task.objective.name}/{task.update.name}/{settings}/{task.batch_size}".encode())
    if task.transform:  # functions cannot be hashed, but what this one does can
        digest.update(np.ascontiguousarray(task.inputs(task.train[0][:_HASHED]).numpy()).tobytes())
    if task.augment:
        digest.update(task.augment.name.encode())
    return digest.hexdigest()[:16]


def _pair(name: str, pair: Any) -> Pair:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TaskError(f"{name} must be a pair (inputs, targets), not {type(pair).__name__}.")
    try:
        x, y = (torch.as_tensor(part).detach().cpu() for part in pair)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(f"{name} must hold tensors or arrays of numbers: {error}.") from error
    if x.dim() < 1 or y.dim() < 1 or not x.shape[0] or x.shape[0] != y.shape[0]:
        raise TaskError(f"{name}: {tuple(x.shape)} inputs and {tuple(y.shape)} targets; both need the same n > 0 rows.")
    for what, tensor in (("inputs", x), ("targets", y)):
        if tensor.is_complex():
            raise TaskError(f"{name}: the {what} are complex; they must be real numbers.")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise TaskError(f"{name}: the {what} contain NaN or infinite values; all must be finite.")
    # Float64 arrays are common where float32 is meant; models are made in the default type.
    x, y = (part.to(torch.get_default_dtype()) if part.is_floating_point() else part for part in (x, y))
    return x, y


def _validation(given: Pair | float | None, train: Pair) -> tuple[Pair | None, Pair]:
    if given is None:
        return None, train
    if not isinstance(given, (int, float)):
        return _pair("validation", given), train
    count = round(given * len(train[0]))
    if not 0 < given < 1 or not 0 < count < len(train[0]):
        raise TaskError(f"validation is {given:g}; a share must lie between 0 and 1 and leave samples on both sides.")
    order = torch.from_numpy(stream(0, "validation").permutation(len(train[0])))
    held, kept = order[:count].sort().values, order[count:].sort().values
    return (train[0][held], train[1][held]), (train[0][kept], train[1][kept])


def _rule(rule: Rule | str | Mapping[str, object] | Factory) -> Rule:
    if callable(rule):
        return optimizer_rule(rule)
    return rule_from(rule)
