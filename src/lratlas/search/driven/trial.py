"""One training at one LR, followed through PyTorch's hooks and suspended where a segment ends."""

import gc
import inspect
import math
import os
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lratlas.errors import SearchError
from lratlas.search.driven.validation import Validation
from lratlas.search.driven.world import Outputs, Suspendable, enter, world
from lratlas.search.segments import Segment

_LAST_WEIGHTS = 1 / 8  # from this share of a full training on the last weights are evaluated as well as their average
_IN_A_ROW = 2  # steps whose losses are not finite: one alone may be a step that a gradient scaler skips
_FETCH = 32  # steps between two looks at losses on an accelerator
_LIBRARIES = ("site-packages", "dist-packages", str(Path(torch.__file__).parents[1]), str(Path(__file__).parents[2]))
_STANDARD = str(Path(os.__file__).parent)


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What a training came to at the end of a segment.

    Attributes:
        value: The validation metric of the weights; None where it was not measured.
        averaged: That of the averaged weights.
        losses: The training loss of each step of the segment.
        error: Why there is nothing; None where all went well.
    """

    value: float | None = None
    averaged: float | None = None
    losses: tuple[float, ...] = ()
    error: str | None = None


class Trial:
    """A training that runs in a thread of its own, and waits where a segment ends.

    Attributes:
        lr: Its LR.
        step: Optimizer steps that it has taken.
    """

    def __init__(
        self,
        body: Callable[[], object],
        *,
        lr: float,
        imposed: bool,
        full: int,
        validation: Validation | None,
        outputs: Outputs,
        output: Path,
        roots: Collection[Path] = (),
    ) -> None:
        self.lr, self.step = lr, 0
        self._imposed, self._full, self._validation, self._roots = imposed, full, validation, tuple(roots)
        self._thread, self._world = Suspendable(body), world(roots)
        self._outputs, self._output = outputs, output
        self._segment: Segment | None = None
        self._reached = Reached()
        self._losses, self._pending = list[Tensor](), list[Tensor]()
        self._optimizers = dict[int, Optimizer]()
        self._leader: Optimizer | None = None
        self._since = 0  # steps of another optimizer since the leader's last one
        self._other: Optimizer | None = None
        self._within = list[Optimizer]()  # optimizers in the middle of a step; one may call another
        self._usual = list[tuple[dict[str, Any], Any]]()  # groups whose LR is multiplied in this step, and their own
        self.base: float | None = None
        """The LR that the training itself gave its first optimizer."""
        self._average: list[tuple[Tensor, Tensor]] | None = None
        self._count = 0
        self._measuring = False
        self.moved = False
        """Whether its own LR has changed on the way: it has a schedule."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._thread.over

    @property
    def failed(self) -> bool:
        """Whether it has ended with an error."""
        return self._thread.error is not None

    def run(self, segment: Segment) -> Reached:
        """Train on to the end of a segment; steps before its start are trained as well, but not told."""
        self._segment, self._reached = segment, Reached()
        self._losses, self._average, self._count = [], None, 0
        with self._inside():
            self._thread.resume()
        if self._thread.over and self._reached == Reached():
            error = self._thread.error
            self._reached = Reached(
                losses=self._told_losses(),
                error=f"{type(error).__name__}: {error}"
                if error
                else f"the training ended by itself after {self.step:,} of {segment.stop:,} steps",
            )
        return self._reached

    def leave(self) -> None:
        """End it within its loop."""
        if not self.over:
            with self._inside():
                self._thread.leave()
        self._optimizers.clear()
        self._leader = self._other = self._average = None

    @contextmanager
    def _inside(self) -> Generator[None]:
        """Its own global state is the present one meanwhile, and what it prints goes into its file."""
        ours = world(self._roots)
        self._output.parent.mkdir(parents=True, exist_ok=True)
        with self._output.open("a", encoding="utf-8") as file:
            enter(self._world, self._roots)
            self._outputs.target = file
            try:
                yield
            finally:
                self._outputs.target = None
                self._world = world(self._roots)
                enter(ours, self._roots)

    # What follows is called by hooks, in the training's thread.

    def loss(self, loss: Tensor) -> None:
        """A backward pass began from this loss."""
        if not self._measuring:
            self._pending.append(loss)

    def before_step(self, optimizer: Optimizer) -> None:
        """Multiply the LRs where the search asks for it."""
        if self._measuring:
            return
        if optimizer in self._within:  # a step that failed and was caught
            self._give_back()
            self._within.clear()
        self._within.append(optimizer)
        self._optimizers[id(optimizer)] = optimizer
        if self._leader is None:
            self._leader = optimizer
        first = self._leader.param_groups[0]
        if self.base is None:
            self.base = float(first.get("initial_lr", first["lr"]))  # schedulers store it before they warm up
        self.moved |= float(first["lr"]) != self.base
        factor = self._factor()
        if factor == 1.0:
            return
        changed = {id(group) for group, _ in self._usual}
        for group in optimizer.param_groups:
            if id(group) not in changed:
                own = group["lr"]
                self._usual.append((group, own))
                group["lr"] = own * factor

    def after_step(self, optimizer: Optimizer) -> None:
        """Count the step, and wait where the segment ends."""
        if self._measuring:
            return
        if optimizer in self._within:
            self._within = self._within[: self._within.index(optimizer)]
        if not self._within:
            self._give_back()
        if not self._counts(optimizer):
            return
        self.step += 1
        segment = self._segment
        assert segment is not None
        pending, self._pending = self._pending, []
        if self.step > segment.start and pending:
            self._losses.append(torch.stack([each.float() for each in pending]).sum())
        if self.step > segment.average_from:
            self._add_to_average()
        if self._diverged():
            self._reached = Reached(losses=self._told_losses())
            self._wait()
        elif self.step >= segment.stop:
            self._reached = self._measured(segment)
            self._average = None
            self._wait()

    def _factor(self) -> float:
        segment = self._segment
        assert segment is not None
        assert self.base is not None
        share = segment.share_at(min(self.step, segment.stop - 1))
        return share * self.lr / self.base if self._imposed and self.base else share

    def _give_back(self) -> None:
        """The groups have the LRs that their training gave them."""
        for group, own in self._usual:
            group["lr"] = own
        self._usual.clear()

    def _counts(self, optimizer: Optimizer) -> bool:
        """Whether a step is one of those that are counted: those of the optimizer that steps most.

        Where a training makes another optimizer on its way, or has several, one of them leads: the first, until another
        takes two steps without it.
        """
        if optimizer is self._leader:
            self._since = 0
            return True
        self._since = self._since + 1 if optimizer is self._other else 1
        self._other = optimizer
        if self._since > 1:
            self._leader, self._since = optimizer, 0
            return True
        return False

    def _wait(self) -> None:
        self._thread.suspend()

    def _diverged(self) -> bool:
        """Whether the last losses are not finite; an accelerator is asked only now and then."""
        last = self._losses[-_IN_A_ROW:]
        if len(last) < _IN_A_ROW or (last[-1].device.type != "cpu" and self.step % _FETCH):
            return False
        return not bool(torch.stack(last).isfinite().any())

    def _told_losses(self) -> tuple[float, ...]:
        """The losses of the segment; one that alone is not finite is taken for the one before it."""
        if not self._losses:
            return ()
        losses: list[float] = torch.stack(self._losses).tolist()
        for at in range(1, len(losses) - 1):
            if not math.isfinite(losses[at]) and math.isfinite(losses[at + 1]):
                losses[at] = losses[at - 1]
        return tuple(losses)

    def _parameters(self) -> list[Tensor]:
        groups = [group for optimizer in self._optimizers.values() for group in optimizer.param_groups]
        return [*{id(each): each for group in groups for each in group["params"]}.values()]

    def _modules(self) -> list[nn.Module]:
        """The modules that have any of the parameters that are trained."""
        own = {id(each) for each in self._parameters()}
        # By their types, since objects of other libraries may answer isinstance() with anything.
        every = [each for each in gc.get_objects() if issubclass(type(each), nn.Module) and "_modules" in vars(each)]
        return [each for each in every if any(id(parameter) in own for parameter in each.parameters())]

    def _add_to_average(self) -> None:
        """Running means of the parameters, and of buffers such as the statistics of batch norm."""
        with torch.no_grad():
            if self._average is None:
                buffers = {id(each): each for module in self._modules() for each in module.buffers()}
                whole = [*self._parameters(), *(each for each in buffers.values() if each.is_floating_point())]
                self._average = [(each, each.detach().clone()) for each in whole]
                self._count = 1
                return
            self._count += 1
            for now, mean in self._average:
                mean.add_((now.detach() - mean) / self._count)

    def _measured(self, segment: Segment) -> Reached:
        losses = self._told_losses()
        if self._validation is None:
            return Reached(losses=losses)
        names = _variables()
        self._measuring = True
        try:
            late = segment.stop >= _LAST_WEIGHTS * self._full
            alone = self._count <= 1 or segment.annealed or segment.schedule != "constant"
            value = self._metric(names) if late or alone else None
            averaged = None
            if not alone:
                with self._swapped_in():
                    averaged = self._metric(names)
            elif not segment.annealed and segment.schedule == "constant":
                averaged = value
        except SearchError as error:
            return Reached(losses=losses, error=str(error))
        finally:
            self._measuring = False
        return Reached(value=value, averaged=averaged, losses=losses)

    def _metric(self, names: dict[str, Any]) -> float:
        """The validation metric; modes, buffers and generators are afterwards what they were."""
        assert self._validation is not None
        modules = self._modules()
        modes = [(each, each.training) for module in modules for each in module.modules()]
        buffers = [(each, each.clone()) for module in modules for each in module.buffers()]
        before = world(self._roots)
        try:
            with torch.no_grad(), self._outputs.recorded() as printed:
                return self._validation(names, printed)
        finally:
            for each, mode in modes:
                each.training = mode
            for each, own in buffers:
                each.copy_(own)
            enter(before, self._roots)

    @contextmanager
    def _swapped_in(self) -> Generator[None]:
        """The averages stand in the place of the weights meanwhile."""
        assert self._average is not None
        now = [(each, each.detach().clone()) for each, _ in self._average]
        with torch.no_grad():
            for each, mean in self._average:
                each.data.copy_(mean)
            try:
                yield
            finally:
                for each, own in now:
                    each.data.copy_(own)


def _variables() -> dict[str, Any]:
    """The variables of the training, from its outermost frame to the innermost; libraries' own are left out."""
    frames, frame = list[FrameType](), inspect.currentframe()
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    found = dict[str, Any]()
    for each in reversed(frames):
        file = each.f_code.co_filename
        if any(part in file for part in _LIBRARIES) or file.startswith((_STANDARD, "<frozen")):
            continue
        found |= {name: value for name, value in each.f_globals.items() if not name.startswith("__")}
        found |= each.f_locals
    return found
