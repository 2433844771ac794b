"""Check that a task trains as its author wrote it: compare the program's steps with a plain PyTorch loop.

Both train two mini-batches from the same weights with the same random draws; loss, weights and buffers must agree.
Features that pure functions cannot express (gradient hooks, state in Python attributes, recomputation in the backward
pass) show up as differences, and are refused before training starts.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from lratlas.data.parts import call, each, floats_to
from lratlas.errors import TaskError, first_line
from lratlas.rng import generator_states, seed_generators
from lratlas.training.evaluate import evaluate_stack
from lratlas.training.plain import LR, SEED, STEPS, Outcome, Trial, batches_of, in_format, plain_trial
from lratlas.training.prepared import Conformance, Prepared, make_model, task_on
from lratlas.training.program import Strategy, build
from lratlas.training.state import Samples, start_stack
from lratlas.training.trainer import train_stack

_TOLERANCE: Mapping[torch.dtype, float] = {torch.float64: 1e-6, torch.float32: 1e-4}
# Relative to the weights' size. Float32 rounding grows in deep nets with batch norm, to about 1e-4 in two steps.
_ROUNDING: Mapping[torch.dtype, float] = {torch.float64: 1e-13, torch.float32: 1e-4}

_FEWEST_CHANNELS = 8  # of a strided 1x1 convolution in channels-last format


def check_step(
    task: Prepared,
    loss: str | Callable[[Any, Any], Tensor],
    factory: Callable[..., torch.optim.Optimizer] | None,
    *,
    samples: int = 32,
) -> Conformance:
    """Train two mini-batches with the program and with a plain loop, and compare the results.

    Args:
        task: The task, complete except for its conformance.
        loss: The loss as passed by the user.
        factory: The optimizer factory, if the rule is one.
        samples: Maximum samples per mini-batch; a whole step if the task cannot use fewer.

    Raises:
        TaskError: The plain loop fails, or the results differ; the message says where, and the usual reason.
    """
    trial, plain = plain_trial(task, loss, factory, samples)
    _check_attributes(trial)
    placed = task_on(task, torch.device("cpu"), trial.dtype)
    trial = replace(trial, task=placed)
    channels_last = _is_safe_with_channels_last(trial.model(0))
    # Views of images fail in channels-last format; weights that some steps do not use are allowed.
    ran = _program(trial, "single", channels_last=channels_last, repeats=2)
    if channels_last and (isinstance(ran, str) or _difference(ran[0], plain, trial)):
        channels_last, ran = False, _program(trial, "single", channels_last=False, repeats=2)
    if isinstance(ran, str):
        raise TaskError(
            f"The model cannot be called with weights from outside, as torch.func.functional_call does: {ran}"
            f" ({_reason(trial)})"
        )
    once, again = ran
    if _difference(again, once, trial):
        raise TaskError(
            "Repeating the same steps gives different results: the model, loss or transform has state outside the"
            " model's parameters and buffers; register it with register_buffer."
        )
    if what := _difference(once, plain, trial):
        raise TaskError(f"A step of this task differs from that of a plain PyTorch loop: {what} ({_reason(trial)}).")
    _check_float32(trial, channels_last=channels_last)
    draws = _draws(trial)
    found = Conformance(draws=draws, exact=trial.dtype == torch.float64, channels_last=channels_last)
    # If runs can be stacked, no value decides which weights are used: unused weights stay unused.
    unused = replace(found, unused=plain.unused)
    ready = replace(placed, conformance=unused)
    stacked = replace(trial, task=ready, model=partial(_set_memory_format, partial(make_model, ready), trial.dtype))
    if reason := _unstackable(stacked, plain, draws=draws):
        return replace(found, unstackable=reason)
    return unused


def _is_safe_with_channels_last(model: nn.Module) -> bool:
    """Whether no convolution of the model corrupts memory in channels-last format.

    On processors with AVX2 but without AVX-512, the backward pass of strided 1x1 convolutions with fewer than 8
    channels writes out of bounds (PyTorch 2.13).
    """
    return not any(
        isinstance(each, nn.Conv2d)
        and each.kernel_size == (1, 1)
        and max(each.stride) > 1
        and each.in_channels < _FEWEST_CHANNELS * each.groups
        for each in model.modules()
    )


def _set_memory_format(model: Callable[[int], nn.Module], dtype: torch.dtype, seed: int) -> nn.Module:
    return in_format(model(seed), dtype)


def _check_float32(trial: Trial, *, channels_last: bool) -> None:
    """Refuse a task whose code only works in float64, since runs train in float32."""
    if trial.dtype == torch.float32:
        return
    task, kind = task_on(trial.task, torch.device("cpu"), torch.float32), torch.float32
    narrow = replace(trial, task=task, dtype=kind, model=partial(_set_memory_format, trial.model, kind))
    ran = _program(narrow, "single", channels_last=channels_last)
    if isinstance(ran, str):
        raise TaskError(f"The code of the task does not accept float32 tensors, the dtype of training: {ran}")


def _program(
    trial: Trial, strategy: Strategy, *, channels_last: bool = True, repeats: int = 1, quiet: bool = False
) -> list[Outcome] | str:
    """Run the same steps with the program that trains runs; return the reason if it fails.

    The program is built from the model of seed 0, as for all runs; the weights come from another seed.

    Args:
        trial: The mini-batches, model, loss and rule.
        strategy: A single run, or a stack of two whose second run is compared; this detects code that applies the first
            LR to all runs.
        channels_last: Whether images and filters of a single run are in channels-last format.
        repeats: Number of repetitions of the steps.
        quiet: Whether dropout is disabled.
    """
    try:
        template, model = trial.model(0), trial.model(SEED)
        if quiet:
            _without_draws(template)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for example about operations that are slow under vmap
            return _train_trial(trial, template, model, strategy, channels_last=channels_last, repeats=repeats)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"


def _train_trial(
    trial: Trial,
    template: nn.Module,
    model: nn.Module,
    strategy: Strategy,
    *,
    channels_last: bool,
    repeats: int,
) -> list[Outcome]:
    lanes = 1 if strategy == "single" else 2
    task = trial.task
    program = build(
        template,
        task.objective,
        task.update,
        compiled=False,
        strategy=strategy,
        batch_size=task.samples_per_step,
        channels_last=channels_last,
    )

    def spread(value: Tensor) -> Tensor:
        return value.detach()[None, None].expand(1, lanes, *value.shape).contiguous()

    weights = {name: spread(value) for name, value in model.named_parameters() if value.requires_grad}
    frozen = {name: value.detach()[None] for name, value in model.named_parameters() if not value.requires_grad}
    buffers = {name: spread(value) for name, value in model.named_buffers()}
    samples = Samples(
        x=each(lambda part: part[None], floats_to(trial.x, trial.dtype)),
        y=each(lambda part: part[None], floats_to(trial.y, trial.dtype)),
        which=torch.tensor([0]),
        shares=task.shares.to(trial.dtype)[None],
        frozen=frozen,
        transform=task.transform,
        augment=task.augment.apply if task.augment else None,
    )
    few = replace(samples, x=each(_part(trial.batches[0]), samples.x), y=each(_part(trial.batches[0]), samples.y))

    def run() -> Outcome:
        with seed_generators(0):
            trained = train_stack(
                program,
                start_stack(task.update.constrain(weights), buffers, task.update),
                lrs=torch.tensor([[0.5 * LR, LR][-lanes:]], dtype=trial.dtype),
                batches=trial.batches[:, None],
                draws={name: value[:, None] for name, value in trial.draws.items()} or None,
                train=samples,
                trace_every=1,
            )
        stack = trained.stack
        kept = [{name: value[0, -1].clone() for name, value in part.items()} for part in (stack.weights, stack.buffers)]
        with seed_generators(1):
            scores = evaluate_stack(program, stack.weights, stack.buffers, few)
        return Outcome(
            losses=[float(row.train_loss[0, -1]) for row in trained.rows],
            weights=kept[0],
            buffers=kept[1],
            evaluated=float(scores.loss[0, -1]),
        )

    return [run() for _ in range(repeats)]


def _part(at: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda part: part[:, at]


def _difference(found: Outcome, expected: Outcome, trial: Trial) -> str:
    """Describe the differences beyond rounding; empty if there are none."""
    tolerance, rounding = _TOLERANCE[trial.dtype], _ROUNDING[trial.dtype]
    for number, (one, other) in enumerate(zip(found.losses, expected.losses, strict=True)):
        if not _close(one, other, tolerance):
            return f"its loss in step {number + 1} is {one:.6g} instead of {other:.6g}"
    moves = _moves(expected, trial)
    for name, value in found.weights.items():
        other = expected.weights[name]
        # Weights whose gradient is only rounding error still move; Adam moves them further than its size.
        moved, any_moved = moves[name], max(moves.values())
        if not value.numel():
            continue
        allowed = tolerance * (moved + 0.01 * any_moved) + rounding * (1 + float(other.abs().max()))
        off = float((value - other).abs().max())
        if off > allowed or math.isnan(off) != bool(other.isnan().any()):
            return (
                f"its weights {name} differ by up to {off:.3g} after {STEPS} steps, in which they move by {moved:.3g}"
            )
    for name, other in expected.buffers.items():
        if name not in found.buffers:
            return f"its buffer {name} is registered in forward"
        if off := _off(found.buffers[name], other, tolerance, rounding):
            return f"its buffer {name} differs by up to {off:.3g}"
    if not _close(found.evaluated, expected.evaluated, tolerance):
        return f"its loss in eval mode is {found.evaluated:.6g} instead of {expected.evaluated:.6g}"
    return ""


def _off(value: Tensor, expected: Tensor, tolerance: float, rounding: float) -> float:
    """The deviation of a buffer beyond rounding, or 0; infinities, as in masks, must match."""
    one, other = (part if part.is_complex() else part.double() for part in (value, expected))
    finite = other.isfinite()
    if not torch.equal(one[~finite].nan_to_num(), other[~finite].nan_to_num()):
        return math.inf
    if not finite.any():
        return 0.0
    off = float((one[finite] - other[finite]).abs().max())
    return off if off > tolerance * float(other[finite].abs().max()) + rounding else 0.0


def _moves(point: Outcome, trial: Trial) -> dict[str, float]:
    """The largest change of each weight; on a sphere, weights start from the projected point."""
    start = dict(trial.model(SEED).named_parameters())
    if trial.task.update.radius is not None:
        return dict.fromkeys(point.weights, 0.0)
    moves = {name: (value - start[name].detach()).abs() for name, value in point.weights.items()}
    return {name: float(move.max()) if move.numel() else 0.0 for name, move in moves.items()}


def _close(one: float, other: float, tolerance: float) -> bool:
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.isnan(one) == math.isnan(other)
    return abs(one - other) <= tolerance * max(1.0, abs(other))


def _reason(trial: Trial) -> str:
    """The usual reason for a difference, based on the model's layers."""
    model = trial.model(0)
    hooked = [name for name, value in model.named_parameters() if _hooks(value)]
    if hooked:
        return (
            f"a gradient hook on {', '.join(hooked[:3])} is the usual reason: the weights of a run are not those"
            " of the module; change gradients in an optimizer passed as rule= instead"
        )
    return (
        "usual reasons: gradient checkpointing, which recomputes with different weights; tensors outside"
        " parameters and buffers, such as random ones drawn when the model is made; functions or lists that refer"
        " to parts of the model; hooks; in-place changes of weights in forward"
    )


