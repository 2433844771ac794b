"""Training a stack: from initial weights, learning rates and batch indices to weights and traces."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lratlas.training.program import SUMS, Batch, Program
from lratlas.training.rules import Rule, State
from lratlas.training.sphere import Weights, norm

EVALUATED_AT_ONCE = 64  # samples; activations of a whole stack then stay near the cache
_GATHERED_BYTES = 2**25  # batches are gathered for many steps at once, up to this size


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Data sets of a stack.

    Attributes:
        x: Inputs of each data set, [data sets, n, ...].
        y: Targets, [data sets, n, ...].
        which: Data set of each seed, int64 [seeds].
        shares: Share of each class in each seed's training labels, [seeds, C].
        frozen: Each seed's parameters that are not trained, [seeds, *parameter].
    """

    x: Tensor
    y: Tensor
    which: Tensor
    shares: Tensor
    frozen: Weights


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The state of a stack between two steps; the leading axes of every tensor are [seeds, lanes].

    Attributes:
        weights: Trained parameters.
        buffers: The model's buffers, such as batch-norm statistics.
        state: The update rule's state.
        alive: False for runs whose loss or gradient was once not finite; they are not trained on.
        step: Steps done.
    """

    weights: Weights
    buffers: Weights
    state: State
    alive: Tensor
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trace row of a whole stack; tensors are float64 [seeds, lanes].

    Training columns are means over the mini-batches since the last row, test columns are of the whole test set.
    """

    step: int
    train_loss: Tensor
    train_accuracy: Tensor
    chance_accuracy: Tensor
    gradient_norm: Tensor
    test_loss: Tensor
    test_accuracy: Tensor
    weight_norm: Tensor


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training returns: the stack at the end, trace rows, and weights at the steps asked for."""

    stack: Stack
    rows: list[Row]
    snapshots: dict[int, Weights]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Mean loss and accuracies of a whole data set, float64 [seeds, lanes]."""

    loss: Tensor
    accuracy: Tensor
    chance_accuracy: Tensor


def start_stack(weights: Weights, buffers: Weights, rule: Rule) -> Stack:
    """A stack before its first step, all runs alive."""
    lead = next(iter(weights.values()))
    alive = torch.ones(lead.shape[:2], dtype=torch.bool, device=lead.device)
    return Stack(weights=weights, buffers=buffers, state=rule.start(weights), alive=alive)


@torch.no_grad()
def train_stack(
    program: Program,
    stack: Stack,
    *,
    lrs: Tensor,
    batches: Tensor,
    train: Samples,
    test: Samples | None = None,
    trace_every: int | None = None,
    snapshots: Iterable[int] = (),
    progress: Callable[[int], None] | None = None,
) -> Trained:
    """Train a stack for ``len(batches)`` steps.

    This is the lowest layer: everything random is in its arguments, so that a run can be compared step by step
    with any other implementation.

    Args:
        program: The step (see `lratlas.training.program.build`).
        stack: Where to start.
        lrs: Learning rates, [seeds, lanes]; effective ones for the rules on a sphere.
        batches: Indices into the training set, int64 [steps, seeds, batch].
        train: Training data.
        test: Test data, evaluated at every trace row; test columns are NaN without it.
        trace_every: Steps between trace rows, counted from step 0 of the run; a last row stands at the end.
            None for no trace.
        snapshots: Steps after which a copy of the weights is kept.
        progress: Called with the number of steps just done, now and then.

    Returns:
        The stack after the last step, its trace rows and the snapshots.
    """
    first, end, wanted = stack.step, stack.step + len(batches), set(snapshots)
    stops = {end, *wanted, *(range(first - first % trace_every, end, trace_every) if trace_every else ())}
    kept, rows = dict[int, Weights](), list[Row]()
    zeros = torch.zeros((SUMS, *stack.alive.shape), dtype=lrs.dtype, device=lrs.device)
    sums, since = zeros, first
    for stop in sorted(step for step in stops if first < step <= end):
        part = batches[stack.step - first : stop - first]
        stack, sums = _advance(program, stack, sums, lrs, part, train, progress)
        if stop in wanted:
            kept[stop] = stack.weights
        if trace_every and (stop % trace_every == 0 or stop == end):
            rows.append(_row(program, stack, sums.double() / (stop - since), test))
            sums, since = zeros, stop
    return Trained(stack=stack, rows=rows, snapshots=kept)


@torch.no_grad()
def evaluate_stack(program: Program, weights: Weights, buffers: Weights, samples: Samples) -> Scores:
    """Loss and accuracies over all samples, in eval mode, each sample counted once; sums are in float64."""
    n, size = samples.x.shape[1], min(EVALUATED_AT_ONCE, samples.x.shape[1])
    total: Tensor | None = None
    for first in range(0, n, size):
        # The last chunk is filled up with the last sample, not counted, so that one program serves all chunks.
        at = torch.arange(first, first + size, device=samples.x.device)
        counted, at = (at < n).to(samples.shares), at.clamp(max=n - 1)
        x, y = samples.x[samples.which[:, None], at], samples.y[samples.which[:, None], at]
        batch = Batch(x=x, y=y, shares=samples.shares, frozen=samples.frozen)
        part = program.evaluate(weights, buffers, batch, counted).double()
        total = part if total is None else total + part
    assert total is not None
    loss, accuracy, chance = total / n
    return Scores(loss=loss, accuracy=accuracy, chance_accuracy=chance)


def _advance(
    program: Program,
    stack: Stack,
    sums: Tensor,
    lrs: Tensor,
    batches: Tensor,
    train: Samples,
    progress: Callable[[int], None] | None,
) -> tuple[Stack, Tensor]:
    """Do the steps of ``batches`` [steps, seeds, batch] without a stop."""
    weights, buffers, state, alive = stack.weights, stack.buffers, stack.state, stack.alive
    for x, y in _gathered(train, batches):
        for at in range(len(x)):
            # After the first step nothing that the compiled code depends on changes: its checks are left out.
            with torch.compiler.set_stance("default", skip_guard_eval_unsafe=at > 0):
                batch = Batch(x=x[at], y=y[at], shares=train.shares, frozen=train.frozen)
                weights, buffers, state, alive, sums = program.step(weights, buffers, state, alive, sums, lrs, batch)
        if progress:
            progress(len(x))
    step = stack.step + len(batches)
    return Stack(weights=weights, buffers=buffers, state=state, alive=alive, step=step), sums


def _gathered(train: Samples, batches: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """Inputs and targets of consecutive steps, [steps, seeds, batch, ...], a bounded number of steps at a time."""
    per_step = max(1, batches[0].numel() * train.x[0, 0].numel() * train.x.element_size())
    for part in batches.split(max(1, min(256, _GATHERED_BYTES // per_step))):
        which = train.which[:, None]
        yield train.x[which, part], train.y[which, part]


def _row(program: Program, stack: Stack, means: Tensor, test: Samples | None) -> Row:
    loss, accuracy, chance, gradient = means
    missing = torch.full_like(loss, torch.nan)
    scores = evaluate_stack(program, stack.weights, stack.buffers, test) if test else None
    return Row(
        step=stack.step,
        train_loss=loss,
        train_accuracy=accuracy,
        chance_accuracy=chance,
        gradient_norm=gradient,
        test_loss=scores.loss if scores else missing,
        test_accuracy=scores.accuracy if scores else missing,
        weight_norm=norm(stack.weights).double(),
    )
