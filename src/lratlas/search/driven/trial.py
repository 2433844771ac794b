"""One training at one LR, followed through PyTorch's hooks and suspended at the end of a segment."""

import math
import sys
import weakref
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lratlas.errors import SearchError, first_line
from lratlas.files import open_unlinked
from lratlas.search.driven.outputs import Outputs
from lratlas.search.driven.printed import Heard, Printed
from lratlas.search.driven.steps import Steps
from lratlas.search.driven.suspend import Suspendable, claim_parameters
from lratlas.search.driven.untouched import importing, modules_among, modules_of, undo_changes, variables
from lratlas.search.driven.validation import Validation
from lratlas.search.driven.world import enter, world
from lratlas.search.evidence import STOPPED
from lratlas.search.segments import LAST_WEIGHTS, Segment, ends_low

ENDLESS = 1 << 62
"""Steps that no training reaches: the length of a training that runs to its end, whatever its losses."""
_IN_A_ROW = 2  # steps with losses that are not finite; a single one may be a step that a gradient scaler skips
_MORE = 16  # additional steps that a training which receives its length may take, up to twice that length
_SKIPPED = 10  # iterations in a row that a gradient scaler skips because their losses are not finite
_FETCH = 32  # steps between two checks of losses on an accelerator
_SHORT = (torch.float16, torch.bfloat16)  # types in which a running mean would not change


@dataclass(frozen=True, kw_only=True)
class Reached:
    """Result of a training at the end of a segment.

    Attributes:
        value: Validation metric of the weights; None if it was not measured.
        averaged: Validation metric of the averaged weights.
        losses: The training loss of each step of the segment.
        error: Reason of a failure; None on success.
    """

    value: float | None = None
    averaged: float | None = None
    losses: tuple[float, ...] = ()
    error: str | None = None


