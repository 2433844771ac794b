"""The compiled step: one SGD step of a stack of runs, and the evaluation of a stack, as functions.

A stack has runs on two leading axes, [seeds, lanes]: all lanes of a seed share the mini-batch and the frozen
parameters, so neither is copied per run. The strategy `single` is a stack of one run without `vmap` and with images in
channels-last format: vectorised convolutions are slow.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.utils._pytree import tree_map

from lratlas.data.parts import Parts, arguments, each, leaves, rows
from lratlas.training.batch_norm import norm_names, with_moments
from lratlas.training.compiling import Compilation, Guarded, compile_function
from lratlas.training.objective import Objective
from lratlas.training.placing import copy_to
from lratlas.training.rules import Rule, State
from lratlas.training.sphere import Weights, expand, norm

SUMS = 4  # loss, accuracy, chance accuracy, gradient norm
Strategy = Literal["stack", "single"]
Found = tuple[Tensor, tuple[Tensor, Tensor, Weights]]  # the loss; accuracy, chance accuracy, new buffers
_ALLOWING = list[None]()  # active blocks, since PyTorch does not expose the setting
# Samples evaluated at once on a CPU: the activations of a whole stack then stay close to the cache.
_CHUNKS: Mapping[Strategy, int] = {"stack": 64, "single": 128}
_LARGER = 8  # on other devices, where a large chunk costs about as much as a small one
_HOST = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The data that all lanes of a seed share in one step.

    Attributes:
        x: Inputs, [seeds, batch, ...], or a tuple or dictionary of such tensors.
        y: Targets, in the same form.
        shares: Share of each class in the training labels, [seeds, C].
        frozen: Parameters that are not trained, each [seeds, *parameter].
    """

    x: Parts
    y: Parts
    shares: Tensor
    frozen: Weights


@dataclass(frozen=True, kw_only=True)
class Program:
    """The functions that train and measure a stack.

    Attributes:
        step: ``(weights, buffers, state, alive, sums, lrs, batch) -> the first five, one step on``. ``alive``
            [seeds, lanes] becomes false permanently once a run's loss or gradient is not finite; its weights then stay
            unchanged. ``sums`` [SUMS, seeds, lanes] accumulates the values of the trace.
        evaluate: ``(weights, buffers, batch, counted) -> [3, seeds, lanes]``: sums of loss, accuracy and chance
            accuracy over the counted samples (weights 0 or 1, [batch]), with the model in eval mode.
        moments: ``(weights, buffers, batch) -> buffers``: a pass in train mode that stores each batch norm's moments of
            this batch in its buffers (see `lratlas.training.batch_norm`).
        rule: The update rule.
        norms: Names of the model's batch norms that have running statistics.
        chunk: Samples to evaluate at once.
        by_batches: Whether data sets are evaluated by batches because the loss or score is not a mean over samples.
        compiled: Whether the functions are compiled.
    """

    step: Callable[..., tuple[Weights, Weights, State, Tensor, Tensor]]
    evaluate: Callable[..., Tensor]
    moments: Callable[..., Weights]
    rule: Rule
    norms: tuple[str, ...]
    chunk: int
    by_batches: bool
    compiled: bool


