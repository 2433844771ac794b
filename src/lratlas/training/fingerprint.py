"""Fingerprints of tasks: hashes of the data, byte for byte, and of the behaviour of model, loss and rule.

Functions cannot be compared, but their results can: outputs and gradients for a few samples, small and large, in train
and eval mode, and losses for every label. Results are computed in float64 if the task supports it, and hashed by a few
digits of their sums, so that other machines and thread counts give the same fingerprint. The last digits of drawn
weights differ between processors; the model is therefore compared with generated weights, which do not differ.
"""

import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from lratlas.data.collect import Pair
from lratlas.data.parts import Parts, call, each, floats_to, leaves, logits_of, numbers_of, rows
from lratlas.rng import seed_generators, stream
from lratlas.text import join_words
from lratlas.training.digest import SHIFT, Summary, digest, digest_of, words_of
from lratlas.training.objective import MODEL
from lratlas.training.prepare import telling_rows
from lratlas.training.prepared import Prepared, make_model, task_on
from lratlas.training.probes import TARGET_ROWS, Outputs, noise_like, targets_for, telling_targets, tensors_of
from lratlas.training.program import allow_slow_batching
from lratlas.training.rules import RULES, Rule

_SAMPLES = 8
_INPUT_SCALES = (1.0, 0.01, 30.0)  # eps of norm layers affects small inputs, clamping affects large ones
_OUTPUT_SCALES = (1.0, 0.1, 10.0, 1000.0)  # 1 first: it sets the usual sizes
_GRADIENT_SCALES = (1e-4, 1.0, 1e4)  # for rules that clip gradients
_LR = 0.1
_STEPS = 3  # for rules: state matters from the second step


def fingerprint(task: Prepared) -> str:
    """A hash of everything that defines a task, as 16 hexadecimal digits."""
    return combine_parts(fingerprint_parts(task))


def combine_parts(parts: Mapping[str, str]) -> str:
    """The fingerprint of a task, from the fingerprints of its parts."""
    return digest([json.dumps(dict(parts), sort_keys=True)])


@allow_slow_batching()
def fingerprint_parts(task: Prepared) -> dict[str, str]:
    """Fingerprints of the parts of a task, to report which parts differ.

    Returns:
        By name: the data sets, initial weights, transform, augmentation, model, loss, accuracy, update rule and
        batch size.
    """
    model = make_model(task, 0)
    cpu = torch.device("cpu")
    with seed_generators(0):
        probe = _probe(task_on(task, cpu, torch.float64 if task.conformance.exact else torch.float32), model)
        return {
            "the training data": _of_pair(task.train),
            "the test data": _of_pair(task.test),
            "the validation data": _of_pair(task.validation),
            "the single-feature test sets": _of_pair(task.singles),
            "the initial weights": _of_weights(model),
            "the transform": _of_transform(probe.task),
            "the augmentation": _of_augmentation(task),
            "the model": _of_model(probe),
            "the loss": _of_loss(probe),
            "the accuracy": _of_metric(probe),
            "the update rule": _of_rule(task.update, probe.model),
            "the batch size": digest([str(task.batch_size)]),
        }


_EFFECTS: Mapping[str, tuple[str, ...]] = {
    "the model": ("the initial weights", "the update rule"),
    "the initial weights": ("the update rule",),
    "the training data": ("the loss", "the accuracy"),
}
"""Parts of a task that are probed with its model's weights or its data's targets."""


def describe_changes(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """The parts of a task that differ, in words; parts that differ only through other weights or data are omitted."""
    names = [name for name in new if old.get(name) != new[name]]
    for cause, effects in _EFFECTS.items():
        if cause in names:
            names = [name for name in names if name not in effects]
    return join_words(names)


def _of_pair(pair: Pair | None) -> str:
    if pair is None:
        return ""
    named = {f"{side}/{key}": part for side, parts in enumerate(pair) for key, part in _name_tensors(parts).items()}
    return digest_of(named)


def _name_tensors(parts: Parts) -> dict[str, Tensor]:
    if isinstance(parts, Tensor):
        return {"": parts}
    return dict(sorted(parts.items())) if isinstance(parts, dict) else {str(at): part for at, part in enumerate(parts)}


def _of_weights(model: nn.Module) -> str:
    """Parameters and buffers by name: digits of floating-point ones, since draws round differently across machines."""
    words = list[str]()
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] - modules may have other state
            words += [f"{name} {value.dtype}", *words_of(value)]
    return digest(words)


def _of_transform(task: Prepared) -> str:
    if task.transform is None:
        return ""
    summary = Summary(digits=5)
    for part in leaves(task.inputs(rows(task.train[0], telling_rows(task, _SAMPLES)))):
        summary.add([part])
    return digest(summary.words)


def _of_augmentation(task: Prepared) -> str:
    if task.augment is None:
        return ""
    x = rows(task.train[0], telling_rows(task, _SAMPLES))
    images = task.augment.apply(x, task.augment.draws(stream(0, "fingerprint"), len(leaves(x)[0])))  # pyright: ignore[reportArgumentType] - images, as was checked
    return digest_of({"": images})


