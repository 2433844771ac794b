"""Find out whether a model is scale-invariant, and which of its weights are."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lratlas.data.parts import Parts, arguments, each, floats_to, numbers_of, rows
from lratlas.errors import TaskError
from lratlas.rng import seed_generators
from lratlas.training.rules import Rule, rule_from
from lratlas.training.sphere import Weights, group_by_layer, perturb, scale_dependent


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A copy of a model on the CPU, in train mode, to evaluate with other weights.

    Attributes:
        model: The copy; none of its parameters requires gradients.
        inputs: A few inputs of the model, [n, ...].
        weights: The trained parameters of the model.
    """

    model: nn.Module
    inputs: Parts
    weights: Weights

    def outputs(self, point: Mapping[str, Tensor]) -> Tensor:
        """The outputs with other trained parameters; random masks are equal in every call."""
        # Copies, because batch norm writes to the buffers it gets.
        buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        with seed_generators(0):
            positional, named = arguments(each(torch.clone, self.inputs))  # a layer may change its inputs in place
            return numbers_of(functional_call(self.model, {**point, **buffers}, positional, named))


def run_trial(model: nn.Module, x: Parts) -> Trial:
    """A trial of the model in float64, or in its own dtype if its code supports no other.

    Args:
        model: The model, which stays unchanged.
        x: A few inputs of the model, [n, ...]; batch norm needs several.
    """
    exact = _trial(model, x, torch.float64)
    try:
        exact.outputs(exact.weights)
    except Exception:
        # Code that creates float32 tensors does not work with float64 weights.
        return _trial(model, x, None)
    return exact


def place_rule(rule: Rule, model: nn.Module, x: Parts) -> Rule:
    """Add the names of parameters that are not on the sphere to a rule; unchanged if all of them are.

    Args:
        rule: A rule on a sphere.
        model: The model.
        x: A few inputs of the model, [n, ...].

    Raises:
        TaskError: The model is not scale-invariant and the rule has no LR for the other parameters, or none remain.
    """
    trial = run_trial(model, x)
    # Evaluate where training takes place: on the sphere of the rule's radius.
    size = torch.stack([value.norm() for value in trial.weights.values()]).norm()
    weights = {name: value * (rule.radius or 1.0) / size for name, value in trial.weights.items()}

    at_fault = scale_dependent(trial.outputs, weights)
    if not at_fault:
        return rule
    if rule.settings.get("other_lr") is None:
        raise TaskError(
            f"Rule {rule.name} needs a model whose outputs do not change when the trained weights are scaled, but"
            f" scaling changes them through {', '.join(at_fault)}: put a normalisation layer without parameters"
            " after each trained layer and freeze the last one, set a separate LR for those weights (other_lr; 0"
            " freezes them), use a larger radius if the normalisation's eps is to blame, or use the rule sgd."
        )

    def on_sphere(free: tuple[str, ...]) -> int:
        """Count the numbers on the sphere without these parameters; 0 if the rest is not scale-invariant."""
        others = {name: weights[name] for name in free}
        rest = {name: value for name, value in weights.items() if name not in others}
        if not rest or scale_dependent(lambda point: trial.outputs({**point, **others}), rest):
            return 0
        return sum(value.numel() for value in rest.values())

    sizes = {free: on_sphere(free) for free in _free_candidates(weights, at_fault)}
    free = max(sizes, key=lambda free: sizes[free])
    if not sizes[free]:
        raise TaskError(
            f"Rule {rule.name} needs scale-invariant weights, but none were found in this model, even after"
            " excluding biases, norm layers and the last layer: use the rule sgd."
        )
    settings = {"name": rule.name, **rule.settings, "free": free}
    return rule_from(settings)


def _trial(model: nn.Module, x: Parts, dtype: torch.dtype | None) -> Trial:
    own = copy.deepcopy(model).cpu().train()
    weights = {name: value.detach() for name, value in own.named_parameters() if value.requires_grad}
    if dtype is not None:
        own, weights = own.to(dtype), {name: value.to(dtype) for name, value in weights.items()}
    inputs = each(torch.Tensor.cpu, x)
    inputs = inputs if dtype is None else floats_to(inputs, dtype)
    return Trial(model=own.requires_grad_(requires_grad=False), inputs=inputs, weights=weights)


def _free_candidates(weights: Mapping[str, Tensor], at_fault: list[str]) -> list[tuple[str, ...]]:
    """Sets of parameters whose removal may make the rest scale-invariant."""
    vectors = [name for name, value in weights.items() if value.dim() < 2]
    matrices = [name for name in weights if name not in vectors]
    # On a residual stream, layers are scale-invariant only together, so each layer by itself would be at fault.
    return [tuple(at_fault), tuple(vectors), (*vectors, *matrices[-1:])]


_TOLERANCE = 1e-4  # slopes of invariant layers are rounding errors up to 1e-6; other layers had at least 5e-3
_SAMPLES = 4  # each costs time: a layer that is not scale-invariant by itself needs a forward and backward pass
_SPARE = 4  # points beyond the number of unknowns
_SHRUNK = 1e-4  # factor for eps, so that its effect on the slopes is below the tolerance


