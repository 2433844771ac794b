"""Count the optimizer steps of a training, and set its LRs."""

import gc
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from lratlas.errors import SearchError
from lratlas.search.driven.untouched import subclasses
from lratlas.text import is_finite


class Follower(Protocol):
    """Callbacks for the events of a training, in the training's thread."""

    def before_backward(self) -> None:
        """Called before a backward pass."""

    def after_backward(self, losses: Sequence[Tensor]) -> None:
        """Called after a backward pass, with the losses from which it began; empty if it failed."""

    def before_step(self, optimizer: Optimizer) -> None:
        """Called before an optimizer takes a step."""

    def after_step(self, optimizer: Optimizer) -> None:
        """Called after the optimizer took the step."""

    def after_scaling(self) -> None:
        """Called after a gradient scaler ended an iteration, with a step or without."""


class _Unscaled:
    """Maps scaled losses to the original losses, as long as they are alive."""

    def __init__(self) -> None:
        self._losses = dict[int, tuple[weakref.ref[Tensor], Tensor]]()

    def add(self, scaled: Tensor, loss: Tensor) -> None:
        self._losses = {key: each for key, each in self._losses.items() if each[0]() is not None}
        self._losses[id(scaled)] = weakref.ref(scaled), loss.detach()

    def of(self, tensor: Tensor) -> Tensor:
        """The original loss of a scaled loss; other tensors are returned unchanged."""
        scaled, loss = self._losses.get(id(tensor), (None, tensor))
        return loss if scaled is not None and scaled() is tensor else tensor


@contextmanager
def follow_steps(follower: Callable[[], Follower | None]) -> Generator[None]:
    """Inform the current follower of all training in the block; PyTorch is restored afterwards.

    Losses do not include the factor of a gradient scaler.

    Args:
        follower: Returns the current follower, or None.
    """
    unscaled = _Unscaled()

    def current_one() -> Follower | None:
        found, here = follower(), threading.current_thread()
        thread = getattr(found, "thread", None)
        # PyTorch may run backward passes in threads that Python did not start.
        return found if thread in {None, here} or here.name.startswith("Dummy-") else None

    def before(optimizer: Optimizer, *_: object) -> None:
        if current := current_one():
            current.before_step(optimizer)

    def after(optimizer: Optimizer, *_: object) -> None:
        if current := current_one():
            current.after_step(optimizer)

    def backward(tensors: Any, *others: Any, **named: Any) -> Any:
        current = current_one()
        if current is None:
            return plain_backward(tensors, *others, **named)
        losses = list[Tensor]()
        current.before_backward()
        try:
            result = plain_backward(tensors, *others, **named)
            for each in [tensors] if isinstance(tensors, Tensor) else tensors:
                if isinstance(each, Tensor) and each.numel() == 1:
                    losses.append(unscaled.of(each).detach().reshape(()))
        finally:
            current.after_backward(losses)
        return result

    def scale(self: GradScaler, outputs: Any) -> Any:
        scaled = plain_scale(self, outputs)
        if isinstance(outputs, Tensor) and current_one():
            unscaled.add(scaled, outputs)
        return scaled

    def update(self: GradScaler, *others: Any, **named: Any) -> None:
        plain_update(self, *others, **named)
        if current := current_one():
            current.after_scaling()

    plain_backward, plain_scale, plain_update = torch.autograd.backward, GradScaler.scale, GradScaler.update
    uncompiled = cast("Callable[[Any], Any]", torch.compiler.disable)  # hooks must not be compiled with a step
    hooks = [
        register_optimizer_step_pre_hook(uncompiled(before)),
        register_optimizer_step_post_hook(uncompiled(after)),
    ]
    torch.autograd.backward = backward  # Tensor.backward looks it up by this name
    GradScaler.scale, GradScaler.update = cast("Any", scale), cast("Any", update)
    try:
        yield
    finally:
        torch.autograd.backward, GradScaler.scale, GradScaler.update = plain_backward, plain_scale, plain_update
        for hook in hooks:
            hook.remove()


