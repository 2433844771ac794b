"""Whether a task is trained as its author wrote it: the program's steps beside those of a plain PyTorch loop.

Two mini-batches are trained by both, from the same weights and with the same random draws; loss, weights and buffers
must agree. What a plain loop has that a program of pure functions has not (gradient hooks, state in Python attributes,
recomputation in the backward pass) shows as a difference, and is refused before anything is trained.
"""

import copy
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from lratlas.data.parts import Parts, call, each, floats_to, logits_of, rows
from lratlas.errors import TaskError, first_line
from lratlas.streams import seeded
from lratlas.training.evaluating import evaluate_stack
from lratlas.training.objective import MODEL
from lratlas.training.order import augmentation_draws, batch_indices
from lratlas.training.program import Strategy, build
from lratlas.training.rules import Rule
from lratlas.training.stacks import Samples, start_stack
from lratlas.training.trainer import train_stack

if TYPE_CHECKING:
    from lratlas.training.prepare import Prepared

_STEPS = 2
_SAMPLES = 32  # of a mini-batch, at most
_LR = 0.05
_TOLERANCE: Mapping[torch.dtype, float] = {torch.float64: 1e-6, torch.float32: 1e-3}
_ROUNDING: Mapping[torch.dtype, float] = {torch.float64: 1e-13, torch.float32: 1e-5}  # of the weights' own size


@dataclass(frozen=True, kw_only=True)
class Conformance:
    """What the comparison of a task with a plain PyTorch loop has shown.

    Attributes:
        draws: Whether the model draws random numbers in training, as dropout does.
        exact: Whether the comparison was made in float64; in float32 where the model takes no other.
        unused: Parameters that no gradient reaches; like a plain optimizer, training leaves them as they are.
        unstackable: Why runs cannot be trained as one program; empty where they can.
    """

    draws: bool = False
    exact: bool = True
    unused: tuple[str, ...] = ()
    unstackable: str = ""


@dataclass(frozen=True, kw_only=True)
class _Point:
    """Where a few steps led: the loss of each step, weights and buffers afterwards, and the loss in eval mode."""

    losses: list[float]
    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]
    evaluated: float
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """Mini-batches to train on, and with which model, loss and rule."""

    task: "Prepared"
    model: Callable[[], nn.Module]
    loss: Callable[[Any, Any], Tensor]
    factory: Callable[..., torch.optim.Optimizer] | None
    dtype: torch.dtype
    x: Parts
    y: Parts
    batches: Tensor
    draws: dict[str, Tensor]


def check_step(
    task: "Prepared",
    make: Callable[["Prepared", int], nn.Module],
    place: Callable[["Prepared", torch.device, torch.dtype], "Prepared"],
    loss: str | Callable[[Any, Any], Tensor],
    factory: Callable[..., torch.optim.Optimizer] | None,
) -> Conformance:
    """Train two mini-batches as training does and as a plain loop does, and compare.

    Args:
        task: The task, all but its conformance.
        make: Makes its model.
        place: Puts it on a device, in a number format.
        loss: The loss as it was given.
        factory: The optimizer factory, where the rule is one.

    Raises:
        TaskError: The plain loop fails, or the two differ; the message says in what, and why that usually is.
    """
    trial, plain = _plain_trial(task, make, loss, factory)
    _check_attributes(trial)
    ready = replace(place(task, torch.device("cpu"), trial.dtype), conformance=Conformance(unused=plain.unused))
    trial = replace(trial, task=ready, model=lambda: make(ready, 0).to(trial.dtype))
    ran = _program(trial, "single")
    if isinstance(ran, str):
        raise TaskError(
            f"The model cannot be called with weights from outside, as torch.func.functional_call does: {ran}"
            f" ({_reason(trial)})"
        )
    once, again = ran
    if _difference(again, once, trial):
        raise TaskError(
            "The same steps give other results when they are repeated: the model, loss or transform keeps state outside"
            " the model's parameters and buffers; make it a buffer, with register_buffer."
        )
    if what := _difference(once, plain, trial):
        raise TaskError(f"A step of this task differs from that of a plain PyTorch loop: {what} ({_reason(trial)}).")
    draws = _draws(trial)
    return Conformance(
        draws=draws,
        exact=trial.dtype == torch.float64,
        unused=plain.unused,
        unstackable=_unstackable(trial, plain, draws=draws),
    )