@dataclass(frozen=True)
class _Probe:
    """A task in the dtype of the comparison, with inputs for its model.

    Attributes:
        task: The task.
        model: A model whose weights are equal on every machine.
        x: Inputs.
        at: The rows of the inputs in the data set.
    """

    task: Prepared
    model: nn.Module
    x: Parts
    at: Tensor

    @property
    def exact(self) -> bool:
        """Whether the dtype is float64."""
        return self.task.conformance.exact

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the comparison."""
        return torch.float64 if self.exact else torch.float32

    def summary(self) -> Summary:
        """An empty summary with as many digits as the dtype supports."""
        return Summary(digits=6) if self.exact else Summary(digits=2, whole=True)


def _probe(task: Prepared, model: nn.Module) -> _Probe:
    """A probe with noise as weights and floating-point inputs, unless the model fails on noise."""
    at = telling_rows(task, _SAMPLES)
    dtype = torch.float64 if task.conformance.exact else torch.float32
    x = floats_to(task.inputs(rows(task.train[0], at)), dtype)
    noise = each(partial(noise_like, draws=torch.Generator().manual_seed(0)), x)
    own = copy.deepcopy(model).to(dtype)
    other = copy.deepcopy(own)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in other.parameters():
            value.copy_(_draw_noise_like(value, draws))
    for tried, shown in ((other, noise), (other, x), (own, noise)):
        try:
            with seed_generators(0), torch.no_grad():
                outputs = numbers_of(call(copy.deepcopy(tried).eval(), each(torch.clone, shown)))
        except Exception:
            continue
        if outputs.isfinite().any():
            return _Probe(task, tried, shown, at)
    return _Probe(task, own, x, at)


def _draw_noise_like(weights: Tensor, draws: torch.Generator) -> Tensor:
    """Noise with about the mean and spread of the weights; equal weights stay equal."""
    values = weights.double()
    if not weights.is_floating_point() or not values.numel() or not values.isfinite().all():
        return weights
    mean, spread = float(values.mean()), float(values.std(correction=0))
    if spread <= 1e-3 * abs(mean):
        return torch.full_like(weights, _round_to(mean, _power(mean) / 128))
    # Rounded coarsely, since last digits differ between processors and slightly different weights are the same model.
    step = _power(spread)
    drawn = _round_to(mean, step) + step * noise_like(values, draws=draws)
    return (drawn.abs() if bool((values > 0).all()) else drawn).to(weights)


def _power(size: float) -> float:
    """A power of 2 close to the size of a number; 1 for 0."""
    return 2.0 ** math.floor(math.log2(abs(size)) + SHIFT) if size else 1.0


def _round_to(value: float, step: float) -> float:
    return step * math.floor(value / step + SHIFT)


def _of_model(probe: _Probe) -> str:
    """Outputs in both modes for inputs of several sizes, buffers after a pass in train mode, and gradients."""
    own, summary = copy.deepcopy(probe.model), probe.summary()
    for scale in _INPUT_SCALES if probe.exact else _INPUT_SCALES[:2]:
        shown = each(partial(_scale_part, scale=scale), probe.x)
        for training in (True, False):
            with seed_generators(0), torch.no_grad():
                summary.add([numbers_of(call(own.train(training), each(torch.clone, shown)))])
    summary.add(value for value in own.buffers() if value.is_floating_point())
    summary.words += [digest_of({name: value for name, value in own.named_buffers() if not value.is_floating_point()})]
    with seed_generators(0), torch.enable_grad():
        outputs = numbers_of(call(own.train(), each(torch.clone, probe.x)))
        summary.add(_slopes((outputs * torch.cos(_places(outputs))).sum(), _trained_parameters(own).values()))
    return digest([*_trained_parameters(own), *summary.words])


def _trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _slopes(value: Tensor, points: Iterable[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, [*points], allow_unused=True, materialize_grads=True)


def _scale_part(part: Tensor, *, scale: float) -> Tensor:
    return part * scale if part.is_floating_point() else part


def _of_loss(probe: _Probe) -> str:
    """Values and gradients of the loss, and the numbers stored in it."""
    objective = probe.task.objective
    if objective.name == MODEL and not objective.named and _returns_loss(probe):
        return _of_own_loss(probe)

    def value_and_slopes(task: Prepared, outputs: Any, y: Parts) -> list[list[Tensor]]:
        points = [leaf for leaf in tensors_of(outputs) if leaf.is_floating_point()]
        for point in points:
            point.requires_grad_()
        with torch.enable_grad():
            value = task.objective.batch(outputs, y)
        return [[value], [*_slopes(value, points)]] if value.requires_grad else [[value]]

    return digest([*_of_outputs(probe, value_and_slopes), *_held_values(objective.batch)])


def _of_metric(probe: _Probe) -> str:
    labels = probe.task.objective.labels
    if labels != "metric":
        return labels
    shares = probe.task.shares

    def right_and_chance(task: Prepared, outputs: Any, y: Parts) -> list[list[Tensor]]:
        return [[part] for part in task.objective.score(outputs, y, shares)]

    return digest([*_of_outputs(probe, right_and_chance), *_held_values(probe.task.objective.score)])


def _returns_loss(probe: _Probe) -> bool:
    with seed_generators(0), torch.no_grad():
        outputs = call(copy.deepcopy(probe.model).eval(), each(torch.clone, probe.x))
    return "loss" in outputs if isinstance(outputs, Mapping) else hasattr(outputs, "loss")


def _of_own_loss(probe: _Probe) -> str:
    """Values and gradients of the loss that the model returns, for samples with as many labels as possible."""
    own, summary = copy.deepcopy(probe.model), probe.summary()
    task = probe.task
    several = floats_to(task.inputs(rows(task.train[0], telling_targets(task.train[1], TARGET_ROWS))), probe.dtype)
    draws = torch.Generator().manual_seed(0)
    for x in (probe.x, each(partial(noise_like, draws=draws), several), several):
        try:
            with seed_generators(0), torch.enable_grad():
                value = task.objective.batch(call(own.train(), each(torch.clone, x)), None)
                summary.add([value])
                summary.add(_slopes(value, _trained_parameters(own).values()))
        except Exception as error:
            summary.words.append(type(error).__name__)
    return digest(summary.words)


def _held_values(function: Any) -> Iterator[str]:
    """The tensors of a function's modules, and tensors and numbers among its `functools.partial` arguments."""
    if isinstance(function, nn.Module):
        for value in (*function.parameters(), *function.buffers()):
            yield from _held_values(value)
    elif isinstance(function, Tensor):
        yield from words_of(function)
    elif isinstance(function, partial):
        inner = cast("partial[Any]", function)
        for value in (inner.func, *inner.args, *(inner.keywords[key] for key in sorted(inner.keywords))):
            yield from _held_values(value)
    elif isinstance(function, bool | int | float):
        yield f"{float(function):.9g}"


