"""A run of a problem: trained on, put back, annealed and evaluated, with means of its weights along the way."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import update_bn

from benchmarks.advice.problem import Pair, Problem, batches, chance, shown

_NORM_EVERY = 4  # steps; a gradient norm costs a tenth of a step of the smallest models
_STATISTICS = 1024  # training samples that batch-norm statistics are recomputed on, at most
_CHUNK = 250  # samples evaluated at a time; what the convolutions make of them fits the cache


@dataclass(frozen=True, kw_only=True)
class Average:
    """The sum of some checkpoints' weights, float64, and how many they are."""

    count: int = 0
    total: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def mean(self) -> dict[str, Tensor]:
        """The mean of the weights, float32."""
        return {name: (value / self.count).float() for name, value in self.total.items()}


@dataclass(kw_only=True)
class Run:
    """A training under way.

    Attributes:
        problem: What is trained.
        seed: Of weights and batches.
        lr: The constant LR, before warm-up.
        model: The model, in train mode between calls.
        optimizer: Its optimizer.
        step: Steps done.
        average: Checkpoints added up so far; a caller may put a fresh one in its place.
        diverged: Whether a loss was NaN or Inf; such a run takes no more steps.
        seconds: Processor time of its steps.
    """

    problem: Problem
    seed: int
    lr: float
    model: nn.Module
    optimizer: Optimizer
    step: int = 0
    average: Average = field(default_factory=Average)
    diverged: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Of each step done: the training loss, and the norm of the gradient, NaN where it was not measured."""

    losses: NDArray[np.float64]
    gradient_norms: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The metric on the two held-out sets; chance level, and ``diverged``, where outputs or weights are not finite."""

    validation: float
    test: float
    diverged: bool


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that a run needs to continue from where it was."""

    model: dict[str, Tensor]
    optimizer: dict[str, object]
    step: int
    average: Average
    diverged: bool
    seconds: float


def start(problem: Problem, *, seed: int, lr: float) -> Run:
    """A run before its first step."""
    model = problem.make_model(seed).train()
    trained = [value for value in model.parameters() if value.requires_grad]
    return Run(problem=problem, seed=seed, lr=lr, model=model, optimizer=problem.make_optimizer(trained, lr))


def advance(run: Run, steps: int, *, lr_at: Callable[[int], float] | None = None, every: int = 0) -> Trace:
    """Train on, until the first loss that is not finite.

    Args:
        run: The run, changed in place.
        steps: How many steps.
        lr_at: The LR of a step, counted from the run's beginning; None for the constant one with the warm-up.
        every: Add a checkpoint to the run's average each time this many steps are done; 0 for never.
    """
    losses, norms = list[float](), list[float]()
    began = time.process_time()
    if not run.diverged:
        for x, y in batches(run.problem, seed=run.seed, start=run.step, stop=run.step + steps):
            lr = lr_at(run.step) if lr_at else run.lr * run.problem.lr_factor(run.step)
            for group in run.optimizer.param_groups:
                group["lr"] = lr
            run.optimizer.zero_grad()
            loss = run.problem.losses(run.model(x), y).mean()
            loss.backward()
            losses.append(float(loss.detach()))
            norms.append(_gradient_norm(run.model) if run.step % _NORM_EVERY == 0 else math.nan)
            if not math.isfinite(losses[-1]):
                run.diverged = True
                break
            run.optimizer.step()
            run.step += 1
            if every and run.step % every == 0:
                run.average = _added(run.average, run.model)
    run.seconds += time.process_time() - began
    return Trace(losses=np.array(losses), gradient_norms=np.array(norms))


def anneal(run: Run, steps: int) -> Trace:
    """Train on with an LR that goes linearly from the constant one to zero, in place."""
    first = run.step
    return advance(run, steps, lr_at=lambda step: run.lr * run.problem.lr_factor(step) * (1 - (step - first) / steps))


def snapshot(run: Run) -> Snapshot:
    """A copy of the run's state, which further training does not change."""
    return Snapshot(
        model=copy.deepcopy(run.model.state_dict()),
        optimizer=copy.deepcopy(run.optimizer.state_dict()),
        step=run.step,
        average=run.average,
        diverged=run.diverged,
        seconds=run.seconds,
    )


def restore(run: Run, kept: Snapshot) -> None:
    """Put a run back, in place; the snapshot can be used again."""
    run.model.load_state_dict(kept.model)
    run.optimizer.load_state_dict(copy.deepcopy(kept.optimizer))
    run.step, run.average, run.diverged, run.seconds = kept.step, kept.average, kept.diverged, kept.seconds


def merged(*parts: Average) -> Average:
    """All checkpoints of several averages."""
    filled = [part for part in parts if part.count]
    names = filled[0].total if filled else {}
    total = {name: torch.stack([part.total[name] for part in filled]).sum(0) for name in names}
    return Average(count=sum(part.count for part in filled), total=total)


def evaluate(run: Run) -> Quality:
    """The quality of the run's weights as they are."""
    return _hopeless(run.problem) if run.diverged else _quality(run.problem, run.model)


def evaluate_average(run: Run, average: Average) -> Quality:
    """The quality of averaged weights; batch-norm statistics are recomputed on training data as they are."""
    if run.diverged or not average.count:
        return _hopeless(run.problem)
    model = copy.deepcopy(run.model)
    model.load_state_dict(average.mean(), strict=False)
    inputs = run.problem.split.train[0][:_STATISTICS]
    update_bn(_equal_batches(run.problem, inputs), model)
    return _quality(run.problem, model)


def _added(average: Average, model: nn.Module) -> Average:
    weights = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    if not average.count:
        return Average(count=1, total={name: value.double() for name, value in weights.items()})
    return Average(
        count=average.count + 1, total={name: average.total[name] + value for name, value in weights.items()}
    )


@torch.no_grad()
def _gradient_norm(model: nn.Module) -> float:
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    return float(nn.utils.get_total_norm(gradients))


def _equal_batches(problem: Problem, inputs: Tensor) -> Iterator[Tensor]:
    """Batches of the training size; a smaller last one is left out, for all count alike."""
    size = min(problem.batch_size, len(inputs))
    for chunk in inputs[: len(inputs) // size * size].split(size):
        yield shown(problem, chunk)


def _hopeless(problem: Problem) -> Quality:
    return Quality(
        validation=chance(problem, problem.split.validation), test=chance(problem, problem.split.test), diverged=True
    )


@torch.no_grad()
def _quality(problem: Problem, model: nn.Module) -> Quality:
    mode = model.training
    model.eval()
    validation, test = (_metric(problem, model, pair) for pair in (problem.split.validation, problem.split.test))
    model.train(mode)
    if not (math.isfinite(validation) and math.isfinite(test)):
        return _hopeless(problem)
    return Quality(validation=validation, test=test, diverged=False)


def _metric(problem: Problem, model: nn.Module, pair: Pair) -> float:
    """The metric on one set; NaN where an output is not finite."""
    total = 0.0
    for x, y in zip(pair[0].split(_CHUNK), pair[1].split(_CHUNK), strict=True):
        outputs = model(shown(problem, x))
        if not outputs.isfinite().all():
            return math.nan
        accuracy = problem.metric == "accuracy"
        each = 100 * (outputs.argmax(-1) == y).double() if accuracy else problem.losses(outputs, y).double()
        total += float(each.sum())
    return total / len(pair[0])
