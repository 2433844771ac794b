"""Each training is the one that runs by itself, to the last digit, whatever it is made of."""

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from search.driven_helpers import Record, assert_same, data, digits, rude, small

STEPS = 20
SGD, Adam, AdamW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
schedulers = torch.optim.lr_scheduler


def batches(count: int = STEPS) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = data()
    for _ in range(count):
        at = torch.randint(64, (16,))
        yield x[at] + 0.01 * random.random() + 0.01 * float(np.random.rand()), y[at]  # noqa: NPY002


def loop(
    model: nn.Module,
    optimizer: Optimizer,
    record: Record,
    *,
    count: int = STEPS,
    scheduler: Any = None,
    clip: float = 0,
) -> None:
    for x, y in batches(count):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        record.append((loss.item(), *digits(*model.parameters(), *model.buffers())))
        optimizer.step()
        if scheduler:
            given = (loss.detach(),) if isinstance(scheduler, schedulers.ReduceLROnPlateau) else ()
            scheduler.step(*given)


def plain(lr: float, record: Record) -> None:
    model = small()
    loop(model, SGD(model.parameters(), lr=lr, momentum=0.9), record, clip=1.0)


def recreated(lr: float, record: Record) -> None:
    model = small()
    for epoch in range(10):
        optimizer = Adam(model.parameters(), lr=lr / (epoch + 1))
        loop(model, optimizer, record, count=2)


def fresh_each_step(lr: float, record: Record) -> None:
    model = small()
    for _ in range(STEPS):
        loop(model, SGD(model.parameters(), lr=lr), record, count=1)


def late(lr: float, record: Record) -> None:
    model = small()
    warm = SGD(model[:1].parameters(), lr=0.01)
    loop(model, warm, record, count=2)
    loop(model, Adam(model.parameters(), lr=lr), record)


def groups(lr: float, record: Record) -> None:
    model = small()
    parts = [{"params": model[:2].parameters(), "lr": lr / 10}, {"params": model[2:].parameters()}]
    loop(model, AdamW(parts, lr=lr), record)


def lbfgs(lr: float, record: Record) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=lr, max_iter=3, line_search_fn="strong_wolfe")
    for x, y in batches():

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            record.append((loss.item(), *digits(*model.parameters())))
            return loss

        optimizer.step(closure)


def gan(lr: float, record: Record, *, critics: int = 5, generator_first: bool = False) -> None:
    model, critic = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)), nn.Linear(4, 1)
    one, two = Adam(model.parameters(), lr=lr), Adam(critic.parameters(), lr=2 * lr)
    x, y = data()
    assert len(y)
    for step in range(max(6 * critics, 20)):
        if step % critics == (0 if generator_first else critics - 1):
            one.zero_grad()
            (-critic(model(torch.randn(8, 4))).mean()).backward()
            one.step()
        fake = model(torch.randn(8, 4))
        two.zero_grad()
        loss = critic(fake.detach()).mean() - critic(x[:8]).mean() + 0.1 * critic(fake).square().mean()
        loss.backward(retain_graph=True)
        two.step()
        fake.mean().backward()  # through the generator's batch norm, after a step in which it may have been measured
        record.append((loss.item(), *digits(*model.parameters(), *model.buffers(), *critic.parameters())))


def generator_first(lr: float, record: Record) -> None:
    gan(lr, record, generator_first=True)


def alternating(lr: float, record: Record) -> None:
    gan(lr, record, critics=1)


class Lookahead(Optimizer):
    """A wrapper, as many are written: it calls the step of another optimizer."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, {"lr": inner.defaults["lr"]})
        self.inner, self.slow, self.count = inner, [], 0
        self.param_groups = inner.param_groups
        self.slow = [each.detach().clone() for group in self.param_groups for each in group["params"]]

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.inner.step(closure)
        self.count += 1
        if self.count % 3 == 0:
            fast = [each for group in self.param_groups for each in group["params"]]
            with torch.no_grad():
                for slow, each in zip(self.slow, fast, strict=True):
                    slow.lerp_(each, 0.5)
                    each.copy_(slow)


def lookahead(lr: float, record: Record) -> None:
    model = small()
    optimizer = Lookahead(SGD(model.parameters(), lr=lr))
    loop(model, optimizer, record, scheduler=schedulers.ExponentialLR(optimizer, 0.9))


def foreach(lr: float, record: Record) -> None:
    model = small()
    loop(model, AdamW(model.parameters(), lr=lr, foreach=True, amsgrad=True), record)


def fused(lr: float, record: Record) -> None:
    model = small()
    loop(model, AdamW(model.parameters(), lr=lr, fused=True), record)


def compiled(lr: float, record: Record) -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=lr)
    take: Callable[[], Any] = torch.compile(optimizer.step, backend="eager")
    for x, y in batches():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        take()
        record.append((loss.item(), *digits(*model.parameters())))


class Averaging(SGD):
    """Its parameters are an average in one mode and the last ones in the other, as those of some optimizers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.param_groups[0]["training"] = True

    def train(self, training: bool = True) -> None:
        for group in self.param_groups:
            if group["training"] != training:
                group["training"] = training
                for each in group["params"]:
                    each.data.mul_(2 if training else 0.5)


