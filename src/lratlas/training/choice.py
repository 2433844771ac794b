"""Whether runs of a task train faster as a stack or one by one, measured."""

import time

import torch

from lratlas.task import Task, make_model
from lratlas.training.program import Strategy, build
from lratlas.training.stacking import initial_tensors, samples
from lratlas.training.stacks import start_stack
from lratlas.training.trainer import train_stack

_SAMPLES = 32  # a step; what decides, overheads or convolutions, does not depend on it
_STEPS = 5
_WORK = 0.2  # seconds that a step of all runs one by one should take, so that small models are compared in large stacks
_FEWEST, _MOST = 2, 64  # runs
_GAIN = 0.8  # compiled, one run gains more than a stack where the two are about equal


def faster_strategy(task: Task, *, device: str, dtype: str) -> Strategy:
    """The strategy with which a few runs train faster; a model that cannot be stacked is trained one run at a time.

    A few steps are timed, without the compiler, which takes longer than it would save here, and on one thread, as
    training has.

    Args:
        task: What is trained.
        device: Where.
        dtype: Number format of the weights.
    """
    place, kind = torch.device(device), getattr(torch, dtype)
    alone = _seconds(task, "single", 1, place, kind)
    lanes = max(_FEWEST, min(_MOST, round(_WORK / alone)))
    try:
        stacked = _seconds(task, "stack", lanes, place, kind)
    except RuntimeError:  # an operation that vmap does not know, or too little memory
        return "single"
    return "stack" if stacked <= _GAIN * lanes * alone else "single"


def _seconds(task: Task, strategy: Strategy, lanes: int, device: torch.device, dtype: torch.dtype) -> float:
    """Seconds of a step, the fastest of a few."""
    model = make_model(task, 0)
    program = build(model, task.objective, task.update, compiled=False, strategy=strategy)
    weights, buffers, frozen = initial_tensors([task], [0], lanes, dtype=dtype, device=device)
    stack = start_stack(weights, buffers, task.update)
    train = samples([task], "train", frozen, dtype=dtype, device=device)
    batches = torch.arange(min(task.samples_per_step, _SAMPLES), device=device).expand(1, 1, -1)
    lrs = torch.full((1, lanes), 1e-6, dtype=dtype, device=device)
    times: list[float] = []
    with torch.random.fork_rng():
        for _ in range(_STEPS):
            began = time.perf_counter()
            trained = train_stack(program, stack, lrs=lrs, batches=batches, train=train)
            trained.stack.alive.tolist()  # waits for the device
            times.append(time.perf_counter() - began)
    return min(times)