def _plain_trial(
    task: "Prepared",
    make: Callable[["Prepared", int], nn.Module],
    loss: str | Callable[[Any, Any], Tensor],
    factory: Callable[..., torch.optim.Optimizer] | None,
) -> tuple[_Trial, _Point]:
    """The plain loop's result, in float64 where the task's own code takes it."""
    size = min(task.samples_per_step, _SAMPLES)
    taken = min(_STEPS * size, task.samples)
    (order,) = batch_indices(seed=0, start=0, stop=1, samples=task.samples, batch_size=taken)
    failed: Exception | None = None
    for dtype in (torch.float64, torch.float32):
        trial = _Trial(
            task=task,
            model=lambda dtype=dtype: make(task, 0).to(dtype),
            loss=_plain_loss(loss, task, dtype),
            factory=factory,
            dtype=dtype,
            x=rows(task.train[0], order),
            y=rows(task.train[1], order),
            batches=torch.stack([torch.arange(size), torch.arange(taken - size, taken)]),
            draws=_augmentation(task, size),
        )
        try:
            with seeded(0):
                return trial, _plain(trial)
        except Exception as error:
            failed = error
    assert failed is not None
    raise TaskError(
        f"A plain PyTorch step of this task fails: {type(failed).__name__}: {first_line(failed)}"
    ) from failed


def _augmentation(task: "Prepared", size: int) -> dict[str, Tensor]:
    """Random draws for the augmentation of the mini-batches."""
    if task.augment is None:
        return {}
    return augmentation_draws(task.augment, seed=0, start=0, stop=_STEPS, samples=_STEPS * size, batch_size=size)


def _plain_loss(
    loss: str | Callable[[Any, Any], Tensor], task: "Prepared", dtype: torch.dtype
) -> Callable[..., Tensor]:
    """The loss as one would write it in a loop, of what the model returns."""
    if loss == MODEL:
        return _returned_loss
    if not callable(loss):
        return partial(_of_logits, _NAMED[loss])
    own = copy.deepcopy(loss).to(dtype) if isinstance(loss, nn.Module) else loss
    return partial(_of_logits, own) if task.objective.takes_logits else own


def _returned_loss(outputs: Any, _: Any) -> Tensor:
    return outputs["loss"] if isinstance(outputs, Mapping) else outputs.loss


def _of_logits(loss: Callable[[Any, Any], Tensor], outputs: Any, y: Any) -> Tensor:
    return loss(logits_of(outputs), y)


def _binary(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, y.reshape(outputs.shape).to(outputs))


def _mse(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(outputs, y.reshape(outputs.shape))


_NAMED: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda outputs, y: functional.cross_entropy(outputs, y.long()),
    "binary_cross_entropy": _binary,
    "mse": _mse,
}


def _plain(trial: _Trial) -> _Point:
    """The steps of an ordinary training loop."""
    rule, model = trial.task.update, trial.model().train()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if rule.radius is not None:
        _project({name: trained[name] for name in trained if name not in rule.free}, rule.radius)
    step, reached, losses = _plain_step(rule, trial.factory, trained), set[str](), list[float]()
    for x, y in _batches(trial):
        for value in trained.values():
            value.grad = None
        value = trial.loss(call(model, x), y)
        value = value.mean() if value.dim() else value
        value.backward()
        for own in trained.values():
            if own.grad is not None and own.grad.is_sparse:
                own.grad = own.grad.to_dense()
        reached |= {name for name, own in trained.items() if own.grad is not None}
        step()
        losses.append(float(value.detach()))
    weights = {name: value.detach().clone() for name, value in trained.items()}
    buffers = {name: value.detach().clone() for name, value in model.named_buffers()}
    x, y = _batches(trial, augmented=False)[0]
    with torch.no_grad():
        evaluated = trial.loss(call(model.eval(), x), y).mean()
    return _Point(
        losses=losses,
        weights=weights,
        buffers=buffers,
        evaluated=float(evaluated),
        unused=tuple(name for name in trained if name not in reached),
    )


