"""Use any `torch.optim.Optimizer` as an update rule, for runs that train one by one."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lratlas.errors import TaskError
from lratlas.training.rules import Rule, State
from lratlas.training.sphere import Weights

Factory = Callable[[list[nn.Parameter], float], Optimizer]
_NUMBERS = (bool, int, float)
_TRIED_LR = 1e-3


def optimizer_rule(factory: Factory, weights: Mapping[str, Tensor] | None = None) -> Rule:
    """The update rule of an optimizer factory.

    A step is a function of its arguments, so that a run can resume from stored tensors. An optimizer is created for the
    first step with a tensor of learning rates; later steps with this tensor copy their weights and state into it, and
    the device is not waited for.

    Args:
        factory: ``(parameters, lr) -> torch.optim.Optimizer``, for example the class of an optimizer. Learning rates
            that it sets for groups of parameters are not changed.
        weights: A model's trained parameters (no stack axes), in the order for the factory; also used to read the
            settings that identify a run. None for any model, with parameters ordered by name.

    Raises:
        TaskError: The factory fails, does not return an optimizer, or its optimizer is not supported.
    """
    tried = {"": torch.zeros(2, 2)} if weights is None else weights
    optimizer = _make_optimizer(factory, [nn.Parameter(value.detach().clone()) for value in tried.values()], _TRIED_LR)
    name, order = _name(factory), None if weights is None else [*weights]

    latest: list[_Live] = []

    def update(weights: Weights, gradients: Weights, state: State, lrs: Tensor) -> tuple[Weights, State]:
        live = next((each for each in latest if each.continues(weights, state, lrs)), None)
        if live is None:
            parameters = {key: nn.Parameter(weights[key][0, 0].clone()) for key in order or weights}
            live = _Live(_make_optimizer(factory, [*parameters.values()], float(lrs[0, 0])), parameters, lrs)
            latest[:] = [live]
        live.load(weights, state)
        for key, parameter in live.parameters.items():
            parameter.grad = gradients[key][0, 0] if key in gradients else None  # others stay unchanged
        with torch.enable_grad():  # some optimizers differentiate, and all expect grad mode as in a training loop
            live.optimizer.step()
        live.state = _state(live.optimizer, live.parameters, name)
        # Copies, since the next step changes the optimizer's own tensors.
        return {key: live.parameters[key].detach().clone()[None, None] for key in weights}, live.state

    settings = _settings(optimizer)
    return Rule(name=f"optimizer {name}", settings=settings, start=lambda _: {}, update=update, stacks=False)


def check_optimizer(factory: Factory, weights: Mapping[str, Tensor]) -> None:
    """Check that a factory's optimizer has every trained parameter of a model, and that it can take a step.

    Args:
        factory: As for `optimizer_rule`.
        weights: The model's trained parameters (no stack axes).

    Raises:
        TaskError: It omits parameters, needs a closure, or has state that cannot be stored.
    """
    name = _name(factory)
    parameters = {key: nn.Parameter(value.detach().clone()) for key, value in weights.items()}
    optimizer = _make_optimizer(factory, [*parameters.values()], _TRIED_LR)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    dropped = [key for key, parameter in parameters.items() if id(parameter) not in held]
    if dropped:
        raise TaskError(
            f"The optimizer factory {name} drops {', '.join(dropped)}; it must pass all its parameters to the"
            " optimizer (to freeze some, set requires_grad=False in the model)."
        )
    if all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval")):
        raise TaskError(
            f"An optimizer of the factory {name} is schedule-free: its weights in evaluation differ from those in"
            " training, which a study does not support; use an optimizer without train() and eval() modes."
        )
    _check_memory(optimizer, parameters, name)
    stacked = {key: value.detach()[None, None] for key, value in weights.items()}
    lrs = torch.full((1, 1), _TRIED_LR)
    try:
        optimizer_rule(factory).update(stacked, {k: torch.ones_like(v) for k, v in stacked.items()}, {}, lrs)
    except TaskError:
        raise
    except Exception as error:
        raise TaskError(
            f"An optimizer of the factory {name} failed in its first step: {type(error).__name__}: {error}"
        ) from error


def _check_memory(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], name: str) -> None:
    """Refuse an optimizer with memory outside its state, which is all that a resumed run restores.

    Raises:
        TaskError: Its steps change attributes or state that belongs to no parameter, or it has hooks on its steps.
    """
    if any(getattr(optimizer, hooks, None) for hooks in _STEP_HOOKS):
        raise TaskError(
            f"An optimizer of the factory {name} has step hooks, which a study does not support: they would start again"
            " when a run resumes."
        )
    before = _attributes(optimizer)
    try:
        with torch.enable_grad():
            for _ in range(2):
                for parameter in parameters.values():
                    parameter.grad = torch.ones_like(parameter)
                optimizer.step()
    except Exception:  # the trial of the rule reports it
        return
    after, own = _attributes(optimizer), {id(value) for value in parameters.values()}
    changed = [key for key in after if before.get(key) != after[key]]
    odd = [str(key) for key in optimizer.state if id(key) not in own]
    if changed or odd:
        raise TaskError(
            f"An optimizer of the factory {name} changes {', '.join(changed or odd)} in its steps, which would be lost:"
            " a resumed run restores the state of each parameter and the numbers in the groups. Store it there."
        )


_STEP_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
_STANDARD = {"state", "param_groups", "defaults", "_zero_grad_profile_name", "_warned_capturable_if_run_uncaptured"}


def _attributes(optimizer: object, depth: int = 0) -> dict[str, str]:
    """The attributes of an optimizer without its state and groups, as text; for inner optimizers with the state."""
    found: dict[str, str] = {}
    for key, value in vars(optimizer).items():
        if depth == 0 and (key in _STANDARD or key.startswith("_optimizer_") or callable(value)):
            continue
        if isinstance(value, Optimizer) and depth == 0:
            found |= {f"{key}.{name}": text for name, text in _attributes(value, 1).items()}
        else:
            found[key] = _text(value)
    return found


def _text(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.detach().double().flatten().tolist()[:64]} {float(value.detach().sum())}"
    if isinstance(value, Mapping):
        return str([(_text(key), _text(part)) for key, part in cast("Mapping[object, object]", value).items()])
    if isinstance(value, list | tuple):
        return str([_text(part) for part in cast("list[object]", value)])
    return repr(value) if isinstance(value, bool | int | float | str | None) else type(value).__name__


def _settings(optimizer: Optimizer) -> dict[str, object]:
    """The values that identify an optimizer: its class, and every plain setting of each of its groups."""
    plain = (*_NUMBERS, str, tuple, type(None))
    groups = [
        {key: value for key, value in group.items() if isinstance(value, plain)} | {"params": len(group["params"])}
        for group in optimizer.param_groups
    ]
    return {"class": type(optimizer).__name__, "groups": repr(groups)}


def _name(factory: Factory) -> str:
    return getattr(factory, "__qualname__", type(factory).__qualname__)


def _make_optimizer(factory: Factory, parameters: list[nn.Parameter], lr: float) -> Optimizer:
    name = _name(factory)
    try:
        inspect.signature(factory).bind(parameters, lr)
    except TypeError:
        raise TaskError(
            f"An optimizer factory must take (parameters, lr), but {name} does not. If it makes a rule, call it:"
            f" rule={name}()."
        ) from None
    except ValueError:  # written in C, without a signature
        pass
    try:
        optimizer = factory(parameters, lr)
    except Exception as error:
        raise TaskError(f"The optimizer factory {name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(optimizer, Optimizer):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass anything
        raise TaskError(f"{name} returned {type(optimizer).__name__}; it must return a torch.optim.Optimizer.")
    return optimizer


@dataclass
class _Live:
    """An optimizer between two steps.

    Attributes:
        optimizer: The optimizer.
        parameters: Its parameters, by name.
        lrs: The learning rates that it was created with.
        state: Its state after the last step, keys ``owner/kind/name``.
    """

    optimizer: Optimizer
    parameters: Mapping[str, nn.Parameter]
    lrs: Tensor
    state: State = field(default_factory=dict[str, Tensor])

    def continues(self, weights: Weights, state: State, lrs: Tensor) -> bool:
        """Whether a step can use this optimizer: its learning rates and the kind of its state are the same."""
        return (
            lrs is self.lrs
            and weights.keys() == self.parameters.keys()
            and state.keys() == self.state.keys()
            and all(state[key] is value for key, value in self.state.items() if _kind(key) != "tensor")
        )

    def load(self, weights: Weights, state: State) -> None:
        """Copy weights and state into the optimizer."""
        with torch.no_grad():
            for key, parameter in self.parameters.items():
                parameter.copy_(weights[key][0, 0])
        for key, value in state.items():
            if value is self.state.get(key):  # a number, or a tensor on the host
                continue
            owner, kind, entry = key.rsplit("/", 2)
            held = (
                self.optimizer.param_groups[int(owner.removeprefix("group "))]
                if owner.startswith("group ")
                else (self.optimizer.state[self.parameters[owner]])
            )
            one = value[0, 0] if value.dim() >= 2 else value
            if kind == "number":
                held[entry] = one.item()
            elif isinstance(held.get(entry), Tensor):
                held[entry].copy_(one)
            else:  # a step count on the host stays there, since optimizers expect it there
                held[entry] = one.to("cpu" if kind == "host" else one.device, copy=True)


def _kind(key: str) -> str:
    return key.rsplit("/", 2)[1]


def _state(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], name: str) -> State:
    """The optimizer's state as tensors, without the values that every new optimizer gets.

    Tensors have stack axes. Scalars have none and stay where they are, since reading them back from the device would
    wait for it.
    """
    owners: dict[str, Mapping[str, Any]] = {key: optimizer.state[value] for key, value in parameters.items()}
    numbers = (
        {entry: value for entry, value in group.items() if isinstance(value, _NUMBERS)}
        for group in optimizer.param_groups
    )
    owners |= {f"group {index}": entries for index, entries in enumerate(numbers)}
    device = next(iter(parameters.values())).device
    state: State = {}
    for owner, entries in owners.items():
        for entry, value in entries.items():
            if isinstance(value, Tensor):
                kind, copied = "tensor" if value.device == device else "host", value.detach().clone()
                state[f"{owner}/{kind}/{entry}"] = copied.to(device)[None, None] if value.dim() else copied
            elif isinstance(value, _NUMBERS):
                state[f"{owner}/number/{entry}"] = torch.tensor(value, dtype=_dtype(value))
            elif value is not None:
                raise TaskError(
                    f"An optimizer of the factory {name} has the state {entry}, a {type(value).__name__}, which"
                    " cannot be stored; only tensors and numbers can."
                )
    return state


def _dtype(value: float) -> torch.dtype:
    if isinstance(value, bool):
        return torch.bool
    return torch.int64 if isinstance(value, int) else torch.float64
