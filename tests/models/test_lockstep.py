"""Training of each net of the paper against a plain module in an ordinary loop: float64, 50 steps in regime 1."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lratlas.models.convnet import ConvNet
from lratlas.models.mlp import MLP
from lratlas.models.resnet import ResNet18
from lratlas.models.vit import ViT
from lratlas.training.objective import LOSSES
from lratlas.training.program import Strategy, build
from lratlas.training.rules import Rule, adam, sgd, sphere_sgd
from lratlas.training.state import start_stack
from lratlas.training.trainer import train_stack
from models.plain import PlainViT, resnet18, si_convnet, si_mlp, with_weights_of
from training.helpers import lane, point_of, projected, samples_of, trained_parameters

STEPS, BATCH, SAMPLES = 50, 8, 24
Optimizer = Callable[[list[nn.Parameter], float], torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A net of the package, the same as a plain module, and how both are trained."""

    model: Callable[[], nn.Module]
    plain: Callable[[], nn.Module]
    lr: float
    rule: Rule
    optimizer: Optimizer
    inputs: tuple[int, ...] = (3, 8, 8)
    loss: str = "cross_entropy"


def plain_sgd(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr)


def plain_momentum(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=5e-4)


def plain_adam(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr, weight_decay=1e-4)


SHAPE = {"patch": 4, "width": 8, "depth": 2, "heads": 2, "mlp": 6}
CASES = {
    "SI MLP": Case(
        model=lambda: MLP(32, (8, 8), 1, scale_invariant=True),
        plain=lambda: si_mlp(32, 8),
        lr=1e-3,
        rule=sphere_sgd(),
        optimizer=plain_sgd,
        inputs=(32,),
        loss="binary_cross_entropy",
    ),
    "SI ConvNet": Case(
        model=lambda: ConvNet(channels=3, classes=5, width=4, scale_invariant=True),
        plain=lambda: si_convnet(3, 5, 4),
        lr=1e-4,
        rule=sphere_sgd(radius=4),
        optimizer=plain_sgd,
    ),
    "SI ResNet-18": Case(
        model=lambda: ResNet18(channels=3, classes=5, width=2, scale_invariant=True),
        plain=lambda: resnet18(3, 5, 2, affine=False),
        lr=1e-5,
        rule=sphere_sgd(radius=7),
        optimizer=plain_sgd,
    ),
    "ordinary ResNet-18": Case(
        model=lambda: ResNet18(channels=3, classes=5, width=2),
        plain=lambda: resnet18(3, 5, 2, affine=True),
        lr=1e-3,
        rule=sgd(momentum=0.9, weight_decay=5e-4),
        optimizer=plain_momentum,
    ),
    "ViT": Case(
        model=lambda: ViT(channels=3, classes=5, size=(8, 8), dropout=0.0, **SHAPE),
        plain=lambda: PlainViT(3, 5, 8, **SHAPE),
        lr=3e-4,
        rule=adam(weight_decay=1e-4),
        optimizer=plain_adam,
    ),
}


def plain_loop(case: Case, module: nn.Module, x: Tensor, y: Tensor, batches: Tensor) -> list[float]:
    """Train the module in place; the loss of every step."""
    radius = case.rule.radius
    parameters, losses = trained_parameters(module), list[float]()
    optimizer = case.optimizer(parameters, case.lr * (radius**2 if radius else 1))  # on a sphere the ELR is given
    for rows in batches:
        outputs = module.train()(x[rows])
        if case.loss == "binary_cross_entropy":
            loss = functional.binary_cross_entropy_with_logits(outputs, y[rows])
        else:
            loss = functional.cross_entropy(outputs, y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if radius:
            projected(parameters, radius)
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("strategy", ["stack", "single"])
@pytest.mark.parametrize("name", CASES)
def test_a_net_is_trained_as_its_plain_form_in_an_ordinary_loop(name: str, strategy: Strategy) -> None:
    case, generator = CASES[name], torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, *case.inputs, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (SAMPLES,), generator=generator)
    y = (labels % 2).double() if case.loss == "binary_cross_entropy" else labels
    batches = torch.cat([torch.randperm(SAMPLES, generator=generator) for _ in range(STEPS)])[: STEPS * BATCH]
    batches = batches.reshape(STEPS, BATCH)
    torch.manual_seed(1)
    model = case.model().double()
    if case.rule.radius:
        projected(trained_parameters(model), case.rule.radius)
    plain = with_weights_of(case.plain(), model)
    point = point_of([model])
    samples = samples_of(x, y, point, classes=2 if case.loss == "binary_cross_entropy" else 5)
    trained = train_stack(
        build(model, LOSSES[case.loss], case.rule, compiled=False, strategy=strategy),
        start_stack(point.weights, point.buffers, case.rule),
        lrs=torch.tensor([[case.lr]], dtype=torch.float64),
        batches=batches[:, None],
        train=samples,
        test=samples,
        trace_every=1,
    )
    losses = plain_loop(case, plain, x, y, batches)
    mine = torch.stack([row.train_loss[0, 0] for row in trained.rows])
    torch.testing.assert_close(mine, torch.tensor(losses, dtype=torch.float64), rtol=0, atol=1e-9)
    expected = dict(zip(dict(model.named_parameters()), plain.parameters(), strict=True))
    for name_of, value in lane(trained.stack.weights, 0).items():
        torch.testing.assert_close(value, expected[name_of].detach(), rtol=0, atol=1e-9)
    statistics = dict(zip(dict(model.named_buffers()), plain.buffers(), strict=True))
    for name_of, value in lane(trained.stack.buffers, 0).items():
        torch.testing.assert_close(value, statistics[name_of], rtol=0, atol=1e-9, check_dtype=False)
    start, end = sum(losses[:6]) / 6, sum(losses[-6:]) / 6
    assert end < 0.9 * start, "the LR is one of regime 1: the loss falls"
