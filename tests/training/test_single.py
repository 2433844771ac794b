"""Runs trained one by one: against an ordinary PyTorch loop, and against the same runs stacked; all in float64."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from lratlas.execute.checkpoints import read_segment, segment_tensors
from lratlas.models.convnet import ConvNet
from lratlas.models.layers import MaxPool
from lratlas.models.mlp import MLP
from lratlas.study.store import open_weights, seal_weights
from lratlas.training.objective import LOSSES
from lratlas.training.program import Strategy, build
from lratlas.training.rules import Rule, adam, adamw, sgd, sphere_rsgd, sphere_sgd
from lratlas.training.sphere import Weights
from lratlas.training.state import Stack, start_stack
from lratlas.training.trainer import Trained, train_stack
from training.helpers import Point, lane, plain_training, point_of, projected, same, samples_of, trained_parameters

LRS, RADIUS, STEPS = (0.02, 0.1), 2.0, 6
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(24, 2, 8, 8, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(3, (24,), generator=GENERATOR)
BATCHES = torch.randint(24, (STEPS, 8), generator=GENERATOR)


def sphere_net() -> nn.Module:
    torch.manual_seed(1)
    model = ConvNet(channels=2, classes=3, width=2, scale_invariant=True).double()
    projected(trained_parameters(model), RADIUS)
    return model


def small_net() -> nn.Module:
    """One convolution: every further one takes the compiler seconds."""
    torch.manual_seed(1)
    head = nn.Linear(64, 3).requires_grad_(requires_grad=False)
    layers = [nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4, affine=False), nn.ReLU(), MaxPool()]
    model = nn.Sequential(*layers, nn.Flatten(), head).double()
    projected(trained_parameters(model), RADIUS)
    return model


def ordinary_net() -> nn.Module:
    torch.manual_seed(2)
    return ConvNet(channels=2, classes=3, width=2).double()


def train(
    model: nn.Module,
    rule: Rule,
    strategy: Strategy,
    lrs: Sequence[float],
    *,
    compiled: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Trained:
    point = point_of([copy.deepcopy(model).to(dtype) for _ in lrs])
    samples = samples_of(X.to(dtype), Y, point)
    return train_stack(
        build(model, LOSSES["cross_entropy"], rule, compiled=compiled, strategy=strategy),
        start_stack(point.weights, point.buffers, rule),
        lrs=torch.tensor([lrs], dtype=dtype),
        batches=BATCHES[:, None],
        train=samples,
        test=samples,
        trace_every=3,
    )


def state_of(stack: Stack, at: int = 0) -> Weights:
    return {**lane(stack.weights, at), **lane(stack.buffers, at)}


def by_hand(model: nn.Module, lr: float) -> Weights:
    batches = [(X[rows], Y[rows]) for rows in BATCHES]
    # An ELR on the sphere is the LR over the squared norm.
    trained = plain_training(
        model, lambda parameters: torch.optim.SGD(parameters, lr * RADIUS**2), batches, radius=RADIUS
    )
    return trained.state_dict()


def test_one_run_of_a_net_with_batch_norm_is_an_ordinary_loop_with_a_projection() -> None:
    model = sphere_net()
    trained = train(model, sphere_sgd(radius=RADIUS), "single", [LRS[1]])
    expected = by_hand(model, LRS[1])
    got = state_of(trained.stack)
    assert set(got) | {"head.weight"} == set(expected)
    same(got, expected, atol=1e-9)
    assert int(got["layers.1.num_batches_tracked"]) == STEPS
    assert float((got["layers.0.weight"] - model.get_parameter("layers.0.weight").detach()).norm()) > 0.01


def test_every_lane_of_a_stack_is_the_run_alone_and_its_ordinary_loop() -> None:
    model, rule = sphere_net(), sphere_sgd(radius=RADIUS)
    stacked = train(model, rule, "stack", LRS)
    for at, lr in enumerate(LRS):
        alone = train(model, rule, "single", [lr])
        same(state_of(stacked.stack, at), state_of(alone.stack), atol=1e-9)
        same(state_of(stacked.stack, at), by_hand(model, lr), atol=1e-9)
        for row, other in zip(stacked.rows, alone.rows, strict=True):
            for name in ("train_loss", "train_accuracy", "chance_accuracy", "gradient_norm", "test_loss"):
                torch.testing.assert_close(getattr(row, name)[0, at], getattr(other, name)[0, 0], rtol=0, atol=1e-9)


@pytest.mark.long  # a net in a stack is compiled among the tests of the trainer
def test_compiled_the_run_is_the_same_up_to_rounding() -> None:
    model = small_net()
    trained = train(model, sphere_sgd(radius=RADIUS), "single", [LRS[0]], compiled=True, dtype=torch.float32)
    same(state_of(trained.stack), by_hand(model, LRS[0]), atol=2e-4)
    assert all(value.dtype == torch.float32 for value in trained.stack.weights.values())


def test_compiled_a_run_read_from_a_file_is_trained_on_by_the_program_of_its_first_part(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, rule, runs = normed().float(), adam(), [["run"]]
    point = point_of([model])
    program = build(model, LOSSES["cross_entropy"], rule, compiled=True, strategy="single")

    def train_on(stack: Stack) -> Stack:
        lrs, train = torch.tensor([[0.01]]), samples_of(X.float(), Y, point)
        return train_stack(program, stack, lrs=lrs, batches=BATCHES[:, None], train=train).stack

    def read(stack: Stack) -> Stack:
        data = seal_weights(segment_tensors(runs, stack, {}, 0.0), "w")
        return read_segment(open_weights(data, ("w",)), runs, counts=[], step=stack.step, device=torch.device("cpu"))[0]

    start = start_stack(point.weights, point.buffers, rule)
    first = train_on(start)
    kept = counters["frames"]["ok"]
    trained = train_on(read(first))
    fresh = train_on(read(start))
    assert counters["frames"]["ok"] == kept > 0
    assert not [record for record in caplog.records if record.name == "lratlas"]
    for one, other in [(trained, train_on(first)), (fresh, first)]:
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in other.weights)


def normed() -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Flatten(), nn.Linear(128, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)]
    return nn.Sequential(*layers).double()


def invariant() -> nn.Module:
    torch.manual_seed(4)
    model = MLP(128, (6,), 3, scale_invariant=True).double()
    projected(trained_parameters(model), RADIUS)
    return model


RULES: dict[str, Rule] = {
    "sgd": sgd(momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adam": adam(weight_decay=1e-2),
    "adamw": adamw(),
    "sphere_sgd": sphere_sgd(radius=RADIUS),
    "sphere_rsgd": sphere_rsgd(radius=RADIUS),
}


@pytest.mark.parametrize("name", RULES)
def test_under_every_rule_a_run_alone_is_the_run_in_a_stack(name: str) -> None:
    rule = RULES[name]
    model = normed() if rule.radius is None else invariant()
    stacked = train(model, rule, "stack", LRS)
    for at, lr in enumerate(LRS):
        alone = train(model, rule, "single", [lr])
        same(state_of(stacked.stack, at), state_of(alone.stack), atol=1e-10)
        for key, value in alone.stack.state.items():
            kept = stacked.stack.state[key]
            # What has no lanes, such as a count of steps, belongs to the whole stack.
            torch.testing.assert_close(kept[:, at : at + 1] if kept.dim() > 1 else kept, value, rtol=0, atol=1e-10)
        assert not torch.equal(
            alone.stack.weights["1.weight" if rule.radius is None else "layers.0.weight"][0, 0],
            next(iter(trained_parameters(model))),
        )


@pytest.mark.parametrize("strategy", ["stack", "single"])
def test_a_diverged_runs_weights_and_statistics_stay_as_they_were(strategy: Strategy) -> None:
    model = normed()
    lrs = [1e160] if strategy == "single" else [1e160, 0.05]
    trained = train(model, sgd(), strategy, lrs)
    assert trained.stack.alive[0].tolist() == [False, True][: len(lrs)]
    dead = state_of(trained.stack)
    assert all(value.isfinite().all() for value in dead.values())
    # The steps it made are counted, and it made a few only.
    assert 0 < int(dead["2.num_batches_tracked"]) < STEPS
    if strategy == "stack":
        healthy = train(model, sgd(), "single", [0.05])
        same(state_of(trained.stack, 1), state_of(healthy.stack), atol=1e-10)


def test_what_a_run_alone_starts_from_is_left_as_it_was() -> None:
    model, rule = ordinary_net(), sgd()
    point = point_of([model])
    given = copy.deepcopy(point)
    program = build(model, LOSSES["cross_entropy"], rule, compiled=False, strategy="single")
    train_stack(
        program,
        start_stack(point.weights, point.buffers, rule),
        lrs=torch.tensor([[0.1]], dtype=torch.float64),
        batches=BATCHES[:, None],
        train=samples_of(X, Y, point),
    )
    assert unchanged(point, given)


def unchanged(point: Point, given: Point) -> bool:
    pairs: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = [
        (point.weights, given.weights),
        (point.buffers, given.buffers),
        (point.frozen, given.frozen),
    ]
    return all(torch.equal(one[name], other[name]) for one, other in pairs for name in one)
