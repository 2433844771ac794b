"""`find` for an unmodified training function: suspends and continues the training of each LR."""

import gc
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import psutil
import torch
from torch import nn

from lratlas.errors import SearchError
from lratlas.rng import seed_generators
from lratlas.search.advice import Advice
from lratlas.search.driven.outputs import Outputs
from lratlas.search.driven.printed import Heard, Printed
from lratlas.search.driven.steps import follow_steps
from lratlas.search.driven.trial import Reached, Trial
from lratlas.search.driven.validation import Validation
from lratlas.search.driven.world import ENVIRONMENT, several_trainings
from lratlas.search.evidence import STOPPED
from lratlas.search.finder import Finder
from lratlas.search.segments import Segment, SegmentResult, block_losses, mean_of_last_fifth
from lratlas.search.wording import LESS_MEMORY, UNMEASURED, describe_stopped
from lratlas.training.memory import is_out_of_memory

OUTPUT = "output"
"""Folder for the output of trainings, within the search folder."""
SCHEDULE = f"{OUTPUT}/schedule.txt"
"""This file exists if the training code has an LR schedule."""
_ROOM = 0.5  # share of the memory that waiting trainings may fill, together with the rest of the process
_COMPARED = 3  # number of the segment that is trained a second time
_ALIKE = 3  # failures of the first segments after which the search stops
NOT_SEEN = (
    "No PyTorch optimizer step was seen: the training uses another framework, runs in other processes, or its"
    " optimizer is not a torch.optim.Optimizer. Use lratlas.Finder in its loop, or lratlas find --command."
)


@dataclass(frozen=True, kw_only=True)
class Driven:
    """A training and its settings.

    Attributes:
        start: Called with a segment and the epochs to its end; trains at the segment's LR and seed until the training
            ends by itself. If ``shrinks``, this is at the segment's last step.
        imposed: Whether to scale the LRs of the optimizers so that the first one is that of the search, because the
            training does not receive it.
        validation: The metric; None for the training loss.
        roots: Folders whose modules each training imports again.
        shrinks: Whether the training receives its length in steps or epochs, so that each comparison is a whole
            training with its schedule; None if it receives neither.
        unit: Steps of an epoch, if the training receives epochs.
        origin: Description of the training, such as the script and its arguments.
        digest: Digest of the code; empty if it is unknown.
        alone: Returns the losses of a segment trained alone in another process; None to train it again in this process.
        modules: Called in the training's thread; returns its modules. None to search for them.
    """

    start: Callable[[Segment, int], object]
    imposed: bool
    validation: Validation | Printed | None = None
    roots: Collection[Path] = ()
    shrinks: Literal["steps", "epochs"] | None = None
    unit: int | None = None
    origin: str = ""
    digest: str = ""
    alone: Callable[[Segment, int, float, Path], Sequence[float]] | None = None
    modules: Callable[[], list[nn.Module]] | None = None

    def epochs(self, segment: Segment) -> int:
        """Epochs to the end of a segment, if the training receives epochs."""
        return segment.stop // (self.unit or 1)


