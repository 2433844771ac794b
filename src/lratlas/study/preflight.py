"""Checks and choices before a study is planned: its task, device, training strategy and measurements."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

import torch

from lratlas.config.sections import Spec
from lratlas.data.parts import call, rows
from lratlas.devices import default_device
from lratlas.errors import SpecError, TaskError
from lratlas.measure.base import Measurement, Options
from lratlas.measure.builtin import MEASUREMENTS
from lratlas.rng import seed_generators
from lratlas.stacks.strategy import faster_strategy
from lratlas.training.batch_norm import batch_dependent, norm_names, other_statistics
from lratlas.training.invariance import pre_norm_names
from lratlas.training.prepared import Prepared, make_model
from lratlas.training.program import Strategy

_TRIED = 4  # number of samples in the scale-invariance check


def check_task(spec: Spec, task: Prepared) -> None:
    """Check that the task allows regimes to be distinguished and, if the spec asks for it, weights to be averaged.

    Raises:
        TaskError: The task does not allow it.
        SpecError: The spec asks for a dtype that the task does not support.
    """
    if not task.tested:
        raise TaskError("The task has no test set, but a study compares LRs on one: pass `test`.")
    if spec.training.dtype == "float64" and not task.conformance.exact:
        raise SpecError("`training.dtype` is 'float64', but the code of the task does not accept float64 tensors.")
    check_statistics(task, averaged=spec.average is not None or (spec.measure.geometry and spec.finetune is not None))
    if not math.isfinite(task.chance_loss):
        raise TaskError(
            f"The loss {task.objective.name} is {task.chance_loss} for the untrained model on some of the training"
            " data. Regimes are judged relative to this loss, which must be finite."
        )
    if task.chance_loss <= 0 and not task.objective.has_accuracy:
        raise TaskError(
            f"The loss {task.objective.name} is {task.chance_loss:.3g} without any training. Regimes are judged"
            " relative to this level, which must be above 0; add a constant to the loss, so that a perfect fit"
            " has loss 0."
        )


def strategy_of(
    spec: Spec, task: Prepared, device: str, notice: Callable[[str], None], *, compiled: bool = False
) -> Strategy:
    """Choose how runs are trained: as the spec says, or the faster way on this device for ``auto``.

    Raises:
        SpecError: The spec asks for something that the device or the update rule does not support.
    """
    wanted = spec.training.strategy
    if spec.training.mixed_precision and not device.startswith("cuda"):
        raise SpecError(
            "`training.mixed_precision` is true, but the device is the CPU; mixed precision only speeds up GPUs."
        )
    if spec.training.mixed_precision and spec.training.dtype != "float32":
        raise SpecError(
            "`training.mixed_precision` is true, but `training.dtype` is float64; mixed precision needs float32."
        )
    if wanted == "stack" and spec.training.mixed_precision:
        raise SpecError("`training.mixed_precision` trains runs one by one; use the strategy auto or single.")
    if wanted == "stack" and not task.update.stacks:
        raise SpecError(
            f"`training.strategy` is 'stack', but {task.update.name} cannot train stacks; use auto or single."
        )
    if wanted == "stack" and task.conformance.unstackable:
        raise SpecError(
            f"`training.strategy` is 'stack', but runs of this task cannot be trained as one program"
            f" ({task.conformance.unstackable}); use auto or single."
        )
    if wanted != "auto":
        return wanted
    if spec.training.mixed_precision or not task.update.stacks:
        return "single"
    if reason := task.conformance.unstackable:
        notice(
            "Runs cannot be trained as one program, so they are trained one by one, which is slower for small models:"
            f" {reason.rstrip('.')}."
        )
    return faster_strategy(
        task, device=device, dtype=spec.training.dtype, compiled=compiled, lanes=_planned_lanes(spec)
    )


def _planned_lanes(spec: Spec) -> int:
    """Number of runs in a pre-training stack."""
    return min(spec.training.stack, len(spec.pretrain.lrs) * spec.pretrain.repeats)


def device_of(spec: Spec, planned: str | None, wanted: str | None) -> str:
    """The device of a study: the one to continue on, else that of its plan, else that of its spec.

    Args:
        spec: The spec.
        planned: The device of the plan, if there is one.
        wanted: The device to continue on, if the user named one.

    Raises:
        SpecError: The name is invalid, or this machine does not have the device.
    """
    if wanted is None:
        return device_name(planned or spec.training.device, field="`training.device`")
    return device_name(wanted, field="device")


def device_name(name: str, *, field: str) -> str:
    """Resolve the name of a device.

    Args:
        name: A PyTorch device name, or ``auto``.
        field: The field with the name, for the message.

    Raises:
        SpecError: This machine does not have the device.
    """
    if name == "auto":
        return default_device()
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise SpecError(
            f"{field} is {name!r}, which this machine does not have; use auto or an available device."
        ) from error
    return name


def measurement_options(spec: Spec, task: Prepared, extras: Iterable[Measurement] = ()) -> dict[str, Options]:
    """The options of each measurement of a study, by name.

    Args:
        spec: The spec of the study.
        task: The task, which may lack something that a measurement needs.
        extras: The custom measurements.

    Raises:
        SpecError: The spec asks for a measurement that the task does not support.
    """
    if spec.measure.convergence and not task.objective.has_accuracy:
        raise SpecError("`measure.convergence` is true, but it needs class labels, and the task has none.")
    settled = {each.name: each.needs.settle(spec.measure.options_of(each), task) for each in (*MEASUREMENTS, *extras)}
    return {name: options for name, options in settled.items() if options is not None}


def pre_norm_of(task: Prepared) -> tuple[str, ...]:
    """The parameters for angles and norms if the rule has no sphere: those before a norm layer.

    Empty if there are none, or if the rule defines the vector that it keeps on a sphere.
    """
    if task.update.radius is not None:
        return ()
    return pre_norm_names(make_model(task, 0), task.inputs(rows(task.train[0], slice(_TRIED))))


def check_statistics(task: Prepared, *, averaged: bool = True) -> None:
    """Check that averaged models can get new running statistics: batch norm's can be pooled, others cannot.

    Args:
        task: The task.
        averaged: Whether weights are averaged or interpolated; if not, other running statistics are allowed.

    Raises:
        TaskError: The statistics cannot be pooled, or the model's output for a sample depends on the rest of the batch.
    """
    model = make_model(task, 0).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    calls = Counter[str]()
    for name in norm_names(model):
        model.get_submodule(name).register_forward_hook(partial(_count, calls, name))
    with torch.no_grad(), seed_generators(0):
        call(model, task.inputs(rows(task.train[0], slice(min(task.samples_per_step, 128)))))
    changed = [name for name, value in model.named_buffers() if not torch.equal(value, before[name])]
    others = other_statistics(model, changed)
    if others and averaged:
        raise TaskError(
            f"The model has running statistics in {', '.join(others)}, which averaged and interpolated models"
            " lack; LR Atlas can compute them only for batch norm. Run a study without averages and geometry (no"
            " `average`, `measure.geometry` false)."
        )
    reused = [name for name, count in calls.items() if count > 1]
    if reused and averaged:
        raise TaskError(
            f"The batch norm {', '.join(reused)} is used more than once in a forward pass; use a separate batch"
            " norm at each place, so that LR Atlas can compute their statistics for averaged and interpolated"
            " models."
        )
    dependent = batch_dependent(model)
    if dependent:
        raise TaskError(
            f"The batch norm {', '.join(dependent)} has no running statistics or no momentum, so the output for a"
            " sample depends on its batch; set track_running_stats=True and a momentum."
        )


def _count(calls: Counter[str], name: str, *_: object) -> None:
    calls.update([name])
