"""Measure whether runs of a task train faster as a stack or one by one."""

import time
from collections.abc import Callable

import torch

from lratlas.devices import reproducible
from lratlas.rng import preserve_generators
from lratlas.stacks.tensors import initial_tensors, program_of, samples
from lratlas.training.prepared import Prepared
from lratlas.training.program import Strategy, allow_slow_batching
from lratlas.training.state import start_stack
from lratlas.training.trainer import train_stack

_STEPS = 5
_WORK = 0.2  # target seconds for a step of all runs one by one, so that small models are compared in large stacks
_FEWEST, _MOST = 2, 64  # runs
_GAIN = 0.8  # compilation helps a single run more than a stack if the two are about equal
_CLEAR = 3.0  # no compiler changes which one is faster if eager steps differ by this ratio


@allow_slow_batching()
def faster_strategy(
    task: Prepared, *, device: str, dtype: str, compiled: bool = False, lanes: int | None = None
) -> Strategy:
    """The faster strategy for a few runs; a model that cannot be stacked trains one run at a time.

    A few steps on the task's own batches are timed on one thread, as in training. If the steps will be compiled and the
    eager steps do not differ clearly, compiled steps are timed.

    Args:
        task: The task to train, on the device.
        device: The device to train on.
        dtype: Dtype of the weights.
        compiled: Whether the steps will be compiled.
        lanes: Maximum number of runs in a stack.
    """
    if task.conformance.unstackable:
        return "single"
    place, kind = torch.device(device), getattr(torch, dtype)
    with reproducible(place):
        eager = _time_strategies(task, place, kind, most=lanes)
        unclear = eager is not None and 1 / _CLEAR < eager < _CLEAR
        ratio = _time_strategies(task, place, kind, most=lanes, compiled=True) if compiled and unclear else eager
    return "stack" if ratio is not None and ratio <= _GAIN else "single"


def _time_strategies(
    task: Prepared, device: torch.device, dtype: torch.dtype, *, most: int | None, compiled: bool = False
) -> float | None:
    """Time per run in a stack relative to the time of a run by itself; None if the runs cannot train as a stack."""
    alone = _make_timed_step(task, "single", 1, device, dtype, compiled=compiled)
    first = min(alone() for _ in range(_STEPS))
    lanes = max(_FEWEST, min(most or _MOST, _MOST, round(_WORK / first)))
    try:
        together = _make_timed_step(task, "stack", lanes, device, dtype, compiled=compiled)
        together()  # the first step is slower
        # Alternate, so that other work on the machine slows both down.
        singles, stacks = zip(*((alone(), together()) for _ in range(_STEPS)), strict=True)
    except RuntimeError:  # an operation that vmap does not support, or too little memory
        return None
    return min(stacks) / (lanes * min(first, *singles))


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
    compiled: bool = False,
) -> Callable[[], float]:
    """A function that trains one step and returns its duration in seconds: of the processor, if training runs on it."""
    clock = clock or (time.process_time if device.type == "cpu" else time.perf_counter)
    program = program_of(task, strategy=strategy, compiled=compiled, device=device)
    weights, buffers, frozen = initial_tensors([task], [0], lanes, dtype=dtype, device=device)
    stack = start_stack(weights, buffers, task.update)
    train = samples([task], "train", frozen, dtype=dtype, device=device)
    batches = torch.arange(task.samples_per_step, device=device).expand(1, 1, -1)
    lrs = torch.full((1, lanes), 1e-6, dtype=dtype, device=device)

    def step() -> float:
        began = clock()
        with preserve_generators():
            trained = train_stack(program, stack, lrs=lrs, batches=batches, train=train)
        trained.stack.alive.tolist()  # waits for the device
        return clock() - began

    return step
