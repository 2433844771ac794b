"""A problem: an ordinary small training whose initial LR is to be chosen, everything but the LR being given."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer

from lratlas.data.augment import Augmentation
from lratlas.rng import torch_seed
from lratlas.task import Task
from lratlas.training.batches import augmentation_draws, batch_indices

Pair = tuple[Tensor, Tensor]


class SelfTuned(SGD):
    """An optimizer that takes an LR and ignores it, as some that tune themselves do."""

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, lr=lr)

    def step(self, closure: Any = None) -> Any:
        """A step at an LR of 0.1, whatever the groups say."""
        for group in self.param_groups:
            group["lr"] = 0.1
        return super().step(closure)


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = MappingProxyType(
    {"sgd": SGD, "adam": Adam, "adamw": AdamW, "self-tuned": SelfTuned}
)
CUSTOMARY_LRS: Mapping[str, float] = MappingProxyType({"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3, "self-tuned": 0.1})
"""Where people begin with each optimizer: PyTorch's default for Adam and AdamW; 0.1 for SGD, whose default is 0.001."""
PARTS = 64  # the steps of a full training are a multiple of this, so that all horizons are whole steps


@dataclass(frozen=True, kw_only=True)
class Split:
    """Inputs [n, ...] and targets [n, ...] for training, for choices, and for reports."""

    train: Pair
    validation: Pair
    test: Pair


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A training without its initial LR.

    Weights, batches and augmentation are functions of a seed and a step, so that a run can continue from any step. The
    split of the data is the same for all seeds.

    Attributes:
        name: As people type it.
        description: One line.
        split: The data; choices are made on its validation part, its test part is for reports only.
        model: Called without arguments, makes a fresh model under the seed of PyTorch's generator.
        rule: Name of the optimizer, one of `OPTIMIZERS`, and its settings but the LR.
        batch_size: Samples per step.
        steps: Steps of a full training, a multiple of 64.
        lrs: The LRs of the oracle, from clearly too small to diverging.
        loss: ``cross_entropy`` (targets [n], or [n, length] for sequences) or ``mse``.
        metric: ``accuracy``, in points from 0 to 100, or ``loss``.
        augment: Random changes of training inputs, before ``transform``.
        transform: What is done to inputs before the model sees them.
        warmup: Steps over which the LR grows linearly to its value.

    Raises:
        ValueError: ``steps`` is not a positive multiple of 64.
    """

    name: str
    description: str
    split: Split
    model: Callable[[], nn.Module]
    rule: Mapping[str, object]
    batch_size: int
    steps: int
    lrs: tuple[float, ...]
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    metric: Literal["accuracy", "loss"] = "accuracy"
    augment: Augmentation | None = None
    transform: Callable[[Tensor], Tensor] | None = None
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.steps < PARTS or self.steps % PARTS:
            raise ValueError(f"{self.name}: steps is {self.steps}; it must be a positive multiple of {PARTS}.")

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the metric is better."""
        return self.metric == "accuracy"

    @property
    def sign(self) -> int:
        """What the metric is multiplied by so that more is better."""
        return 1 if self.higher_is_better else -1

    @property
    def default_lr(self) -> float:
        """The LR that is customary for the optimizer."""
        return CUSTOMARY_LRS[str(self.rule["name"])]

    def make_model(self, seed: int) -> nn.Module:
        """The model with the initial weights of ``seed``; PyTorch's own generator stays as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "weights"))
            return self.model()

    def make_optimizer(self, parameters: list[nn.Parameter], lr: float) -> Optimizer:
        """A fresh optimizer of these parameters."""
        settings = {key: value for key, value in self.rule.items() if key != "name"}
        return OPTIMIZERS[str(self.rule["name"])](parameters, lr=lr, **settings)

    def lr_factor(self, step: int) -> float:
        """What the LR of a step is multiplied by for the warm-up."""
        return min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, [n]; that of a sequence is the mean over its places."""
        if self.loss == "mse":
            return (outputs - targets).square().flatten(1).mean(1)
        if targets.dim() == 1:
            return functional.cross_entropy(outputs, targets, reduction="none")
        places = functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return places.view(targets.shape).mean(1)


def batches(problem: Problem, *, seed: int, start: int, stop: int) -> Iterator[Pair]:
    """What the model sees in steps ``start`` to ``stop`` - 1: inputs and targets of each batch."""
    if stop <= start:
        return
    x, y = problem.split.train
    size = problem.batch_size
    order = batch_indices(seed=seed, start=start, stop=stop, samples=len(x), batch_size=size)
    draws = dict[str, Tensor]()
    if problem.augment:
        draws = augmentation_draws(problem.augment, seed=seed, start=start, stop=stop, samples=len(x), batch_size=size)
    for number, rows in enumerate(order):
        inputs = x[rows]
        if problem.augment:
            inputs = problem.augment.apply(inputs, {name: drawn[number] for name, drawn in draws.items()})
        yield shown(problem, inputs), y[rows]


def shown(problem: Problem, inputs: Tensor) -> Tensor:
    """Inputs as the model sees them."""
    return problem.transform(inputs) if problem.transform else inputs


def chance(problem: Problem, pair: Pair) -> float:
    """The metric of the best constant prediction: that of the training targets' distribution, or of their mean."""
    targets = problem.split.train[1]
    if problem.loss == "mse":
        return float((pair[1].double() - targets.double().mean(0)).square().mean())
    counts = torch.bincount(targets.flatten(), minlength=int(pair[1].max()) + 1).double()
    if problem.metric == "accuracy":
        return 100 * float((pair[1] == counts.argmax()).double().mean())
    # One more of each class: one that was never seen does not make the loss infinite.
    shares = (counts + 1) / (counts + 1).sum()
    return float(-shares[pair[1].flatten()].log().mean())


def as_task(problem: Problem) -> Task:
    """The problem as a task of the package, with the same initial weights and batches for each training seed.

    Where the metric is the loss of class labels, the labels are given as floating-point numbers to a custom loss: the
    package then has no accuracy to go by and uses the validation loss. An optimizer that is not a rule of the package
    is given as a factory. The warm-up is not part of a task.
    """
    split, loss = problem.split, problem.loss
    if problem.loss == "cross_entropy" and problem.metric == "loss":
        split, loss = _numbers(split), partial(_label_losses, problem)
    return Task(
        model=problem.model,
        train=split.train,
        validation=split.validation,
        test=split.test,
        loss=loss,
        batch_size=problem.batch_size,
        rule=SelfTuned if problem.rule["name"] == "self-tuned" else problem.rule,
        augment=problem.augment,
        transform=problem.transform,
        name=problem.name,
    )


def _numbers(split: Split) -> Split:
    """The same data with labels as floating-point numbers."""
    return Split(**{name: (x, y.float()) for name, (x, y) in vars(split).items()})


def _label_losses(problem: Problem, outputs: Tensor, labels: Tensor) -> Tensor:
    return problem.losses(outputs, labels.long())
