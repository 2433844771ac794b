"""Two tasks are the same if they behave alike; what changed is named, whatever only prints differently."""

# pyright: reportUnknownLambdaType=false

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lratlas import Task
from lratlas.data.augment import crop_and_flip
from lratlas.training.fingerprint import combine_parts, describe_changes, fingerprint, fingerprint_parts
from lratlas.training.objective import of_logits
from training import many_models

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 6, generator=GENERATOR)
Y = torch.arange(40) % 4
IMAGES = torch.randint(256, (40, 1, 6, 6), generator=GENERATOR, dtype=torch.uint8)


class Net(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor] = torch.relu, **options: Any) -> None:
        super().__init__()
        self.first, self.second, self.act = nn.Linear(6, 8), nn.Linear(8, 4), act
        self.dropout = nn.Dropout(options.get("dropout", 0.0))
        self.norm = nn.LayerNorm(8, eps=options.get("eps", 1e-5))
        with torch.no_grad():
            self.second.weight *= options.get("gain", 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(self.norm(self.act(self.first(x)))))


class Renamed(Net):
    """Another class that does the same, and says more about itself."""

    def extra_repr(self) -> str:
        return f"renamed at {id(self)}"


class Clipping(torch.optim.SGD):
    """SGD that clips gradients above a threshold in its step."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, *, most: float) -> None:
        super().__init__(parameters, lr=lr)
        self.most = most

    def step(self, closure: Any = None) -> Any:
        nn.utils.clip_grad_norm_([value for group in self.param_groups for value in group["params"]], self.most)
        return super().step(closure)


class Ordinary(Clipping):
    """The same under another name."""


def task(**changes: Any) -> Task:
    fields: dict[str, Any] = {"model": Net, "train": (X, Y), "test": (X, Y), "batch_size": 8}
    return Task(**(fields | changes))


def clipped(most: float, kind: type[Clipping] = Clipping) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters, lr: kind(parameters, lr, most=most)


def images(**changes: Any) -> Task:
    linear = lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 4))  # noqa: E731 - it is one line
    return task(
        **({"model": linear, "train": (IMAGES, Y), "test": (IMAGES, Y), "transform": torch.Tensor.float} | changes)
    )


def focal(outputs: Tensor, targets: Tensor, power: float) -> Tensor:
    right = outputs.softmax(1).gather(1, targets[:, None])[:, 0]
    return ((1 - right) ** power * functional.cross_entropy(outputs, targets, reduction="none")).mean()


def capped(outputs: Tensor, targets: Tensor, most: float) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none").clamp(max=most).mean()


@dataclass
class Output:
    """An output that is not a structure for PyTorch."""

    logits: Tensor


class Wrapped(Net):
    """Returns its logits in an object."""

    def __init__(self, kind: Callable[..., Any] = Output, **options: Any) -> None:
        super().__init__(**options)
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        return self.kind(logits=super().forward(x))


class WithLoss(nn.Module):
    """Returns its loss, as models of transformers do."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.inner, self.weights = Net(), torch.tensor([1.0, 1.0, 1.0, weight])

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.inner(x)
        return {"logits": logits, "loss": functional.cross_entropy(logits, labels, self.weights.to(logits))}


