"""Measure whether runs of a task train faster as a stack or one by one."""

import time
from collections.abc import Callable

import torch

from lratlas.stacks.tensors import initial_tensors, samples
from lratlas.training.prepared import Prepared, make_model
from lratlas.training.program import Strategy, allow_slow_batching, build
from lratlas.training.state import start_stack
from lratlas.training.trainer import train_stack

_SAMPLES = 32  # samples per step; the result depends on overheads or convolutions, not on this number
_STEPS = 5
_WORK = 0.2  # target seconds for a step of all runs one by one, so that small models are compared in large stacks
_FEWEST, _MOST = 2, 64  # runs
_GAIN = 0.8  # compilation helps a single run more than a stack if the two are about equal


@allow_slow_batching()
def faster_strategy(task: Prepared, *, device: str, dtype: str) -> Strategy:
    """The faster strategy for a few runs; a model that cannot be stacked trains one run at a time.

    A few steps are timed on one thread, as in training, and without the compiler, which would take longer than it saves
    here.

    Args:
        task: The task to train.
        device: The device to train on.
        dtype: Dtype of the weights.
    """
    if task.conformance.unstackable:
        return "single"
    place, kind = torch.device(device), getattr(torch, dtype)
    alone = _make_timed_step(task, "single", 1, place, kind)
    first = min(alone() for _ in range(_STEPS))
    lanes = max(_FEWEST, min(_MOST, round(_WORK / first)))
    try:
        together = _make_timed_step(task, "stack", lanes, place, kind)
        # Alternate, so that other work on the machine slows both down.
        singles, stacks = zip(*((alone(), together()) for _ in range(_STEPS)), strict=True)
    except RuntimeError:  # an operation that vmap does not support, or too little memory
        return "single"
    return "stack" if min(stacks) <= _GAIN * lanes * min(first, *singles) else "single"


def faster_threads(task: Prepared, strategy: Strategy, *, lanes: int, device: str) -> int:
    """The number of threads with the faster step: one, or all that PyTorch currently uses if they help.

    Small models are slower on several threads, and much slower if other programs run at the same time.

    Args:
        task: The task to train.
        strategy: How runs are trained.
        lanes: Number of runs that train together.
        device: The device to train on.
    """
    threads = torch.get_num_threads()
    if threads == 1 or torch.device(device).type != "cpu":
        return threads
    step = _make_timed_step(task, strategy, lanes, torch.device(device), torch.float32, clock=time.perf_counter)
    took = dict.fromkeys((1, threads), float("inf"))
    try:
        for _ in range(_STEPS):
            for count in took:
                torch.set_num_threads(count)
                took[count] = min(took[count], step())
    finally:
        torch.set_num_threads(threads)
    return threads if took[threads] < _GAIN * took[1] else 1


def _make_timed_step(
    task: Prepared,
    strategy: Strategy,
    lanes: int,
    device: torch.device,
    dtype: torch.dtype,
    *,
    clock: Callable[[], float] | None = None,
) -> Callable[[], float]:
    """A function that trains one step and returns its duration in seconds: of the processor, if training runs on it."""
    clock = clock or (time.process_time if device.type == "cpu" else time.perf_counter)
    model = make_model(task, 0)
    program = build(
        model,
        task.objective,
        task.update,
        compiled=False,
        strategy=strategy,
        batch_size=_SAMPLES,
        channels_last=task.conformance.channels_last,
    )
    weights, buffers, frozen = initial_tensors([task], [0], lanes, dtype=dtype, device=device)
    stack = start_stack(weights, buffers, task.update)
    train = samples([task], "train", frozen, dtype=dtype, device=device)
    batches = torch.arange(min(task.samples_per_step, _SAMPLES), device=device).expand(1, 1, -1)
    lrs = torch.full((1, lanes), 1e-6, dtype=dtype, device=device)

    def step() -> float:
        began = clock()
        with torch.random.fork_rng():
            trained = train_stack(program, stack, lrs=lrs, batches=batches, train=train)
        trained.stack.alive.tolist()  # waits for the device
        return clock() - began

    return step
