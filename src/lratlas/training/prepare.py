"""Prepare tasks: convert data to tensors, build loss, rule and classes, and compare with a plain PyTorch loop."""

import copy
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from lratlas.data.augment import Augmentation
from lratlas.data.collect import Pair, loader_batch_size, pair_of
from lratlas.data.parts import Parts, call, count, each, is_parts, leaves, logits_of, rows, shapes
from lratlas.errors import TaskError, first_line
from lratlas.rng import generator_states, seed_generators, stream
from lratlas.text import to_python
from lratlas.training.conformance import check_step
from lratlas.training.invariance import place_rule
from lratlas.training.losses import chosen_objective
from lratlas.training.objective import LOSSES, MODEL, Loss
from lratlas.training.optimizers import Factory, check_optimizer, optimizer_rule
from lratlas.training.placing import on_device
from lratlas.training.prepared import Conformance, Prepared, make_model, split_validation
from lratlas.training.program import allow_slow_batching
from lratlas.training.rules import Rule, rule_from

DEFAULT_BATCH = 128
_KNOWN: ContextVar[Conformance | None] = ContextVar("conformance", default=None)
_TRIED = 128  # maximum samples for testing the model
_PLACED = 64  # samples for the scale-invariance check
_LABELS = 32  # maximum number of different labels among the test samples
_PASS = 0.05  # target seconds for a pass of a mini-batch in the comparison with a plain loop
_FEWEST, _MOST = 4, 32  # range of samples in that mini-batch
_HOST = torch.device("cpu")


@allow_slow_batching()
def prepare(
    *,
    name: str,
    model: Callable[[], nn.Module],
    train: Any,
    test: Any,
    validation: Any,
    loss: str | Loss,
    metric: Callable[[Any, Any], Tensor] | None,
    batch_size: int | Literal["full"] | None,
    rule: Rule | str | Mapping[str, object] | Factory,
    transform: Callable[[Any], Any] | None,
    augment: Augmentation | None,
    singles: Any,
) -> Prepared:
    """Prepare a task: convert its parts for training, and test each of them.

    The program that trains runs and a plain PyTorch loop with the user's own objects both train a few mini-batches (see
    `lratlas.training.conformance`). The user's objects and the global random generators stay unchanged.

    The arguments are the fields of `lratlas.Task`.

    Raises:
        TaskError: The parts do not match, or would train differently than in a plain loop; the message names the cause
            and the allowed values.
    """
    whole = loss == MODEL
    pair = pair_of("train", train, whole=whole)
    held, pair = _validation(validation, pair, whole=whole)
    size = _samples_per_step(batch_size, loader_batch_size(train), count(pair[0]))
    # A search needs no test set; its placeholder is never read.
    tested = held or pair if test is None else pair_of("test", test, whole=whole)
    single = None if singles is None else pair_of("singles", singles)
    if not callable(loss) and loss not in (*LOSSES, MODEL):
        raise TaskError(f"There is no loss {loss!r}; use one of {', '.join((*LOSSES, MODEL))}, or a function.")
    if augment is not None and not isinstance(augment, Augmentation):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass anything
        raise TaskError(f"augment must be an Augmentation, made by lratlas.data.augment, not {augment!r}.")
    _check_shapes(pair, {"test": tested} | ({"validation": held} if held else {}), single)
    full = batch_size == "full"
    made = Prepared(
        name=name,
        model=model,
        train=pair,
        test=tested,
        tested=test is not None,
        validation=held,
        singles=single,
        objective=LOSSES["mse"],  # a placeholder until the model's outputs are known
        update=_rule(rule),
        batch_size="full" if full else size,
        samples_per_step=size,
        full_batch=full,
        transform=None if transform is None else on_device(transform, "transform", _HOST),
        augment=augment,
    )
    made = replace(made, copied=_shares_frozen(made))
    first = _check_model(made)
    shown, y = _probe_samples(made)
    began = time.process_time()
    outputs = _outputs(first, shown, whole=loss in LOSSES)
    affordable = int(_PASS * count(shown) / max(time.process_time() - began, 1e-9))
    trained = on_device(loss, "loss", _HOST)
    scored = None if metric is None else on_device(metric, "metric", _HOST)
    targets = {part: given[1] for part, given in (("train", pair), ("test", tested), ("validation", held)) if given}
    made = replace(made, objective=chosen_objective(trained, scored, outputs, y, targets))
    made = replace(made, update=_update(made, rule, first))
    factory: Any = rule if callable(rule) else None
    own = on_device(loss, "loss", _HOST)  # a separate copy, since a loss may have state
    samples = max(_FEWEST, min(_MOST, affordable))
    found = _KNOWN.get() or check_step(made, own, factory, samples=samples)
    return replace(made, conformance=found)


