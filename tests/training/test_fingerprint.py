"""Two tasks are the same if they behave alike; what changed is named, whatever only prints differently."""

# pyright: reportUnknownLambdaType=false

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lratlas import Task
from lratlas.data.augment import crop_and_flip
from lratlas.training.fingerprint import changed_parts, combined, fingerprint, fingerprint_parts

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
        "the metric",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_changed_is_another_task_and_is_named(case: str) -> None:
    one, other, named = OTHERS[case]
    before, after = (fingerprint_parts(made().prepared) for made in (one, other))
    assert combined(before) != combined(after)
    assert changed_parts(before, after) == named


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


PROGRAM = """
import torch
torch.set_num_threads({threads})
from torch import nn
from lratlas import Task
from lratlas.training.fingerprint import fingerprint
g = torch.Generator().manual_seed(0)
x = torch.randn(60, 1, 8, 8, generator=g)
model = lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
task = Task(model=model, train=(x, torch.arange(60) % 4), test=(x, torch.arange(60) % 4), batch_size=20)
print(fingerprint(task.prepared))
"""


def test_another_process_and_number_of_threads_give_the_same() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM.format(threads=threads)], capture_output=True, text=True, check=True
        ).stdout.strip()
        for threads in (1, 2)
    }
    assert len(found) == 1
    assert len(found.pop()) == 16
