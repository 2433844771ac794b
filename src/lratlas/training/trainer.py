"""Train a stack: from initial weights, learning rates and batch indices to weights and traces."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lratlas.data.parts import leaves, rows
from lratlas.devices import widened
from lratlas.training.evaluate import evaluate_stack
from lratlas.training.memory import in_parts
from lratlas.training.program import SUMS, Batch, Program, allow_slow_batching
from lratlas.training.record import COLUMNS, Fitted, Row, SegmentState, empty_first_fit, join_fitted, part_of
from lratlas.training.sphere import Weights, norm
from lratlas.training.state import Samples, Stack, join_lanes, join_weights

_ACCURACY = 1  # its index in the sums
_GATHERED_BYTES = 2**25  # batches are gathered for many steps at once, up to this size


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The result of training: the stack, trace rows, weights at the requested steps, and first fits.

    If training stopped before its end, ``segment`` and the stack contain everything needed to resume.
    """

    stack: Stack
    rows: list[Row]
    snapshots: dict[int, Weights]
    fitted: Fitted | None = None
    segment: SegmentState | None = None


@allow_slow_batching()
@torch.no_grad()
def train_stack(
    program: Program,
    stack: Stack,
    *,
    lrs: Tensor,
    batches: Tensor,
    train: Samples,
    draws: Mapping[str, Tensor] | None = None,
    test: Samples | None = None,
    trace_every: int | None = None,
    snapshots: Iterable[int] = (),
    epoch: int | None = None,
    progress: Callable[[int], None] | None = None,
    segment: SegmentState | None = None,
    leave: Callable[[], bool] | None = None,
) -> Trained:
    """Train a stack for ``len(batches)`` steps.

    This is the lowest layer: all randomness is in its arguments, so that a run can be compared step by step with any
    other implementation.

    Args:
        program: The step (see `lratlas.training.program.build`).
        stack: The initial state.
        lrs: Learning rates, [seeds, lanes]; effective LRs for the rules on a sphere.
        batches: Indices into the training set, int64 [steps, seeds, batch].
        train: Training data.
        draws: Random draws for the augmentation of the training data, each [steps, seeds, batch, *].
        test: Test data, evaluated at every trace row; without it, test columns are NaN.
        trace_every: Steps between trace rows, counted from step 0 of the run; the last step also gets a row. None for
            no trace.
        snapshots: Steps after which to store a copy of the weights.
        epoch: Steps per epoch, to record the first epoch in which a run fits every sample (needs ``test``).
        progress: Called from time to time with the number of run-steps just done.
        segment: Partial results of training that was stopped, to resume with identical numbers.
        leave: Called before every step; returns whether to stop training there. A stack that was split for lack of
            memory trains to the end anyway.

    Returns:
        The stack after the last step, its trace rows and the snapshots.
    """
    count = stack.alive.shape[1]

    def train_lanes(lanes: slice) -> Trained:
        counted, whole = _Count(progress), lanes == slice(0, count)
        try:
            return _train(
                program,
                stack.part(lanes),
                lrs=lrs[:, lanes],
                batches=batches,
                train=train,
                draws=draws,
                test=test,
                trace_every=trace_every,
                snapshots=snapshots,
                epoch=epoch,
                progress=counted,
                segment=part_of(segment, lanes) if segment else None,
                leave=leave if leave and whole else _stay,
            )
        except RuntimeError:
            counted.take_back()
            raise

    return in_parts(train_lanes, count, _join_training)


def _stay() -> bool:
    return False


def _train(
    program: Program,
    stack: Stack,
    *,
    lrs: Tensor,
    batches: Tensor,
    train: Samples,
    draws: Mapping[str, Tensor] | None,
    test: Samples | None,
    trace_every: int | None,
    snapshots: Iterable[int],
    epoch: int | None,
    progress: Callable[[int], None],
    segment: SegmentState | None,
    leave: Callable[[], bool],
) -> Trained:
    first, end, wanted = stack.step, stack.step + len(batches), set(snapshots)
    stops = {end, *wanted, *_multiples(trace_every, first, end), *_multiples(epoch, first, end)}
    kept, nothing = dict[int, Weights](), torch.zeros((SUMS, *stack.alive.shape), dtype=lrs.dtype, device=lrs.device)
    fits = empty_first_fit(stack.alive.shape, epoch=epoch, batch_size=batches.shape[-1]) if epoch else None
    begun = SegmentState(rows=(), totals=widened(nothing), sums=nothing, row=first, stop=first, fits=fits)
    now = segment or begun
    rows, totals, sums, row, before, fits = [*now.rows], now.totals, now.sums, now.row, now.stop, now.fits
    for stop in sorted(step for step in stops if first < step <= end):
        part = slice(stack.step - first, stop - first)
        drawn = {name: value[part] for name, value in (draws or {}).items()}
        stack, sums = _advance(program, stack, sums, lrs, _gather_batches(train, batches[part], drawn), progress, leave)
        if stack.step < stop:
            now = SegmentState(rows=rows, totals=totals, sums=sums, row=row, stop=before, fits=fits)
            return Trained(stack=stack, rows=rows, snapshots=kept, segment=now)
        totals = totals + widened(sums)
        if stop in wanted:
            kept[stop] = stack.weights
        if fits and test:
            accuracy = partial(_test_accuracy, program, stack, test)
            fits = fits.extend(sums[_ACCURACY], steps=stop - before, step=stop, test_accuracy=accuracy)
        if trace_every and (stop % trace_every == 0 or stop == end):
            rows.append(_row(program, stack, totals / (stop - row), test))
            totals, row = torch.zeros_like(totals), stop
        sums, before = nothing, stop
    return Trained(stack=stack, rows=rows, snapshots=kept, fitted=fits.found if fits else None)