def modes(lr: float, record: Record) -> None:
    model = small()
    optimizer = Averaging(model.parameters(), lr=lr)
    for x, y in batches():
        optimizer.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        record.append((loss.item(), *digits(*model.parameters())))
        optimizer.step()


def tensor_lr(lr: float, record: Record) -> None:
    model = small()
    optimizer = Adam(model.parameters(), lr=torch.tensor(lr))
    loop(model, optimizer, record, scheduler=schedulers.CosineAnnealingLR(optimizer, 20))


def accumulated(lr: float, record: Record) -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=lr)
    for step, (x, y) in enumerate(batches(3 * STEPS)):
        loss = nn.functional.cross_entropy(model(x), y) / 3
        loss.backward()
        record.append((loss.item(), *digits(*(each.grad for each in model.parameters() if each.grad is not None))))
        if step % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()


def scaled(lr: float, record: Record) -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=lr)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=5)
    for step, (x, y) in enumerate(batches(2 * STEPS)):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        if step % 4 == 1:
            next(iter(model.parameters())).grad[0] = math.inf  # pyright: ignore[reportOptionalSubscript]
        scaler.step(optimizer)
        scaler.update()
        record.append((loss.item(), scaler.get_scale(), *digits(*model.parameters())))


def accelerated(lr: float, record: Record) -> None:
    """What Accelerate knows of the loop is in one place for the whole process."""
    accelerator = Accelerator(gradient_accumulation_steps=3, cpu=True)
    model = small()
    optimizer: Any
    model, optimizer, loader = accelerator.prepare(
        model, SGD(model.parameters(), lr=lr), DataLoader(TensorDataset(*data()), batch_size=16, shuffle=True)
    )
    for _ in range(10):
        for x, y in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(x), y)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            state = accelerator.gradient_state
            record.append((loss.item(), state.sync_gradients, state.end_of_dataloader, *digits(*model.parameters())))


def within_autocast(lr: float, record: Record) -> None:
    """The whole loop is within one autocast, which stores the casts of weights."""
    model = small()
    optimizer = SGD(model.parameters(), lr=lr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for x, y in batches():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            record.append((loss.item(), *digits(*model.parameters())))


def raw(lr: float, record: Record) -> None:
    w = torch.randn(4, 2, requires_grad=True)
    optimizer = SGD([w], lr=lr, momentum=0.9, nesterov=True)
    for x, y in batches():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(x @ w, y)
        loss.backward()
        record.append((loss.item(), *digits(w)))
        optimizer.step()


def in_backward(lr: float, record: Record) -> None:
    """Each parameter has its own optimizer, which steps as soon as its gradient is there."""
    model = small()
    own: dict[Tensor, Optimizer] = {each: SGD([each], lr=lr) for each in model.parameters()}

    def step(each: Tensor) -> None:
        own[each].step()
        own[each].zero_grad()

    for each in own:
        each.register_post_accumulate_grad_hook(step)
    for x, y in batches():
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        record.append((loss.item(), *digits(*model.parameters())))


def doubles(lr: float, record: Record) -> None:
    torch.set_default_dtype(torch.float64)
    model = small()
    optimizer = SGD(model.parameters(), lr=lr)
    for x, y in batches():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x.double()), y)
        loss.backward()
        optimizer.step()
        record.append((loss.item(), *digits(*model.parameters())))
    torch.set_default_dtype(torch.float32)


def shared_generator(lr: float, record: Record) -> None:
    """One generator shuffles what is trained and the measurements, as PyTorch's notes on reproducibility have it."""
    draws = torch.Generator().manual_seed(1)
    own, array = random.Random(2), np.random.default_rng(3)
    loader = DataLoader(TensorDataset(*data()), batch_size=16, shuffle=True, generator=draws)
    model = small()
    optimizer = SGD(model.parameters(), lr=lr)
    for _ in range(5):
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x + 0.01 * own.random() + 0.01 * float(array.random())), y)
            loss.backward()
            optimizer.step()
            record.append((loss.item(), *digits(*model.parameters())))