def _batches(trial: _Trial, *, augmented: bool = True) -> Sequence[tuple[Parts, Parts]]:
    """The mini-batches as the model and the loss of a plain loop get them."""
    task, found = trial.task, list[tuple[Parts, Parts]]()
    for number, at in enumerate(trial.batches):
        x, y = (floats_to(rows(parts, at), trial.dtype) for parts in (trial.x, trial.y))
        if task.augment and augmented:
            x = task.augment.apply(x, {name: value[number] for name, value in trial.draws.items()})  # pyright: ignore[reportArgumentType] - images, as was checked
        shown = task.transform(x) if task.transform else x
        found.append((floats_to(shown, trial.dtype), y))
    return found


def _plain_step(
    rule: Rule, factory: Callable[..., torch.optim.Optimizer] | None, trained: dict[str, nn.Parameter]
) -> Callable[[], object]:
    """One update by PyTorch's own optimizer of that name, or by the user's; on a sphere by the formula."""
    parameters = [*trained.values()]
    if factory is not None:
        return factory(parameters, _LR).step
    if rule.radius is None and rule.name in _OPTIMIZERS:
        return _OPTIMIZERS[rule.name](parameters, **dict(rule.settings))
    state: dict[str, Tensor] = {}
    started = False

    def by_rule() -> None:
        # A rule that PyTorch has no optimizer for: its own function, on this loop's gradients.
        nonlocal state, started
        weights = {name: value.detach()[None, None].clone() for name, value in trained.items()}
        slopes = {
            name: torch.zeros_like(weights[name]) if value.grad is None else value.grad[None, None]
            for name, value in trained.items()
        }
        if not started:
            state, started = rule.start(weights), True
        lrs = torch.full((1, 1), _LR, dtype=parameters[0].dtype)
        new, state = rule.update(weights, slopes, state, lrs)
        with torch.no_grad():
            for name, value in trained.items():
                value.copy_(new[name][0, 0])

    return by_rule


def _sgd_step(parameters: list[nn.Parameter], **settings: Any) -> Callable[[], object]:
    buffers: list[Tensor | None] = [None for _ in parameters]

    def step() -> None:
        moved = [at for at, value in enumerate(parameters) if value.grad is not None]
        own = [buffers[at] for at in moved]
        with torch.no_grad():
            sgd(*_with_slopes(parameters, moved), own, lr=_LR, dampening=0.0, maximize=False, foreach=False, **settings)
        for at, buffer in zip(moved, own, strict=True):
            buffers[at] = buffer

    return step


def _adam_step(parameters: list[nn.Parameter], *, decoupled: bool, **settings: Any) -> Callable[[], object]:
    means, squares = ([torch.zeros_like(value) for value in parameters] for _ in range(2))
    counts = [torch.zeros(()) for _ in parameters]

    def step() -> None:
        moved = [at for at, value in enumerate(parameters) if value.grad is not None]
        values, slopes = _with_slopes(parameters, moved)
        own, other, done = ([part[at] for at in moved] for part in (means, squares, counts))
        flags: dict[str, Any] = {"amsgrad": False, "maximize": False, "foreach": False}
        flags |= settings | {"lr": _LR, "decoupled_weight_decay": decoupled}
        with torch.no_grad():
            adam(values, slopes, own, other, [], done, **flags)

    return step


