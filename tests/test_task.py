"""What a task accepts, what it refuses, and with which words."""

import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lratlas import Task
from lratlas.data.augment import crop_and_flip
from lratlas.errors import TaskError
from lratlas.models.convnet import ConvNet
from lratlas.models.mlp import MLP
from lratlas.models.resnet import ResNet18
from lratlas.training.fingerprint import fingerprint
from lratlas.training.prepared import make_model
from lratlas.training.rules import Rule, sgd

X, Y = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3


BYTES = torch.randint(256, (30, 1, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def task(**changes: Any) -> Task:
    fields: dict[str, Any] = {
        "model": lambda: MLP(4, (5,), 3),
        "train": (X, Y),
        "test": (X[:9], Y[:9]),
        "batch_size": 8,
    }
    return Task(**(fields | changes))


class Scaled(nn.Module):
    """A layer norm hides the scale of `first`; `second` and its bias show theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = (
            nn.Linear(4, 5),
            nn.LayerNorm(5, elementwise_affine=False),
            nn.Linear(5, 3),
        )
        nn.init.zeros_(self.second.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.norm(self.first(x)))


def with_nan(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[3, 1] = torch.nan
    return x


def returning(value: Any, *_: Any) -> Any:
    return value


def infinite(outputs: torch.Tensor, _targets: torch.Tensor) -> torch.Tensor:
    return outputs.sum() * torch.inf


def misshapen(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(7, 7)


def shortened(x: torch.Tensor) -> torch.Tensor:
    return x[1:]


def scaled(x: torch.Tensor) -> torch.Tensor:
    return x.double() / 255


def first_layer_alone(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters[:2], lr)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a model instead of a factory": ({"model": MLP(4, (5,), 3)}, "function that makes"),
    "not a model": ({"model": lambda: 3}, "must return a torch.nn.Module"),
    "a model for other data": ({"model": lambda: MLP(7, (5,), 3)}, r"does not accept a batch.*\(8, 4\)"),
    "no trainable parameters": (
        {"model": lambda: MLP(4, (5,), 3).requires_grad_(requires_grad=False)},
        "no trainable",
    ),
    "too few outputs": ({"model": lambda: MLP(4, (5,), 2)}, "labels go up to 2"),
    "negative labels": ({"train": (X, Y - 1)}, "label -1 is negative"),
    "float labels": ({"train": (X, Y.float())}, "must be integers"),
    "one class": ({"train": (X, torch.zeros(30, dtype=torch.long))}, "at least two classes"),
    "labels for binary": (
        {"model": lambda: MLP(4, (5,), 1), "loss": "binary_cross_entropy"},
        "labels 0 or 1; found 2",
    ),
    "NaN inputs": ({"train": (with_nan(X), Y)}, "train: the inputs contain NaN"),
    "rows that differ": ({"test": (X, Y[:9])}, "test: .*same number of rows"),
    "no rows": ({"test": (X[:0], Y[:0])}, "test: .*same number of rows, at least 1"),
    "shapes that differ": ({"test": (X[:9, :3], Y[:9])}, "must agree"),
    "not a pair": ({"train": X}, "must be a pair"),
    "batch larger than the data": ({"batch_size": 31}, "from 1 to 30"),
    "batch of nothing": ({"batch_size": 0}, "from 1 to 30"),
    "unknown loss": ({"loss": "hinge"}, "no loss 'hinge'; use one of cross_entropy"),
    "unknown rule": ({"rule": "lion"}, "no update rule 'lion'; choose one of sgd"),
    "setting of another rule": ({"rule": {"name": "sgd", "betas": (0.9, 0.9)}}, "sgd does not accept"),
    "momentum out of range": ({"rule": {"name": "sgd", "momentum": 1.5}}, "at least 0 and below 1"),
    "validation labels without an output": ({"validation": (X[:9], Y[:9] + 5)}, "labels go up to 7"),
    "validation inputs of another kind": ({"validation": (BYTES[:9], Y[:9])}, "validation inputs are torch.uint8"),
    "targets of singles for features alone": ({"singles": (X[None], Y[:1])}, r"not \(1, 30, 4\) and \(1,\)"),
    "validation share of one": ({"validation": 1.0}, "between 0 and 1"),
    "a loss that is not finite": ({"loss": infinite}, "not finite"),
    "not scale-invariant": ({"model": Scaled, "rule": "sphere_sgd"}, "second.weight, second.bias"),
    "nothing to scale": (
        {"model": lambda: nn.Linear(4, 3), "rule": {"name": "sphere_sgd", "other_lr": 0.1}},
        "none were found in this model",
    ),
    "a word for all samples": ({"batch_size": "all"}, 'batch_size is all; it must be "full" or a whole number from 1'),
    "half a sample": ({"batch_size": 7.5}, "batch_size is 7.5"),
    "bytes without a transform": (
        {"train": (BYTES, Y), "test": (BYTES, Y), "model": lambda: ConvNet(channels=1, classes=3, width=2)},
        "uint8 .bytes need a transform that converts them to floating point",
    ),
    "a transform that fails": ({"transform": misshapen}, r"transform or augmentation.*\(8, 4\)"),
    "a transform that drops rows": ({"transform": shortened}, r"one row per sample, here 8; it returned \(7, 4\)"),
    "an augmentation's function": ({"augment": crop_and_flip}, "augment must be an Augmentation"),
    "augmented vectors": ({"augment": crop_and_flip()}, "Augmentation needs images uint8"),
    "images too small": (
        {
            "train": (BYTES[..., :3], Y),
            "test": (BYTES[..., :3], Y),
            "model": lambda: ConvNet(channels=1, classes=3, width=2),
            "transform": torch.Tensor.float,
        },
        "ConvNet needs images of at least 4x4 pixels, not 6x3",
    ),
    "a sphere for the ordinary ConvNet": (
        {
            "train": (BYTES, Y),
            "test": (BYTES, Y),
            "model": lambda: ConvNet(channels=1, classes=3, width=2),
            "transform": torch.Tensor.float,
            "rule": "sphere_sgd",
        },
        r"through layers\.1\.weight, layers\.1\.bias,.*head\.weight, head\.bias: .*other_lr; 0 freezes them",
    ),
    "an optimizer that drops parameters": (
        {"rule": first_layer_alone},
        r"drops layers\.1\.weight",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_named(case: str) -> None:
    changes, words = REFUSED[case]
    with pytest.raises(TaskError, match=words) as caught:
        task(**changes)
    assert "\n" not in str(caught.value)


def test_only_the_parameters_at_fault_are_named() -> None:
    with pytest.raises(TaskError) as caught:
        task(model=Scaled, rule="sphere_sgd")
    assert "first" not in str(caught.value)


def test_a_scale_invariant_model_is_accepted_on_the_sphere() -> None:
    made = task(model=lambda: MLP(4, (5, 5), 3, scale_invariant=True), rule="sphere_sgd").prepared
    assert made.update.radius == 1.0
    assert made.classes == 3


def test_arrays_become_tensors_and_a_share_is_kept_back_once() -> None:
    made = task(train=(X.numpy(), np.asarray(Y)), validation=0.2).prepared
    assert made.validation is not None
    assert len(made.train[0]) == 24
    assert len(made.validation[0]) == 6
    together = torch.cat([made.train[0], made.validation[0]])
    assert torch.equal(together.sort(0).values, X.sort(0).values)


def test_chance_is_that_of_the_best_constant_prediction() -> None:
    labels = torch.tensor([0] * 15 + [1] * 10 + [2] * 5)
    made = task(train=(X, labels)).prepared
    shares = np.array([1 / 2, 1 / 3, 1 / 6])
    np.testing.assert_allclose(made.shares.numpy(), shares)
    np.testing.assert_allclose(made.chance_loss, -(shares * np.log(shares)).sum())
    targets = torch.randn(30, 3)
    regression = task(train=(X, targets), test=(X[:9], targets[:9]), loss="mse").prepared
    assert regression.chance_loss == pytest.approx(float(targets.var(0, correction=0).mean()), rel=1e-5)


def test_the_fingerprint_follows_what_defines_the_task() -> None:
    other = X.clone()
    other[0, 0] += 1e-3
    prints = [
        fingerprint(each.prepared)
        for each in (
            task(),
            task(train=(other, Y)),
            task(rule={"name": "sgd", "momentum": 0.9}),
            task(batch_size=4),
        )
    ]
    assert len(set(prints)) == 4
    assert fingerprint(task().prepared) == prints[0]


def test_initial_weights_follow_the_seed_alone() -> None:
    made = task().prepared
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, again, other = (make_model(made, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_parameters_that_are_not_on_the_sphere_are_found() -> None:
    made = task(model=Scaled, rule={"name": "sphere_sgd", "other_lr": 0.01}).prepared
    assert set(made.update.free) == {"second.weight", "second.bias"}
    assert made.update.settings == {"radius": 1.0, "other_lr": 0.01}
    invariant = task(model=lambda: MLP(4, (5,), 3, scale_invariant=True), rule={"name": "sphere_sgd", "other_lr": 0.01})
    assert invariant.prepared.update.free == ()


def test_full_batches_take_all_samples_that_are_trained_on() -> None:
    made = task(batch_size="full", validation=0.2).prepared
    assert (made.samples_per_step, made.steps_per_epoch, made.full_batch) == (24, 1, True)
    assert not task(batch_size=30).prepared.full_batch


def test_an_optimizer_factory_is_a_rule_for_runs_alone() -> None:
    made = task(rule=torch.optim.RMSprop).prepared
    assert made.update.name == "optimizer RMSprop"
    assert not made.update.stacks
    assert "'alpha': 0.99" in str(made.update.settings["groups"])


def test_the_ordinary_resnet_has_all_its_convolutions_on_the_sphere() -> None:
    x = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(12) % 3
    made = Task(
        model=lambda: ResNet18(channels=1, classes=3, width=2),
        train=(x, y),
        test=(x, y),
        batch_size=12,
        rule={"name": "sphere_sgd", "radius": 28.0, "other_lr": 0.0},
    ).prepared
    model = ResNet18(channels=1, classes=3, width=2)
    convolutions = {name for name, value in model.named_parameters() if value.dim() == 4}
    assert set(made.update.free) == {name for name, _ in model.named_parameters()} - convolutions


def test_the_fingerprint_follows_transform_augmentation_and_what_is_not_on_the_sphere() -> None:
    def images(**changes: Any) -> Task:
        fields: dict[str, Any] = {
            "train": (BYTES, Y),
            "test": (BYTES, Y),
            "model": lambda: ConvNet(channels=1, classes=3, width=2),
            "transform": torch.Tensor.float,
        }
        return task(**(fields | changes))

    prints = [
        fingerprint(each.prepared)
        for each in (
            images(),
            images(transform=scaled),
            images(augment=crop_and_flip()),
            images(augment=crop_and_flip(padding=1)),
            images(batch_size="full"),
            images(rule=torch.optim.Adam),
        )
    ]
    assert len(set(prints)) == 6
    assert fingerprint(images(augment=crop_and_flip()).prepared) == prints[2]


def test_inputs_are_transformed_and_never_augmented_in_evaluation() -> None:
    made = task(
        train=(BYTES, Y),
        test=(BYTES, Y),
        model=lambda: ConvNet(channels=1, classes=3, width=2),
        transform=scaled,
        augment=crop_and_flip(),
    ).prepared
    shown = made.inputs(BYTES)
    assert shown.dtype == torch.float32
    assert torch.equal(shown, (BYTES.double() / 255).float())


def test_a_loss_that_is_slow_in_a_stack_is_taken_without_a_warning_of_pytorch() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fingerprint(task(loss=nn.functional.multi_margin_loss).prepared)
    assert not said


@pytest.mark.parametrize("given", [sgd, lambda: sgd(momentum=0.5)])
def test_a_rule_that_was_not_called_is_told_from_an_optimizer_factory(given: Any) -> None:
    with pytest.raises(TaskError, match=r"must take \(parameters, lr\), but .* does not. If it makes a rule, call it"):
        task(rule=given)


@pytest.mark.parametrize("returned", [None, ({},), {"weight": 0}], ids=["nothing", "one", "weights alone"])
def test_an_update_that_returns_no_weights_and_state_is_refused(returned: Any) -> None:
    rule = Rule(name="mine", settings={}, start=lambda _: {}, update=partial(returning, returned))
    with pytest.raises(TaskError, match="update of the rule mine must return two dictionaries"):
        task(rule=rule)


def test_an_update_that_forgets_a_weight_is_refused() -> None:
    rule = Rule(name="mine", settings={}, start=lambda _: {}, update=lambda _w, _g, state, _lrs: ({}, state))
    with pytest.raises(TaskError, match="must return new weights for all names"):
        task(rule=rule)
