"""Update rules: pure functions from weights, gradients, state and learning rates to new weights and state.

All tensors are stacked: weights and gradients [seeds, lanes, *parameter], learning rates [seeds, lanes]. A rule is a
value; its two functions can be called inside a compiled program.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lratlas.devices import widest
from lratlas.errors import TaskError
from lratlas.training.sphere import Weights, dot, expand, norm, project

__all__ = ["Rule", "adam", "adamw", "sgd", "sphere_rsgd", "sphere_sgd"]

State = dict[str, Tensor]
Update = Callable[[Weights, Weights, State, Tensor], tuple[Weights, State]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a step changes the weights.

    Attributes:
        name: ``sgd``, ``adam``, ``adamw``, ``sphere_sgd``, ``sphere_rsgd``, or the name of an optimizer factory.
        settings: The settings of the rule, as plain values; part of a run's identity.
        start: The state for given weights, before the first step.
        update: ``(weights, gradients, state, lrs) -> (weights, state)``.
        radius: Norm of the sphere that the trained vector is on; None for rules without a sphere.
        free: Names of trained parameters that are not on the sphere because they are not scale-invariant.
        stacks: Whether the update acts on whole stacks and can be compiled; if not, runs train one by one.
    """

    name: str
    settings: Mapping[str, object]
    start: Callable[[Weights], State]
    update: Update
    radius: float | None = None
    free: tuple[str, ...] = ()
    stacks: bool = True

    def vector(self, weights: Mapping[str, Tensor]) -> Weights:
        """The weights whose norm and direction are measured: those on the sphere, or all if there is no sphere."""
        return {name: value for name, value in weights.items() if name not in self.free}

    def constrain(self, weights: Mapping[str, Tensor]) -> Weights:
        """Project the weights to the sphere; other weights, and those of other rules, stay unchanged."""
        on_sphere = {} if self.radius is None else project(self.vector(weights), self.radius)
        return {**weights, **on_sphere}