def pre_norm_names(model: nn.Module, x: Parts) -> tuple[str, ...]:
    """Names, sorted, of the trained parameters that precede a normalisation: together they are scale-invariant.

    Multiplying all of them by one positive number does not change the outputs in train mode (paper, practical setting:
    geometry is measured on pre-norm weights). A layer's weight and bias count together; layers that only have vectors,
    such as a norm's scale and shift, are omitted. The search tests layers that are scale-invariant by themselves, and
    sets that are scale-invariant only together, as on a residual stream. It shrinks the eps of norm layers, which would
    otherwise look like a dependence on the scale.

    Args:
        model: Any model; its weights, buffers and mode stay unchanged, and so do the global random generators.
        x: Inputs of the model, [n, ...]; at least two for batch norm. Only the first few are used.

    Returns:
        The names; empty if the model has no normalisation.
    """
    trial = run_trial(model, rows(x, slice(_SAMPLES)))
    for module in trial.model.modules():
        if isinstance(eps := vars(module).get("eps"), float):
            vars(module)["eps"] = eps * _SHRUNK
    layers = _layers(trial.weights)
    if not layers:
        return ()
    chosen = [name for layer in _invariant(trial, layers) for name in layers[layer]]
    # Slopes are local: the remaining layers must also pass a test at half and double scale.
    while chosen and (at_fault := _names_at_fault(trial, chosen)):
        chosen = [name for name in chosen if name not in at_fault]
    return tuple(sorted(chosen))


def _layers(weights: Weights) -> dict[str, list[str]]:
    """Names of the parameters of each layer that has more than vectors."""
    layers = group_by_layer(weights).items()
    return {layer: names for layer, names in layers if any(weights[name].dim() > 1 for name in names)}


def _names_at_fault(trial: Trial, names: list[str]) -> list[str]:
    others = {name: value for name, value in trial.weights.items() if name not in names}
    return scale_dependent(
        lambda point: trial.outputs({**others, **point}), {name: trial.weights[name] for name in names}
    )


def _invariant(trial: Trial, layers: dict[str, list[str]]) -> list[str]:
    """Layers whose common scale has no effect, to first order.

    Let S be the slopes of the outputs in the layers' log scales, [points, layers]. A set is invariant if its columns
    add up to zero. The indicators of the smallest such sets, which have no layer in common, span the null space of S,
    so each one is a row of the projector onto that space, up to a factor.
    """
    generator = torch.Generator().manual_seed(0)
    rows: list[Tensor] = []
    while len(rows) < _SPARE + _moving(rows):
        rows.append(_slopes(trial, layers, generator))
    slopes, influence = torch.stack(rows).unbind(1)
    _, sizes, directions = torch.linalg.svd(slopes / len(rows) ** 0.5, full_matrices=True)
    rank = int((sizes > _TOLERANCE).sum())
    projector = directions[rank:].T @ directions[rank:]
    found: list[str] = []
    for at, layer in enumerate(layers):
        indicator = projector[at] / projector[at, at].clamp(min=_TOLERANCE)
        # Other null vectors come from layers that compensate each other: one scale goes up, the other goes down.
        is_set = bool(torch.minimum(indicator.abs(), (indicator - 1).abs()).max() < 0.05)
        # Weights without influence on the outputs precede nothing.
        if is_set and indicator[at] > 0.5 and influence[:, at].max() > _TOLERANCE:
            found.append(layer)
    return found


def _moving(rows: list[Tensor]) -> int:
    """Number of layers known not to be scale-invariant by themselves."""
    return int((torch.stack(rows)[:, 0].abs() > _TOLERANCE).any(0).sum()) if rows else 0


def _slopes(trial: Trial, layers: dict[str, list[str]], generator: torch.Generator) -> Tensor:
    """Slopes in each layer's log scale, and the largest possible effect of its size, float64 [2, layers].

    They refer to a random combination of the outputs, relative to their size, at a random nearby point.
    """
    point = {name: perturb(value, generator) for name, value in trial.weights.items()}
    with torch.enable_grad():
        own = {name: point[name].requires_grad_() for names in layers.values() for name in names}
        outputs = trial.outputs(point)
    size = outputs.detach().square().sum().sqrt()
    direction = torch.randn(outputs.shape, generator=generator, dtype=torch.float64).to(outputs) / size
    gradients = torch.autograd.grad(outputs, [*own.values()], direction, allow_unused=True, materialize_grads=True)
    found = dict(zip(own, gradients, strict=True))
    slopes: list[float] = []
    most: list[float] = []
    for names in layers.values():
        weight = torch.cat([own[name].detach().flatten() for name in names])
        slope = torch.cat([found[name].flatten() for name in names])
        slopes.append(float(weight @ slope))
        most.append(float(weight.norm() * slope.norm()))
    # A NaN slope counts as a violation of invariance.
    return torch.tensor([slopes, most], dtype=torch.float64).nan_to_num(1.0, 1.0, -1.0)
