"""Microseconds per run-step of the ticks study, stacked and one by one, for stack sizes and worker counts.

A run-step is one SGD step of one model: drawing and gathering the batch, forward and backward pass,
projection, and its share of the trace (a row with the loss on the whole test set every 1,000 steps, as in the
preset). The plain loop trains one model with a module, `torch.optim.SGD` and the projection, and records the
training loss and the test accuracy alone.

For each stack size two processes of one thread each take turns, alone and both at once: the machine's sgemm
rate, the plain loop, the stack, and again, round after round. With two processes the throughput is that of
both together, and the sgemm rate too.

Operations per run-step, a multiplication and an addition counted as two, of the products of matrices alone:
the batch of 16 times a 32x32 matrix takes 2·16·32·32 = 32,768. The first layer needs 2 of them (forward,
gradient of its weights), the second 3 (also the gradient of its inputs); the frozen head takes
2·16·32 = 1,024 forward and as many backward: 5·32,768 + 2·1,024 = 165,888.

    python benchmarks/ticks.py [--json] [--quick]
"""

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median

import torch
from processes import Prepared, Process, at_once, options, processor, receive, serve, started
from torch import Tensor
from torch.nn import functional

from lratlas.config.presets import preset
from lratlas.config.tasks import tasks_from, ticks_task, training_seed
from lratlas.doctor import checkup, sgemm_peak
from lratlas.stacks.tensors import initial_tensors, samples
from lratlas.training.batches import batch_indices
from lratlas.training.compiling import why_not_compiled
from lratlas.training.prepared import Prepared as PreparedTask
from lratlas.training.prepared import make_model
from lratlas.training.program import build
from lratlas.training.state import start_stack
from lratlas.training.trainer import Trained, train_stack

OPERATIONS = 5 * (2 * 16 * 32 * 32) + 2 * (2 * 16 * 32)
WORKER_COUNTS = (1, 2)
SPEC = preset("ticks")
LANES = len(SPEC.pretrain.lrs)
Facts = dict[str, str | int | float]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What one process is asked to measure."""

    repetitions: int  # seeds of the stack; its lanes are the preset's PLRs
    steps: int  # of the stack, in one measurement
    trace_every: int  # also the plain loop's steps in one measurement
    compiled: bool


@dataclass(frozen=True, kw_only=True)
class Round:
    """One measurement of each kind."""

    stack: float  # microseconds per run-step
    plain: float  # microseconds per step
    peak: float  # GFLOP/s of sgemm, all processes together


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stack size and worker count; ratio, gain and share are medians of those of each round."""

    runs: int
    workers: int
    compiled: bool
    compile_seconds: float  # first two steps and evaluations; less where PyTorch's cache has the program
    microseconds: float
    microseconds_min: float
    plain_microseconds: float
    plain_microseconds_min: float
    ratio: float  # plain loop over stack
    gain: float  # throughput over that of one worker
    sgemm_gflops: float
    share: float  # operations per second over the sgemm rate
    rounds: list[Round]


def main(arguments: Sequence[str] | None = None) -> None:
    given = options("Microseconds per run-step of the ticks study.", arguments)
    if given.measure:
        setup = Setup(**given.measure)
        serve(lambda: prepare(setup))
        return
    machine: Facts = {"system": platform.platform(), "processor": processor(), **checkup()}
    rows: list[Row] = []
    for setup in _setups(quick=given.quick):
        print(f"Measuring stacks of {setup.repetitions * LANES} runs …", file=sys.stderr)
        rows += measure(setup, rounds=2 if given.quick else 5)
    if given.json:
        data = {"machine": machine, "operations": OPERATIONS, "rows": [asdict(row) for row in rows]}
        print(json.dumps(data, indent=1))
    else:
        _print_table(machine, rows)


def measure(setup: Setup, *, rounds: int) -> list[Row]:
    """All worker counts of one stack size, alternating."""
    runs = setup.repetitions * LANES
    taken: dict[int, list[Round]] = {count: [] for count in WORKER_COUNTS}
    with ExitStack() as held:
        workers, firsts = list[Process](), list[float]()
        # One after the other: the second finds the program that the first has compiled.
        for _ in range(max(WORKER_COUNTS)):
            workers.append(held.enter_context(started(__file__, asdict(setup))))
            firsts.append(receive(workers[-1]))
        for _ in range(rounds):
            for count in WORKER_COUNTS:
                _, peak = at_once(workers[:count], "peak")
                plain, _ = at_once(workers[:count], "plain")
                stack, _ = at_once(workers[:count], "stack")
                per_step = stack / (count * setup.steps * runs) * 1e6
                per_plain = plain / (count * setup.trace_every) * 1e6
                taken[count].append(Round(stack=per_step, plain=per_plain, peak=peak))
    alone = taken[WORKER_COUNTS[0]]
    return [
        Row(
            runs=runs,
            workers=count,
            compiled=setup.compiled,
            compile_seconds=firsts[0],
            microseconds=median(one.stack for one in each),
            microseconds_min=min(one.stack for one in each),
            plain_microseconds=median(one.plain for one in each),
            plain_microseconds_min=min(one.plain for one in each),
            ratio=median(one.plain / one.stack for one in each),
            gain=median(first.stack / one.stack for first, one in zip(alone, each, strict=True)),
            sgemm_gflops=median(one.peak for one in each),
            share=median(OPERATIONS / one.stack * 1e-3 / one.peak for one in each),
            rounds=each,
        )
        for count, each in taken.items()
    ]