@dataclass(kw_only=True)
class _Pool:
    """The waiting trainings; the most recent one is last."""

    driven: Driven
    finder: Finder
    outputs: Outputs
    waiting: dict[tuple[float, int], Trial] = field(default_factory=dict)
    running: Trial | None = None
    made: dict[float, float] = field(default_factory=dict)  # by LR, the LR that the training gave its optimizer
    moved: bool = False
    furthest: int = 0  # most steps after which a training had not ended
    ended: list[int] = field(default_factory=list)  # steps at which trainings ended by themselves
    stopped: dict[float, str] = field(default_factory=dict)  # by LR, the description of measured ones that ended early

    def train(self, segment: Segment) -> Reached:
        """Train a segment: continue the training that waits at its start, or start a new one that catches up.

        Raises:
            SearchError: Memory is too small for one training, or the full training is shorter than stated.
        """
        trial, reached = self._train_trial(segment)
        if is_out_of_memory(trial.error) and len(self.waiting) > 1:
            self.end()  # waiting trainings have taken the memory
            _free()
            trial, reached = self._train_trial(segment)
        if is_out_of_memory(trial.error):
            raise SearchError(
                f"The training at LR {segment.lr:.3g} ran out of memory, although no other training was in"
                f" memory: {str(reached.error).rstrip('.')}. {LESS_MEMORY}"
            )
        own = trial.optimizers
        self.moved = self.moved or own.moved or (not self.made and own.has_scheduler)
        if own.base is not None:
            self.made[segment.lr] = own.base
        self.furthest = max(self.furthest, trial.step - trial.over)
        if trial.over and trial.error is None and not trial.lost and trial.step < segment.stop:
            self._stop_at_end(trial.step)
            if reached.error is None:
                self.stopped[segment.lr] = f"after {trial.step:,} of {segment.stop:,} steps"
        if not trial.shareable:
            self.leave(self.waiting.pop((segment.lr, segment.seed)))
        return reached

    def _train_trial(self, segment: Segment) -> tuple[Trial, Reached]:
        trial = self.waiting.pop((segment.lr, segment.seed), None)
        if trial is not None and (
            trial.over or not 0 <= trial.step - segment.start <= trial.late or not segment.parent
        ):
            self.leave(trial)
            trial = None
        trial = trial or self._begin_trial(segment)
        self.waiting[segment.lr, segment.seed] = trial  # stored first, so that any interruption ends it
        self.running = trial
        try:
            return trial, trial.run(segment)
        finally:
            self.running = None

    def leave(self, trial: Trial) -> None:
        """End a training; follow its steps until then, because code that catches everything would continue to train."""
        self.running = trial
        try:
            trial.leave()
        finally:
            self.running = None

    def _stop_at_end(self, steps: int) -> None:
        """Stop if the training is shorter than stated: two trainings end at the same step, and none continues.

        Raises:
            SearchError: The training is shorter, or PyTorch trained nothing.
        """
        if steps == 0:
            raise SearchError(NOT_SEEN)
        if steps in self.ended and self.driven.shrinks:
            raise SearchError(
                f"The training took {steps:,} steps twice, although two different lengths were requested: its"
                f" argument {self.driven.shrinks} must set how long it trains."
            )
        if steps in self.ended and self.furthest < steps:
            raise SearchError(
                f"The training ends by itself after {steps:,} steps, but a full training should have"
                f" {self.finder.search.steps:,}: set steps={steps} (--steps {steps}) and use another folder."
            )
        self.ended.append(steps)

    def clear(self, needed: Collection[str], at: Mapping[tuple[float, int], str]) -> None:
        """End the trainings that are no longer needed, and those that do not fit into memory."""
        for key, trial in list(self.waiting.items()):
            if trial.over or at.get(key) not in needed:
                self.leave(self.waiting.pop(key))
        while len(self.waiting) > 1 and _full():
            # First the one that is cheapest to train again.
            key = min(self.waiting, key=lambda each: self.waiting[each].step)
            self.leave(self.waiting.pop(key))
            _free()

    def once_more(self, segment: Segment, seconds: float) -> Sequence[float]:
        """Train the first segment of a training again, in a separate process if possible; return its losses.

        Raises:
            SearchError: The segment cannot be trained.
        """
        output = self.finder.folder / OUTPUT / "once-more.txt"
        if self.driven.alone:
            return self.driven.alone(segment, self.driven.epochs(segment), seconds, output)
        driven, full = replace(self.driven, validation=None), self.finder.search.steps
        trial = begin_trial(driven, segment, full=full, outputs=self.outputs, output=output)
        self.running = trial
        try:
            return trial.run(segment).losses
        finally:
            self.leave(trial)

    def end(self) -> None:
        """End all trainings."""
        while self.waiting:
            self.leave(self.waiting.popitem()[1])

    def _begin_trial(self, segment: Segment) -> Trial:
        finder = self.finder
        output = finder.folder / OUTPUT / f"{segment.name.rpartition('-to')[0]}.txt"
        return begin_trial(self.driven, segment, full=finder.search.steps, outputs=self.outputs, output=output)


def begin_trial(
    driven: Driven, segment: Segment, *, full: int, outputs: Outputs, output: Path, heard: Heard | None = None
) -> Trial:
    """Make a training that waits before its first line.

    Args:
        driven: The training.
        segment: The first segment.
        full: Steps of a full training.
        outputs: The replacements of the standard streams.
        output: File for the output of the training.
        heard: Receives the output; None to make it from the metric.
    """
    device = torch.get_default_device()

    def body() -> object:
        if device.type != "cpu":  # each thread has a current device
            torch.set_default_device(device)
        with seed_generators(segment.seed):
            for name, value in ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            if torch.cuda.is_available():  # also if CUDA is not initialized yet
                torch.cuda.manual_seed_all(segment.seed)
            return driven.start(segment, driven.epochs(segment))

    return Trial(
        body,
        lr=segment.lr,
        imposed=driven.imposed,
        full=full,
        validation=driven.validation,
        outputs=outputs,
        output=output,
        roots=driven.roots,
        heard=heard,
        modules=driven.modules,
    )


def drive(driven: Driven, finder: Finder, *, progress: Callable[[Finder], None] = lambda _: None) -> Advice:
    """Search for the initial LR of a training; resumes the search in the finder's folder.

    One training runs at a time. If the process was interrupted, its trainings start again from the beginning.

    Args:
        driven: The training.
        finder: The search. It does not anneal, because a loop cannot go back.
        progress: Called after each segment.

    Raises:
        SearchError: The first segments fail alike, or no LR could be trained.
    """
    outputs, unsown, odd, began = Outputs(), False, "", len(finder.results)
    failures = list[tuple[Segment, Reached]]()
    pool = _Pool(driven=driven, finder=finder, outputs=outputs)
    with follow_steps(lambda: pool.running), several_trainings():
        try:
            while segment := finder.ask():
                reached = pool.train(segment)
                if _repeats(finder.results, segment, reached):
                    unsown = True
                    break
                if not finder.results and _has_failed(reached):
                    # Not recorded yet: if all fail, the user fixes a mistake, and these LRs then count again.
                    failures.append((segment, reached))
                    _stop_if_hopeless(finder, failures)
                    continue
                for told in (*failures, (segment, reached)):
                    _tell(finder, *told, by_loss=driven.validation is None)
                failures.clear()
                progress(finder)
                ends = {(each.segment.lr, each.segment.seed): each.segment.name for each in finder.results}
                pool.clear(finder.needed(), ends)
                if len(finder.results) == began + _COMPARED and reached.losses and not segment.start:
                    odd = _odd(pool, segment, reached.losses)
        finally:
            pool.end()
            finder.release()
    return _with_warnings(finder.advice(), pool, unsown=unsown, odd=odd)