def smoothed(amount: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: functional.cross_entropy(outputs, targets, label_smoothing=amount)


def many_classes(loss: Any) -> Task:
    return task(model=lambda: nn.Linear(6, 100), loss=loss, train=(X, torch.arange(40) * 2), test=(X, Y))


def at_58(weight: float) -> Tensor:
    return torch.ones(100).index_fill(0, torch.tensor(58), weight)


def weighted(weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: functional.cross_entropy(outputs, targets, weights.to(outputs))


def positions(loss: Any) -> Task:
    """Five labels per sample, one of them at one place only, another is ignored once."""
    labels = (torch.arange(200) % 2).reshape(40, 5)
    labels[19, 2], labels[23, 1] = 40, -100
    model = lambda: nn.Sequential(nn.Linear(6, 250), nn.Unflatten(1, (50, 5)))  # noqa: E731 - it is one line
    return task(model=model, train=(X, labels), test=(X, labels), loss=loss)


def ignored_or(label: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: functional.cross_entropy(outputs, targets.masked_fill(targets == -100, label))


def several_labels(loss: Any) -> Task:
    """The third label is 1 once."""
    labels = torch.stack([Y % 2, Y // 2, torch.zeros(40).long()], 1).float()
    labels[19, 2] = 1
    return task(model=lambda: nn.Linear(6, 3), train=(X, labels), test=(X, labels), loss=loss)


def rare_label(weight: float) -> Callable[[Tensor, Tensor], Tensor]:
    weights = torch.tensor([1.0, 1.0, weight])
    return lambda outputs, targets: functional.binary_cross_entropy_with_logits(
        outputs, targets.to(outputs), pos_weight=weights.to(outputs)
    )


def real_targets(most: float) -> Task:
    """One target is an outlier, and the loss caps targets."""
    targets = X[:, :4].tanh()
    targets[19, 1] = 30.0
    loss = lambda outputs, y: (outputs - y.clamp(max=most)).square().mean()  # noqa: E731 - it is one line
    return task(train=(X, targets), test=(X, targets), loss=loss)


def pairs_of_labels(weight: float) -> Task:
    """Two labels per sample in a tuple, of which one occurs once."""
    labels = (Y, torch.where(torch.arange(40) == 19, 3, Y % 2))
    weights = torch.tensor([1.0, 1.0, 1.0, weight])

    def loss(outputs: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
        first, second = targets
        return functional.cross_entropy(outputs, first) + functional.cross_entropy(outputs, second, weights.to(outputs))

    return task(train=(X, labels), test=(X, labels), loss=loss)


def with_own_loss(weight: float) -> Task:
    data = ({"x": X, "labels": Y}, Y)
    return task(model=partial(WithLoss, weight), train=data, test=data, loss="model")


def float32_only(loss: Any) -> Task:
    return task(model=Single, loss=loss)


class Single(Net):
    """A model that takes float32 only."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise TypeError
        return super().forward(x)


OTHERS: dict[str, tuple[Callable[[], Task], Callable[[], Task], str]] = {
    "an edited activation": (task, lambda: task(model=partial(Net, lambda h: 5 * torch.sin(h))), "the model"),
    "a lambda with another number": (
        lambda: task(model=partial(Net, lambda h: torch.relu(h - 0.002))),
        lambda: task(model=partial(Net, lambda h: torch.relu(h - 0.001))),
        "the model",
    ),
    "a clamp that few inputs reach": (
        lambda: task(model=partial(Net, lambda h: h.clamp(max=20))),
        lambda: task(model=partial(Net, lambda h: h.clamp(max=25))),
        "the model",
    ),
    "a gradient that is stopped": (
        lambda: task(model=partial(Net, torch.tanh)),
        lambda: task(model=partial(Net, lambda h: torch.tanh(h) + (h - h.detach()) * 0.1)),
        "the model",
    ),
    "dropout": (task, lambda: task(model=partial(Net, dropout=0.1)), "the model"),
    "a norm's eps": (task, lambda: task(model=partial(Net, eps=1e-3)), "the model"),
    "label smoothing": (
        lambda: task(loss=nn.CrossEntropyLoss()),
        lambda: task(loss=nn.CrossEntropyLoss(label_smoothing=0.1)),
        "the loss",
    ),
    "class weights": (
        lambda: task(loss=nn.CrossEntropyLoss(weight=torch.ones(4))),
        lambda: task(loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 1.0, 2.0]))),
        "the loss",
    ),
    "a setting of a function": (
        lambda: task(loss=partial(focal, power=2.0)),
        lambda: task(loss=partial(focal, power=2.5)),
        "the loss",
    ),
    "a cap on the loss": (
        lambda: task(loss=partial(capped, most=50.0)),
        lambda: task(loss=partial(capped, most=60.0)),
        "the loss",
    ),
    "a weight of one of many classes": (
        lambda: many_classes(nn.CrossEntropyLoss(at_58(1.0))),
        lambda: many_classes(nn.CrossEntropyLoss(at_58(20.0))),
        "the loss",
    ),
    "a weight, in a closure, of a class that does not occur": (
        lambda: many_classes(weighted(at_58(1.0).roll(1))),
        lambda: many_classes(weighted(at_58(1.1).roll(1))),
        "the loss",
    ),
    "a weight of a label at one position": (
        lambda: positions(weighted(torch.ones(50))),
        lambda: positions(weighted(torch.ones(50).index_fill(0, torch.tensor(40), 1.1))),
        "the loss",
    ),
    "a label that is no longer ignored": (
        lambda: positions(ignored_or(-100)),
        lambda: positions(ignored_or(1)),
        "the loss and the accuracy",
    ),
    "an ignored label": (
        lambda: positions(nn.CrossEntropyLoss()),
        lambda: positions(lambda o, y: functional.cross_entropy(o, y.clamp(min=0), ignore_index=0)),
        "the loss",
    ),
    "a weight of a rare label": (
        lambda: several_labels(nn.BCEWithLogitsLoss(pos_weight=torch.ones(3))),
        lambda: several_labels(nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 1.0, 9.0]))),
        "the loss",
    ),
    "a weight of a rare label in a closure": (
        lambda: several_labels(rare_label(1.0)),
        lambda: several_labels(rare_label(1.1)),
        "the loss",
    ),
    "a cap on targets": (lambda: real_targets(20.0), lambda: real_targets(25.0), "the loss"),
    "a weight of a label in a tuple": (lambda: pairs_of_labels(1.0), lambda: pairs_of_labels(1.1), "the loss"),
    "a loss of logits in a dictionary": (
        lambda: task(model=partial(Wrapped, dict), loss=smoothed(0.0)),
        lambda: task(model=partial(Wrapped, dict), loss=smoothed(0.01)),
        "the loss",
    ),
    "the model's own loss": (
        lambda: with_own_loss(1.0),
        lambda: with_own_loss(1.1),
        "the loss",
    ),
    "a loss of a model that takes float32 only": (
        lambda: float32_only(smoothed(0.0)),
        lambda: float32_only(smoothed(0.01)),
        "the loss",
    ),
    "initial weights": (task, lambda: task(model=partial(Net, gain=1.01)), "the initial weights"),
    "initial weights and a norm's eps": (task, lambda: task(model=partial(Net, gain=2.0, eps=1e-3)), "the model"),
    "a clipping threshold": (lambda: task(rule=clipped(1.0)), lambda: task(rule=clipped(5.0)), "the update rule"),
    "momentum": (task, lambda: task(rule={"name": "sgd", "momentum": 0.9}), "the update rule"),
    "an optimizer's decay": (
        lambda: task(rule=torch.optim.AdamW),
        lambda: task(rule=partial(torch.optim.AdamW, weight_decay=0.02)),
        "the update rule",
    ),
    "a transform": (images, lambda: images(transform=lambda x: x / 255), "the transform"),
    "augmentation": (
        lambda: images(augment=crop_and_flip()),
        lambda: images(augment=crop_and_flip(padding=1)),
        "the augmentation",
    ),
    "the batch size": (task, lambda: task(batch_size=4), "the batch size"),
    "one number of the data": (task, lambda: task(train=(X + 1e-3 * (X[3, 1] == X), Y)), "the training data"),
    "the test data": (task, lambda: task(test=(X[:20], Y[:20])), "the test data"),
    "a metric": (
        lambda: task(metric=lambda o, t: (o.argmax(1) == t).float()),
        lambda: task(metric=lambda o, t: (o.topk(2).indices == t[:, None]).any(1).float()),
        "the accuracy",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_changed_is_another_task_and_is_named(case: str) -> None:
    one, other, named = OTHERS[case]
    before, after = (fingerprint_parts(made().prepared) for made in (one, other))
    assert combine_parts(before) != combine_parts(after)
    assert describe_changes(before, after) == named


SAME: dict[str, tuple[Callable[[], Task], Callable[[], Task]]] = {
    "made again": (task, task),
    "another class with another repr": (task, lambda: task(model=Renamed)),
    "a lambda written again": (
        lambda: task(model=partial(Net, lambda h: h.relu() + 0)),
        lambda: task(model=partial(Net, lambda hidden: hidden.clamp(min=0))),
    ),
    "a loss by name or as it is": (
        lambda: task(loss=nn.CrossEntropyLoss()),
        lambda: task(loss=functional.cross_entropy),
    ),
    "a loss in another module": (
        lambda: task(loss=nn.CrossEntropyLoss(label_smoothing=0.1)),
        lambda: task(loss=smoothed(0.1)),
    ),
    "an optimizer of another name": (lambda: task(rule=clipped(1.0)), lambda: task(rule=clipped(1.0, Ordinary))),
    "an optimizer computed in another way": (
        lambda: task(rule=partial(torch.optim.SGD, foreach=False)),
        lambda: task(rule=partial(torch.optim.SGD, foreach=True)),
    ),
    "another title": (task, lambda: task(name="another")),
}


@pytest.mark.parametrize("case", SAME)
def test_what_only_prints_differently_is_the_same_task(case: str) -> None:
    one, other = SAME[case]
    assert fingerprint(one().prepared) == fingerprint(other().prepared)


@pytest.mark.parametrize("kind", [Output, SimpleNamespace])
@pytest.mark.parametrize("takes_logits", [True, False])
def test_a_loss_of_plain_objects_is_compared_by_slopes_too(kind: Callable[..., Any], takes_logits: bool) -> None:
    def parts(loss: Callable[[Tensor, Tensor], Tensor], made: Callable[..., Any] = kind) -> dict[str, str]:
        prepared = task(loss=loss).prepared
        objective = replace(of_logits(prepared.objective), takes_logits=takes_logits)
        return fingerprint_parts(replace(prepared, model=partial(Wrapped, made), objective=objective))

    def straight_through(outputs: Tensor, targets: Tensor) -> Tensor:
        value = smoothed(0.1)(outputs, targets)
        return value + 0.1 * (value - value.detach())

    first = parts(smoothed(0.1))
    assert describe_changes(first, parts(smoothed(0.101))) == "the loss"
    assert describe_changes(first, parts(straight_through)) == "the loss"
    assert first == parts(nn.CrossEntropyLoss(label_smoothing=0.1), Output)


def test_another_process_number_of_threads_and_instruction_set_give_the_same() -> None:
    printed = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "training.many_models", "2"],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert torch.get_num_threads() == 1
    assert json.loads(printed.splitlines()[-1]) == many_models.fingerprints()
