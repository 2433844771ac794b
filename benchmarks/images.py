"""Images per second of training the scale-invariant image models, next to a plain PyTorch loop.

A step is one of SGD on the sphere with a batch of 128 images of 3x32x32: drawing and gathering the batch, forward
and backward pass, projection, and the running loss and accuracy. The plain loop has a DataLoader over normalised
floats, an eager module, `torch.optim.SGD` and the projection. Neither evaluates a test set meanwhile.

Two processes of one thread each, their own run in each, take turns: the machine's sgemm rate, the plain loop,
the trainer, and again, round after round. Rates are those of both processes together.

Operations per image, a multiplication and an addition counted as two, of convolutions and linear layers alone: the
forward pass once, and twice as many for the backward pass. (The first layer needs no gradient of its inputs, and
the frozen head none of its weights: a few percent less at most.)

    python benchmarks/images.py [--json] [--quick]
"""

import json
import platform
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median

import torch
from processes import Prepared, Process, at_once, options, processor, receive, serve, started
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lratlas.doctor import checkup, sgemm_peak
from lratlas.models.convnet import ConvNet
from lratlas.models.resnet import ResNet18
from lratlas.stacks.tensors import initial_tensors, samples
from lratlas.task import Task
from lratlas.training.batches import batch_indices
from lratlas.training.compiling import why_not_compiled
from lratlas.training.prepared import Prepared as PreparedTask
from lratlas.training.prepared import make_model
from lratlas.training.program import build
from lratlas.training.state import start_stack
from lratlas.training.trainer import train_stack

WORKERS = 2
CLASSES, CHANNELS = 10, 3
ELR, RADIUS = 1e-3, 12.0
MODELS: dict[str, type[ConvNet] | type[ResNet18]] = {"ConvNet": ConvNet, "ResNet-18": ResNet18}
Facts = dict[str, str | int | float]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What each process is asked to measure."""

    model: str
    width: int
    steps: int  # in one measurement
    compiled: bool
    size: int = 32  # pixels
    batch_size: int = 128
    images: int = 2048


@dataclass(frozen=True, kw_only=True)
class Round:
    """One measurement of each kind, all processes together."""

    trainer: float  # images per second
    plain: float  # images per second
    peak: float  # GFLOP/s of sgemm


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model; rates are medians over rounds, ratio and share medians of those of each round."""

    model: str
    width: int
    workers: int
    compiled: bool
    compile_seconds: float  # first step; less where PyTorch's cache has the program
    operations: int  # per image
    trainer: float
    trainer_max: float
    plain: float
    plain_max: float
    ratio: float  # trainer over plain loop
    sgemm_gflops: float
    share: float  # operations per second over the sgemm rate
    plain_share: float
    rounds: list[Round]


def main(arguments: Sequence[str] | None = None) -> None:
    given = options("Images per second of the image models.", arguments)
    if given.measure:
        setup = Setup(**given.measure)
        serve(lambda: prepare(setup))
        return
    machine: Facts = {"system": platform.platform(), "processor": processor(), **checkup()}
    rows = list[Row]()
    for setup in _setups(quick=given.quick):
        print(f"Measuring {setup.model} of width {setup.width} …", file=sys.stderr)
        rows.append(measure(setup, rounds=2 if given.quick else 5))
    if given.json:
        print(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1))
    else:
        _print_table(machine, rows)


def measure(setup: Setup, *, rounds: int) -> Row:
    """One model, trainer and plain loop alternating."""
    count, rates = WORKERS * setup.steps * setup.batch_size, list[Round]()
    with ExitStack() as held:
        processes, firsts = list[Process](), list[float]()
        # One after the other: the second finds the program that the first has compiled.
        for _ in range(WORKERS):
            processes.append(held.enter_context(started(__file__, asdict(setup))))
            firsts.append(receive(processes[-1]))
        for _ in range(rounds):
            _, peak = at_once(processes, "peak")
            plain, _ = at_once(processes, "plain")
            trainer, _ = at_once(processes, "trainer")
            rates.append(Round(trainer=count / trainer, plain=count / plain, peak=peak))
    each = 3 * forward_operations(make(setup), CHANNELS, setup.size)
    return Row(
        model=setup.model,
        width=setup.width,
        workers=WORKERS,
        compiled=setup.compiled,
        compile_seconds=firsts[0],
        operations=each,
        trainer=median(one.trainer for one in rates),
        trainer_max=max(one.trainer for one in rates),
        plain=median(one.plain for one in rates),
        plain_max=max(one.plain for one in rates),
        ratio=median(one.trainer / one.plain for one in rates),
        sgemm_gflops=median(one.peak for one in rates),
        share=median(each * one.trainer / (one.peak * 1e9) for one in rates),
        plain_share=median(each * one.plain / (one.peak * 1e9) for one in rates),
        rounds=rates,
    )