def sgd(*, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> Rule:
    """Stochastic gradient descent as `torch.optim.SGD` defines it (the first momentum buffer is the gradient).

    Raises:
        TaskError: A setting is out of range.
    """
    _in_range("sgd", "momentum", momentum, 0, 1)
    _in_range("sgd", "weight_decay", weight_decay, 0)
    if nesterov and momentum == 0:
        raise TaskError("Rule sgd: nesterov needs a momentum above 0.")

    def start(weights: Weights) -> State:
        # Momentum times a zero buffer plus the first gradient is that gradient: no special first step is needed.
        return {f"momentum/{name}": torch.zeros_like(value) for name, value in weights.items()} if momentum else {}

    def update(weights: Weights, gradients: Weights, state: State, lrs: Tensor) -> tuple[Weights, State]:
        new: Weights = {}
        buffers: State = {}
        for name, weight in weights.items():
            gradient = gradients[name] + weight_decay * weight if weight_decay else gradients[name]
            if momentum:
                buffer = momentum * state[f"momentum/{name}"] + gradient
                buffers[f"momentum/{name}"] = buffer
                gradient = gradient + momentum * buffer if nesterov else buffer
            new[name] = weight - expand(lrs, weight) * gradient
        return new, buffers

    settings = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    return Rule(name="sgd", settings=settings, start=start, update=update)


def adam(*, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0) -> Rule:
    """Adam as `torch.optim.Adam` defines it: weight decay is added to the gradient (L2).

    Raises:
        TaskError: A setting is out of range.
    """
    return _adam("adam", betas, eps, weight_decay)


def adamw(*, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01) -> Rule:
    """AdamW as `torch.optim.AdamW` defines it: weight decay is decoupled from the gradient.

    Raises:
        TaskError: A setting is out of range.
    """
    return _adam("adamw", betas, eps, weight_decay)


def _adam(kind: str, betas: tuple[float, float], eps: float, weight_decay: float) -> Rule:
    first, second = betas
    _in_range(kind, "betas", first, 0, 1)
    _in_range(kind, "betas", second, 0, 1)
    _in_range(kind, "eps", eps, 0)
    _in_range(kind, "weight_decay", weight_decay, 0)

    def start(weights: Weights) -> State:
        # The widest dtype for any weight dtype: the bias corrections are powers of a number close to 1.
        device = next(iter(weights.values())).device
        state: State = {"count": torch.zeros((), dtype=widest(device), device=device)}
        for name, value in weights.items():
            state[f"mean/{name}"] = torch.zeros_like(value)
            state[f"square/{name}"] = torch.zeros_like(value)
        return state

    def update(weights: Weights, gradients: Weights, state: State, lrs: Tensor) -> tuple[Weights, State]:
        count = state["count"] + 1
        new: Weights = {}
        moments: State = {"count": count}
        for name, weight in weights.items():
            own = count - state[f"skipped/{name}"] if f"skipped/{name}" in state else count
            mean_share = (1 - first**own).to(lrs.dtype)
            square_share = (1 - second**own).sqrt().to(lrs.dtype)
            lr, gradient = expand(lrs, weight), gradients[name]
            kept = weight
            if weight_decay and kind == "adam":
                gradient = gradient + weight_decay * weight
            elif weight_decay:
                kept = weight * (1 - lr * weight_decay)
            mean = first * state[f"mean/{name}"] + (1 - first) * gradient
            square = second * state[f"square/{name}"] + (1 - second) * gradient * gradient
            new[name] = kept - lr / mean_share * mean / (square.sqrt() / square_share + eps)
            moments[f"mean/{name}"], moments[f"square/{name}"] = mean, square
        return new, moments

    settings = {"beta1": first, "beta2": second, "eps": eps, "weight_decay": weight_decay}
    return Rule(name=kind, settings=settings, start=start, update=update)


def sphere_sgd(*, radius: float = 1.0, other_lr: float | None = None, free: Sequence[str] = ()) -> Rule:
    """Projected SGD: a plain step, then the trained vector is rescaled to norm ``radius``.

    Learning rates are effective LRs: the step is ``ELR * radius**2`` times the gradient, so that the radius only
    changes the numerics (paper, controlled setting).

    Args:
        radius: Norm of the trained vector.
        other_lr: LR of plain SGD for trained parameters that are not scale-invariant, 0 to freeze them; None if there
            are none.
        free: The names of these parameters; preparing a task finds them.

    Raises:
        TaskError: The radius is not above 0, or the LR below 0.
    """

    def move(weights: Weights, gradients: Weights, lrs: Tensor) -> Weights:
        steps = lrs * radius**2
        return {name: value - expand(steps, value) * gradients[name] for name, value in weights.items()}

    return _on_sphere("sphere_sgd", move, radius, other_lr, free)


def sphere_rsgd(*, radius: float = 1.0, other_lr: float | None = None, free: Sequence[str] = ()) -> Rule:
    """Riemannian SGD: a geodesic step of angle ``lr * |g| / |w|`` along the great circle of the gradient.

    Learning rates are effective LRs; the arguments are those of `sphere_sgd`.

    Raises:
        TaskError: The radius is not above 0, or the LR below 0.
    """

    def move(weights: Weights, gradients: Weights, lrs: Tensor) -> Weights:
        # The gradient of a scale-invariant function is tangent up to rounding; remove the remainder.
        along = dot(weights, gradients) / radius**2
        tangent = {name: gradients[name] - expand(along, value) * value for name, value in weights.items()}
        size = norm(tangent)
        angle = lrs * radius * size
        turn = radius * torch.sin(angle) / torch.where(size > 0, size, 1)
        return {
            name: expand(torch.cos(angle), value) * value - expand(turn, value) * tangent[name]
            for name, value in weights.items()
        }

    return _on_sphere("sphere_rsgd", move, radius, other_lr, free)


def _on_sphere(
    name: str,
    move: Callable[[Weights, Weights, Tensor], Weights],
    radius: float,
    other_lr: float | None,
    free: Sequence[str],
) -> Rule:
    _in_range(name, "radius", radius, 0, open_low=True)
    if other_lr is not None:
        _in_range(name, "other_lr", other_lr, 0)

    def update(weights: Weights, gradients: Weights, state: State, lrs: Tensor) -> tuple[Weights, State]:
        vector = {key: value for key, value in weights.items() if key not in free}
        moved = project(move(vector, gradients, lrs), radius)
        others = {key: weights[key] - (other_lr or 0.0) * gradients[key] for key in free}
        return {key: moved[key] if key in moved else others[key] for key in weights}, state

    # Without other parameters the settings, and so the run ids, only contain the radius.
    settings = {"radius": radius} | ({} if other_lr is None else {"other_lr": other_lr})
    return Rule(name=name, settings=settings, start=_stateless, update=update, radius=radius, free=tuple(free))


RULES: Mapping[str, Callable[..., Rule]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "sphere_sgd": sphere_sgd,
    "sphere_rsgd": sphere_rsgd,
}


def rule_from(rule: Rule | str | Mapping[str, object]) -> Rule:
    """A rule from a rule, a name, or a mapping with ``name`` and settings (as in a spec).

    `lratlas.training.optimizers.optimizer_rule` converts an optimizer factory to a rule.

    Raises:
        TaskError: The name or a setting is unknown or out of range.
    """
    if isinstance(rule, Rule):
        return rule
    if not isinstance(rule, (str, Mapping)):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass anything
        raise TaskError(f"rule must be a name, settings or a Rule, not {type(rule).__name__}.")
    settings = {"name": rule} if isinstance(rule, str) else dict(rule)
    name = str(settings.pop("name", ""))
    if name not in RULES:
        raise TaskError(f"There is no update rule {name!r}; choose one of {', '.join(RULES)}.")
    try:
        return RULES[name](**settings)
    except TypeError as error:
        raise TaskError(f"Rule {name} does not accept these settings: {', '.join(map(str, settings))}.") from error


def _stateless(_weights: Weights) -> State:
    return {}


def _in_range(
    rule: str, setting: str, value: float, low: float, high: float | None = None, *, open_low: bool = False
) -> None:
    if (value > low if open_low else value >= low) and value < (math.inf if high is None else high):
        return
    allowed = f"{'above' if open_low else 'at least'} {low:g}" + (f" and below {high:g}" if high is not None else "")
    raise TaskError(f"Rule {rule}: {setting} is {value:g}; it must be {allowed}.")