def _with_slopes(parameters: list[nn.Parameter], at: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    values = [parameters[index] for index in at]
    return [*values], [value.grad for value in values if value.grad is not None]


# The functions of PyTorch's optimizers: their classes import its compiler, which takes seconds.
_OPTIMIZERS: Mapping[str, Callable[..., Callable[[], object]]] = {
    "sgd": _sgd_step,
    "adam": partial(_adam_step, decoupled=False),
    "adamw": partial(_adam_step, decoupled=True),
}


@torch.no_grad()
def _project(trained: Mapping[str, nn.Parameter], radius: float) -> None:
    size = torch.stack([value.norm() for value in trained.values()]).norm()
    for value in trained.values():
        value.mul_(radius / size)


def _program(trial: _Trial, strategy: Strategy, *, quiet: bool = False) -> tuple[_Point, _Point] | str:
    """The same steps by the program that trains runs, done twice; why it fails where it does.

    Args:
        trial: What to train.
        strategy: One run alone, or two as a stack, of which the first is compared.
        quiet: Whether dropout is switched off.
    """
    try:
        with seeded(0):
            model = trial.model()
        return _trained(trial, _without_draws(model) if quiet else model, strategy)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"


def _trained(trial: _Trial, model: nn.Module, strategy: Strategy) -> tuple[_Point, _Point]:
    lanes = 1 if strategy == "single" else 2
    task = trial.task
    program = build(
        model, task.objective, task.update, compiled=False, strategy=strategy, batch_size=task.samples_per_step
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

    def run() -> _Point:
        with seeded(0):
            trained = train_stack(
                program,
                start_stack(task.update.constrained(weights), buffers, task.update),
                lrs=torch.tensor([[_LR, 0.5 * _LR][:lanes]], dtype=trial.dtype),
                batches=trial.batches[:, None],
                draws={name: value[:, None] for name, value in trial.draws.items()} or None,
                train=samples,
                trace_every=1,
            )
        stack = trained.stack
        return _Point(
            losses=[float(row.train_loss[0, 0]) for row in trained.rows],
            weights={name: value[0, 0].clone() for name, value in stack.weights.items()},
            buffers={name: value[0, 0].clone() for name, value in stack.buffers.items()},
            evaluated=float(evaluate_stack(program, stack.weights, stack.buffers, few).loss[0, 0]),
        )

    return run(), run()


def _part(at: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda part: part[:, at]


def _difference(found: _Point, expected: _Point, trial: _Trial) -> str:
    """What differs by more than rounding, in words; empty where nothing does."""
    tolerance, rounding = _TOLERANCE[trial.dtype], _ROUNDING[trial.dtype]
    for number, (one, other) in enumerate(zip(found.losses, expected.losses, strict=True)):
        if not _close(one, other, tolerance):
            return f"its loss in step {number + 1} is {one:.6g} instead of {other:.6g}"
    moves = _moves(expected, trial)
    for name, value in found.weights.items():
        other = expected.weights[name]
        # Weights whose gradient is nothing but rounding are moved by it, in Adam by more than its size.
        moved, any_moved = moves[name], max(moves.values())
        allowed = tolerance * (moved + 0.01 * any_moved) + rounding * (1 + float(other.abs().max()))
        off = float((value - other).abs().max())
        if off > allowed or math.isnan(off) != bool(other.isnan().any()):
            return (
                f"its weights {name} differ by up to {off:.3g} after {_STEPS} steps, in which they move by {moved:.3g}"
            )
    for name, other in expected.buffers.items():
        off = (found.buffers[name].double() - other.double()).abs()
        if not bool((off <= tolerance * other.double().abs().max() + rounding).all()):
            return f"its buffer {name} differs by up to {float(off.max()):.3g}"
    if not _close(found.evaluated, expected.evaluated, tolerance):
        return f"its loss in eval mode is {found.evaluated:.6g} instead of {expected.evaluated:.6g}"
    return ""


def _moves(point: _Point, trial: _Trial) -> dict[str, float]:
    """How far the steps move each weight at most; weights on a sphere start elsewhere than the model has them."""
    start = dict(trial.model().named_parameters())
    if trial.task.update.radius is not None:
        return dict.fromkeys(point.weights, 0.0)
    return {name: float((value - start[name].detach()).abs().max()) for name, value in point.weights.items()}


def _close(one: float, other: float, tolerance: float) -> bool:
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.isnan(one) == math.isnan(other)
    return abs(one - other) <= tolerance * max(1.0, abs(other))


def _reason(trial: _Trial) -> str:
    """Why a step usually differs, by what the model has."""
    model = trial.model()
    hooked = [name for name, value in model.named_parameters() if _hooks(value)]
    if hooked:
        return (
            f"a gradient hook on {', '.join(hooked[:3])} is the usual reason: weights of runs are not the module's own;"
            " change gradients in an optimizer passed as rule= instead"
        )
    return (
        "usual reasons: gradient checkpointing, which recomputes with other weights; state outside parameters and"
        " buffers; hooks; in-place changes of weights in forward"
    )


def _hooks(value: nn.Parameter) -> bool:
    return bool(value._backward_hooks or getattr(value, "_post_accumulate_grad_hooks", None))


def _check_attributes(trial: _Trial) -> None:
    """Refuse a model whose passes change what it holds in plain attributes: all runs would share it.

    What settles in the first pass, such as a cached size, is no state of a training.
    """
    model, seen = trial.model(), list[dict[str, object]]()
    with seeded(0), torch.no_grad():
        for training in (True, True, True, False):
            call(model.train(training), _batches(trial)[0][0])
            seen.append(_attributes(model))
    changed = [name for name in seen[-1] if seen[0].get(name) != seen[-1][name]]
    if changed:
        before, after = (repr(values.get(changed[0]))[:40] for values in (seen[0], seen[1]))
        raise TaskError(
            f"The model changes its attribute {changed[0]} in every forward pass ({before}, then {after}), so that all"
            " runs would share it: register it as a buffer, with register_buffer, and change it in place."
        )


def _attributes(model: nn.Module) -> dict[str, object]:
    """Plain attributes of all modules: numbers, strings, flags, and collections of them."""
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


def _draws(trial: _Trial) -> bool:
    """Whether a pass in train mode draws random numbers from PyTorch's generator.

    Raises:
        TaskError: It draws from NumPy's or Python's, which nobody seeds for a run.
    """
    x, y = _batches(trial)[0]
    model = trial.model().train()
    with seeded(0), torch.no_grad():
        before = torch.get_rng_state()
        others = _other_generators()
        trial.loss(call(model, x), y)
        if others != _other_generators():
            raise TaskError(
                "The model or loss draws random numbers from NumPy's or Python's generator, so that runs could not be"
                " repeated; draw from PyTorch's global generator."
            )
        return not torch.equal(before, torch.get_rng_state())


def _other_generators() -> tuple[object, ...]:
    state = np.random.get_state()  # noqa: NPY002 - a user's code may draw from it
    return random.getstate(), str(state), state[2]  # pyright: ignore[reportArgumentType] - a tuple, for the legacy generator


_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def _without_draws(model: nn.Module) -> nn.Module:
    """The model with its dropout switched off."""
    for module in model.modules():
        if isinstance(module, _DROPOUT):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
            module.dropout = 0.0
    return model


def _unstackable(trial: _Trial, plain: _Point, *, draws: bool) -> str:
    """Why runs cannot be trained as a stack; where the model draws, both sides do without dropout."""
    if not trial.task.update.stacks:
        return f"{trial.task.update.name} cannot train stacks"
    expected = _program(trial, "single", quiet=True) if draws else (plain, plain)
    found = _program(trial, "stack", quiet=draws)
    if isinstance(expected, str) or isinstance(found, str):
        return found if isinstance(found, str) else str(expected)
    return _difference(found[0], expected[0], trial)
