"""What makes two tasks the same: their data, byte for byte, and how model, loss and rule behave, not how they print.

Functions cannot be compared, but what they do can: outputs and gradients for a few samples, small and large, in
training and evaluation. Numbers are computed in float64 where the task takes it and hashed by a few digits of their
sums, so that another machine or number of threads gives the same fingerprint.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lratlas.data.collect import Pair
from lratlas.data.parts import Parts, call, each, floats_to, leaves, numbers_of, rows
from lratlas.streams import seeded, stream
from lratlas.training.prepare import Prepared, make_model, task_on, telling_rows
from lratlas.training.rules import RULES, Rule

_SAMPLES = 8
_INPUT_SCALES = (1.0, 0.01, 30.0)  # eps of norm layers shows in small inputs, clamping in large ones
_OUTPUT_SCALES = (0.1, 1.0, 10.0, 1000.0)
_GRADIENT_SCALES = (1e-4, 1.0, 1e4)  # of a rule that clips gradients
_LR = 0.1
_STEPS = 3  # of a rule: its state has a part in the second
_DIGITS = {True: 6, False: 3}


def fingerprint(task: Prepared) -> str:
    """A hash of everything that defines a task, 16 hexadecimal digits."""
    return combined(fingerprint_parts(task))


def combined(parts: Mapping[str, str]) -> str:
    """The fingerprint of a task from those of its parts."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()[:16]


def fingerprint_parts(task: Prepared) -> dict[str, str]:
    """Fingerprints of the parts of a task by name, so that it can be said which of them differ.

    Returns:
        By name: the data sets, initial weights, transform, augmentation, model, loss, accuracy, update rule and batch
        size.
    """
    model = make_model(task, 0)
    task = task_on(task, torch.device("cpu"), torch.float64 if task.conformance.exact else torch.float32)
    with seeded(0):
        return {
            "the training data": _of_pair(task.train),
            "the test data": _of_pair(task.test),
            "the validation data": _of_pair(task.validation),
            "the single-feature test sets": _of_pair(task.singles),
            "the initial weights": _of_tensors(model.state_dict()),
            "the transform": _of_transform(task),
            "the augmentation": _of_augmentation(task),
            "the model": _of_model(task, model),
            "the loss": _of_loss(task, model),
            "the metric": _of_metric(task, model),
            "the update rule": _of_rule(task.update, model),
            "the batch size": _digest([str(task.batch_size)]),
        }


