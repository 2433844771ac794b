"""The compiled step: one SGD step of a whole stack of runs, and the evaluation of a stack, as two functions.

A stack holds runs on two leading axes, [seeds, lanes]: all lanes of a seed share the mini-batch and the frozen
parameters, so neither is copied per run.
"""

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import config as dynamo
from torch.func import functional_call, grad_and_value, vmap

from lratlas.training.objective import Objective, correct
from lratlas.training.rules import Rule, State
from lratlas.training.sphere import Weights, dot, expand, norm

SUMS = 4  # loss, accuracy, chance accuracy, gradient norm


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What all lanes of a seed share in one step.

    Attributes:
        x: Inputs, [seeds, batch, ...].
        y: Targets, [seeds, batch, ...].
        shares: Share of each class in the training labels, [seeds, C].
        frozen: Parameters that are not trained, each [seeds, *parameter].
    """

    x: Tensor
    y: Tensor
    shares: Tensor
    frozen: Weights


@dataclass(frozen=True, kw_only=True)
class Program:
    """The two functions a stack is trained with.

    Attributes:
        step: ``(weights, buffers, state, alive, sums, lrs, batch parts) -> the same five, one step on``. ``alive``
            [seeds, lanes] turns false for good once a run's loss or gradient is not finite, and its weights then
            stay as they were. ``sums`` [SUMS, seeds, lanes] adds up what the trace reports.
        evaluate: ``(weights, buffers, batch parts, counted) -> [3, seeds, lanes]``: sums over the samples counted
            (weights 0 or 1, [batch]) of loss, accuracy and chance accuracy, the model in eval mode.
    """

    step: Callable[..., tuple[Weights, Weights, State, Tensor, Tensor]]
    evaluate: Callable[..., Tensor]


def build(model: nn.Module, objective: Objective, rule: Rule, *, compiled: bool) -> Program:
    """The program for a model's structure; the model's own weights play no part.

    Args:
        model: Any module; its parameters with ``requires_grad`` are the trained ones.
        objective: Loss and labels.
        rule: Update rule.
        compiled: Whether to compile (needs a C++ compiler; see `can_compile`).
    """
    training, evaluating = _template(model).train(), _template(model).eval()

    def loss(weights: Weights, buffers: Weights, frozen: Weights, x: Tensor, y: Tensor, shares: Tensor):
        outputs = functional_call(training, {**weights, **buffers, **frozen}, (x,))
        value = objective.losses(outputs, y).mean()
        hits, chance = correct(objective.labels, outputs.detach(), y, shares)
        return value, (hits.mean(), chance.mean(), buffers)

    def scores(weights: Weights, buffers: Weights, frozen: Weights, x: Tensor, y: Tensor, shares: Tensor) -> Tensor:
        outputs = functional_call(evaluating, {**weights, **buffers, **frozen}, (x,))
        hits, chance = correct(objective.labels, outputs, y, shares)
        return torch.stack([objective.losses(outputs, y).to(shares.dtype), hits, chance])

    gradients_of = _stacked(grad_and_value(loss, has_aux=True))
    scores_of = _stacked(scores)

    def step(
        weights: Weights,
        buffers: Weights,
        state: State,
        alive: Tensor,
        sums: Tensor,
        lrs: Tensor,
        batch: Batch,
    ) -> tuple[Weights, Weights, State, Tensor, Tensor]:
        # A copy, because batch norm writes into the buffers it is given.
        statistics = {name: value.clone() for name, value in buffers.items()}
        gradients, (value, (hits, chance, statistics)) = gradients_of(
            weights, statistics, batch.frozen, batch.x, batch.y, batch.shares
        )
        size = dot(gradients, gradients).sqrt()
        if rule.radius is not None:
            size = size * norm(weights)  # at unit weight norm
        alive = alive & torch.isfinite(value + size)
        new, new_state = rule.update(weights, gradients, state, lrs)
        sums = sums + torch.stack([value, hits, chance, size])
        return (
            _where(alive, new, weights),
            _where(alive, statistics, buffers),
            {name: _keep(alive, part, state[name]) for name, part in new_state.items()},
            alive,
            sums,
        )

    def evaluate(weights: Weights, buffers: Weights, batch: Batch, counted: Tensor) -> Tensor:
        each = scores_of(weights, dict(buffers), batch.frozen, batch.x, batch.y, batch.shares)
        # [seeds, lanes, 3, batch]; a sample left out may hold NaN, so it is replaced, not multiplied.
        return torch.where(counted > 0, each, 0).sum(-1).movedim(-1, 0)

    if not compiled:
        return Program(step=step, evaluate=evaluate)
    # The C++ wrapper halves what a call costs outside the kernels; contraction lets products and sums fuse.
    # Every size of stack is compiled for itself; beyond the limit PyTorch would fall back to eager without a word.
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = 4096
    options: dict[str, Any] = {"cpp_wrapper": True, "cpp.enable_floating_point_contract_flag": "fast"}
    return Program(
        step=torch.compile(step, dynamic=False, options=options),
        evaluate=torch.compile(evaluate, dynamic=False, options=options),
    )


def can_compile() -> bool:
    """Whether a C++ compiler is there for `torch.compile` to use on a CPU."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def _template(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).requires_grad_(False)


def _stacked(function: Callable[..., Any]) -> Callable[..., Any]:
    lanes = vmap(function, in_dims=(0, 0, None, None, None, None), randomness="different")
    return vmap(lanes, in_dims=(0, 0, 0, 0, 0, 0), randomness="different")


def _where(alive: Tensor, new: Weights, old: Weights) -> Weights:
    return {name: _keep(alive, value, old[name]) for name, value in new.items()}


def _keep(alive: Tensor, new: Tensor, old: Tensor) -> Tensor:
    # Scalars such as a step count are shared by the stack and never frozen.
    return torch.where(expand(alive, new), new, old) if new.dim() >= 2 else new