def _multiples(interval: int | None, first: int, end: int) -> range:
    return range(first - first % interval, end + 1, interval) if interval else range(0)


def _test_accuracy(program: Program, stack: Stack, test: Samples) -> Tensor:
    return evaluate_stack(program, stack.weights, stack.buffers, test).accuracy


def _advance(
    program: Program,
    stack: Stack,
    sums: Tensor,
    lrs: Tensor,
    parts: Iterable[tuple[Batch, ...]],
    progress: Callable[[int], None],
    leave: Callable[[], bool],
) -> tuple[Stack, Tensor]:
    """Do the steps of all ``parts``, or stop early if ``leave`` says so."""
    weights, buffers, state, alive = stack.weights, stack.buffers, stack.state, stack.alive
    step = stack.step
    for part in parts:
        steps = 0
        for batch in part:
            if leave():
                break
            with _checks(program, steps):
                weights, buffers, state, alive, sums = program.step(weights, buffers, state, alive, sums, lrs, batch)
            steps += 1
        step += steps
        progress(steps * alive.numel())
        if steps < len(part):
            break
    return Stack(weights=weights, buffers=buffers, state=state, alive=alive, step=step), sums


def _checks(program: Program, at: int) -> AbstractContextManager[object]:
    """Skip the guards of compiled code after the first step, since nothing that they check changes any more."""
    return torch.compiler.set_stance("default", skip_guard_eval_unsafe=at > 0) if program.compiled else nullcontext()


def _gather_batches(train: Samples, batches: Tensor, draws: Mapping[str, Tensor]) -> Iterator[tuple[Batch, ...]]:
    """The batches of consecutive steps, gathered for a limited number of steps at a time."""
    numbers = sum(part[0, 0].numel() for part in leaves(train.x))
    per_step = max(1, batches[0].numel() * numbers * train.shares.element_size())
    length = max(1, min(256, _GATHERED_BYTES // per_step))
    for first in range(0, len(batches), length):
        part = slice(first, first + length)
        xs, ys = train.take_samples(batches[part], {name: value[part] for name, value in draws.items()})
        yield tuple(
            Batch(x=rows(xs, at), y=rows(ys, at), shares=train.shares, frozen=train.frozen)
            for at in range(len(batches[part]))
        )


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
        weight_norm=widened(norm(program.rule.vector(stack.weights))),
    )


class _Count:
    """Reports progress, and subtracts the reports of a failed attempt."""

    def __init__(self, report: Callable[[int], None] | None) -> None:
        self._report, self._counted = report, 0

    def __call__(self, steps: int) -> None:
        self._counted += steps
        if self._report:
            self._report(steps)

    def take_back(self) -> None:
        if self._counted and self._report:
            self._report(-self._counted)


def _join_training(parts: Sequence[Trained]) -> Trained:
    stacks = [part.stack for part in parts]
    return Trained(
        stack=Stack(
            weights=join_weights([stack.weights for stack in stacks]),
            buffers=join_weights([stack.buffers for stack in stacks]),
            state=join_weights([stack.state for stack in stacks]),
            alive=join_lanes([stack.alive for stack in stacks]),
            step=stacks[0].step,
        ),
        rows=[
            Row(step=rows[0].step, **{name: join_lanes([getattr(row, name) for row in rows]) for name in COLUMNS})
            for rows in zip(*(part.rows for part in parts), strict=True)
        ],
        snapshots={step: join_weights([part.snapshots[step] for part in parts]) for step in parts[0].snapshots},
        fitted=join_fitted([part.fitted for part in parts if part.fitted]) if parts[0].fitted else None,
    )