class Trial:
    """A training that runs in a separate thread, and waits at the end of a segment.

    Attributes:
        lr: LR of the training.
        step: Optimizer steps so far.
        optimizers: Follower of its optimizers.
        shareable: Whether other trainings can run while it waits.
        heard: Metrics in its output; None if the output is not read.
        thread: Thread of the training.
    """

    def __init__(
        self,
        body: Callable[[], object],
        *,
        lr: float,
        imposed: bool,
        full: int,
        validation: Validation | Printed | None,
        outputs: Outputs,
        output: Path,
        roots: Collection[Path] = (),
        heard: Heard | None = None,
        modules: Callable[[], list[nn.Module]] | None = None,
    ) -> None:
        self.lr, self.step, self.shareable = lr, 0, True
        self.optimizers = Steps()
        self.heard = Heard(sought=validation) if isinstance(validation, Printed) else heard
        self._imposed, self._full, self._validation, self._roots = imposed, full, validation, tuple(roots)
        self._thread, self._world = Suspendable(body), world(roots)
        self.thread = self._thread.thread
        self._outputs, self._output = outputs, output
        self._streams: tuple[TextIO, TextIO] | None = None
        self._segment: Segment | None = None
        self._reached = Reached()
        self._losses = list[Tensor]()
        self._backwards = 0  # backward passes in progress; they may be nested
        self._due = False  # whether to wait after the backward pass
        self._expected = False  # whether to wait once the metric is printed
        self._skipped = 0  # iterations in a row without a step and without a finite loss
        self._average: list[tuple[Tensor, Tensor]] | None = None
        self._count = 0
        self._measuring = False
        self._claimed = weakref.WeakSet[Optimizer]()  # optimizers whose parameters no other training has
        self._unfit: SearchError | None = None  # reason why it cannot be searched at any LR
        self._known = modules
        self._owners: tuple[frozenset[int], list[nn.Module]] = (frozenset(), [])  # by the ids of their parameters

    @property
    def over(self) -> bool:
        """Whether the training has ended."""
        return self._thread.over

    @property
    def late(self) -> int:
        """Steps that it may run beyond the end of a segment until its metric is printed."""
        return self._validation.late if isinstance(self._validation, Printed) else 0

    @property
    def error(self) -> BaseException | None:
        """The error that ended the training; None if there is none."""
        return self._thread.error

    @property
    def lost(self) -> bool:
        """Whether the last loss was not finite."""
        last = [*self._losses[-1:], *self.optimizers.pending]
        return not all(bool(each.isfinite()) for each in last)

    def run(self, segment: Segment) -> Reached:
        """Train to the end of a segment; earlier steps are trained too, but not reported."""
        self._segment, self._reached = segment, Reached()
        self._losses, self._average, self._count = [], None, 0
        with self._inside():
            self._thread.resume()
        if self._unfit:
            raise self._unfit
        if self._thread.over and self.heard and not self.error:
            self.heard.record_return(self._thread.returned, self.step)
        if self._thread.over and self._expected and not self.error:
            self._reached = self._measure_result(segment)
        elif self._thread.over and self._reached == Reached():
            self._reached = self._result_at_end(segment)
        return self._reached

    def _result_at_end(self, segment: Segment) -> Reached:
        """Result of a training that ended before the segment did.

        If it stopped by itself, such as by early stopping, its final metric counts: the metric printed after the last
        step or returned, or the losses. A value cannot be evaluated, because its variables are gone.
        """
        losses, error = self._segment_losses(), self.error
        if error:
            return Reached(losses=losses, error=f"{type(error).__name__}: {first_line(error)}")
        ended = f"the training {STOPPED} after {self.step:,} of {segment.stop:,} steps"
        if self.lost:
            return Reached(losses=losses, error=f"{ended}, when its loss was not finite")
        if self._validation is None and losses:
            return Reached(losses=losses)
        printed = isinstance(self._validation, Printed) and self.heard
        value = printed.last(after=self.step - 1) if printed else None
        return Reached(value=value, losses=losses, error=ended if value is None else None)

    def leave(self) -> None:
        """End the training inside its loop."""
        if not self.over:
            with self._inside():
                self._thread.leave()
        self.optimizers.clear()
        self._average, self._owners = None, (frozenset(), [])
        self._losses = []

    @contextmanager
    def _inside(self) -> Generator[None]:
        """In the block, the training's global state is active, and its output goes into its file."""
        ours = world(self._roots)
        try:
            self._output.parent.mkdir(parents=True, exist_ok=True)
            opened = cast("TextIO", open_unlinked(self._output, "a", encoding="utf-8", errors="backslashreplace"))
        except OSError as error:
            raise SearchError(
                f"{self._output}, which stores the training's output, cannot be written: {error}."
            ) from error
        with opened as file:
            enter(self._world, self._roots)
            try:
                with self._outputs.into(file, self._hear if self.heard else None):
                    if self._streams:
                        sys.stdout, sys.stderr = self._streams
                    try:
                        yield
                    finally:
                        self._streams = sys.stdout, sys.stderr  # such as streams that write to a file as well
            finally:
                self._world = world(self._roots)
                enter(ours, self._roots)

    def _hear(self, text: str) -> None:
        if self.heard:
            self.heard.hear(text, self.step)

    # Hooks call the following methods in the training's thread.

    def before_backward(self) -> None:
        """Count a backward pass that begins."""
        self._thread.check()
        self._arrive_if_printed()
        self._backwards += 1

    def after_backward(self, losses: Sequence[Tensor]) -> None:
        """Store the losses of a backward pass; empty if it failed."""
        self._backwards -= 1
        if not (self._measuring or self._backwards):
            self.optimizers.add(losses)
        if self._due and not self._backwards:
            self._due = False
            self._arrive()

    def before_step(self, optimizer: Optimizer) -> None:
        """Set the LRs of the step if the search requires it."""
        self._thread.check()
        if self._measuring:
            if any(optimizer is each for each in self.optimizers.live_optimizers()):
                raise SearchError("it steps the training's optimizer, but must only evaluate")
            return
        self._arrive_if_printed()
        assert self._segment is not None
        share = self._segment.share_at(min(self.step, self._segment.stop - 1))
        try:
            parameters = (each for group in optimizer.param_groups for each in group["params"])
            if optimizer not in self._claimed and claim_parameters(parameters, self.thread):  # raises if shared
                self._claimed.add(optimizer)
            self.optimizers.begin(optimizer, lr=self.lr if self._imposed else None, share=share)
        except SearchError as error:
            self._unfit = error
            raise

    def after_step(self, optimizer: Optimizer) -> None:
        """Count the step, and wait at the end of the segment."""
        if self._measuring or not self.optimizers.end(optimizer):
            return
        self.step += 1
        self._skipped = 0
        segment = self._segment
        assert segment is not None
        loss = self.optimizers.take_loss()
        if self.step > segment.start and loss is not None:
            self._losses.append(loss)
        if self.step > segment.average_from and isinstance(self._validation, Validation):
            self._add_to_average()
        diverged = self._has_diverged()
        if not diverged and 0 <= self.step - segment.stop <= self._patience(segment) and self._is_to_print(segment):
            self._expected = True
        elif diverged or self.step >= segment.stop:
            # Within a backward pass, the thread may be one of PyTorch's, which others need.
            self._due = bool(self._backwards)
            if not self._due:
                self._arrive()

    def after_scaling(self) -> None:
        """Drop losses that led to no step, after an iteration of a gradient scaler."""
        loss = self.optimizers.take_loss()
        if self._measuring or loss is None:
            return
        self._skipped = 0 if bool(loss.isfinite()) else self._skipped + 1
        if self._skipped >= _SKIPPED:
            self._skipped = 0
            self._losses.append(loss)
            self._reached = Reached(losses=self._segment_losses())
            self._thread.suspend()

    def _is_to_print(self, segment: Segment) -> bool:
        """Whether the metric is printed only after the last step of the segment."""
        printed = self._validation
        return isinstance(printed, Printed) and (not printed.every or self._printed_metric(segment) is None)

    def _patience(self, segment: Segment) -> int:
        """Steps beyond the end of a segment to wait for its metric; some trainings take one more."""
        printed = self._validation
        return segment.stop + _MORE if isinstance(printed, Printed) and not printed.every else self.late

    def _printed_metric(self, segment: Segment) -> float | None:
        """The last metric that was printed within the segment."""
        assert self.heard is not None
        every = self.heard.sought and self.heard.sought.every
        late = 0 if self.over else self.late
        return self.heard.last(after=segment.stop - every + late if every else 0)

    def _arrive_if_printed(self) -> None:
        """Wait before the next step if the metric has been printed."""
        if self._expected and not self._measuring and not self._backwards:
            assert self._segment is not None
            if not self._is_to_print(self._segment):
                self._arrive()

    def _arrive(self) -> None:
        """Report the result, and wait."""
        segment = self._segment
        assert segment is not None
        self._expected = False
        self._reached = (
            Reached(losses=self._segment_losses()) if self._has_diverged() else self._measure_result(segment)
        )
        self._average = None
        self.shareable = not importing()
        self._thread.suspend()

    def _has_diverged(self) -> bool:
        """Whether the last losses are not finite; an accelerator is only checked now and then."""
        last = self._losses[-_IN_A_ROW:]
        if len(last) < _IN_A_ROW or self._full == ENDLESS or (last[-1].device.type != "cpu" and self.step % _FETCH):
            return False
        return not bool(torch.stack(last).isfinite().any())

    def _segment_losses(self) -> tuple[float, ...]:
        """Losses of the segment; a single one that is not finite is replaced by the loss before it."""
        if not self._losses:
            return ()
        losses: list[float] = torch.stack(self._losses).tolist()
        for at in range(1, len(losses) - 1):
            if not math.isfinite(losses[at]) and math.isfinite(losses[at + 1]):
                losses[at] = losses[at - 1]
        return tuple(losses)

    def _add_to_average(self) -> None:
        """Update the running means of the parameters, and of buffers such as batch-norm statistics."""
        with torch.no_grad():
            if self._average is None:
                whole = {id(each): each for each in self.optimizers.parameters()}
                for module in self._modules():
                    whole |= {id(each): each for each in module.buffers() if each.is_floating_point()}
                self._average = [(each, _long(each.detach()).clone()) for each in whole.values()]
                self._count = 1
                return
            self._count += 1
            for now, mean in self._average:
                value = _long(now.detach())
                # Unchanged values need no update: masks may contain infinities.
                mean.add_(torch.where(value == mean, 0, value - mean) / self._count)

    def _modules(self) -> list[nn.Module]:
        """Modules with the trained parameters; searched again after these change."""
        if self._known is not None:
            return self._known()
        parameters = self.optimizers.parameters()
        if (key := frozenset(map(id, parameters))) != self._owners[0]:
            self._owners = (key, modules_of(parameters))
        return self._owners[1]

    def _measure_result(self, segment: Segment) -> Reached:
        losses = self._segment_losses()
        if self._validation is None:
            return Reached(losses=losses)
        if isinstance(self._validation, Printed):
            value, name = self._printed_metric(segment), self._validation.name
            end = f"the end of its {segment.stop:,} steps" if self.over else f"its step {self.step:,}"
            missing = f"it printed no {name} by {end}" if value is None else None
            return Reached(value=value, losses=losses, error=missing)
        names = variables()
        modules = [*{id(each): each for each in (*self._modules(), *modules_among(names))}.values()]
        self._measuring = True
        try:
            late = segment.stop >= LAST_WEIGHTS * self._full
            alone = self._count <= 1 or ends_low(segment)
            value = self._metric(names, modules) if late or alone else None
            averaged = None if ends_low(segment) else value
            if not alone:
                averaged = self._metric(names, modules, self._average or ())
        except SearchError as error:
            return Reached(losses=losses, error=str(error))
        finally:
            self._measuring = False
        return Reached(value=value, averaged=averaged, losses=losses)

    def _metric(
        self,
        names: Mapping[str, Any],
        modules: Collection[nn.Module],
        average: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> float:
        """Validation metric, with averages instead of the weights if given."""
        assert isinstance(self._validation, Validation)
        own = self.optimizers.live_optimizers(), self.optimizers.parameters()
        with undo_changes(*own, modules, names, self._roots), self._outputs.record() as printed:
            for each, mean in average:
                each.data.copy_(mean)
            return self._validation(names, printed)


def _long(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _SHORT else tensor
