"""What a prepared task holds: which loss is trained, what counts as right, and what is refused."""

# pyright: reportUnknownLambdaType=false

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lratlas import Task
from lratlas.errors import TaskError
from lratlas.training.prepared import make_model, split_validation, task_on

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 6, generator=GENERATOR)
Y = torch.arange(40) % 3
MASKS = torch.randint(3, (40, 4, 4), generator=GENERATOR)
IMAGES = torch.rand(40, 1, 4, 4, generator=GENERATOR)
FLAGS = (torch.randn(40, 5, generator=GENERATOR) > 0.5).float()


def task(**changes: Any) -> Task:
    fields: dict[str, Any] = {"model": lambda: nn.Linear(6, 3), "train": (X, Y), "test": (X, Y), "batch_size": 8}
    return Task(**(fields | changes))


def one_output() -> nn.Module:
    return nn.Linear(6, 1)


def probabilities() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 1), nn.Sigmoid())


def pairs(outputs: Tensor, targets: Tensor) -> Tensor:
    unit = functional.normalize(outputs, dim=1)
    same = (targets[:, None] == targets[None]).to(unit)
    return ((1 - unit @ unit.T) * same + functional.relu(unit @ unit.T) * (1 - same)).mean()


def tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    """Scores on the last axis, as in sequence models."""
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def dense(**changes: Any) -> dict[str, Any]:
    return {"model": lambda: nn.Conv2d(1, 3, 1), "train": (IMAGES, MASKS), "test": (IMAGES, MASKS)} | changes


WORDS = torch.arange(120).reshape(40, 3)
LANGUAGE = {"model": lambda: nn.Embedding(9, 3), "train": (WORDS % 9, WORDS % 3), "test": (WORDS % 9, WORDS % 3)}
ONES = Y.clamp(max=1)
KINDS: dict[str, tuple[dict[str, Any], str, int, bool]] = {
    "labels by name": ({}, "classes", 3, True),
    "labels under a function": ({"loss": functional.cross_entropy}, "classes", 3, True),
    "labels with weights": ({"loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3]))}, "classes", 3, False),
    "labels with margins": ({"loss": nn.MultiMarginLoss()}, "classes", 3, True),  # vmap does one sample after the other
    "smoothed labels": ({"loss": nn.CrossEntropyLoss(label_smoothing=0.5)}, "classes", 3, True),
    "a sum over the batch": ({"loss": nn.CrossEntropyLoss(reduction="sum")}, "classes", 3, False),
    "embeddings of classes": ({"loss": pairs}, "none", 0, False),
    "pixels": (dense(loss=nn.CrossEntropyLoss()), "classes", 3, True),
    "pixels, some ignored": (
        dense(
            loss=nn.CrossEntropyLoss(ignore_index=-1),
            train=(IMAGES, torch.where(IMAGES[:, 0] > 0.8, -1, MASKS)),
        ),
        "classes",
        3,
        False,
    ),
    "tokens, classes last": (LANGUAGE | {"loss": tokens}, "classes", 3, True),
    "tokens by name": (LANGUAGE, "classes", 3, True),
    "logits of one class": (
        {"model": one_output, "train": (X, ONES[:, None].float()), "test": (X, ONES[:, None].float())}
        | {"loss": nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))},
        "binary",
        2,
        False,
    ),
    "probabilities": (
        {"model": probabilities, "train": (X, ONES[:, None].float()), "test": (X, ONES[:, None].float())}
        | {"loss": nn.BCELoss()},
        "binary",
        2,
        False,
    ),
    "several labels by name": (
        {"model": lambda: nn.Linear(6, 5), "train": (X, FLAGS), "test": (X, FLAGS), "loss": "binary_cross_entropy"},
        "binary",
        2,
        True,
    ),
    "counts": (
        {"model": one_output, "train": (X, Y[:, None]), "test": (X, Y[:, None]), "loss": nn.PoissonNLLLoss()},
        "none",
        0,
        True,
    ),
    "real values": ({"train": (X, X[:, :3]), "test": (X, X[:, :3]), "loss": nn.HuberLoss()}, "none", 0, True),
    "images to images": (
        {"model": lambda: nn.Conv2d(1, 1, 3, padding=1), "train": (IMAGES, IMAGES), "test": (IMAGES, IMAGES)}
        | {"loss": nn.MSELoss()},
        "none",
        0,
        True,
    ),
    "quantiles": (
        {"model": one_output, "train": (X, X[:, :1]), "test": (X, X[:, :1])}
        | {"loss": lambda o, t: torch.maximum(0.9 * (t - o), 0.1 * (o - t)).mean()},
        "none",
        0,
        True,
    ),
}


