"""What a run is shown: full batches, bytes with a transform, augmented images; and mixed precision."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lratlas.data.augment import crop_and_flip
from lratlas.models.mlp import MLP
from lratlas.stacks.tensors import initial_tensors
from lratlas.stacks.tensors import samples as stacked_samples
from lratlas.task import Task
from lratlas.training.batches import augmentation_draws, batch_indices
from lratlas.training.evaluate import evaluate_stack
from lratlas.training.objective import LOSSES
from lratlas.training.program import Strategy, build
from lratlas.training.rules import sgd
from lratlas.training.state import Samples, Stack, start_stack
from lratlas.training.trainer import Trained, train_stack
from training.helpers import lane, plain_training, point_of, same, samples_of

LRS, STEPS, SIZE = (0.02, 0.1), 7, 6
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(256, (20, 1, 4, 5), generator=GENERATOR, dtype=torch.uint8)
Y = torch.randint(3, (20,), generator=GENERATOR)
BATCHES = batch_indices(seed=2, start=0, stop=STEPS, samples=20, batch_size=SIZE)
AUGMENT = crop_and_flip(padding=2)
DRAWS = augmentation_draws(AUGMENT, seed=2, start=0, stop=STEPS, samples=20, batch_size=SIZE)


def normalise(images: Tensor) -> Tensor:
    return (images.double() - 120) / 60


def model() -> nn.Module:
    torch.manual_seed(1)
    return MLP(20, (6,), 3).double()


def layers() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def train(
    samples: Samples,
    batches: Tensor = BATCHES,
    *,
    make: Callable[[], nn.Module] = model,
    draws: dict[str, Tensor] | None = None,
    strategy: Strategy = "stack",
    mixed_precision: bool = False,
) -> Trained:
    lrs = LRS if strategy == "stack" else LRS[1:]
    dtype = samples.shares.dtype
    point = point_of([make().to(dtype) for _ in lrs])
    program = build(
        make(),
        LOSSES["cross_entropy"],
        sgd(),
        compiled=False,
        strategy=strategy,
        mixed_precision=mixed_precision,
    )
    return train_stack(
        program,
        start_stack(point.weights, point.buffers, sgd()),
        lrs=torch.tensor([lrs], dtype=dtype),
        batches=batches[:, None],
        train=samples,
        draws={name: value[:, None] for name, value in draws.items()} if draws else None,
        test=samples,
        trace_every=3,
    )


def prepared(x: Tensor) -> Samples:
    return samples_of(x, Y, point_of([model()]))


def by_hand(stack: Stack, batches: list[tuple[Tensor, Tensor]], lrs: tuple[float, ...] = LRS) -> None:
    for at, lr in enumerate(lrs):
        alone = plain_training(model(), lambda parameters, lr=lr: torch.optim.SGD(parameters, lr), batches)
        same(lane(stack.weights, at), alone.state_dict(), atol=1e-9)


def test_full_batch_gradient_descent_is_sgd_on_the_whole_set() -> None:
    x = normalise(IMAGES)
    batches = batch_indices(seed=2, start=0, stop=STEPS, samples=20, batch_size=20, full_batch=True)
    by_hand(train(prepared(x), batches).stack, [(x, Y)] * STEPS)


def test_a_full_batch_task_takes_all_samples_in_one_step() -> None:
    x = normalise(IMAGES).flatten(1)
    task = Task(model=lambda: MLP(20, (6,), 3), train=(x, Y), test=(x, Y), batch_size="full").prepared
    assert task.full_batch
    assert (task.samples_per_step, task.steps_per_epoch) == (20, 1)


@pytest.mark.parametrize("strategy", ["stack", "single"])
def test_bytes_with_a_transform_are_floats_normalised_beforehand(strategy: Strategy) -> None:
    given = IMAGES.clone()
    shown = train(replace(prepared(IMAGES), transform=normalise), strategy=strategy)
    beforehand = train(prepared(normalise(IMAGES)), strategy=strategy)
    same(shown.stack.weights, beforehand.stack.weights, atol=1e-12)
    for row, other in zip(shown.rows, beforehand.rows, strict=True):
        torch.testing.assert_close(row.test_loss, other.test_loss, rtol=0, atol=1e-12)
    assert torch.equal(IMAGES, given)


@pytest.mark.parametrize("strategy", ["stack", "single"])
def test_training_sees_augmented_images_as_an_ordinary_loop_that_augments(strategy: Strategy) -> None:
    samples = replace(prepared(IMAGES), transform=normalise, augment=AUGMENT.apply)
    trained = train(samples, draws=DRAWS, strategy=strategy)
    batches = [
        (normalise(AUGMENT.apply(IMAGES[rows], {name: value[step] for name, value in DRAWS.items()})), Y[rows])
        for step, rows in enumerate(BATCHES)
    ]
    by_hand(trained.stack, batches, LRS if strategy == "stack" else LRS[1:])
    # The images are changed: without the augmentation training ends elsewhere.
    plain = train(samples, strategy=strategy)
    name = "layers.0.weight"
    assert float((plain.stack.weights[name] - trained.stack.weights[name]).norm()) > 0.01


def test_evaluation_sees_the_images_as_they_are() -> None:
    samples = replace(prepared(IMAGES), transform=normalise, augment=AUGMENT.apply)
    trained = train(samples, draws=DRAWS)
    program = build(model(), LOSSES["cross_entropy"], sgd(), compiled=False)
    scores = evaluate_stack(program, trained.stack.weights, {}, samples)
    for at in range(2):
        with torch.no_grad():
            outputs = torch.func.functional_call(model(), lane(trained.stack.weights, at), (normalise(IMAGES),))
        expected = float(functional.cross_entropy(outputs, Y))
        assert float(scores.loss[0, at]) == pytest.approx(expected, abs=1e-12)
        assert float(trained.rows[-1].test_loss[0, at]) == pytest.approx(expected, abs=1e-12)


def test_a_tasks_transform_and_augmentation_reach_its_samples() -> None:
    def normalised(images: Tensor) -> Tensor:
        return normalise(images).float()

    task = Task(
        model=lambda: MLP(20, (6,), 3),
        train=(IMAGES, Y),
        test=(IMAGES, Y),
        batch_size=SIZE,
        transform=normalised,
        augment=AUGMENT,
    ).prepared
    cpu = torch.device("cpu")
    _, _, frozen = initial_tensors([task], [0], 1, dtype=torch.float64, device=cpu)
    held = stacked_samples([task], "train", frozen, dtype=torch.float64, device=cpu)
    assert held.x.dtype == torch.uint8
    rows = BATCHES[:, None]
    drawn = {name: value[:, None] for name, value in DRAWS.items()}
    x, y = held.take_samples(rows, drawn)
    assert x.shape == (STEPS, 1, SIZE, 1, 4, 5)
    assert x.dtype == torch.float64
    assert torch.equal(y[:, 0], Y[BATCHES])
    first = AUGMENT.apply(IMAGES[BATCHES[0]], {name: value[0] for name, value in DRAWS.items()})
    torch.testing.assert_close(x[0, 0], normalise(first), rtol=0, atol=1e-6)
    torch.testing.assert_close(held.take_samples(rows)[0][:, 0], normalise(IMAGES)[BATCHES], rtol=0, atol=1e-6)


@pytest.mark.parametrize("strategy", ["stack", "single"])
def test_mixed_precision_keeps_float32_weights_and_trains(strategy: Strategy) -> None:
    x, steps = normalise(IMAGES).float(), 60
    order = np.random.default_rng(0).integers(20, size=(steps, 10))
    samples, batches = prepared(x), torch.from_numpy(order)
    mixed = train(samples, batches, make=layers, strategy=strategy, mixed_precision=True)
    exact = train(samples, batches, make=layers, strategy=strategy)
    assert all(value.dtype == torch.float32 for value in mixed.stack.weights.values())
    first, other = (float(each.rows[0].train_loss[0, -1]) for each in (mixed, exact))
    # Bfloat16 has eight bits: outputs differ by some thousandths.
    assert first != other
    assert first == pytest.approx(other, rel=0.03)
    assert float(mixed.rows[-1].train_loss[0, -1]) < 0.7 * first
