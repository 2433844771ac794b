"""Optimizer factories as rules: the live optimizer in an ordinary loop, cut and resumed, and factories refused."""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import ASGD, LBFGS, SGD, Adam, AdamW, NAdam, Optimizer, RMSprop

from lratlas.errors import TaskError
from lratlas.models.mlp import MLP
from lratlas.training.objective import LOSSES
from lratlas.training.optimizers import Factory, check_optimizer, optimizer_rule
from lratlas.training.program import build
from lratlas.training.rules import Rule
from lratlas.training.state import Stack, start_stack
from lratlas.training.trainer import train_stack
from training.helpers import lane, plain_training, point_of, samples_of

LR, STEPS = 0.02, 20
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(24, 4, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(3, (24,), generator=GENERATOR)
BATCHES = torch.randint(24, (STEPS, 6), generator=GENERATOR)


def model() -> nn.Module:
    torch.manual_seed(1)
    return MLP(4, (5,), 3).double()


class Fading(Optimizer):
    """Steps of LR over the number of steps so far, which it counts in its group."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr, "rounds": 0, "factor": 1.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - no loss
        assert closure is None
        for group in self.param_groups:
            group["rounds"] += 1
            group["factor"] *= 0.9
            for parameter in group["params"]:
                parameter.sub_(group["lr"] * group["factor"] / group["rounds"] * parameter.grad)


def two_groups(parameters: list[nn.Parameter], lr: float) -> Optimizer:
    groups: list[dict[str, Any]] = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 10 * lr}]
    return SGD(groups, lr, momentum=0.9)


FACTORIES: dict[str, Factory] = {
    "NAdam": NAdam,
    "RMSprop": partial(RMSprop, momentum=0.5, centered=True),
    "Adam with amsgrad": partial(Adam, amsgrad=True),
    "AdamW": AdamW,
    "momentum": partial(SGD, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "ASGD": partial(ASGD, t0=5),
    "two groups": two_groups,
    "state in its group": Fading,
}


def train(rule: Rule, stack: Stack, batches: Tensor) -> Stack:
    start = point_of([model()])
    return train_stack(
        build(model(), LOSSES["cross_entropy"], rule, compiled=False, strategy="single"),
        stack,
        lrs=torch.full((1, 1), LR, dtype=torch.float64),
        batches=batches[:, None],
        train=samples_of(X, Y, start),
    ).stack


@pytest.mark.parametrize("name", FACTORIES)
def test_a_run_is_the_live_optimizer_in_an_ordinary_loop(name: str, tmp_path: Path) -> None:
    rule = optimizer_rule(FACTORIES[name])
    start = start_stack(point_of([model()]).weights, {}, rule)
    whole = train(rule, start, BATCHES)
    # In the order in which a stack holds its parameters, which is the module's here.
    batches = [(X[rows], Y[rows]) for rows in BATCHES]
    alone = plain_training(model(), lambda parameters: FACTORIES[name](parameters, LR), batches)
    for key, value in lane(whole.weights, 0).items():
        assert torch.equal(value, alone.get_parameter(key))
        assert not torch.equal(value, model().get_parameter(key))
    # Cut after seven steps, its state written and read again.
    first = train(rule, start, BATCHES[:7])
    file = tmp_path / "state.safetensors"
    save_file({key: value.contiguous() for key, value in first.state.items()}, file)
    resumed = Stack(weights=first.weights, buffers={}, state=load_file(file), alive=first.alive, step=first.step)
    second = train(rule, resumed, BATCHES[7:])
    for key, value in whole.weights.items():
        assert torch.equal(second.weights[key], value)
    for key, value in whole.state.items():
        assert torch.equal(second.state[key], value)
        assert second.state[key].dtype == value.dtype


def test_a_step_is_a_function_of_its_arguments() -> None:
    rule = optimizer_rule(Adam)
    point = point_of([model()])
    gradients = {key: torch.ones_like(value) for key, value in point.weights.items()}
    lrs = torch.full((1, 1), LR, dtype=torch.float64)
    weights, state = rule.update(point.weights, gradients, {}, lrs)
    given = copy.deepcopy((weights, state))
    once, again = (rule.update(weights, gradients, state, lrs) for _ in range(2))
    for one, other in zip(once, again, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    for held, before in zip((weights, state), given, strict=True):
        assert all(torch.equal(held[key], before[key]) for key in held)


def test_settings_tell_optimizers_apart_that_differ_in_class_in_a_tuple_or_in_one_group() -> None:
    factories: list[Factory] = [
        Adam,
        AdamW,
        partial(Adam, betas=(0.5, 0.999)),
        lambda parameters, lr: SGD([{"params": parameters[:1]}, {"params": parameters[1:]}], lr),
        lambda parameters, lr: SGD([{"params": parameters[:1]}, {"params": parameters[1:], "weight_decay": 0.5}], lr),
    ]
    weights = dict(model().named_parameters())
    settings = [repr(sorted(optimizer_rule(factory, weights).settings.items())) for factory in factories]
    assert len(set(settings)) == len(settings)
    assert settings == [repr(sorted(optimizer_rule(factory, weights).settings.items())) for factory in factories]
    assert not optimizer_rule(Adam).stacks
    assert optimizer_rule(two_groups).name.endswith("two_groups")


def test_the_factory_gets_the_parameters_in_the_order_of_the_model() -> None:
    seen: list[list[int]] = []

    def factory(parameters: list[nn.Parameter], lr: float) -> SGD:
        seen.append([parameter.numel() for parameter in parameters])
        return SGD(parameters, lr)

    weights = {"z": torch.zeros(1), "m": torch.zeros(2), "a": torch.zeros(3)}
    rule = optimizer_rule(factory, weights)
    stacked = {name: weights[name][None, None] for name in sorted(weights)}
    slopes = {name: torch.ones_like(value) for name, value in stacked.items()}
    new, _ = rule.update(stacked, slopes, {}, torch.ones(1, 1))
    assert seen == [[1, 2, 3]] * 2
    assert list(new) == ["a", "m", "z"]
    for name, value in new.items():
        assert torch.equal(value[0, 0], -torch.ones_like(weights[name]))


class Listing(Fading):
    """Keeps a list of what it did."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        super().step(closure)
        self.state[self.param_groups[0]["params"][0]]["history"] = [1, 2]


def drops_biases(parameters: list[nn.Parameter], lr: float) -> Optimizer:
    return SGD([value for value in parameters if value.dim() > 1], lr)


def gives_a_number(_parameters: list[nn.Parameter], lr: float) -> Any:
    return lr


def fails(_parameters: list[nn.Parameter], _lr: float) -> Optimizer:
    raise ZeroDivisionError("no such luck")


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "drops parameters": (
        drops_biases,
        r"drops_biases drops layers\.0\.bias, layers\.1\.weight, layers\.1\.bias, layers\.3\.bias; it must pass all",
    ),
    "something else": (gives_a_number, r"gives_a_number returned float; it must return a torch\.optim\.Optimizer"),
    "raises": (fails, "fails failed: ZeroDivisionError: no such luck"),
    "needs a closure": (LBFGS, "LBFGS failed in its first step: TypeError.*closure"),
    "keeps a list": (
        Listing,
        "Listing has the state history, a list, which cannot be stored; only tensors and numbers can",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_factory_that_cannot_be_used_is_refused(case: str) -> None:
    factory, words = REFUSED[case]
    with pytest.raises(TaskError, match=words) as caught:
        check_optimizer(factory, dict(model().named_parameters()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_checking_a_factory_that_can_be_used_leaves_the_model_as_it_was(factory: Factory) -> None:
    module = model()
    before = copy.deepcopy(module.state_dict())
    check_optimizer(factory, dict(module.named_parameters()))
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(value.grad is None for value in module.parameters())