def prepare(setup: Setup) -> Prepared:
    """The stack and the plain loop of one process, each after its first steps."""
    first, stack = _stack_measurement(setup)
    plain = _plain_measurement(setup)
    return Prepared(first=first, actions={"stack": stack, "plain": plain, "peak": sgemm_peak})


def _stack_measurement(setup: Setup) -> tuple[float, Callable[[], None]]:
    """Seconds of the first two steps, and what trains ``setup.steps`` more with every call."""
    drawn, repetitions = tasks_from(SPEC.task), range(setup.repetitions)
    tasks = [drawn.of(each) for each in repetitions]
    seeds = [training_seed(each) for each in repetitions]
    task, dtype, device = tasks[0], torch.float32, torch.device("cpu")
    weights, buffers, frozen = initial_tensors(tasks, seeds, LANES, dtype=dtype, device=device)
    train = samples(tasks, "train", frozen, dtype=dtype, device=device)
    test = samples(tasks, "test", frozen, dtype=dtype, device=device)
    lrs = torch.tensor(SPEC.pretrain.lrs).expand(len(seeds), -1).contiguous()
    program = build(make_model(task, 0), task.objective, task.update, compiled=setup.compiled)
    state = [start_stack(weights, buffers, task.update)]

    def advance(steps: int, trace_every: int) -> Trained:
        first = state[0].step
        batches = torch.stack([_order(task, seed, first, first + steps) for seed in seeds], 1)
        return train_stack(program, state[0], lrs=lrs, batches=batches, train=train, test=test, trace_every=trace_every)

    def timed() -> None:
        state[0] = advance(setup.steps, setup.trace_every).stack

    began = time.perf_counter()
    advance(2, 1)
    return time.perf_counter() - began, timed


def _order(task: PreparedTask, seed: int, start: int, stop: int) -> Tensor:
    return batch_indices(seed=seed, start=start, stop=stop, samples=task.samples, batch_size=task.samples_per_step)


def _plain_measurement(setup: Setup) -> Callable[[], None]:
    """What trains one model at one LR for one trace interval with every call, as written by hand."""
    task = ticks_task(1).prepared
    model = make_model(task, 1)
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-2)
    (x, y), (test_x, test_y) = task.train, task.test

    @torch.no_grad()
    def project() -> None:
        size = torch.stack([value.square().sum() for value in trained]).sum().sqrt()
        for value in trained:
            value.div_(size)

    rows = list[tuple[float, float]]()

    def train() -> None:
        order = _order(task, 1, 0, setup.trace_every)
        total = torch.zeros(())
        for indices in order:
            loss = functional.binary_cross_entropy_with_logits(model(x[indices]), y[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            project()
            total += loss.detach()
        with torch.no_grad():
            accuracy = ((model(test_x) > 0) == (test_y > 0.5)).float().mean()
        rows.append((float(total) / len(order), float(accuracy)))

    project()
    train()
    return train


def _setups(*, quick: bool) -> list[Setup]:
    if quick:
        return [Setup(repetitions=1, steps=20, trace_every=10, compiled=False)]
    every = SPEC.pretrain.steps // SPEC.trace.points if SPEC.pretrain.steps else 1000
    compiled = not why_not_compiled(torch.device("cpu"))
    # A small stack takes more steps, so that a measurement lasts about as long.
    return [
        Setup(repetitions=n, steps=every * max(1, 5 // n), trace_every=every, compiled=compiled) for n in (1, 2, 5, 10)
    ]


def _print_table(machine: Facts, rows: Sequence[Row]) -> None:
    for name, value in machine.items():
        print(f"{name}: {value}")
    print("microseconds per run-step, median (minimum); ratio, gain and share are medians over rounds\n")
    print(" runs  workers  compile s           stack        one by one   ratio   gain  sgemm GFLOP/s   share")
    for row in rows:
        first = f"{row.compile_seconds:.1f}" if row.compiled else "eager"
        stack = f"{row.microseconds:.2f} ({row.microseconds_min:.2f})"
        plain = f"{row.plain_microseconds:.0f} ({row.plain_microseconds_min:.0f})"
        print(
            f"{row.runs:5}  {row.workers:7}  {first:>9}  {stack:>14}  {plain:>16}"
            f"  {row.ratio:6.1f}  {row.gain:5.2f}  {row.sgemm_gflops:13.0f}  {row.share:6.1%}"
        )


if __name__ == "__main__":
    main()