def _of_outputs(probe: _Probe, function: Callable[[Prepared, Any, Parts], list[list[Tensor]]]) -> list[str]:
    """Results of a function for random outputs of the model's shape, independent of the model's computation.

    Args:
        probe: The task.
        function: Maps task, outputs and targets to groups of results.
    """
    with seed_generators(0), torch.no_grad():
        given = call(copy.deepcopy(probe.model).eval(), each(torch.clone, probe.x))
    task, y = probe.task, rows(probe.task.train[1], probe.at)
    outputs = Outputs(logits_of(given) if task.objective.takes_logits else given, len(probe.at))
    dtype = torch.float64
    try:  # losses of float32 models usually support float64, which shows small differences
        wide = task_on(task, torch.device("cpu"), dtype)
        with seed_generators(0):
            function(wide, outputs.draw(len(probe.at), dtype), floats_to(y, dtype))
    except Exception:
        dtype = probe.dtype
    else:
        task = wide
    summary = Summary(digits=6) if dtype == torch.float64 else probe.summary()
    usual = list[float]()
    for number, targets in enumerate((y, *targets_for(task, outputs))):
        others = floats_to(targets, dtype)
        for scale in _OUTPUT_SCALES if number == 0 else _OUTPUT_SCALES[:1]:
            for squash in (False, True):
                tried = outputs.draw(len(leaves(others)[0]), dtype, scale=scale, squash=squash)
                try:
                    with seed_generators(0):
                        groups = function(task, tried, each(torch.clone, others))
                except Exception as error:
                    summary.words.append(type(error).__name__)
                    continue
                # If large outputs are all right, their loss is only the rounding error of numbers of that size.
                floors = [*(1e-5 * max(1.0, scale) * size for size in usual), *[0.0] * len(groups)]
                sizes = [summary.add(group, least) for group, least in zip(groups, floors, strict=False)]
                usual = usual or sizes
    return summary.words


def _of_rule(rule: Rule, model: nn.Module) -> str:
    """Steps of the rule with gradients of several sizes, and the settings of a named rule."""
    settings = [rule.name, json.dumps(sorted(rule.settings.items()), default=str)] if rule.name in RULES else []
    weights = {name: value.detach().double()[None, None] for name, value in _trained_parameters(model).items()}
    lrs, summary = torch.full((1, 1), _LR, dtype=torch.float64), Summary(digits=6)
    usual = 1e-5 * max((float(value.abs().max()) for value in weights.values() if value.numel()), default=0.0)
    for scale in _GRADIENT_SCALES:
        point, state = weights, rule.start(weights)
        for step in range(_STEPS):
            slopes = {name: scale * torch.cos(_places(value) + step) for name, value in weights.items()}
            point, state = rule.update(point, slopes, state, lrs)
            summary.add([point[name] - weights[name] for name in weights], usual)
    return digest([*settings, *weights, *rule.free, *summary.words])


def _places(value: Tensor) -> Tensor:
    return torch.arange(value.numel(), dtype=torch.float64).reshape(value.shape)
