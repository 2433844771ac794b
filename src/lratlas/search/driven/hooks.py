"""Hooks into PyTorch that follow whatever trains: each step of any optimizer, and the losses of backward passes."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook


class Follower(Protocol):
    """What is told of a training, in its own thread."""

    def loss(self, loss: Tensor) -> None:
        """A backward pass began from this loss."""
        ...

    def before_step(self, optimizer: Optimizer) -> None:
        """An optimizer is about to take a step."""
        ...

    def after_step(self, optimizer: Optimizer) -> None:
        """It has taken it."""
        ...


@contextmanager
def followed(follower: Callable[[], Follower | None]) -> Generator[None]:
    """All training is told to the present follower meanwhile; afterwards PyTorch is as it was.

    Losses are told without the factor of a gradient scaler.

    Args:
        follower: Which one is told now; None for none.
    """
    unscaled = dict[int, tuple[Tensor, Tensor]]()  # by the id of the scaled loss, which is held so that ids are unique

    def before(optimizer: Optimizer, *_: object) -> None:
        if told := follower():
            told.before_step(optimizer)

    def after(optimizer: Optimizer, *_: object) -> None:
        if told := follower():
            told.after_step(optimizer)

    def backward(tensors: Any, *others: Any, **named: Any) -> Any:
        result = plain_backward(tensors, *others, **named)
        if told := follower():
            for tensor in [tensors] if isinstance(tensors, Tensor) else tensors:
                if tensor.numel() == 1:
                    told.loss(unscaled.get(id(tensor), (tensor, tensor))[1].detach().reshape(()))
        unscaled.clear()
        return result

    def scale(self: GradScaler, outputs: Any) -> Any:
        scaled = plain_scale(self, outputs)
        if isinstance(outputs, Tensor) and follower():
            unscaled[id(scaled)] = (scaled, outputs)
        return scaled

    plain_backward, plain_scale = torch.autograd.backward, GradScaler.scale
    hooks = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    torch.autograd.backward = backward  # Tensor.backward calls it by this name
    GradScaler.scale = cast("Any", scale)
    try:
        yield
    finally:
        torch.autograd.backward, GradScaler.scale = plain_backward, plain_scale
        for hook in hooks:
            hook.remove()