def forward_operations(model: nn.Module, channels: int, size: int) -> int:
    """Operations of convolutions and linear layers in the forward pass of one square image."""
    total = 0

    def count(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        # Each number of the output is a sum of as many products as the weight has for its channel.
        if isinstance(layer, nn.Conv2d | nn.Linear):
            total += 2 * output.numel() * layer.weight[0].numel()

    hooks = [layer.register_forward_hook(count) for layer in model.modules()]
    with torch.no_grad():
        model.eval()(torch.zeros(1, channels, size, size))
    for hook in hooks:
        hook.remove()
    return total


def make(setup: Setup) -> nn.Module:
    return MODELS[setup.model](channels=CHANNELS, classes=CLASSES, width=setup.width, scale_invariant=True)


def prepare(setup: Setup) -> Prepared:
    """Data, model and both loops of one process, each after its first step."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(setup.images, CHANNELS, setup.size, setup.size, generator=generator)
    y = torch.randint(CLASSES, (setup.images,), generator=generator)
    rule = {"name": "sphere_sgd", "radius": RADIUS}
    held = (x[:CLASSES], y[:CLASSES])
    task = Task(model=lambda: make(setup), train=(x, y), test=held, batch_size=setup.batch_size, rule=rule)
    trainer, plain = _trainer_loop(task.prepared, setup), _plain_loop(task.prepared, setup)
    began = time.perf_counter()
    trainer(1)
    first = time.perf_counter() - began
    plain(1)
    actions: dict[str, Callable[[], float | None]] = {
        "trainer": lambda: trainer(setup.steps),
        "plain": lambda: plain(setup.steps),
        "peak": sgemm_peak,
    }
    return Prepared(first=first, actions=actions)


def _trainer_loop(task: PreparedTask, setup: Setup) -> Callable[[int], None]:
    """What trains one run with the package, continuing with every call."""
    dtype, device = torch.float32, torch.device("cpu")
    weights, buffers, frozen = initial_tensors([task], [0], 1, dtype=dtype, device=device)
    train = samples([task], "train", frozen, dtype=dtype, device=device)
    program = build(
        make_model(task, 0),
        task.objective,
        task.update,
        strategy="single",
        compiled=setup.compiled,
        channels_last=task.conformance.channels_last,
    )
    state, lrs = [start_stack(weights, buffers, task.update)], torch.full((1, 1), ELR)

    def advance(steps: int) -> None:
        first = state[0].step
        sizes = {"samples": setup.images, "batch_size": setup.batch_size}
        batches = batch_indices(seed=0, start=first, stop=first + steps, full_batch=False, **sizes)[:, None]
        state[0] = train_stack(program, state[0], lrs=lrs, batches=batches, train=train, trace_every=steps).stack

    return advance


def _plain_loop(task: PreparedTask, setup: Setup) -> Callable[[int], None]:
    """What trains one model, continuing with every call, as written by hand."""
    model = make_model(task, 0).train()
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=ELR * RADIUS**2)
    loader = DataLoader(TensorDataset(*task.train), batch_size=setup.batch_size, shuffle=True, drop_last=True)
    batches = _endless(loader)
    rows = list[tuple[float, float]]()

    @torch.no_grad()
    def project() -> None:
        size = torch.stack([value.square().sum() for value in trained]).sum().sqrt()
        for value in trained:
            value.mul_(RADIUS / size)

    def advance(steps: int) -> None:
        total, hits = torch.zeros(()), torch.zeros(())
        for _ in range(steps):
            x, y = next(batches)
            outputs = model(x)
            loss = functional.cross_entropy(outputs, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            project()
            total += loss.detach()
            hits += (outputs.detach().argmax(1) == y).float().mean()
        rows.append((float(total) / steps, float(hits) / steps))

    project()
    return advance


def _endless(loader: DataLoader[tuple[Tensor, ...]]) -> Generator[tuple[Tensor, ...]]:
    while True:
        yield from loader


def _setups(*, quick: bool) -> list[Setup]:
    if quick:
        return [
            Setup(model=model, width=4, steps=2, compiled=False, size=8, batch_size=16, images=64) for model in MODELS
        ]
    compiled = not why_not_compiled(torch.device("cpu"))
    return [
        Setup(model="ConvNet", width=8, steps=32, compiled=compiled),
        Setup(model="ConvNet", width=32, steps=6, compiled=compiled),
        Setup(model="ResNet-18", width=16, steps=6, compiled=compiled),
    ]


def _print_table(machine: Facts, rows: Sequence[Row]) -> None:
    for name, value in machine.items():
        print(f"{name}: {value}")
    print(f"images per second of {WORKERS} processes, median (maximum); ratio and shares are medians over rounds\n")
    print("model      width  compile s      trainer          plain loop   ratio  sgemm GFLOP/s   share   plain")
    for row in rows:
        first = f"{row.compile_seconds:.1f}" if row.compiled else "eager"
        trainer = f"{row.trainer:.0f} ({row.trainer_max:.0f})"
        plain = f"{row.plain:.0f} ({row.plain_max:.0f})"
        print(
            f"{row.model:9}  {row.width:5}  {first:>9}  {trainer:>15}  {plain:>15}  {row.ratio:6.2f}"
            f"  {row.sgemm_gflops:13.0f}  {row.share:6.1%}  {row.plain_share:6.1%}"
        )


if __name__ == "__main__":
    main()
