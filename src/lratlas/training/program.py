"""The compiled step: one SGD step of a whole stack of runs, and the evaluation of a stack, as functions.

A stack holds runs on two leading axes, [seeds, lanes]: all lanes of a seed share the mini-batch and the frozen
parameters, so neither is copied per run. The strategy `single` is a stack of one run without `vmap`, images
channels-last: vectorised convolutions are slow.
"""

import copy
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.utils._pytree import tree_map

from lratlas.training.objective import Objective, correct
from lratlas.training.rules import Rule, State
from lratlas.training.sphere import Weights, expand, norm
from lratlas.training.statistics import norm_names, with_moments

SUMS = 4  # loss, accuracy, chance accuracy, gradient norm
Strategy = Literal["stack", "single"]
Found = tuple[Tensor, tuple[Tensor, Tensor, Weights]]  # the loss; accuracy, chance accuracy, new buffers
# Samples evaluated at once: activations of a whole stack then stay near the cache.
_CHUNKS: Mapping[Strategy, int] = {"stack": 64, "single": 128}


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
    """The functions a stack is trained and measured with.

    Attributes:
        step: ``(weights, buffers, state, alive, sums, lrs, batch) -> the first five, one step on``. ``alive``
            [seeds, lanes] turns false for good once a run's loss or gradient is not finite, and its weights then
            stay as they were. ``sums`` [SUMS, seeds, lanes] adds up what the trace reports.
        evaluate: ``(weights, buffers, batch, counted) -> [3, seeds, lanes]``: sums over the samples counted
            (weights 0 or 1, [batch]) of loss, accuracy and chance accuracy, the model in eval mode.
        moments: ``(weights, buffers, batch) -> buffers``: a pass in train mode that leaves each batch norm's moments
            of this batch in its buffers (see `lratlas.training.statistics`).
        rule: The update rule.
        norms: Names of the model's batch norms that keep running statistics.
        chunk: Samples to evaluate at once.
        compiled: Whether the functions are compiled ones.
    """

    step: Callable[..., tuple[Weights, Weights, State, Tensor, Tensor]]
    evaluate: Callable[..., Tensor]
    moments: Callable[..., Weights]
    rule: Rule
    norms: tuple[str, ...]
    chunk: int
    compiled: bool


def build(
    model: nn.Module,
    objective: Objective,
    rule: Rule,
    *,
    compiled: bool,
    strategy: Strategy = "stack",
    mixed_precision: bool = False,
) -> Program:
    """The program for a model's structure; the model's own weights play no part.

    Args:
        model: Any module; its parameters with ``requires_grad`` are the trained ones.
        objective: Loss and labels.
        rule: Update rule.
        compiled: Whether to compile (needs a C++ compiler; see `can_compile`).
        strategy: ``stack`` for any number of runs, ``single`` for stacks of one run.
        mixed_precision: Whether the model runs under bfloat16 autocast; weights, updates and losses stay as they are.
    """
    training, evaluating = _template(model).train(), _template(model).eval()
    measuring = with_moments(training)
    lift = _stacked if strategy == "stack" else _alone

    def outputs_of(module: nn.Module, parts: tuple[Weights, Weights, Weights], x: Tensor) -> Tensor:
        weights, buffers, frozen = parts
        with torch.autocast(x.device.type, torch.bfloat16, enabled=mixed_precision):
            outputs = functional_call(module, {**weights, **buffers, **frozen}, (x,))
        return outputs.to(next(iter(weights.values())).dtype) if mixed_precision else outputs

    def loss(weights: Weights, buffers: Weights, frozen: Weights, x: Tensor, y: Tensor, shares: Tensor):
        outputs = outputs_of(training, (weights, buffers, frozen), x)
        value = objective.losses(outputs, y).mean()
        hits, chance = correct(objective.labels, outputs.detach(), y, shares)
        return value, (hits.mean(), chance.mean(), buffers)

    def scores(weights: Weights, buffers: Weights, frozen: Weights, x: Tensor, y: Tensor, shares: Tensor) -> Tensor:
        outputs = outputs_of(evaluating, (weights, buffers, frozen), x)
        hits, chance = correct(objective.labels, outputs, y, shares)
        return torch.stack([objective.losses(outputs, y).to(shares.dtype), hits, chance])

    def measured(weights: Weights, buffers: Weights, frozen: Weights, x: Tensor, *_: Tensor) -> Weights:
        outputs_of(measuring, (weights, buffers, frozen), x)
        return buffers

    made = _compiled if compiled else _as_it_is
    whole = strategy == "stack" and rule.stacks  # the step is one program; otherwise its parts are

    def gradients_of(weights: Weights, buffers: Weights, batch: Batch) -> tuple[Weights, Found]:
        # A copy, because batch norm writes into the buffers it is given.
        statistics = {name: value.clone() for name, value in buffers.items()}
        return differentiate(weights, statistics, batch.frozen, batch.x, batch.y, batch.shares)

    def finish(
        weights: Weights,
        buffers: Weights,
        state: State,
        alive: Tensor,
        sums: Tensor,
        lrs: Tensor,
        gradients: Weights,
        found: Found,
    ) -> tuple[Weights, Weights, State, Tensor, Tensor]:
        value, (hits, chance, statistics) = found
        size = norm(rule.vector(gradients))
        if rule.radius is not None:
            size = size * norm(rule.vector(weights))  # at unit weight norm
        alive = alive & torch.isfinite(value + (norm(gradients) if rule.free else size))
        new, new_state = rule.update(weights, gradients, state, lrs)
        sums = sums + torch.stack([value, hits, chance, size])
        return (
            _where(alive, new, weights),
            _where(alive, statistics, buffers),
            {name: _keep(alive, part, state.get(name, part)) for name, part in new_state.items()},
            alive,
            sums,
        )

    def step(
        weights: Weights,
        buffers: Weights,
        state: State,
        alive: Tensor,
        sums: Tensor,
        lrs: Tensor,
        batch: Batch,
    ) -> tuple[Weights, Weights, State, Tensor, Tensor]:
        gradients, found = gradients_of(weights, buffers, batch)
        return conclude(weights, buffers, state, alive, sums, lrs, gradients, found)

    if strategy == "stack":
        differentiate = _stacked(grad_and_value(loss, has_aux=True)) if compiled else _differentiated(_stacked(loss))
        differentiate = differentiate if whole else made(differentiate)
    else:
        differentiate = _alone(_differentiated(made(loss)))
    # What an optimizer does cannot be compiled.
    conclude = made(finish) if rule.stacks and not whole else finish
    lifted_scores, lifted_moments = lift(scores), lift(measured)

    def evaluate(weights: Weights, buffers: Weights, batch: Batch, counted: Tensor) -> Tensor:
        each = lifted_scores(weights, dict(buffers), batch.frozen, batch.x, batch.y, batch.shares)
        # [seeds, lanes, 3, batch]; a sample left out may hold NaN, so it is replaced, not multiplied.
        return torch.where(counted > 0, each, 0).sum(-1).movedim(-1, 0)

    def moments(weights: Weights, buffers: Weights, batch: Batch) -> Weights:
        statistics = {name: value.clone() for name, value in buffers.items()}
        return lifted_moments(weights, statistics, batch.frozen, batch.x, batch.y, batch.shares)

    return Program(
        step=made(step) if whole else step,
        evaluate=made(evaluate),
        moments=made(moments),
        rule=rule,
        norms=tuple(norm_names(model)),
        chunk=_CHUNKS[strategy],
        compiled=compiled,
    )


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    from torch._dynamo import config as dynamo  # takes seconds to import

    # The C++ wrapper halves what a call costs outside the kernels; contraction lets products and sums fuse.
    # Every size of stack is compiled for itself; beyond the limit PyTorch would fall back to eager without a word.
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = 4096
    options: dict[str, Any] = {"cpp_wrapper": True, "cpp.enable_floating_point_contract_flag": "fast"}
    return torch.compile(function, dynamic=False, options=options)