def _hooks(value: nn.Parameter) -> bool:
    return bool(value._backward_hooks or getattr(value, "_post_accumulate_grad_hooks", None))


def _check_attributes(trial: Trial) -> None:
    """Refuse a model whose passes change its plain attributes: all runs would share them.

    A value that settles in the first pass, such as a cached size, is not training state.
    """
    model, seen = trial.model(0), list[dict[str, object]]()
    with seed_generators(0), torch.no_grad():
        for _ in range(3):
            call(model.train(), batches_of(trial)[0][0])
            seen.append(_attributes(model))
    # NaN counts as equal to NaN.
    changed = [name for name in seen[-1] if repr(seen[0].get(name)) != repr(seen[-1][name])]
    if changed:
        before, after = (repr(values.get(changed[0]))[:40] for values in (seen[0], seen[1]))
        raise TaskError(
            f"The model changes its attribute {changed[0]} in every forward pass ({before}, then {after}), so all"
            " runs would share it: register it with register_buffer and change it in place."
        )


def _attributes(model: nn.Module) -> dict[str, object]:
    """Plain attributes of all modules: numbers, strings, flags, and collections of these."""
    own = vars(nn.Module())
    return {
        f"{path}.{name}".lstrip("."): copy.deepcopy(value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if name not in own and _is_plain(value)
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_plain(part) for part in cast("Iterable[object]", value))
    if isinstance(value, dict):
        return all(_is_plain(part) for pair in cast("dict[object, object]", value).items() for part in pair)
    return isinstance(value, bool | int | float | complex | str | bytes | None)


def _draws(trial: Trial) -> bool:
    """Whether a pass in train mode draws random numbers from PyTorch's generator.

    Raises:
        TaskError: It draws from NumPy's or Python's generator, which is not seeded per run.
    """
    x, y = batches_of(trial)[0]
    model = trial.model(0).train()
    with seed_generators(0), torch.no_grad():
        before = generator_states()
        trial.loss(call(model, x), y)
        now = generator_states()
        if before[1:] != now[1:]:
            raise TaskError(
                "The model or loss draws random numbers from NumPy's or Python's generator, so runs would not be"
                " reproducible; use PyTorch's global generator."
            )
        return before != now


_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def _without_draws(model: nn.Module) -> nn.Module:
    """The model with dropout disabled."""
    for module in model.modules():
        if isinstance(module, _DROPOUT):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
            module.dropout = 0.0
    return model


def _unstackable(trial: Trial, plain: Outcome, *, draws: bool) -> str:
    """Why runs cannot train as a stack; if the model draws, both sides run without dropout."""
    if not trial.task.update.stacks:
        return f"{trial.task.update.name} cannot train stacks"
    expected = _program(trial, "single", quiet=True) if draws else [plain]
    found = _program(trial, "stack", quiet=draws)
    if isinstance(expected, str) or isinstance(found, str):
        return found if isinstance(found, str) else str(expected)
    return _difference(found[0], expected[0], trial)