@pytest.mark.parametrize("case", KINDS)
def test_accuracy_is_there_where_targets_are_labels_and_losses_by_sample_where_they_are_equivalent(case: str) -> None:
    changes, labels, classes, by_sample = KINDS[case]
    made = task(**changes).prepared.objective
    assert (made.labels, made.classes, made.losses is not None) == (labels, classes, by_sample)


def test_accuracy_of_pixels_is_the_share_of_those_that_count() -> None:
    labels = torch.where(IMAGES[:, 0] > 0.7, -100, MASKS)
    made = task(**dense(loss=nn.CrossEntropyLoss(), train=(IMAGES, labels))).prepared
    outputs = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    right, chance = made.objective.score(outputs, labels, made.shares)
    predicted = outputs.argmax(1)
    for sample in range(40):
        counted = labels[sample] >= 0
        expected = (predicted[sample] == labels[sample])[counted].float().mean()
        assert float(right[sample]) == pytest.approx(float(expected), abs=1e-6)
        assert float(chance[sample]) == pytest.approx(float(made.shares[predicted[sample][counted]].mean()), abs=1e-6)


def test_chance_of_several_labels_is_that_of_shuffled_ones() -> None:
    made = task(model=lambda: nn.Linear(6, 5), train=(X, FLAGS), test=(X, FLAGS), loss="binary_cross_entropy").prepared
    outputs = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    right, chance = made.objective.score(outputs, FLAGS, made.shares)
    predicted = outputs > 0
    assert float(right.mean()) == pytest.approx(float((predicted == (FLAGS > 0.5)).float().mean()), abs=1e-6)
    # Every sample's labels instead of every other's.
    shuffled = (predicted[:, None] == (FLAGS > 0.5)[None]).double().mean((1, 2))
    torch.testing.assert_close(chance.double(), shuffled)
    entropy = torch.special.entr(FLAGS.mean(0).double()) + torch.special.entr(1 - FLAGS.mean(0).double())
    assert made.chance_loss == pytest.approx(float(entropy.mean()), rel=1e-6)


def test_a_metric_takes_the_place_of_accuracy() -> None:
    made = task(
        train=(X, X[:, :3]), test=(X, X[:, :3]), loss="mse", metric=lambda o, t: (o - t).abs().lt(0.5).all(1).float()
    ).prepared
    assert made.objective.has_accuracy
    outputs = X[:, :3] + torch.where(torch.arange(40) % 4 == 0, 1.0, 0.0)[:, None]
    right, _ = made.objective.score(outputs, X[:, :3], made.shares)
    assert float(right.mean()) == 0.75


@dataclass
class Outputs:
    logits: Tensor
    loss: Tensor | None = None