def _tell(finder: Finder, segment: Segment, reached: Reached, *, by_loss: bool) -> None:
    if reached.error is not None:
        finder.fail(segment, reached.error, losses=reached.losses)
        return
    if by_loss and not reached.losses:
        raise SearchError("No loss was seen, because no backward() started from a scalar: set value (--value).")
    value = mean_of_last_fifth(reached.losses) if by_loss else reached.value
    finder.tell(segment, value=value, averaged=reached.averaged, losses=reached.losses)


def _has_failed(reached: Reached) -> bool:
    """Whether a segment failed for a reason other than divergence."""
    return reached.error is not None and "not finite" not in reached.error and all(map(math.isfinite, reached.losses))


def _stop_if_hopeless(finder: Finder, failures: Sequence[tuple[Segment, Reached]]) -> None:
    """Stop if the first segments all failed."""
    if len(failures) == min(_ALIKE, len(finder.search.lrs)):
        count = f"{len(failures)} trainings" if len(failures) > 1 else "training"
        reason = str(failures[-1][1].error).rstrip(".")
        if STOPPED in reason:
            raise SearchError(f"The first {count} could not be evaluated. The last error: {reason}{UNMEASURED}")
        raise SearchError(
            f"The first {count} failed. The last error: {reason}. Fix the training and rerun; no result was recorded."
        )


def _repeats(results: Collection[SegmentResult], segment: Segment, reached: Reached) -> bool:
    """Whether another seed gave identical losses."""
    losses = block_losses(reached.losses)
    return bool(losses) and any(
        each.losses == losses
        for each in results
        if each.segment.lr == segment.lr and each.segment.stop == segment.stop and each.segment.seed != segment.seed
    )


def _odd(pool: _Pool, segment: Segment, losses: Sequence[float]) -> str:
    """Warning if a second training of a segment gave different losses; empty if they are equal."""
    try:
        again = pool.once_more(segment, pool.finder.results[-1].seconds)
    except SearchError as error:
        return f"Could not check that the search leaves the training unchanged: {error}."
    pairs = list(zip(losses, again, strict=False))
    at = next((at for at, (one, other) in enumerate(pairs) if one != other and math.isfinite(one + other)), None)
    if at is None:
        return ""
    largest = max(abs(one - other) / max(abs(one), 1e-9) for one, other in pairs if math.isfinite(one + other))
    alone = "by itself" if pool.driven.alone else "again"
    return (
        f"When it runs {alone}, the training at LR {segment.lr:.3g} has different losses from step {at + 1:,} on, with"
        f" relative differences up to {largest:.1g}: it uses random numbers that its seed does not control, which"
        " adds noise to the comparison of LRs."
    )


def _with_warnings(advice: Advice, pool: _Pool, *, unsown: bool, odd: str) -> Advice:
    said = [odd] if odd else []
    if pool.stopped:
        said.append(f"{describe_stopped(pool.stopped)}, and its final metric counts.")
    if not pool.driven.imposed and len(pool.made) > 1 and len(set(pool.made.values())) == 1:
        (only,) = set(pool.made.values())
        said.append(
            f"The training sets its optimizer's LR to {only:.3g}, no matter which LR it gets: pass the LR to the"
            " optimizer."
        )
    schedule = pool.finder.folder / SCHEDULE
    if pool.moved:
        schedule.touch()  # a resumed search may not see it again
    if schedule.exists() and not pool.driven.shrinks:
        advice = replace(advice, finish="schedule")
        said.append(
            "The training changes its LR over time, and LRs were compared only in its first part. To fit its"
            " schedule to each comparison, let the training take its length: {steps} or {epochs} in a script,"
            " steps or epochs in a function."
        )
    if unsown:
        said.append(
            "The training sets its own seed, so repetitions would be identical: the search ended without them."
            " Pass it the seed of the search."
        )
    return replace(advice, warnings=(*advice.warnings, *said), checkpoint=None)


def _full() -> bool:
    """Whether the process, or a device, has less free memory than other trainings should have."""
    if torch.cuda.is_initialized():
        free, total = torch.cuda.mem_get_info()
        if free < (1 - _ROOM) * total:
            return True
    return psutil.Process().memory_info().rss > _ROOM * _memory()


def _memory() -> int:
    """Memory in bytes of this machine, or of its container."""
    found = psutil.virtual_memory().total
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        with suppress(OSError, ValueError):  # no such limit
            found = min(found, int(limit.read_text(encoding="utf-8")))
    return found


def _free() -> None:
    """Free the memory of dropped trainings."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
