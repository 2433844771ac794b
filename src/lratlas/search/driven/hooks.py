"""Hooks into PyTorch that follow whatever trains: each step of any optimizer, and the losses of backward passes."""

import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook


class Follower(Protocol):
    """What follows a training, in the training's thread."""

    def before_backward(self) -> None:
        """A backward pass is about to begin."""
        ...

    def after_backward(self, losses: Sequence[Tensor]) -> None:
        """The backward pass has ended; it began from these losses, none if it failed."""
        ...

    def before_step(self, optimizer: Optimizer) -> None:
        """An optimizer is about to take a step."""
        ...

    def after_step(self, optimizer: Optimizer) -> None:
        """The optimizer has taken the step."""
        ...

    def after_scaling(self) -> None:
        """A gradient scaler has ended an iteration, with a step or without."""
        ...


class _Unscaled:
    """The losses behind scaled losses, as long as these live."""

    def __init__(self) -> None:
        self._losses = dict[int, tuple[weakref.ref[Tensor], Tensor]]()

    def add(self, scaled: Tensor, loss: Tensor) -> None:
        self._losses = {key: each for key, each in self._losses.items() if each[0]() is not None}
        self._losses[id(scaled)] = weakref.ref(scaled), loss.detach()

    def of(self, tensor: Tensor) -> Tensor:
        """The loss itself where the tensor is a scaled loss, else the tensor."""
        scaled, loss = self._losses.get(id(tensor), (None, tensor))
        return loss if scaled is not None and scaled() is tensor else tensor


@contextmanager
def followed(follower: Callable[[], Follower | None]) -> Generator[None]:
    """Inform the current follower of all training in the block; afterwards PyTorch is as it was.

    Losses are without the factor of a gradient scaler.

    Args:
        follower: Returns the current follower; None for none.
    """
    unscaled = _Unscaled()

    def current_one() -> Follower | None:
        found, here = follower(), threading.current_thread()
        thread = getattr(found, "thread", None)
        # Threads that Python has not started may be those in which PyTorch goes backward.
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
    uncompiled = cast("Callable[[Any], Any]", torch.compiler.disable)  # where a step is compiled
    hooks = [
        register_optimizer_step_pre_hook(uncompiled(before)),
        register_optimizer_step_post_hook(uncompiled(after)),
    ]
    torch.autograd.backward = backward  # Tensor.backward calls it by this name
    GradScaler.scale, GradScaler.update = cast("Any", scale), cast("Any", update)
    try:
        yield
    finally:
        torch.autograd.backward, GradScaler.scale, GradScaler.update = plain_backward, plain_scale, plain_update
        for hook in hooks:
            hook.remove()
