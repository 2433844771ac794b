"""A hand-written training loop: a few steps of a task with the user's own model, loss and optimizer."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from lratlas.data.parts import Parts, call, floats_to, logits_of, rows
from lratlas.errors import TaskError, first_line
from lratlas.rng import seed_generators, stream
from lratlas.training.batches import augmentation_draws, batch_indices
from lratlas.training.objective import MODEL
from lratlas.training.prepared import Prepared, make_model
from lratlas.training.rules import Rule, State
from lratlas.training.sphere import Weights

STEPS = 2
SEED = 1  # of the weights; everything else in a model comes from seed 0 in all runs
LR = 0.05


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a few steps: the loss of each step, final weights and buffers, and the loss in eval mode."""

    losses: list[float]
    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]
    evaluated: float
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Mini-batches to train on, with a model, loss and rule."""

    task: Prepared
    model: Callable[[int], nn.Module]
    loss: Callable[[Any, Any], Tensor]
    factory: Callable[..., torch.optim.Optimizer] | None
    dtype: torch.dtype
    x: Parts
    y: Parts
    batches: Tensor
    draws: dict[str, Tensor]


def plain_trial(
    task: Prepared,
    loss: str | Callable[[Any, Any], Tensor],
    factory: Callable[..., torch.optim.Optimizer] | None,
    samples: int,
) -> tuple[Trial, Outcome]:
    """The result of the plain loop, in float64 if the task's code supports it, with fewer samples than a step has.

    Args:
        task: The task.
        loss: The loss as passed by the user.
        factory: The optimizer factory, if the rule is one.
        samples: Maximum samples per mini-batch; a whole step if the task cannot use fewer.

    Raises:
        TaskError: The loop fails in every variant.
    """
    failed: Exception | None = None
    for size in dict.fromkeys((min(task.samples_per_step, samples), task.samples_per_step)):
        for dtype in (torch.float64, torch.float32):
            trial = _trial(task, _plain_loss(loss, task, dtype), factory, size, dtype)
            try:
                with seed_generators(0):
                    return trial, _plain(trial)
            except TaskError:
                raise
            except Exception as error:
                failed = failed or error
    assert failed is not None
    why = f"{type(failed).__name__}: {first_line(failed)}"
    raise TaskError(f"A plain PyTorch step of this task fails: {why}") from failed


def _trial(
    task: Prepared,
    loss: Callable[[Any, Any], Tensor],
    factory: Callable[..., torch.optim.Optimizer] | None,
    size: int,
    dtype: torch.dtype,
) -> Trial:
    taken = min(STEPS * size, task.samples)
    (order,) = batch_indices(seed=0, start=0, stop=1, samples=task.samples, batch_size=taken)
    return Trial(
        task=task,
        model=lambda seed: in_format(make_model(task, seed), dtype),
        loss=loss,
        factory=factory,
        dtype=dtype,
        x=rows(task.train[0], order),
        y=rows(task.train[1], order),
        batches=torch.stack([torch.arange(size), torch.arange(taken - size, taken)]),
        draws=_augmentation(task, size),
    )


def in_format(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model with its floating-point tensors in a dtype; complex tensors, such as rotations, stay unchanged."""
    return model.double() if dtype == torch.float64 else model.float()


def _augmentation(task: Prepared, size: int) -> dict[str, Tensor]:
    """Random draws for the augmentation of the mini-batches."""
    if task.augment is None:
        return {}
    return augmentation_draws(task.augment, seed=0, start=0, stop=STEPS, samples=STEPS * size, batch_size=size)


def _plain_loss(loss: str | Callable[[Any, Any], Tensor], task: Prepared, dtype: torch.dtype) -> Callable[..., Tensor]:
    """The loss of the model's return value, as in a hand-written loop."""
    if loss == MODEL:
        return _return_loss
    if not callable(loss):
        return partial(_of_logits, _NAMED[loss])
    own = copy.deepcopy(loss).to(dtype) if isinstance(loss, nn.Module) else loss
    return partial(_of_logits, own) if task.objective.takes_logits else own


def _return_loss(outputs: Any, _: Any) -> Tensor:
    return outputs["loss"] if isinstance(outputs, Mapping) else outputs.loss


def _of_logits(loss: Callable[[Any, Any], Tensor], outputs: Any, y: Any) -> Tensor:
    return loss(logits_of(outputs), y)


def _binary(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, y.reshape(outputs.shape).to(outputs))


def _mse(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(outputs, y.reshape(outputs.shape))


_NAMED: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda outputs, y: functional.cross_entropy(outputs.flatten(0, -2), y.flatten().long()),
    "binary_cross_entropy": _binary,
    "mse": _mse,
}