def changed_parts(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Which parts of a task differ, in words; initial weights of another model are not named besides the model."""
    names = [name for name in new if old.get(name) != new[name]]
    if "the initial weights" in names and "the model" in names:
        names.remove("the initial weights")
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""


@dataclass
class _Summary:
    """A few digits of many numbers: for each tensor its mean, its size and a sum with fixed weights."""

    digits: int
    words: list[str] = field(default_factory=list[str])

    def add(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            values = tensor.detach().double().flatten()
            finite = values.isfinite()
            values = torch.where(finite, values, 0)
            size = float(values.square().mean().sqrt()) if len(values) else 0.0
            angles = torch.arange(len(values), dtype=torch.float64)
            probes = (torch.ones_like(angles), torch.cos(angles + 1), torch.cos(angles.square() * 0.01))
            # Relative to the size, so that sums that cancel are no rounding error; -0 is 0.
            sums = [float((values * probe).mean()) / (size or 1.0) for probe in probes]
            rounded = [f"{round(value, self.digits) + 0.0:.{self.digits}f}" for value in sums]
            self.words.append(f"{tuple(tensor.shape)} {int((~finite).sum())} {size:.{self.digits - 1}e} {rounded}")


def _digest(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def _of_tensors(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] - modules may keep other state
            digest.update(f"{name} {tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


def _of_pair(pair: Pair | None) -> str:
    if pair is None:
        return ""
    named = {f"{side}/{key}": part for side, parts in enumerate(pair) for key, part in _named(parts).items()}
    return _of_tensors(named)


def _named(parts: Parts) -> dict[str, Tensor]:
    if isinstance(parts, Tensor):
        return {"": parts}
    return dict(sorted(parts.items())) if isinstance(parts, dict) else {str(at): part for at, part in enumerate(parts)}


def _few(task: Prepared) -> Tensor:
    return telling_rows(task, _SAMPLES)


def _of_transform(task: Prepared) -> str:
    if task.transform is None:
        return ""
    summary = _Summary(digits=5)
    summary.add(leaves(task.inputs(rows(task.train[0], _few(task)))))
    return _digest(summary.words)


def _of_augmentation(task: Prepared) -> str:
    if task.augment is None:
        return ""
    x = rows(task.train[0], _few(task))
    images = task.augment.apply(x, task.augment.draws(stream(0, "fingerprint"), len(leaves(x)[0])))  # pyright: ignore[reportArgumentType] - images, as was checked
    return _of_tensors({"": images})


def _ready(task: Prepared, model: nn.Module) -> tuple[nn.Module, Parts, Parts, int]:
    """Model, inputs and targets in the number format of the comparison, and how many digits can be trusted."""
    exact = task.conformance.exact
    dtype = torch.float64 if exact else torch.float32
    at = _few(task)
    x = floats_to(task.inputs(rows(task.train[0], at)), dtype)
    fresh = make_model(task, 0).to(dtype)
    fresh.load_state_dict(model.state_dict())
    return fresh, x, floats_to(rows(task.train[1], at), dtype), _DIGITS[exact]


def _of_model(task: Prepared, model: nn.Module) -> str:
    """Outputs in both modes for inputs of several sizes, buffers after training mode, and gradients."""
    own, x, _, digits = _ready(task, model)
    x = _noise_for(own, x)
    summary = _Summary(digits=digits)
    for scale in _INPUT_SCALES:
        for training in (True, False):
            shown = each(_scaled(scale), x)
            with seeded(0), torch.no_grad():
                summary.add([numbers_of(call(own.train(training), shown))])
    summary.add(own.buffers())
    trained = {name: value for name, value in own.named_parameters() if value.requires_grad}
    with seeded(0), torch.enable_grad():
        outputs = numbers_of(call(own.train(), each(torch.clone, x)))
        total = (outputs * torch.cos(_places(outputs))).sum()
        summary.add(torch.autograd.grad(total, [*trained.values()], allow_unused=True, materialize_grads=True))
    return _digest([*trained, *summary.words])


def _noise_for(model: nn.Module, x: Parts) -> Parts:
    """Noise in the place of floating-point inputs, which another transform leaves alone; the inputs where it fails."""
    draws = torch.Generator().manual_seed(0)
    noise = each(
        lambda part: torch.randn(part.shape, generator=draws).to(part) if part.is_floating_point() else part, x
    )
    try:
        with seeded(0), torch.no_grad():
            call(copy.deepcopy(model).eval(), each(torch.clone, noise))
    except Exception:
        return x
    return noise


def _scaled(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda part: part * scale if part.is_floating_point() else part.clone()


def _of_outputs(task: Prepared, model: nn.Module, function: Callable[[Any, Any], Iterable[Tensor]]) -> str:
    """What a function of outputs and targets gives for outputs of the model's shape, whatever the model computes."""
    own, x, y, digits = _ready(task, model)
    with seeded(0), torch.no_grad():
        outputs = call(own.eval(), x)
    summary = _Summary(digits=digits)
    draws = torch.Generator().manual_seed(0)
    noise = {id(leaf): torch.randn(leaf.shape, generator=draws, dtype=torch.float64) for leaf in leaves(outputs)}
    for scale in _OUTPUT_SCALES:
        for squash in (False, True):
            tried = tree_map(partial(_tried, scale=scale, noise=noise, squash=squash), outputs)
            try:
                with seeded(0):
                    summary.add(function(tried, y))
            except Exception as error:
                summary.words.append(type(error).__name__)
    return _digest(summary.words)


def _tried(leaf: Any, *, scale: float, noise: Mapping[int, Tensor], squash: bool) -> Any:
    """Noise in the place of numbers; squashed to lie between 0 and 1, as probabilities do."""
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
        return leaf
    drawn = scale * noise[id(leaf)]
    return (drawn.sigmoid() if squash else drawn).to(leaf)


def _of_loss(task: Prepared, model: nn.Module) -> str:
    def value_and_slope(outputs: Any, y: Parts) -> list[Tensor]:
        points = [leaf for leaf in leaves(outputs) if leaf.is_floating_point()]
        for point in points:
            point.requires_grad_()
        with torch.enable_grad():
            value = task.objective.batch(outputs, y)
        if not value.requires_grad:
            return [value]
        return [value, *torch.autograd.grad(value, points, allow_unused=True, materialize_grads=True)]

    return _of_outputs(task, model, value_and_slope)


def _of_metric(task: Prepared, model: nn.Module) -> str:
    if task.objective.labels != "metric":
        return task.objective.labels
    return _of_outputs(task, model, lambda outputs, y: task.objective.score(outputs, y, task.shares))


def _of_rule(rule: Rule, model: nn.Module) -> str:
    """What steps of the rule do with gradients of several sizes, and the settings of a named one."""
    settings = [rule.name, json.dumps(sorted(rule.settings.items()), default=str)] if rule.name in RULES else []
    weights = {
        name: value.detach().double()[None, None] for name, value in model.named_parameters() if value.requires_grad
    }
    lrs, summary = torch.full((1, 1), _LR, dtype=torch.float64), _Summary(digits=_DIGITS[True])
    for scale in _GRADIENT_SCALES:
        point, state = weights, rule.start(weights)
        for step in range(_STEPS):
            slopes = {name: scale * torch.cos(_places(value) + step) for name, value in weights.items()}
            point, state = rule.update(point, slopes, state, lrs)
            summary.add(point[name] - weights[name] for name in weights)
    return _digest([*settings, *weights, *rule.free, *summary.words])


def _places(value: Tensor) -> Tensor:
    return torch.arange(value.numel(), dtype=torch.float64).reshape(value.shape)
