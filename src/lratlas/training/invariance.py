"""Which of a model's trained parameters a rule keeps on its sphere: those that are scale-invariant together."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lratlas.data.parts import Parts, arguments, each, floats_to, numbers_of
from lratlas.errors import TaskError
from lratlas.streams import seeded
from lratlas.training.rules import Rule, rule_from
from lratlas.training.sphere import Weights, scale_dependent


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A copy of a model on the CPU, in train mode, to try weights with.

    Attributes:
        model: The copy; no parameter of it requires gradients.
        inputs: A few inputs as the model gets them, [n, ...].
        weights: The parameters that are trained, as the model has them.
    """

    model: nn.Module
    inputs: Parts
    weights: Weights

    def outputs(self, point: Mapping[str, Tensor]) -> Tensor:
        """The outputs with these trained parameters in place of the model's; random masks are always the same."""
        # Copies, because batch norm writes into the buffers it is given.
        buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        with seeded(0):
            positional, named = arguments(each(torch.clone, self.inputs))  # a layer may change its inputs in place
            return numbers_of(functional_call(self.model, {**point, **buffers}, positional, named))


def tried(model: nn.Module, x: Parts) -> Trial:
    """A trial of the model in float64, or in its own number format where its code takes no other.

    Args:
        model: The model, which is left as it is.
        x: A few inputs as the model gets them, [n, ...]; batch norm needs several.
    """
    exact = _trial(model, x, torch.float64)
    try:
        exact.outputs(exact.weights)
    except Exception:
        # Code that makes float32 tensors of its own does not mix with float64 weights.
        return _trial(model, x, None)
    return exact


def placed(rule: Rule, model: nn.Module, x: Parts) -> Rule:
    """The rule with the names of the parameters that are not on the sphere; as it is where all of them are.

    Args:
        rule: A rule on a sphere.
        model: The model.
        x: A few inputs as the model gets them, [n, ...].

    Raises:
        TaskError: The model is not scale-invariant and the rule has no LR for what is at fault, or nothing is left.
    """
    trial = tried(model, x)
    # Where training will take place: on the sphere of the rule's radius.
    size = torch.stack([value.norm() for value in trial.weights.values()]).norm()
    weights = {name: value * (rule.radius or 1.0) / size for name, value in trial.weights.items()}

    at_fault = scale_dependent(trial.outputs, weights)
    if not at_fault:
        return rule
    if rule.settings.get("other_lr") is None:
        raise TaskError(
            f"Rule {rule.name} needs a function that does not change when the trained weights are scaled, but"
            f" scaling changes it through {', '.join(at_fault)}: put a normalisation layer without parameters after"
            " each trained layer and freeze the last one, give those weights an LR of their own (other_lr; 0 freezes"
            " them), use a larger radius if the normalisation's eps is to blame, or use the rule sgd."
        )

    def on_sphere(free: tuple[str, ...]) -> int:
        """How many numbers are left on the sphere without these parameters; 0 if that is not scale-invariant."""
        others = {name: weights[name] for name in free}
        rest = {name: value for name, value in weights.items() if name not in others}
        if not rest or scale_dependent(lambda point: trial.outputs({**point, **others}), rest):
            return 0
        return sum(value.numel() for value in rest.values())

    sizes = {free: on_sphere(free) for free in _free_candidates(weights, at_fault)}
    free = max(sizes, key=lambda free: sizes[free])
    if not sizes[free]:
        raise TaskError(
            f"Rule {rule.name} needs scale-invariant weights, but none were found in this model, even without"
            " its biases, norm layers and last layer: use the rule sgd."
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
    """Sets of parameters without which the rest may be scale-invariant."""
    vectors = [name for name, value in weights.items() if value.dim() < 2]
    matrices = [name for name in weights if name not in vectors]
    # On a residual stream layers are scale-invariant only together, so that each alone would be at fault.
    return [tuple(at_fault), tuple(vectors), (*vectors, *matrices[-1:])]