class Steps:
    """Follows all optimizers of one training.

    Optimizers are only weakly referenced: a training may make a new one for each epoch.

    Attributes:
        base: The LR that the training gave its first optimizer; None before its first step. If neither a scheduler nor
            the optimizer's defaults contain it, the LR of the first step.
        moved: Whether the training changed its LR on the way, so it has a schedule.
        pending: Losses since the last step.
    """

    def __init__(self) -> None:
        self.base: float | None = None
        self._base_is_sure = False
        self.moved = False
        self._leading = frozenset[int]()  # ids of the leader's parameters
        self._finished = set[frozenset[int]]()  # ids of former leaders' parameters
        self._alternate = False  # whether one of them has stepped again
        self._all = weakref.WeakSet[Optimizer]()
        self._leader: weakref.ref[Optimizer] | None = None
        self._other: weakref.ref[Optimizer] | None = None
        self._since = 0  # steps of the other optimizer since the leader's last one
        self.pending = list[Tensor]()
        self._within = list[Optimizer]()  # optimizers in the middle of a step; one may call another
        self._usual = list[tuple[dict[str, Any], Any]]()  # groups with a scaled LR in this step, and their original LRs

    def add(self, losses: Sequence[Tensor]) -> None:
        """Add losses of a backward pass; if a step evaluates its loss several times, the first one counts."""
        if not (self._within and self.pending):
            self.pending += losses

    def take_loss(self) -> Tensor | None:
        """Take the loss of a step, such as the sum over gradient accumulation; None if there is none."""
        pending, self.pending = self.pending, []
        if not pending:
            return None
        return torch.stack([each.to(pending[0].device).float() for each in pending]).sum()

    def begin(self, optimizer: Optimizer, *, lr: float | None, share: float) -> None:
        """Set the LRs of an optimizer that is about to take a step.

        Args:
            optimizer: The optimizer.
            lr: Replacement of the base LR; None to leave the LRs unchanged.
            share: Additional factor of the LRs.

        Raises:
            SearchError: There is no LR to replace, or it is ambiguous.
        """
        if optimizer in self._within:  # an earlier step failed and the error was caught
            self._restore()
            self._within.clear()
        self._within.append(optimizer)
        self._all.add(optimizer)
        leader = self._leader and self._leader()
        if leader is None:
            leader = optimizer
            self._leader = weakref.ref(optimizer)
        if self.base is None:
            self.base, self._base_is_sure = own_lr(leader)
        present = _lr(leader.param_groups[0])
        self.moved |= present != self.base
        if lr is not None and not self.base:
            raise SearchError(
                f"The {type(leader).__name__} has the LR {leader.param_groups[0].get('lr')}, which cannot be"
                f" scaled; pass it the LR of the search ({{lr}})."
            )
        if lr is not None and self.base and present and not self._base_is_sure and present > self.base:
            raise SearchError(
                f"The training raises its LR from {self.base:.3g} at the first step to {present:.3g}, so the LR"
                f" that its schedule multiplies is unknown: pass the LR of the search ({{lr}}) to the training."
            )
        if (lr is None or lr == self.base) and share == 1.0:
            return
        changed = {id(group) for group, _ in self._usual}
        for group in optimizer.param_groups:
            if id(group) not in changed and "lr" in group:
                own = group["lr"]
                self._usual.append((group, own))
                # In this order, a group whose LR equals the base gets exactly the replacement.
                group["lr"] = own * share if lr is None else own / self.base * (lr * share)

    def end(self, optimizer: Optimizer) -> bool:
        """Restore the LRs of an optimizer after its step.

        Returns:
            Whether the step counts. One of several optimizers leads, and its steps count: the first one, until another
            optimizer takes two steps without it, or replaces it for the same parameters.
        """
        if optimizer in self._within:
            self._within = self._within[: self._within.index(optimizer)]
        if self._within:  # the step of a wrapper counts, not that of the wrapped optimizer
            return False
        self._restore()
        leader = self._leader and self._leader()
        self._leading = self._leading or frozenset(parameters_of(optimizer))
        if leader is optimizer:
            self._since = 0
            return True
        own = frozenset(parameters_of(optimizer))
        self._alternate |= own in self._finished
        other = self._other and self._other()
        self._since = self._since + 1 if optimizer is other else 1
        self._other = weakref.ref(optimizer)
        if leader is None or self._since > 1 or self._leading == own:
            if self._leading.isdisjoint(own):
                self._finished.add(self._leading)
            self._leader, self._leading, self._since = weakref.ref(optimizer), own, 0
            return True
        return False

    @property
    def in_parts(self) -> bool:
        """Whether the training first trained a part of its parameters, and then only others."""
        return bool(self._finished) and not self._alternate

    @property
    def has_scheduler(self) -> bool:
        """Whether any PyTorch scheduler in the process will change an LR; takes 0.1 s."""
        own = {id(each) for each in self.live_optimizers()}
        kinds = subclasses(LRScheduler) | subclasses(ReduceLROnPlateau)
        alive = [each for each in gc.get_objects() if type(each) in kinds]
        return any(id(vars(each).get("optimizer")) in own for each in alive)

    def live_optimizers(self) -> list[Optimizer]:
        """All optimizers that are alive."""
        return list(self._all)

    def parameters(self) -> list[Tensor]:
        """The parameters of all optimizers."""
        groups = [group for optimizer in self.live_optimizers() for group in optimizer.param_groups]
        return [*{id(each): each for group in groups for each in group["params"]}.values()]

    def clear(self) -> None:
        """Forget all optimizers."""
        self._all.clear()
        self.pending.clear()
        self._within.clear()
        self._usual.clear()

    def _restore(self) -> None:
        """Give all groups the LRs from their training."""
        for group, own in self._usual:
            group["lr"] = own
        self._usual.clear()


def own_lr(optimizer: Optimizer) -> tuple[float | None, bool]:
    """LR that a training gave an optimizer, before warm-up and schedule; None if it has none.

    Schedulers store it when they are created. If there is no scheduler, but the LR changed before the first step, the
    training code has a schedule, and the optimizer's original LR counts.

    Returns:
        The LR, and whether it is certain: groups with several LRs may have been created with them, or changed since.
    """
    group = optimizer.param_groups[0]
    for name in ("max_lr", "initial_lr"):
        if is_finite(group.get(name)):
            return float(group[name]), True
    lrs = {_lr(each) for each in optimizer.param_groups}
    made: Any = getattr(optimizer, "defaults", {}).get("lr")
    if len(lrs) == 1 and is_finite(made) and float(made) > 0:
        return float(made), True
    return _lr(group), False


def _lr(group: dict[str, Any]) -> float | None:
    return float(group["lr"]) if is_finite(group.get("lr")) else None


def parameters_of(optimizer: Optimizer) -> set[int]:
    """Ids of an optimizer's parameters."""
    return {id(each) for group in optimizer.param_groups for each in group["params"]}