def can_compile() -> bool:
    """Whether a C++ compiler is there for `torch.compile` to use on a CPU."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def _template(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).requires_grad_(False)


def _stacked(function: Callable[..., Any]) -> Callable[..., Any]:
    lanes = vmap(function, in_dims=(0, 0, None, None, None, None), randomness="different")
    return vmap(lanes, in_dims=(0, 0, 0, 0, 0, 0), randomness="different")


def _differentiated(loss: Callable[..., Any]) -> Callable[..., Any]:
    """As `torch.func.grad_and_value` with auxiliary results, but by autograd, for one run or a stack of them.

    No run's loss depends on the weights of another, so the gradient of the sum of all is that of each. The backward
    pass of a compiled loss is faster this way, and eager code does not need the compiler's modules.
    """

    def gradients(weights: Weights, *others: Any) -> tuple[Weights, Found]:
        own = {name: value.detach().requires_grad_() for name, value in weights.items()}
        with torch.enable_grad():
            value, found = loss(own, *others)
            total = value.sum()
        slopes = torch.autograd.grad(total, [*own.values()], allow_unused=True, materialize_grads=True)
        return dict(zip(own, slopes, strict=True)), tree_map(torch.detach, (value, found))

    return gradients


def _alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function for a stack of one run: axes are taken off and put back instead of mapped over."""

    def alone(weights: Weights, buffers: Weights, frozen: Weights, x: Tensor, y: Tensor, shares: Tensor) -> Any:
        own = {name: _channels_last(value[0, 0]) for name, value in weights.items()}
        kept = {name: value[0, 0] for name, value in buffers.items()}
        shared = {name: _channels_last(value[0]) for name, value in frozen.items()}
        result = function(own, kept, shared, _channels_last(x[0]), y[0], shares[0])
        return tree_map(_stack_of_one, result)

    return alone


def _stack_of_one(value: Tensor) -> Tensor:
    return value.contiguous()[None, None]


def _channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def _where(alive: Tensor, new: Weights, old: Weights) -> Weights:
    return {name: _keep(alive, value, old[name]) for name, value in new.items()}


def _keep(alive: Tensor, new: Tensor, old: Tensor) -> Tensor:
    # Scalars such as a step count are shared by the stack and never frozen.
    return torch.where(expand(alive, new), new, old) if new.dim() >= 2 else new