def _plain(trial: Trial) -> Outcome:
    """Run an ordinary training loop."""
    rule, model = trial.task.update, trial.model(SEED).train()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    others = {name: value for name, value in model.named_parameters() if not value.requires_grad}
    start = {name: value.detach().clone() for name, value in (trained | others).items()}
    if rule.radius is not None:
        _project({name: trained[name] for name in trained if name not in rule.free}, rule.radius)
    step, reached, losses = _plain_step(rule, trial.factory, trained), set[str](), list[float]()
    for x, y in batches_of(trial):
        for value in trained.values():
            value.grad = None
        value = trial.loss(call(model, x), y)
        value = value.mean() if value.dim() else value
        if not bool(value.isfinite()):
            raise TaskError(f"The loss of a plain PyTorch loop is {float(value)} in step {len(losses) + 1}.")
        value.backward()
        for own in trained.values():
            if own.grad is not None and own.grad.is_sparse:
                own.grad = own.grad.to_dense()
        reached |= {name for name, own in trained.items() if own.grad is not None}
        step()
        losses.append(float(value.detach()))
    weights = {name: value.detach().clone() for name, value in trained.items()}
    buffers = {name: value.detach().clone() for name, value in model.named_buffers()}
    still = {**others, **{name: value for name, value in trained.items() if name not in reached}}
    changed = [name for name, value in still.items() if not torch.equal(value, start[name])]
    if changed:
        raise TaskError(
            f"The model changes its parameters {', '.join(changed[:3])} in place without a gradient, like averages"
            " of weights: make them buffers, which every run stores."
        )
    x, y = batches_of(trial, augmented=False)[0]
    if trial.task.objective.by_batches:  # samples are then evaluated in random order
        order = torch.from_numpy(stream(0, "statistics").permutation(len(trial.batches[0])))
        x, y = rows(x, order), rows(y, order)
    with torch.no_grad(), seed_generators(1):
        evaluated = trial.loss(call(model.eval(), x), y).mean()
    return Outcome(
        losses=losses,
        weights=weights,
        buffers=buffers,
        evaluated=float(evaluated),
        unused=tuple(name for name in trained if name not in reached),
    )


def batches_of(trial: Trial, *, augmented: bool = True) -> Sequence[tuple[Parts, Parts]]:
    """The mini-batches as the model and the loss of a plain loop receive them."""
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
    """One update by PyTorch's optimizer of that name or the user's; on a sphere, by the formula."""
    parameters = [*trained.values()]
    if factory is not None:
        return factory(parameters, LR).step
    if rule.radius is None and rule.name in _OPTIMIZERS:
        return _OPTIMIZERS[rule.name](parameters, **dict(rule.settings))
    state: dict[str, Tensor] = {}
    started = False

    def by_rule() -> None:
        # A rule without a PyTorch optimizer: its own function, applied to this loop's gradients.
        nonlocal state, started
        weights = {name: value.detach()[None, None].clone() for name, value in trained.items()}
        slopes = {
            name: torch.zeros_like(weights[name]) if value.grad is None else value.grad[None, None]
            for name, value in trained.items()
        }
        if not started:
            state, started = rule.start(weights), True
        lrs = torch.full((1, 1), LR, dtype=parameters[0].dtype)
        new, state = _checked_update(rule, rule.update(weights, slopes, state, lrs), weights)
        with torch.no_grad():
            for name, value in trained.items():
                value.copy_(new[name][0, 0])

    return by_rule


def _checked_update(rule: Rule, returned: Any, weights: Weights) -> tuple[Weights, State]:
    """Check the return value of a rule's update, which may be a user's function."""
    pair: Any = returned if isinstance(returned, tuple) else ()
    if len(pair) != 2 or not all(isinstance(part, Mapping) for part in pair):
        raise TaskError(f"The update of the rule {rule.name} must return two dictionaries, new weights and new state.")
    if {name: value.shape for name, value in pair[0].items()} != {n: value.shape for n, value in weights.items()}:
        raise TaskError(
            f"The update of the rule {rule.name} must return new weights for all names, with unchanged shapes."
        )
    return pair


def _sgd_step(parameters: list[nn.Parameter], **settings: Any) -> Callable[[], object]:
    buffers: list[Tensor | None] = [None for _ in parameters]

    def step() -> None:
        moved = [at for at, value in enumerate(parameters) if value.grad is not None]
        own = [buffers[at] for at in moved]
        with torch.no_grad():
            sgd(*_with_slopes(parameters, moved), own, lr=LR, dampening=0.0, maximize=False, foreach=False, **settings)
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
        flags |= settings | {"lr": LR, "decoupled_weight_decay": decoupled}
        with torch.no_grad():
            adam(values, slopes, own, other, [], done, **flags)

    return step


def _with_slopes(parameters: list[nn.Parameter], at: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    values = [parameters[index] for index in at]
    return [*values], [value.grad for value in values if value.grad is not None]


# The functional forms of PyTorch's optimizers: their classes import its compiler, which takes seconds.
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