def drawing(model: nn.Module, loader: Any, own: random.Random, array: np.random.Generator) -> float:
    own.random()
    array.random()
    return sum(batch[0].sum().item() for batch in loader) + rude(model)


def held_out_statistics(lr: float, record: Record) -> None:
    """A second model whose batch norm follows the first, and which the measurement evaluates."""
    model = small()
    ema = torch.optim.swa_utils.AveragedModel(model, use_buffers=False)
    optimizer = SGD(model.parameters(), lr=lr)
    for x, y in batches():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        ema.update_parameters(model)
        ema(x)
        record.append((loss.item(), float(ema.training), *digits(*ema.parameters(), *ema.buffers())))


def gentle(model: nn.Module) -> float:
    """A measurement that trains nothing, in whatever mode the model is left."""
    x, y = data(16)
    model.train()
    loss = nn.functional.cross_entropy(model(x), y).item()
    model.eval()
    return loss


class Trainer:
    """A training inside a class, whose model is an attribute."""

    def __init__(self, lr: float, record: Record) -> None:
        self.model, self.record = small(), record
        self.optimizer = SGD(self.model.parameters(), lr=lr)

    def fit(self) -> None:
        loop(self.model, self.optimizer, self.record)


def schedule(kind: str) -> Callable[[float, Record], None]:
    def train(lr: float, record: Record) -> None:
        model = small()
        optimizer = SGD(model.parameters(), lr=lr, momentum=0.9)
        made: dict[str, Callable[[], Any]] = {
            "warm-up from 0": lambda: schedulers.LambdaLR(optimizer, lambda step: min(1.0, step / 5)),
            "linear": lambda: schedulers.LinearLR(optimizer, 1e-3, total_iters=5),
            "one cycle": lambda: schedulers.OneCycleLR(optimizer, lr, total_steps=40),
            "cyclic": lambda: schedulers.CyclicLR(optimizer, lr / 4, lr, step_size_up=3),
            "plateau": lambda: schedulers.ReduceLROnPlateau(optimizer, patience=1),
            "restarts": lambda: schedulers.CosineAnnealingWarmRestarts(optimizer, 3),
            "multiplied": lambda: schedulers.MultiplicativeLR(optimizer, lambda _: 0.9),
            "in a row": lambda: schedulers.SequentialLR(
                optimizer,
                [schedulers.ConstantLR(optimizer, 0.1, 4), schedulers.ExponentialLR(optimizer, 0.9)],
                milestones=[4],
            ),
        }
        loop(model, optimizer, record, scheduler=made[kind]())

    return train


KINDS = ("warm-up from 0", "linear", "one cycle", "cyclic", "plateau", "restarts", "multiplied", "in a row")


@pytest.mark.parametrize(
    ("train", "least"),
    [
        (plain, 16), (recreated, 16), (fresh_each_step, 16), (late, 16), (groups, 16), (lbfgs, 30), (gan, 14),
        (generator_first, 14), (alternating, 14), (lookahead, 16), (foreach, 16), (fused, 16), (tensor_lr, 16),
        (accumulated, 48), (scaled, 20), (within_autocast, 15), (doubles, 15), (compiled, 15), (accelerated, 16),
    ],
)  # fmt: skip
def test_a_training_is_the_one_that_runs_by_itself(train: Any, least: int, tmp_path: Path):
    assert_same(train, tmp_path, least=least)


@pytest.mark.parametrize(
    ("train", "value"), [(raw, "float(w.mul_(0.5).sum())"), (in_backward, gentle)], ids=["raw", "in backward"]
)
def test_trainings_without_modules_or_with_steps_in_the_backward_pass(train: Any, value: Any, tmp_path: Path):
    assert_same(train, tmp_path, least=15, value=value)


def test_a_measurement_in_another_mode_of_the_optimizer_leaves_its_mode(tmp_path: Path):
    assert_same(modes, tmp_path, value="optimizer.train(False) or rude(model)")


@pytest.mark.parametrize("kind", KINDS)
def test_schedulers_go_on_as_they_are(kind: str, tmp_path: Path):
    assert_same(schedule(kind), tmp_path)


def test_a_measurement_that_draws_from_generators_of_the_training_leaves_them(tmp_path: Path):
    assert_same(shared_generator, tmp_path, value=drawing)


def test_a_measurement_of_another_model_leaves_that_one(tmp_path: Path):
    assert_same(held_out_statistics, tmp_path, value="rude(ema) + rude(model)")


def test_a_training_in_a_class_is_measured_through_self(tmp_path: Path):
    value = "sum(rude(m) for m in [self.model]) + (lambda m: rude(m))(self.model)"
    assert_same(lambda lr, record: Trainer(lr, record).fit(), tmp_path, value=value)