def build(
    model: nn.Module,
    objective: Objective,
    rule: Rule,
    *,
    compiled: bool,
    strategy: Strategy = "stack",
    mixed_precision: bool = False,
    batch_size: int | None = None,
    draws: bool = False,
    channels_last: bool = True,
    device: torch.device = _HOST,
) -> Program:
    """Build the program for a model's structure; the model's own weights do not matter.

    Args:
        model: Any module; it trains its parameters with ``requires_grad``.
        objective: The loss and its labels.
        rule: Update rule.
        compiled: Whether to compile (needs a C++ compiler; see `lratlas.training.compiling`).
        strategy: ``stack`` for any number of runs, ``single`` for stacks of one run.
        mixed_precision: Whether the model runs under bfloat16 autocast; weights, updates and losses keep their dtype.
        batch_size: Samples per batch when data sets are evaluated by batches.
        draws: Whether the model draws random numbers in training, so that compiled steps differ from eager steps.
        channels_last: Whether a single run's images and filters use the channels-last format, which is faster.
        device: Where the program will run.
    """
    training, evaluating = _template(model, device).train(), _template(model, device).eval()
    measuring = with_moments(training)
    single = partial(_alone, layout=_channels_last if channels_last else _as_it_is)

    def outputs_of(module: nn.Module, tensors: Weights, x: Parts) -> Any:
        positional, named = arguments(x)
        with torch.autocast(leaves(x)[0].device.type, torch.bfloat16, enabled=mixed_precision):
            outputs = functional_call(module, tensors, positional, named)
        return tree_map(_widen, outputs) if mixed_precision else outputs

    def loss(weights: Weights, buffers: Weights, frozen: Weights, x: Parts, y: Parts, shares: Tensor):
        # If the model replaces a buffer, the new value goes into this dictionary.
        tensors = {**weights, **buffers, **frozen}
        outputs = outputs_of(training, tensors, x)
        value = objective.batch(outputs, y)
        with torch.no_grad():
            hits, chance = objective.score(outputs, y, shares)
        return value, (hits.mean(), chance.mean(), {name: tensors[name] for name in buffers})

    def scores(weights: Weights, buffers: Weights, frozen: Weights, x: Parts, y: Parts, shares: Tensor):
        outputs = outputs_of(evaluating, {**weights, **buffers, **frozen}, x)
        value = (objective.losses or objective.batch)(outputs, y)
        return value.to(shares.dtype), *objective.score(outputs, y, shares)

    def measure_buffers(weights: Weights, buffers: Weights, frozen: Weights, x: Parts, *_: Any) -> Weights:
        outputs_of(measuring, {**weights, **buffers, **frozen}, x)
        return buffers

    whole = strategy == "stack" and rule.stacks  # the step is one program; otherwise only its parts are compiled

    compilation = Compilation()

    def make_fast(
        function: Callable[..., Any], compared: Callable[[Any], list[Tensor]], *, random: bool = False
    ) -> Callable[..., Any]:
        if not compiled:
            return function
        return Guarded(compile_function(function, device), function, None if random else compared, compilation)

    def make_gradients() -> Callable[..., tuple[Weights, Found]]:
        if strategy == "single":
            slow = single(_differentiate(loss))
            fast = single(_differentiate(compile_function(loss, device))) if compiled else slow
        else:
            slow = _differentiate(_stack_function(loss))
            if whole or not compiled:
                return _stack_function(grad_and_value(loss, has_aux=True)) if compiled else slow
            fast = compile_function(_stack_function(grad_and_value(loss, has_aux=True)), device)
        return Guarded(fast, slow, None if draws else _of_gradients, compilation) if compiled else slow

    def gradients_of(weights: Weights, buffers: Weights, batch: Batch) -> tuple[Weights, Found]:
        # A copy, because batch norm writes to the buffers it gets.
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
        new, new_state = _update_weights(rule, weights, gradients, state, lrs)
        sums = sums + torch.stack([value, hits, chance, size])
        return (
            _where(alive, new, weights),
            _where(alive, statistics, buffers),
            {name: _keep(alive, new_state[name], state.get(name, new_state[name])) for name in sorted(new_state)},
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

    differentiate = make_gradients()
    # Steps of a torch optimizer cannot be compiled.
    conclude = make_fast(finish, _of_step) if rule.stacks and not whole else finish

    lifted = [(_stack_function if strategy == "stack" else single)(function) for function in (scores, measure_buffers)]

    def evaluate(weights: Weights, buffers: Weights, batch: Batch, counted: Tensor) -> Tensor:
        scored = lifted[0](weights, dict(buffers), batch.frozen, batch.x, batch.y, batch.shares)
        return torch.stack([_sum_counted(part, counted) for part in scored])

    def moments(weights: Weights, buffers: Weights, batch: Batch) -> Weights:
        statistics = {name: value.clone() for name, value in buffers.items()}
        return lifted[1](weights, statistics, batch.frozen, batch.x, batch.y, batch.shares)

    return Program(
        step=make_fast(step, _of_step, random=draws) if whole else step,
        evaluate=make_fast(evaluate, _of_evaluation),
        moments=make_fast(moments, leaves, random=draws),
        rule=rule,
        norms=tuple(norm_names(model)),
        chunk=batch_size if objective.by_batches and batch_size else _chunk(strategy, device),
        by_batches=objective.by_batches,
        compiled=compiled,
    )


def _chunk(strategy: Strategy, device: torch.device) -> int:
    return _CHUNKS[strategy] * (1 if device.type == "cpu" else _LARGER)


def _update_weights(
    rule: Rule, weights: Weights, gradients: Weights, state: State, lrs: Tensor
) -> tuple[Weights, State]:
    """Apply the rule; weights without a gradient in this step stay unchanged, as in PyTorch's optimizers."""
    if len(gradients) == len(weights) or not rule.stacks:
        return rule.update(weights, gradients, state, lrs)
    if rule.radius is not None:  # the vector on the sphere moves as a whole
        missing = {name: torch.zeros_like(value) for name, value in weights.items() if name not in gradients}
        return rule.update(weights, {**gradients, **missing}, state, lrs)
    new, new_state = rule.update({name: weights[name] for name in gradients}, gradients, state, lrs)
    skipped = {f"skipped/{name}": state.get(f"skipped/{name}", 0) + torch.ones(()) for name in weights}
    skipped = {key: value for key, value in skipped.items() if key.removeprefix("skipped/") not in gradients}
    return {**weights, **new}, {**state, **new_state, **skipped}


def _of_step(result: Any) -> list[Tensor]:
    """The compared parts of a step: the sums of loss and gradient norm, and buffers.

    Weights are excluded: rules like Adam make large steps from gradients that are only rounding errors.
    """
    _, buffers, _, _, sums = result
    return [*buffers.values(), sums[0], sums[3]]


def _of_gradients(result: tuple[Weights, Found]) -> list[Tensor]:
    gradients, (value, _) = result
    return [value, norm(gradients)]


def _of_evaluation(result: Tensor) -> list[Tensor]:
    return [result[0]]


def _sum_counted(part: Tensor, counted: Tensor) -> Tensor:
    """The sum over the counted samples, [seeds, lanes], of one number per sample or one for the whole batch."""
    if part.dim() < 3:
        return part * counted.sum()
    # An uncounted sample may be NaN, so replace it rather than multiply.
    return torch.where(counted > 0, part, 0).sum(-1)


def _widen(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def _template(model: nn.Module, device: torch.device) -> nn.Module:
    return copy_to(model, "model", device).requires_grad_(False)


@contextmanager
def allow_slow_batching() -> Generator[None]:
    """Disable PyTorch's warning about slow operations in a stack: the speed of stacks is measured anyway."""
    # Python's warning filters would forget which warnings were shown before.
    warn = cast("Any", torch)._C._functorch._set_vmap_fallback_warning_enabled
    _ALLOWING.append(None)
    warn(False)
    try:
        yield
    finally:
        _ALLOWING.pop()
        warn(not _ALLOWING)


def _stack_function(function: Callable[..., Any]) -> Callable[..., Any]:
    lanes = vmap(function, in_dims=(0, 0, None, None, None, None), randomness="different")
    return vmap(lanes, in_dims=(0, 0, 0, 0, 0, 0), randomness="different")


def _differentiate(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Like `torch.func.grad_and_value` with auxiliary results, but with autograd, for one run or a stack.

    Weights that no gradient reaches are omitted.

    No run's loss depends on the weights of another run, so the gradient of the sum is the gradient of each run. This
    makes the backward pass of a compiled loss faster, and eager code does not need to import the compiler.
    """

    def gradients(weights: Weights, *others: Any) -> tuple[Weights, Found]:
        own = {name: value.detach().requires_grad_() for name, value in weights.items()}
        with torch.enable_grad():
            value, found = loss(own, *others)
            total = value.sum()
        slopes = torch.autograd.grad(total, [*own.values()], allow_unused=True)
        found_slopes = cast("Sequence[Tensor | None]", slopes)
        reached = {name: slope for name, slope in zip(own, found_slopes, strict=True) if slope is not None}
        return reached, tree_map(torch.detach, (value, found))

    return gradients


def _alone(function: Callable[..., Any], *, layout: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """The function for a stack of one run: removes and restores the stack axes instead of mapping over them."""

    def alone(weights: Weights, buffers: Weights, frozen: Weights, x: Parts, y: Parts, shares: Tensor) -> Any:
        own = {name: layout(value[0, 0]) for name, value in weights.items()}
        kept = {name: value[0, 0] for name, value in buffers.items()}
        shared = {name: layout(value[0]) for name, value in frozen.items()}
        result = function(own, kept, shared, each(layout, rows(x, 0)), rows(y, 0), shares[0])
        return tree_map(_stack_of_one, result)

    return alone


def _stack_of_one(value: Tensor) -> Tensor:
    return value.contiguous()[None, None]


def _as_it_is(value: Tensor) -> Tensor:
    return value


def _channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def _where(alive: Tensor, new: Weights, old: Weights) -> Weights:
    return {name: _keep(alive, new[name], value) for name, value in old.items()}


def _keep(alive: Tensor, new: Tensor, old: Tensor) -> Tensor:
    # Scalars such as a step count are shared by the stack and never frozen.
    return torch.where(expand(alive, new), new, old) if new.dim() >= 2 else new