@contextmanager
def trust_earlier_check(found: Conformance) -> Generator[None]:
    """Prepare tasks without a new comparison: another process has compared them, with this result."""
    token = _KNOWN.set(found)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def _samples_per_step(batch_size: Any, of_loader: int | None, samples: int) -> int:
    given = to_python(batch_size)
    if given is None:
        given = min(of_loader or DEFAULT_BATCH, samples)
    size = samples if given == "full" else given
    if type(size) is not int or not 1 <= size <= samples:
        raise TaskError(
            f'batch_size is {given}; it must be "full" or a whole number from 1 to {samples} (all samples).'
        )
    return size


def _validation(given: Any, train: Pair, *, whole: bool) -> tuple[Pair | None, Pair]:
    if given is None:
        return None, train
    share = given if isinstance(given, tuple | list) else to_python(given)
    if not isinstance(share, float | int):
        return pair_of("validation", given, whole=whole), train
    return split_validation(train, share)


def _rule(rule: Any) -> Rule:
    return optimizer_rule(cast("Factory", rule)) if callable(rule) else rule_from(to_python(rule))


def _check_shapes(train: Pair, others: Mapping[str, Pair], singles: Pair | None) -> None:
    """Check that the samples of all data sets match: dtype and shape of inputs, shape of targets."""
    for name, (x, y) in others.items():
        if _look(train[0]) != _look(x):
            raise TaskError(
                f"train inputs are {_looks(train[0])} each, but {name} inputs are {_looks(x)}; they must agree."
            )
        if [part.shape[1:] for part in leaves(train[1])] != [part.shape[1:] for part in leaves(y)]:
            raise TaskError(
                f"train targets are {_looks(train[1])} each, but {name} targets are {_looks(y)}; they must agree."
            )
    if singles is None:
        return
    x, y = train[0], singles[1]
    if not (isinstance(x, Tensor) and isinstance(singles[0], Tensor) and isinstance(y, Tensor)):
        raise TaskError("singles needs inputs and targets that are single tensors, also in the training set.")
    if singles[0].shape[2:] != x.shape[1:] or singles[0].shape[:2] != y.shape[:2]:
        raise TaskError(
            f"singles must be inputs [features, n, {', '.join(map(str, x.shape[1:]))}] and targets [features, n], not"
            f" {tuple(singles[0].shape)} and {tuple(y.shape)}."
        )


def _look(parts: Parts) -> object:
    keys = tuple(sorted(parts)) if isinstance(parts, dict) else type(parts).__name__
    return keys, [(part.dtype, tuple(part.shape[1:])) for part in leaves(parts)]


def _looks(parts: Parts) -> str:
    return ", ".join(f"{part.dtype} {tuple(part.shape[1:])}" for part in leaves(parts))


_WRAPPERS = {
    nn.DataParallel: "pass the module inside it; LR Atlas spreads runs over devices itself",
    nn.parallel.DistributedDataParallel: "pass the module inside it; LR Atlas spreads runs over processes itself",
    torch.jit.ScriptModule: "return the module before torch.jit.script or trace; LR Atlas compiles steps itself",
}


def _check_model(task: Prepared) -> nn.Module:
    """The model of seed 0, after checking that the factory creates new, trainable models."""
    if isinstance(task.model, nn.Module) or not callable(task.model):
        raise TaskError(
            f"model must be a function that makes a fresh torch.nn.Module, not a {type(task.model).__name__}; use"
            " a lambda, as in model=lambda: nn.Linear(10, 3)."
        )
    model, again = make_model(task, 0), make_model(task, 0)
    own = dict(model.named_parameters())
    trained = {name: value for name, value in own.items() if value.requires_grad}
    shared = [name for name, value in again.named_parameters() if value is trained.get(name)]
    if again is model or shared:
        named = "the same module" if again is model else f"modules that share {', '.join(shared[:3])}"
        raise TaskError(
            f"model() returned {named} twice; it must make a new one each time, for example with copy.deepcopy."
        )
    for kind, advice in _WRAPPERS.items():
        if isinstance(model, kind):
            raise TaskError(f"The model is a {kind.__name__}: {advice}.")
    if type(model).__name__ == "OptimizedModule":
        raise TaskError(
            "The model is already compiled: return it without torch.compile; LR Atlas compiles steps itself."
        )
    if any(value.is_complex() for value in model.parameters()):
        names = [name for name, value in own.items() if value.is_complex()]
        raise TaskError(
            f"The model has complex parameters, {', '.join(names)}: store their real and imaginary parts as two"
            " real parameters (torch.view_as_complex combines them)."
        )
    if not any(value.requires_grad for value in own.values()):
        raise TaskError("The model has no trainable parameters: all have requires_grad=False.")
    different = [name for name, value in again.state_dict().items() if not _same(value, model.state_dict()[name])]
    if different:
        raise TaskError(
            f"Two models made with the same seed differ in {', '.join(different[:3])}: initial weights must be drawn"
            " from the global generators of PyTorch, NumPy or Python, which are seeded for each run."
        )
    try:
        copy.deepcopy(model)
    except Exception as error:
        raise TaskError(
            f"The model cannot be copied: {first_line(error)} (one example is torch.nn.utils.weight_norm; its"
            " successor torch.nn.utils.parametrizations.weight_norm works)."
        ) from error
    return model