class Returning(nn.Module):
    """Returns an object, and computes its own loss where the labels are among its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Outputs:
        logits = self.layer(x)
        return Outputs(logits, None if labels is None else functional.cross_entropy(logits, labels) / 2)


def test_a_model_that_returns_its_loss_is_trained_by_it() -> None:
    both = {"x": X, "labels": Y}, Y
    made = task(model=Returning, train=both, test=both, loss="model").prepared
    assert (made.objective.labels, made.classes) == ("classes", 3)
    torch.manual_seed(0)
    model = Returning()
    assert float(made.objective.batch(model(**both[0]), Y).detach()) == pytest.approx(
        float(functional.cross_entropy(model(X).logits, Y).detach()) / 2, rel=1e-6
    )
    by_name = task(model=Returning).prepared
    assert float(by_name.objective.batch(model(X), Y).detach()) == pytest.approx(
        float(functional.cross_entropy(model(X).logits, Y).detach()), rel=1e-6
    )


def test_numpy_numbers_and_loaders_give_the_batch_size() -> None:
    assert task(batch_size=np.int64(5)).prepared.samples_per_step == 5
    loader = DataLoader(TensorDataset(X, Y), batch_size=10)
    assert task(train=loader, batch_size=None).prepared.samples_per_step == 10
    assert task(batch_size=None).prepared.samples_per_step == 40
    assert task(rule={"name": "sgd", "momentum": np.float32(0.5)}).prepared.update.settings["momentum"] == 0.5
    assert len(task(validation=np.float64(0.25)).prepared.train[0]) == 30


def test_a_held_out_set_and_the_rest_are_all_of_the_data() -> None:
    (held, _), (rest, labels) = split_validation(({"x": X}, Y), 0.2)
    assert (len(held["x"]), len(rest["x"]), len(labels)) == (8, 32, 32)
    assert torch.equal(torch.cat([held["x"], rest["x"]]).sort(0).values, X.sort(0).values)


def test_a_task_prints_as_one_line_and_is_itself_alone() -> None:
    one, other = task(), task()
    assert repr(one) == "Task('task': 40 samples, batch size 8, loss cross_entropy, rule sgd)"
    html = one._repr_html_()  # pyright: ignore[reportPrivateUsage]
    for name, fact in {"samples": "40 training, ", "batch size": "8, 5 steps per epoch", "rule": "sgd"}.items():
        assert re.search(rf">{name}</th><td[^>]*>{fact}", html)
    assert repr(one.prepared) == "Prepared('task': 40 samples, loss cross_entropy, rule sgd)"
    assert one == one  # noqa: PLR0124 - that it does not raise
    assert one != other
    assert len({one, other}) == 2


def test_a_loss_with_tensors_goes_where_training_is() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0])
    loss = nn.CrossEntropyLoss(weight=weight)
    made = task_on(task(loss=loss).prepared, torch.device("cpu"), torch.float64)
    outputs = torch.randn(40, 3, dtype=torch.float64)
    expected = functional.cross_entropy(outputs, Y, weight=weight.double())
    torch.testing.assert_close(made.objective.batch(outputs, Y), expected)
    assert loss.weight is weight
    partly = task(loss=partial(functional.cross_entropy, weight=weight)).prepared
    moved = task_on(partly, torch.device("meta"))
    assert moved.objective.batch(torch.zeros(4, 3, device="meta"), Y[:4].to("meta")).device.type == "meta"
    closed = task(loss=lambda o, t: (functional.cross_entropy(o, t, reduction="none") * weight[t]).mean()).prepared
    with pytest.raises(TaskError, match="The loss holds the tensor weight on cpu, but it is needed on meta"):
        task_on(closed, torch.device("meta"))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a metric beyond 1": ({"metric": lambda o, _: o.abs().mean() + 2}, "metric must return a number from 0 to 1"),
    "a metric that fails": ({"metric": lambda o, t: o @ t}, "The metric does not accept"),
    "a loss that fails": ({"loss": lambda o, t: o @ t}, "The loss .*<lambda> does not accept the model's outputs"),
    "a loss of no tensor": ({"loss": lambda _o, _t: 1.0}, "The loss"),
    "segmentation by name": (dense(), r"class labels must be integers of shape \[n\].*torch.nn.CrossEntropyLoss"),
    "other targets in the test set": (
        {"loss": "mse", "train": (X, X[:, :3]), "test": (X, X[:, :2])},
        "train targets are torch.float32 .3,. each, but test targets are torch.float32 .2,.; they must agree",
    ),
    "labels out of range under a metric": (
        {"test": (X, Y + 5), "metric": lambda o, t: (o.argmax(1) == t).float()},
        "labels go up to 7",
    ),
    "inputs with other names": ({"train": ({"a": X}, Y), "test": ({"b": X}, Y)}, "must agree"),
    "a model without the named input": ({"train": ({"a": X}, Y), "test": ({"a": X}, Y)}, "unexpected keyword argument"),
    "no loss in the outputs": ({"loss": "model"}, "The loss model does not accept"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(case: str) -> None:
    changes, words = REFUSED[case]
    with pytest.raises(TaskError, match=words) as caught:
        task(**changes)
    assert "\n" not in str(caught.value)


def test_initial_weights_may_come_from_numpy_and_python() -> None:
    def drawn() -> nn.Module:
        model = nn.Linear(6, 3)
        model.weight.data = torch.from_numpy(np.random.randn(3, 6)).float()  # noqa: NPY002 - a user's own
        return model

    made = task(model=drawn).prepared
    one, again, other = (make_model(made, seed).state_dict()["weight"] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