def _shares_frozen(task: Prepared) -> bool:
    """Whether two models of the factory share frozen parameters or buffers."""
    if isinstance(task.model, nn.Module) or not callable(task.model):
        return False
    one, other = make_model(task, 0), make_model(task, 0)
    own = {id(value) for value in (*one.parameters(), *one.buffers()) if not value.requires_grad}
    return one is not other and any(id(value) in own for value in (*other.parameters(), *other.buffers()))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and a.layout != torch.strided:
        a, b = a.to_dense(), b.to_dense()
    return not isinstance(a, Tensor) or (a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all()))  # noqa: PLR0124 - NaN


def _probe_samples(task: Prepared) -> tuple[Parts, Parts]:
    """Some samples as the model sees them in training, with all labels among them, and their targets."""
    at = telling_rows(task, min(task.samples_per_step, _TRIED))
    x = rows(task.train[0], at)
    try:
        fresh: Any = each(torch.clone, x)
        if task.augment:
            fresh = task.augment.apply(fresh, task.augment.draws(stream(0, "augment"), len(at)))
        with seed_generators(0):
            before = generator_states()
            shown = task.inputs(fresh)
            draws = generator_states() != before
    except Exception as error:
        kind = leaves(x)[0].dtype
        raise TaskError(
            f"The transform or augmentation does not accept a batch of the data, {shapes(x)} {kind}:"
            f" {first_line(error)}"
        ) from error
    if draws:
        raise TaskError(
            "The transform draws random numbers, also in evaluation; pass random augmentation of the training"
            " inputs as augment=, or make it part of the model, which knows whether it is in training mode."
        )
    if not is_parts(shown) or any(len(part) != len(at) for part in leaves(shown)):
        raise TaskError(f"The transform must return one row per sample, here {len(at)}; it returned {shapes(shown)}.")
    half = -(-len(at) // 2)
    parts = (slice(half), slice(half, None)) if len(at) > 1 else (slice(1),)
    if not all(_same_parts(rows(shown, part), _show_samples(task, fresh, part)) for part in parts):
        raise TaskError(
            "The transform of a sample depends on the other samples of its batch; compute the statistics from the"
            " whole training set beforehand, or make the transform part of the model."
        )
    return shown, rows(task.train[1], at)


def _show_samples(task: Prepared, x: Parts, part: slice) -> Parts:
    with seed_generators(0):
        return task.inputs(rows(x, part))


def _same_parts(one: Parts, other: Parts) -> bool:
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(
        a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, equal_nan=True) for a, b in pairs
    )


def telling_rows(task: Prepared, size: int) -> Tensor:
    """Indices of samples from the whole training set, with the first sample of each label, ascending."""
    y, samples = task.train[1], task.samples
    first = torch.zeros(0, dtype=torch.long)
    if isinstance(y, Tensor) and y.numel() == samples:
        labels, places = np.unique(y.flatten().numpy(), return_index=True)
        first = torch.from_numpy(places[:_LABELS].copy()) if len(labels) <= _LABELS else first
    elif isinstance(y, Tensor):  # unusual labels, such as an ignore_index, are the smallest or the largest
        numbers = y.reshape(samples, -1).float()
        first = torch.stack([numbers.min(1).values.argmin(), numbers.max(1).values.argmax()]).unique()
    even = torch.linspace(0, samples - 1, min(size, samples)).round().long().unique()
    spare = even[~torch.isin(even, first)]
    return torch.cat([first, spare])[:size].sort().values


def _outputs(model: nn.Module, x: Parts, *, whole: bool) -> Any:
    """The model's outputs for some samples, in train mode.

    Args:
        model: The model; its buffers change.
        x: Inputs as the model gets them.
        whole: Whether the outputs must be one tensor with a row per sample.
    """
    try:
        with seed_generators(0), torch.no_grad():
            outputs = call(copy.deepcopy(model).train(), x)
    except Exception as error:
        kind = leaves(x)[0].dtype
        hint = " (bytes need a transform that converts them to floating point)" if kind == torch.uint8 else ""
        raise TaskError(
            f"The model does not accept a batch of the data, {shapes(x)} {kind}{hint}: {first_line(error)}"
        ) from error
    scores = logits_of(outputs)
    if whole and (not isinstance(scores, Tensor) or scores.shape[:1] != (count(x),)):
        raise TaskError(
            f"The model must return a tensor with one row per sample, here {count(x)}; it returned {shapes(scores)}."
        )
    return outputs


def _update(task: Prepared, given: Any, model: nn.Module) -> Rule:
    """Build the rule, with the model's parameters if the rule depends on them."""
    if task.update.radius is not None:
        return place_rule(task.update, model, task.inputs(rows(task.train[0], slice(_PLACED))))
    if not callable(given):
        return task.update
    trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    check_optimizer(cast("Factory", given), trained)
    return optimizer_rule(cast("Factory", given), trained)
